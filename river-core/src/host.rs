//! A host: the process in which a VM runs the VRs of one program.
//!
//! It is the program's own executable, started by a VM; it detects that before it does anything else. It lives exactly as
//! long as its program and its VM. The VM holds the other end of its standard input, which is closed if the VM dies; the
//! initiator holds the other end of its control connection.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use rustix::process::{Pid, Resource as Limited, Rlimit};
use serde::{Deserialize, Serialize};

use crate::code;
use crate::control::{self, Connection, ControlError, Incoming};
use crate::cut;
use crate::discovery::Network;
use crate::down::Why;
use crate::error::{DeployError, MigrateError, StateError};
use crate::id::{ProgramId, VrId};
use crate::image;
use crate::inbox::Inbox;
use crate::key::ClusterKey;
use crate::lease;
use crate::lifeline;
use crate::node::{Asked, Node};
use crate::panics::{self, catch_panic};
use crate::protocol::{FromHost, Hello, HostSpec, NewVr, Place, Reply, Report, Step, ToHost};
use crate::rt;
use crate::service;
use crate::state::{Base, Origin, Record, Recorder, Saved};
use crate::trace::{self, Traces};
use crate::vr::thread::Beginning;
use crate::vr::{self, Creation, Resource};

/// Environment variable that a VM sets for its hosts, to the VM's process id.
pub(crate) const HOST_VARIABLE: &str = "RIVER_HOST";
/// Whether this process is a host already.
static IS_HOST: AtomicBool = AtomicBool::new(false);
/// How long VRs may take to notice that the program has ended.
const GRACE: Duration = Duration::from_millis(300);

/// Resource limits of a host, per process, enforced by the system. A host that exceeds one gets errors from the system or
/// is killed by it, and its program learns how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostLimits {
    /// Bytes of address space.
    pub memory: Option<u64>,
    /// Open files, connections included.
    pub open_files: Option<u64>,
    /// Seconds of processor time, of all threads together.
    pub cpu_seconds: Option<u64>,
}

/// The configuration of a host, which it reads from its standard input behind a length (u32, little-endian).
#[derive(Serialize, Deserialize)]
pub(crate) struct HostConfig {
    pub(crate) program: ProgramId,
    pub(crate) vm: String,
    pub(crate) key: [u8; 32],
    pub(crate) limits: HostLimits,
    pub(crate) spec: HostSpec,
}

/// Becomes a host, and never returns, if a VM has started this process to run VRs.
///
/// [`run`](crate::run) begins with this. Call it yourself, first thing in `main`, if other code comes before `run`, such as
/// parsing the command line, which a host must not reject.
pub fn become_host_if_asked() {
    let Some(vm) = std::env::var_os(HOST_VARIABLE) else { return };
    if IS_HOST.swap(true, Ordering::Relaxed) {
        // A VR is starting a program of its own.
        return;
    }
    let parent = rustix::process::getppid().filter(|pid| *pid.as_raw_nonzero().to_string() == *vm);
    let Some(parent) = parent else {
        // The variable may have been inherited by a process that user code started. A real host leads its own process
        // group; if its VM has died meanwhile, it must not run the program a second time.
        if rustix::process::getpgrp() == rustix::process::getpid() {
            eprintln!("{HOST_VARIABLE} is set, but the VM that set it is gone: unset it to run this by hand");
            process::exit(1);
        }
        return;
    };
    // In test executables, the hook runs on the main thread before the runtime has named it.
    let host = take_lifeline(parent)
        .and_then(|stdin| thread::Builder::new().name("river-host".into()).spawn(move || run(stdin)));
    match host.map(thread::JoinHandle::join) {
        Ok(Ok(Ok(()))) => process::exit(0),
        Ok(Ok(Err(error))) => eprintln!("river host: {error}"),
        Ok(Err(_)) => eprintln!("river host: panicked"),
        Err(error) => eprintln!("river host: cannot start a thread: {error}"),
    }
    process::exit(1);
}

fn run(stdin: File) -> Result<(), ControlError> {
    let config = read_config(stdin)?;
    config.limits.apply()?;
    let HostConfig { program, vm, key, spec, .. } = config;
    let key = ClusterKey::from_bytes(key);
    rt::block_on(async move {
        let listeners = control::bind(&spec.listen, 0)?;
        let port = listeners.first().map_or(Ok(0), |listener| listener.local_addr().map(|at| at.port()))?;
        let place = Place { host: spec.host, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)) };
        let (requests, asked) = rt::unbounded();
        let at = (place, Network::of(&spec.listen));
        let node = Node::start(at, program, vm, key.clone(), requests, spec.recoverable)?;
        if spec.taped {
            node.states.tape(&node.vm);
        }
        if let Some(events) = spec.trace {
            let _ = node.traces.set(Traces::new(events));
        }
        for listener in listeners {
            let acceptor = node.clone();
            let serve = move |hello, stream| {
                let node = acceptor.clone();
                async move { accept_data(node, hello, stream).await }
            };
            rt::spawn(control::listen(listener.into(), key.clone(), node.welcome(), serve));
        }
        let join = Hello::Join { program, host: spec.host, port };
        let (_, stream) = control::dial(spec.initiator, &key, &join).await?;
        let (to, from) = control::split(stream);
        let is_stopped = serve_program(node.clone(), to, from, asked, spec.taped).await;
        service::farewell(&node).await;
        if !is_stopped {
            // The VM, which otherwise ends what VRs have started, may have been killed together with the program.
            lifeline::end();
        }
        Ok(())
    })
}

impl HostLimits {
    /// A reminder of the limits, appended to the report of a host that may have died of them; empty if it had none.
    pub(crate) fn reminder(&self) -> String {
        let Self { memory, open_files, cpu_seconds } = self;
        let limits = [
            memory.map(|bytes| format!("{} MiB of memory", bytes >> 20)),
            open_files.map(|files| format!("{files} open files")),
            cpu_seconds.map(|seconds| format!("{seconds} s of processor time")),
        ];
        let limits: Vec<String> = limits.into_iter().flatten().collect();
        if limits.is_empty() {
            String::new()
        } else {
            format!(" (its VM allows a host {})", limits.join(", "))
        }
    }

    /// Sets the limits of this process.
    fn apply(self) -> io::Result<()> {
        let limits = [
            (Limited::As, self.memory),
            (Limited::Nofile, self.open_files),
            (Limited::Cpu, self.cpu_seconds),
        ];
        for (resource, limit) in limits {
            if limit.is_some() {
                rustix::process::setrlimit(resource, Rlimit { current: limit, maximum: limit })?;
            }
        }
        Ok(())
    }
}

/// Ties this process to its VM by its standard input, which is returned; user code that reads standard input finds it
/// empty.
fn take_lifeline(vm: Pid) -> io::Result<File> {
    let stdin = File::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?);
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    lifeline::tie(stdin.try_clone()?.into(), vm)?;
    Ok(stdin)
}

fn read_config(mut stdin: File) -> io::Result<HostConfig> {
    let mut length = [0; 4];
    stdin.read_exact(&mut length)?;
    let mut bytes = Vec::new();
    let length = u64::from(u32::from_le_bytes(length));
    stdin.take(length).read_to_end(&mut bytes)?;
    postcard::from_bytes(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Hands the connection of another process that will send envelopes to the node, or serves a visitor from another program.
pub(crate) async fn accept_data(node: Arc<Node>, hello: Hello, stream: Connection) {
    match hello {
        Hello::Visit(visitor) => service::receive(node, visitor, stream).await,
        Hello::Data { program, from, port, ring } if program == node.program => {
            let accepted = stream.peer_addr().and_then(|peer| {
                let from = Place { host: from, address: SocketAddr::new(peer.ip(), port) };
                node.accept(from, control::into_std(stream)?, ring.as_ref())
            });
            if let Err(error) = accepted {
                tracing::warn!(%error, "cannot take over a connection");
            }
        }
        other => tracing::warn!(?other, "refused a connection that does not belong here"),
    }
}

/// Serves the initiator until it says stop or is gone. Returns whether it said so.
async fn serve_program(
    node: Arc<Node>,
    to: rt::Sender<FromHost>,
    mut from: Incoming<ToHost>,
    asked: rt::Receiver<Asked>,
    taped: bool,
) -> bool {
    let waiting: Arc<std::sync::Mutex<HashMap<u64, Sender<Reply>>>> = Arc::default();
    let (answers, requester) = (waiting.clone(), to.clone());
    rt::spawn(async move {
        let mut ticket = 0;
        while let Ok((request, answer)) = asked.recv().await {
            ticket += 1;
            answers.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(ticket, answer);
            if requester.send(FromHost::Request { ticket, request }).await.is_err() {
                return;
            }
        }
    });
    let heart = to.clone();
    let beat = rt::spawn(async move {
        while heart.send(FromHost::Alive).await.is_ok() {
            rt::sleep(lease::RENEWAL).await;
        }
    });
    let arrivals = rt::spawn(cut::report_arrivals(node.clone()));
    if taped {
        let (node, to) = (node.clone(), to.clone());
        rt::spawn(async move {
            while send_tapes(&node, &to) {
                rt::sleep(cut::FLUSH).await;
            }
        });
    }
    let is_stopped = loop {
        match from.next().await {
            Ok(Some(ToHost::Translate { image, exports })) => {
                let triple = image::host_triple();
                code::translate(exports, image, &triple);
                panics::trace_as_text(triple);
            }
            Ok(Some(ToHost::Create { ticket, vrs })) => {
                let mut result = Ok(());
                for new in vrs {
                    let vr = new.id;
                    result = result.and_then(|()| create(&node, new, &to));
                    if let Err(error) = &result {
                        let _ = to.try_send(FromHost::Ended { vr, why: Why::Failed(error.to_string()) });
                    }
                }
                let _ = to.try_send(FromHost::Created { ticket, result });
            }
            Ok(Some(ToHost::Reply { ticket, reply })) => {
                let answer =
                    waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&ticket);
                if let Some(answer) = answer {
                    let _ = answer.try_send(reply);
                }
            }
            Ok(Some(ToHost::HostDown { host, why })) => node.host_down(host, &why),
            Ok(Some(ToHost::State { round, step })) => take_step(&node, round, step, &to),
            Ok(Some(ToHost::Restore { ticket, vr })) => {
                let result = restore(&node, &vr, &to);
                let _ = to.try_send(FromHost::Created { ticket, result });
            }
            Ok(Some(ToHost::KeepTwin { ticket, vr })) => {
                let kept = Saved::decode(&vr).map(|saved| node.keep_twin(saved));
                let result = kept.map_err(|error| {
                    let name = "VR that is mirrored".into();
                    DeployError::State { name, error: error.to_string() }
                });
                let _ = to.try_send(FromHost::Created { ticket, result });
            }
            Ok(Some(ToHost::TakeOver { ticket, vr, arrived })) => {
                take_over(&node, ticket, vr, &arrived, &to);
            }
            Ok(Some(ToHost::Tape)) => {
                send_tapes(&node, &to);
                let _ = to.try_send(FromHost::TapeEnd);
            }
            Ok(Some(ToHost::Clock { asked })) => {
                let heard = trace::now();
                let _ = to.try_send(FromHost::Clock { asked, heard, answered: trace::now() });
            }
            Ok(Some(ToHost::Inspect { ticket })) => {
                let _ = to.try_send(FromHost::Inspected { ticket, report: node.status() });
            }
            Ok(Some(ToHost::Stop)) => break true,
            Ok(None) => break false,
            Err(error) => {
                tracing::warn!(%error, "lost the program");
                break false;
            }
        }
    };
    rt::cancel(beat);
    rt::cancel(arrivals);
    // Callers that wait for an answer from the program will not get one.
    waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clear();
    node.stop();
    let deadline = Instant::now() + GRACE;
    while !node.is_idle() && Instant::now() < deadline {
        rt::sleep(Duration::from_millis(1)).await;
    }
    if let Some(traces) = node.traces.get() {
        hand_over(&node, traces, &to);
        // Wait until the initiator has received everything, or is gone. Its earlier requests come first; they must not end
        // this process with half of the trace unsent.
        while !matches!(from.next().await, Ok(Some(ToHost::Stop) | None) | Err(_)) {}
    }
    is_stopped
}

/// Sends the traces of the VRs of this process.
fn hand_over(node: &Node, traces: &Traces, to: &rt::Sender<FromHost>) {
    let send = |piece: trace::Piece| {
        if let Ok(piece) = trace::encode(&piece) {
            let _ = to.try_send(FromHost::Trace(piece));
        }
    };
    send(trace::Piece::Host { host: node.place.host, vm: node.vm.clone(), boot: trace::boot() });
    traces.collect(send);
    let _ = to.try_send(FromHost::TraceEnd);
}

/// Sends the inputs of VRs since the last call. Returns `false` if nobody listens any more. Runs only on the network
/// thread, so that pieces are sent in the order in which they are taken.
fn send_tapes(node: &Node, to: &rt::Sender<FromHost>) -> bool {
    let tapes = node.states.flush();
    let mut pieces =
        tapes.iter().flat_map(|(vr, bytes)| bytes.chunks(cut::PIECE).map(|piece| (*vr, piece.to_vec())));
    pieces.all(|(vr, bytes)| to.try_send(FromHost::Taped { vr, bytes }).is_ok()) && !to.is_closed()
}

fn create(node: &Arc<Node>, new: NewVr, to: &rt::Sender<FromHost>) -> Result<(), DeployError> {
    let NewVr { id, code, name, state, parent, parent_at, recoverable } = new;
    node.learn(parent, parent_at);
    let base = recoverable.then(|| Base::new(id, state.clone().into()));
    let resource = make(code, state).map_err(|error| DeployError::State { name: name.clone(), error })?;
    // A VR that could not be made appears in no checkpoint.
    let recorder = base.map(|base| {
        let (parent, code, name, program) = (Some(parent), Some(code), name.clone(), node.program);
        node.states.add(Origin { id, parent, code, name, program }, Record::new(base))
    });
    let to = to.clone();
    let ended = move |vr, why| drop(to.try_send(FromHost::Ended { vr, why }));
    vr::thread::spawn(node, id, &name, parent, resource, recorder, ended).map_err(|error| DeployError::Vm {
        vm: node.vm.clone(),
        error: format!("cannot start a thread: {error}"),
    })
}

/// Restores a VR from a checkpoint or from another process. It replays its record at once, and goes on when the process is
/// thawed.
fn restore(node: &Arc<Node>, vr: &[u8], to: &rt::Sender<FromHost>) -> Result<(), DeployError> {
    let failed = |error: String| DeployError::State { name: "VR of a checkpoint".into(), error };
    let saved = Saved::decode(vr).map_err(|error| failed(error.to_string()))?;
    if !node.states.is_frozen() {
        node.freeze();
    }
    let id = saved.origin.id;
    let adopted = Adopted::new(node, saved).map_err(failed)?;
    adopted.start(node, to).map(drop).inspect_err(|_| node.abandon(id)).map_err(failed)
}

/// A VR that was restored and has yet to start.
struct Adopted {
    origin: Origin,
    resource: Box<dyn Resource>,
    inbox: Arc<Inbox>,
    recorder: Arc<Recorder>,
}

impl Adopted {
    fn new(node: &Arc<Node>, saved: Saved) -> Result<Self, String> {
        let origin = saved.origin.clone();
        let code = origin.code.ok_or("it is the initiator")?;
        let resource = make(code, saved.record.base().state.to_vec())?;
        let (inbox, recorder) = cut::adopt(node, saved);
        Ok(Self { origin, resource, inbox, recorder })
    }

    fn start(self, node: &Arc<Node>, to: &rt::Sender<FromHost>) -> Result<Arc<Recorder>, String> {
        let Self { origin: Origin { id, name, parent, .. }, resource, inbox, recorder } = self;
        let parent = parent.ok_or("it is the initiator")?;
        let to = to.clone();
        let ended = move |vr, why| drop(to.try_send(FromHost::Ended { vr, why }));
        let beginning =
            Beginning { id, name: &name, parent, inbox, resource, recorder: Some(recorder.clone()) };
        let started = vr::thread::start(node, beginning, ended);
        started.map(|()| recorder).map_err(|error| format!("cannot start a thread: {error}"))
    }
}

/// Activates the twin of a VR, and reports when it has replayed its log.
fn take_over(node: &Arc<Node>, ticket: u64, vr: VrId, arrived: &[(VrId, u64)], to: &rt::Sender<FromHost>) {
    let adopted = node.take_over(vr, arrived, |saved| Adopted::new(node, saved));
    let adopted = adopted.unwrap_or_else(|| Err("its twin is not here".into()));
    let lost = |error: &String| vr::thread::lose(node, vr, error.clone());
    let started = adopted.and_then(|adopted| adopted.start(node, to).inspect_err(lost));
    let to = to.clone();
    rt::spawn(async move {
        let result = match started {
            Ok(recorder) => {
                while recorder.look(|record, ended| !record.is_live() && ended.is_none()) {
                    rt::sleep(Duration::from_micros(200)).await;
                }
                Ok(())
            }
            Err(error) => Err(DeployError::State { name: "VR that is mirrored".into(), error }),
        };
        let _ = to.try_send(FromHost::Created { ticket, result });
    });
}

/// Takes one step of a checkpoint or a migration. Long steps run in the background.
fn take_step(node: &Arc<Node>, round: u64, step: Step, to: &rt::Sender<FromHost>) {
    let report =
        move |to: &rt::Sender<FromHost>, report| drop(to.try_send(FromHost::State { round, report }));
    match step {
        Step::Freeze => {
            node.freeze();
            let (node, to) = (node.clone(), to.clone());
            rt::spawn(async move {
                if let Some(frozen) = cut::frozen(&node).await {
                    report(&to, frozen);
                }
            });
        }
        Step::Settle(expected) => {
            let (node, to) = (node.clone(), to.clone());
            rt::spawn(async move {
                if cut::settled(&node, &expected).await {
                    report(&to, Report::Settled);
                }
            });
        }
        Step::Copy => {
            let (vrs, copied) = cut::copy(node);
            report(to, copied);
            let to = to.clone();
            rt::spawn(rt::blocking(move || {
                let result = vrs.iter().try_for_each(|saved| send_copy(round, saved, &to));
                let _ = to.try_send(FromHost::CopiesEnd { round, result });
            }));
        }
        Step::Give(vrs) => match cut::give(node, &vrs) {
            Ok(saved) => {
                let to = to.clone();
                rt::spawn(rt::blocking(move || {
                    let sent = saved.iter().try_for_each(|saved| send_copy(round, saved, &to));
                    let given = sent.map_err(|error| MigrateError::GivenUp(error.to_string()));
                    report(&to, Report::Given(given));
                }));
            }
            Err(error) => report(to, Report::Given(Err(error))),
        },
        Step::Abandon(vrs) => vrs.into_iter().for_each(|vr| node.abandon(vr)),
        Step::Moved(moves) => node.moved(&moves),
        Step::Mirrored(pairs) => node.mirrored(&pairs),
        Step::Unmirrored(vr, ended) => node.unmirror(vr, ended.as_ref()),
        Step::Mourn(host, vrs) => {
            let (node, to) = (node.clone(), to.clone());
            rt::spawn(async move { report(&to, cut::mourned(&node, host, &vrs).await) });
        }
        Step::Thaw { settled } => node.thaw(settled),
    }
}

fn send_copy(round: u64, saved: &Saved, to: &rt::Sender<FromHost>) -> Result<(), StateError> {
    let vr = saved.origin.id;
    let bytes = saved.encode()?;
    let pieces = bytes.chunks(cut::PIECE);
    let count = pieces.len();
    for (index, piece) in pieces.enumerate() {
        let (piece, last) = (piece.to_vec(), index + 1 == count);
        let _ = to.try_send(FromHost::Copy { round, vr, last, piece });
    }
    Ok(())
}

pub(crate) fn make(code: code::CodePtr, state: Vec<u8>) -> Result<Box<dyn Resource>, String> {
    let mut creation = Creation { state, made: None };
    let enter = code.resolve().map_err(|error| error.to_string())?;
    // Reading the state runs user code.
    catch_panic(|| enter(&mut creation))?;
    creation.made.unwrap_or_else(|| Err("the code pointer does not make a VR".into()))
}
