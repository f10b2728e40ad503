//! A leased VM, as its program sees it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::control::{self, Incoming};
use crate::discovery::{Network, VmInfo};
use crate::down::Why;
use crate::id::HostId;
use crate::image::{Image, Packed};
use crate::lease;
use crate::program::images::{self, Choice};
use crate::program::output::Line;
use crate::program::place::View;
use crate::program::pulse::{Change, Pulse, SUSPECT};
use crate::program::{FAREWELL, Program};
use crate::protocol::{FromVm, Hello, HostSpec, ToHost, ToVm, Welcome, pieces};
use crate::rt;
use crate::status::LeasedStatus;

/// How long a VM may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long an executable may take to start and to join the program.
const START: Duration = Duration::from_secs(30);

/// The reported end of a host that the program has dismissed, whatever ended it.
const GIVEN_BACK: &str = "its VM was given back";

/// A VM that this program holds.
pub(crate) struct Leased {
    pub(crate) info: VmInfo,
    /// This machine's address, as the VM sees it.
    initiator: IpAddr,
    to: rt::Sender<ToVm>,
    /// The VM's answers to the last request.
    answers: rt::Receiver<FromVm>,
    link: Mutex<Link>,
    pulse: Mutex<Pulse>,
    /// Closed when the connection is over.
    closed: rt::Receiver<()>,
}

struct Link {
    host: HostState,
    /// When the VM reported that it had started the host.
    started: Option<Instant>,
    /// What the host must be told first, if anything.
    translate: Option<ToHost>,
    /// Whether it runs the same image.
    runs_own_image: bool,
    /// Closed when the host has joined or is gone.
    changed: rt::Sender<()>,
    change: rt::Receiver<()>,
}

enum HostState {
    None,
    Starting(HostId),
    Up(HostId),
    Gone(Why),
}

/// Why a VM could not be leased.
pub(crate) enum Refusal {
    /// Another program holds it.
    Busy(String),
    Error(String),
}

impl Leased {
    /// Leases a VM.
    pub(crate) async fn acquire(program: &Arc<Program>, info: VmInfo) -> Result<Arc<Self>, Refusal> {
        let error = |error: &dyn std::fmt::Display| Refusal::Error(error.to_string());
        if !info.address.ip().is_loopback() && program.reach.listening() == Network::Loopback {
            let address = info.address;
            return Err(error(&format_args!(
                "it is on another machine ({address}), and this program uses only its own: set RIVER_NETWORK=1"
            )));
        }
        let hello = Hello::Lease { program: program.tenant.program };
        let (welcome, stream) =
            control::dial(info.address, &program.key, &hello).await.map_err(|e| error(&e))?;
        match welcome {
            Welcome::Vm(id) if id == info.id => {}
            Welcome::Vm(_) => return Err(error(&"another VM answers at its address: search again")),
            Welcome::Host(..) => return Err(error(&"a program answers at its address, not a VM")),
        }
        let initiator = match (stream.local_addr().map_err(|e| error(&e))?.ip(), program.reach.listening()) {
            (local, Network::One(address)) if !local.is_loopback() => address.into(),
            (local, _) => local,
        };
        let (to, from) = control::split(stream);
        let (answered, answers) = rt::unbounded();
        let (closing, closed) = rt::unbounded();
        let (changed, change) = rt::unbounded();
        let link = Mutex::new(Link {
            host: HostState::None,
            started: None,
            translate: None,
            runs_own_image: true,
            changed,
            change,
        });
        let leased = Arc::new(Self {
            info,
            initiator,
            to,
            answers,
            link,
            pulse: Mutex::new(Pulse::new(Instant::now())),
            closed,
        });
        rt::spawn(leased.clone().read(program.clone(), from, answered, closing));
        leased.send(ToVm::Acquire(program.tenant.clone()));
        let refusal = match leased.answer(ANSWER).await {
            Ok(FromVm::Acquired) => return Ok(leased),
            Ok(FromVm::Busy(holder)) => Refusal::Busy(holder),
            Ok(_) => error(&"it sent an unexpected answer"),
            Err(text) => error(&text),
        };
        leased.release();
        Err(refusal)
    }

    /// Gives the VM back and ends the conversation: the VM closes the connection.
    pub(crate) fn release(&self) {
        self.send(ToVm::Release);
        self.to.close();
    }

    pub(crate) fn send(&self, message: ToVm) {
        let _ = self.to.try_send(message);
    }

    async fn answer(&self, limit: Duration) -> Result<FromVm, String> {
        match rt::timeout(limit, self.answers.recv()).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err("it closed the connection".into()),
            Err(_) => Err(format!("it did not answer within {limit:?}")),
        }
    }

    /// Waits for an answer that may take long: as long as the VM is heard from.
    async fn late_answer(&self) -> Result<FromVm, String> {
        loop {
            match rt::timeout(lease::RENEWAL, self.answers.recv()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(_)) => return Err("it closed the connection".into()),
                Err(_) if self.why_gone().is_some() => return Err("it is not heard of any more".into()),
                Err(_) => {}
            }
        }
    }

    /// The host's id, once it is being started.
    pub(crate) fn host(&self) -> Option<HostId> {
        match self.link().host {
            HostState::Starting(host) | HostState::Up(host) => Some(host),
            HostState::None | HostState::Gone(_) => None,
        }
    }

    /// Returns, once, what the host must be told first, if anything.
    pub(super) fn take_translation(&self) -> Option<ToHost> {
        self.link().translate.take()
    }

    /// Whether its host, if any, runs the same image as this process.
    pub(super) fn runs_own_image(&self) -> bool {
        self.link().runs_own_image
    }

    /// Whether a host runs on this VM.
    pub(crate) fn is_up(&self) -> bool {
        matches!(self.link().host, HostState::Up(_))
    }

    /// Starts the program's host on this VM unless it runs already, ships the image if the VM does not have it, and waits
    /// until the host has joined. `image` is the initiator's, which is used unless the VM needs another.
    pub(crate) async fn ensure_host(&self, program: &Program, image: &Image) -> Result<HostId, String> {
        let first = {
            let mut link = self.link();
            match &link.host {
                HostState::Up(host) => return Ok(*host),
                HostState::Gone(why) => return Err(format!("its host is gone: {}", why.cause())),
                HostState::Starting(_) => None,
                HostState::None => {
                    let host = HostId::fresh();
                    link.host = HostState::Starting(host);
                    Some(host)
                }
            }
        };
        if let Some(host) = first
            && let Err(error) = self.start(program, image, host).await
        {
            self.host_gone(&Why::LostLink { vm: self.info.name.clone(), error: error.clone() });
            return Err(self.why_gone().map_or(error, |why| why.cause()));
        }
        let change = self.link().change.clone();
        let reported = loop {
            // The task that starts the host waits for as long as the VM is heard from; so do tasks that come in between.
            let started = self.link().started;
            let patience = started.map_or(lease::RENEWAL, |at| START.saturating_sub(at.elapsed()));
            match rt::timeout(patience, change.recv()).await {
                Err(_) if started.is_none() => {}
                reported => break reported,
            }
        };
        match &self.link().host {
            HostState::Up(host) => Ok(*host),
            HostState::Gone(why) => Err(format!("its host is gone: {}", why.cause())),
            _ if reported.is_err() => Err(format!("its host did not report within {START:?}")),
            _ => Err("its host did not start".into()),
        }
    }

    async fn start(&self, program: &Program, own: &Image, host: HostId) -> Result<(), String> {
        let place = program.node.place;
        let Choice { image, is_own, translate } = images::choose(own, &self.info.triple).await?;
        {
            let mut link = self.link();
            link.runs_own_image = is_own;
            link.translate = translate;
        }
        self.send(ToVm::Start(HostSpec {
            host,
            image: image.hash,
            image_len: image.bytes.len() as u64,
            triple: image.triple.clone(),
            initiator: SocketAddr::new(self.initiator, place.address.port()),
            listen: self.listen_on(program),
            initiator_host: place.host,
            args: super::local::arguments(),
            env: super::local::environment(),
            directory: super::local::directory(),
            recoverable: program.node.recoverable,
            taped: program.is_recorded(),
            trace: program.node.traces.get().map(|traces| traces.per_vr()),
        }));
        let mut answer = self.late_answer().await?;
        if matches!(answer, FromVm::NeedImage) {
            self.ship(&image).await;
            answer = self.late_answer().await?;
        }
        let vm = &self.info.name;
        match answer {
            FromVm::Started { shipped: true } => {
                tracing::info!(%vm, bytes = image.bytes.len(), "shipped the program's image");
            }
            FromVm::Started { shipped: false } => {
                tracing::info!(%vm, "the program's image was already there, nothing shipped");
            }
            FromVm::Refused(why) => return Err(why),
            _ => return Err("it sent an unexpected answer".into()),
        }
        self.link().started = Some(Instant::now());
        Ok(())
    }

    /// Sends the image, compressed if it leaves this machine.
    async fn ship(&self, image: &Image) {
        if self.info.address.ip().is_loopback() {
            pieces(&image.bytes).for_each(|piece| self.send(ToVm::Image(piece)));
        } else {
            let compressed = image.clone();
            rt::blocking(move || compressed.packed().len()).await;
            let packed = image.packed().iter().cloned();
            packed.for_each(|Packed { length, bytes }| self.send(ToVm::Packed { length, bytes }));
        }
        self.send(ToVm::Image(Bytes::new()));
    }

    /// The point of view of its host.
    pub(super) fn view(&self) -> View {
        View { own: self.info.address.ip(), initiator: self.initiator }
    }

    /// The addresses on which its host listens: this process's if it is on the same machine, otherwise those of the VM.
    fn listen_on(&self, program: &Program) -> Vec<IpAddr> {
        let own = self.info.address.ip();
        if own.is_loopback() {
            program.reach.listening().addresses()
        } else {
            vec![Ipv4Addr::LOCALHOST.into(), own]
        }
    }

    /// Notes that the host has joined.
    pub(crate) fn joined(&self) {
        let mut link = self.link();
        if let HostState::Starting(host) = link.host {
            link.host = HostState::Up(host);
        }
        link.changed.close();
    }

    pub(super) fn why_gone(&self) -> Option<Why> {
        match &self.link().host {
            HostState::Gone(why) => Some(why.clone()),
            _ => None,
        }
    }

    /// Notes that the host is gone. The first reason counts: later ones are consequences.
    pub(crate) fn host_gone(&self, why: &Why) {
        let mut link = self.link();
        if !matches!(link.host, HostState::Gone(_)) {
            link.host = HostState::Gone(why.clone());
        }
        link.changed.close();
    }

    async fn read(
        self: Arc<Self>,
        program: Arc<Program>,
        mut from: Incoming<FromVm>,
        answered: rt::Sender<FromVm>,
        closing: rt::Sender<()>,
    ) {
        let vm = self.info.name.clone();
        let error = loop {
            let message = from.next().await;
            self.pulse().beat(Instant::now());
            match message {
                Ok(Some(FromVm::Alive)) => {}
                Ok(Some(FromVm::Output { stderr, line })) => {
                    program.output.line(Line { vm: vm.clone(), stderr, text: line });
                }
                Ok(Some(FromVm::Exited { how, last_lines })) => {
                    let is_dismissed =
                        self.host().is_some_and(|host| program.state().directory.is_dismissed(host));
                    let (how, last_lines) = match is_dismissed {
                        true => (GIVEN_BACK.into(), Vec::new()),
                        false => (how, last_lines),
                    };
                    let why = Why::HostDied { vm: vm.clone(), how, last_lines };
                    self.host_is_gone(&program, &why);
                }
                Ok(Some(FromVm::Leaving)) => program.vm_leaves(&self),
                Ok(Some(answer)) => drop(answered.try_send(answer)),
                Ok(None) => break "the VM closed the connection".to_owned(),
                Err(error) => break error.to_string(),
            }
        };
        // The host dies with its VM, but others may still hear from it for a short while: its lifeline ends it, not this
        // process.
        self.host_is_gone(&program, &Why::LostLink { vm, error });
        program.state().lose(&self);
        // A VM that is shutting down waits for this.
        self.to.close();
        drop(closing);
    }

    fn host_is_gone(&self, program: &Arc<Program>, why: &Why) {
        match self.host() {
            Some(host) => {
                self.host_gone(why);
                program.host_gone(host, why);
            }
            None => self.host_gone(why),
        }
    }

    /// Waits until the host, if there is one, is gone.
    pub(crate) async fn wait_for_end(&self) {
        while self.host().is_some() && !self.closed.is_closed() {
            rt::sleep(Duration::from_micros(500)).await;
        }
    }

    /// Waits, for a bounded time, until the VM has closed the connection. Returns `false` if it has not.
    pub(crate) async fn wait_for_close(&self) -> bool {
        rt::timeout(FAREWELL, self.closed.recv()).await.is_ok()
    }

    /// Judges whether the VM is dead.
    pub(super) fn is_dead(&self, now: Instant, deaf: Duration) -> bool {
        let vm = &self.info.name;
        match self.pulse().look(now, deaf) {
            Change::None => {}
            Change::Suspected => {
                tracing::warn!(
                    "VM {vm} has not been heard of for {SUSPECT:?}: stopped, overloaded or cut off?"
                );
            }
            Change::Recovered => tracing::warn!("VM {vm} is heard of again"),
            Change::Dead => return true,
        }
        false
    }

    /// The VM's status.
    pub(super) fn status(&self, now: Instant) -> LeasedStatus {
        let (silent, suspected) = self.pulse().silence(now);
        LeasedStatus { id: self.info.id, name: self.info.name.clone(), silent, suspected }
    }

    /// Gives up the VM, which has been silent for too long. If it wakes up, it finds that the lease is over.
    pub(super) fn give_up(&self, program: &Arc<Program>, error: String) {
        self.host_is_gone(program, &Why::LostLink { vm: self.info.name.clone(), error });
        self.release();
    }

    fn pulse(&self) -> MutexGuard<'_, Pulse> {
        self.pulse.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
