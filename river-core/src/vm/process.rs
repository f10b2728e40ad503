//! A host as its VM sees it: a child process in its own process group.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use std::{ffi::OsString, mem};

use crossbeam_channel::{Receiver, Sender};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use crate::flood::{self, Fate, Flood};
use crate::host::{HOST_VARIABLE, HostConfig};
use crate::image;
use crate::protocol::FromVm;
use crate::rt;
use crate::status::Usage;

/// How many of the last lines that a host printed are kept for the report of its death.
const LAST_LINES: usize = 5;
/// How long reading the last output of a host that is gone may take.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// A longer line is cut into pieces of this size.
const LINE: u64 = 64 << 10;

/// Whether a host is running.
#[derive(Debug)]
struct Life {
    /// `true` until the process has been waited for; after that, its id may belong to another process.
    lasts: bool,
    /// Why the VM has ended it, or the lease. If set, the conversation with the program ends with the report.
    because: Option<&'static str>,
    /// Whether the program was told how it ended.
    reported: bool,
}

/// The handle by which a VM ends a host. Dropping it ends the host as well, whose standard input closes.
#[derive(Debug)]
pub(crate) struct HostProcess {
    pid: Pid,
    life: Arc<Mutex<Life>>,
    _lifeline: ChildStdin,
}

impl HostProcess {
    /// Starts the host. `report` receives every line that it prints and finally how it ended.
    pub(crate) fn start(image: &Path, config: &HostConfig, report: rt::Sender<FromVm>) -> io::Result<Self> {
        let spec = &config.spec;
        let os = |bytes: &Vec<u8>| OsString::from_vec(bytes.clone());
        let mut command = Command::new(image);
        command
            .args(spec.args.iter().skip(1).map(os))
            .envs(spec.env.iter().map(|(name, value)| (os(name), os(value))))
            .env(HOST_VARIABLE, std::process::id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        if let Some(name) = spec.args.first() {
            command.arg0(os(name));
        }
        let directory = PathBuf::from(os(&spec.directory));
        if directory.is_dir() {
            command.current_dir(directory);
        }
        let (started, parts) = crossbeam_channel::bounded(1);
        let limits = config.limits;
        // The host must die with its parent, which for the system is the thread that started it; so that thread has to
        // stay.
        thread::Builder::new().name("river-host-wait".into()).spawn(move || {
            let life = Arc::new(Mutex::new(Life { lasts: true, because: None, reported: false }));
            let (child, pid, output) = match begin(command, &report) {
                Ok((mut child, pid, output)) => {
                    let _ = started.send(Ok((child.stdin.take(), pid, life.clone())));
                    (child, pid, output)
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                    return;
                }
            };
            let (status, because) = wait(child, pid, &life);
            let how = status.map_or_else(
                |error| error.to_string(),
                |status| {
                    if status.success() { describe(status) } else { describe(status) + &limits.reminder() }
                },
            );
            let last_lines = output.end();
            let mut life = lock(&life);
            let _ = report.try_send(match because {
                // What it was doing at the time is irrelevant.
                Some(because) => FromVm::Exited { how: because.into(), last_lines: Vec::new() },
                None => FromVm::Exited { how, last_lines },
            });
            life.reported = true;
            if life.because.is_some() {
                // Nothing more follows.
                report.close();
            }
        })?;
        let (lifeline, pid, life) = parts.recv().map_err(io::Error::other)??;
        let mut lifeline = lifeline.ok_or(io::ErrorKind::BrokenPipe)?;
        let config =
            postcard::to_stdvec(config).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let length = (config.len() as u32).to_le_bytes();
        match lifeline.write_all(&length).and_then(|()| lifeline.write_all(&config)) {
            // It has ended, and the thread that waits for it says how; or it has closed its input, and will not join.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(Self { pid, life, _lifeline: lifeline }),
        }
    }

    /// The resources that it uses.
    pub(crate) fn usage(&self) -> Usage {
        Usage::of(self.pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// Kills the host and everything in its process group at once. Does nothing if it has ended.
    pub(crate) fn kill(&self) {
        self.end(None);
    }

    /// Kills the host, and reports to its program this reason instead of the signal. If it had ended by itself, its program is
    /// told how. The conversation with the program ends with that report. Returns `false` if the report was sent before.
    pub(crate) fn kill_because(&self, why: &'static str) -> bool {
        self.end(Some(why))
    }

    fn end(&self, because: Option<&'static str>) -> bool {
        let mut life = lock(&self.life);
        life.because = life.because.or(because);
        if life.lasts {
            let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
        }
        !life.reported
    }
}

fn lock(life: &Mutex<Life>) -> MutexGuard<'_, Life> {
    life.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for HostProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Forwards a host's output to its program.
struct Output {
    /// Closed when both of its pipes are.
    closed: Receiver<()>,
    last_lines: Arc<Mutex<VecDeque<String>>>,
}

impl Output {
    /// Returns the last lines of a host that is gone, once all output has been read. Does not wait for processes that it
    /// has started in sessions of their own, which may keep the pipes open forever.
    fn end(self) -> Vec<String> {
        let _ = self.closed.recv_timeout(LAST_WORDS);
        mem::take(&mut *self.last_lines.lock().unwrap_or_else(PoisonError::into_inner)).into()
    }
}

/// Starts the process, and begins to read its output.
fn begin(mut command: Command, report: &rt::Sender<FromVm>) -> io::Result<(Child, Pid, Output)> {
    let mut child = image::retry_busy(|| command.spawn())?;
    let pid = Pid::from_child(&child);
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let last_lines = Arc::default();
    let (open, closed) = crossbeam_channel::bounded(0);
    let forwarded = forward(stdout, false, report, Arc::clone(&last_lines), open.clone())
        .and_then(|()| forward(stderr, true, report, Arc::clone(&last_lines), open));
    if let Err(error) = forwarded {
        // Nobody else knows about this process.
        let _ = child.kill();
        let _ = child.wait();
        return Err(error);
    }
    Ok((child, pid, Output { closed, last_lines }))
}

/// Waits for the end of the host, and kills what is left of its process group before its id can be reused. Returns how it
/// ended, and the reason if the VM has killed it.
fn wait(mut child: Child, pid: Pid, life: &Mutex<Life>) -> (io::Result<ExitStatus>, Option<&'static str>) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while let Err(rustix::io::Errno::INTR) = rustix::process::waitid(WaitId::Pid(pid), options) {}
    let mut life = lock(life);
    let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    life.lasts = false;
    (child.wait(), life.because)
}

fn forward(
    from: impl Read + Send + 'static,
    stderr: bool,
    report: &rt::Sender<FromVm>,
    last_lines: Arc<Mutex<VecDeque<String>>>,
    open: Sender<()>,
) -> io::Result<()> {
    // Processes that keep the pipes open after the host's end must not keep the conversation with its program open.
    let report = report.downgrade();
    let read = move || {
        let _open = open;
        let (mut from, mut flood) = (BufReader::new(from), Flood::default());
        loop {
            let mut line = Vec::new();
            match from.by_ref().take(LINE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            {
                let mut last = last_lines.lock().unwrap_or_else(PoisonError::into_inner);
                if last.len() == LAST_LINES {
                    last.pop_front();
                }
                last.push_back(String::from_utf8_lossy(&line).into_owned());
            }
            // Go on reading even if nobody listens any more, so that the host never blocks in a write.
            if let Some(report) = report.upgrade()
                && let Fate::Forward { forgotten } = flood.line(line.len(), report.len())
            {
                if forgotten > 0 {
                    let _ = report.try_send(FromVm::Output { stderr, line: flood::note(forgotten) });
                }
                let _ = report.try_send(FromVm::Output { stderr, line });
            }
        }
    };
    thread::Builder::new().name("river-host-out".into()).spawn(read).map(drop)
}

/// How a process ended, in words.
fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(number)) => {
            let name = Signal::from_named_raw(number).map(|signal| format!("{signal:?}"));
            // Its `Debug` output is "Signal::KILL", in quotes.
            let name = name.as_deref().and_then(|name| name.trim_matches('"').rsplit(':').next());
            let name = name.map(|name| match name {
                "ABORT" => "ABRT",
                "ALARM" => "ALRM",
                "CHILD" => "CHLD",
                "VTALARM" => "VTALRM",
                name => name,
            });
            format!("signal {number}{}", name.map_or(String::new(), |name| format!(" (SIG{name})")))
        }
        (None, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::host::HostLimits;
    use crate::id::{HostId, ImageHash, ProgramId};
    use crate::protocol::HostSpec;

    /// What is said of a host that runs this script, until there is no more to say.
    fn said_of(script: &str, env: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<String> {
        said_meanwhile(script, env, |_, _| {})
    }

    /// As [`said_of`], while `act` does something with the host.
    fn said_meanwhile(
        script: &str,
        env: Vec<(Vec<u8>, Vec<u8>)>,
        act: impl FnOnce(&HostProcess, rt::Sender<FromVm>),
    ) -> Vec<String> {
        let loopback = Ipv4Addr::LOCALHOST.into();
        let spec = HostSpec {
            host: HostId::fresh(),
            image: ImageHash([7; 32]),
            image_len: 0,
            triple: image::host_triple(),
            initiator: SocketAddr::new(loopback, 1),
            initiator_host: HostId::fresh(),
            listen: vec![loopback],
            args: ["bash", "-c", script].map(|arg| arg.as_bytes().to_vec()).into(),
            env,
            directory: Vec::new(),
            recoverable: false,
            taped: false,
            trace: None,
        };
        let limits = HostLimits::default();
        let config =
            HostConfig { program: ProgramId::fresh(), vm: "test".into(), key: [7; 32], limits, spec };
        let (report, heard) = rt::unbounded();
        let host = HostProcess::start(Path::new("/bin/bash"), &config, report.clone()).unwrap();
        act(&host, report);
        let mut said = Vec::new();
        let all = async {
            while let Ok(message) = heard.recv().await {
                said.push(format!("{message:?}"));
            }
        };
        let is_over = rt::block_on(rt::timeout(Duration::from_secs(20), all)).is_ok();
        drop(host);
        assert!(is_over, "{said:?}");
        said
    }

    #[test]
    fn what_outlives_a_host_does_not_keep_the_conversation_open() {
        // A process in a group of its own that reads from the lifeline, which is here.
        let said = said_of("set -m; while read -r _; do :; done & echo last words", Vec::new());
        assert!(said.iter().any(|text| text.contains("exit code 0")), "{said:?}");
    }

    /// As when a VM is stopped just then, while something else holds the host's output open.
    #[test]
    fn how_a_host_died_is_not_hidden_by_a_stop_before_that_is_reported() {
        let said =
            said_meanwhile("set -m; while read -r _; do :; done & exit 3", Vec::new(), |host, report| {
                while lock(&host.life).lasts {
                    thread::yield_now();
                }
                if !host.kill_because("stopped") {
                    let _ = report.try_send(FromVm::Exited { how: "stopped".into(), last_lines: Vec::new() });
                    report.close();
                }
            });
        assert!(said.first().is_some_and(|text| text.contains("exit code 3")), "{said:?}");
    }

    #[test]
    fn how_a_host_died_that_has_not_read_what_it_was_told_is_said() {
        // More than a pipe takes.
        let env = [b"A", b"B", b"C"].map(|name| (name.to_vec(), vec![b'x'; 60_000]));
        let said = said_of("echo cannot begin >&2; exit 3", env.into());
        let last = said.last().unwrap();
        assert!(last.contains("exit code 3") && last.contains("cannot begin"), "{said:?}");
    }
}
