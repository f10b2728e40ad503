//! Programs whose state is kept, and that are restarted when they die.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{self, Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueHint;
use river::core::{self, ProgramId, Query, StateError, Stored, Vm, VmInfo};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use tempfile::{NamedTempFile, TempDir};

use super::restore::restored;
use super::run::{End, Runner};
use super::tell;

/// Given instead of a directory, means the memory of VMs.
const MEMORY: &str = "memory";

/// How often to try to read checkpoints: this process may have run out of files, or VMs may be slow to answer.
const TRIES: u32 = 4;
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(200);
/// How long after that, if it is no use.
const LONG_PAUSE: Duration = Duration::from_secs(2);
/// So long VMs keep what nobody goes on from.
const KEPT_FOR: Duration = Duration::from_secs(600);

/// Whether and how the program's state is kept.
#[derive(clap::Args)]
#[command(next_help_heading = "State")]
pub(super) struct State {
    /// Record all VRs, so that the program can be checkpointed: by itself, or by `river checkpoint`
    #[arg(long)]
    recoverable: bool,
    /// Write checkpoints to this directory, or, with `memory`, to the memory of the VMs, which needs no disk that survives a
    /// machine (a directory of that name is `./memory`). Implies --recoverable
    #[arg(long, value_name = "DIRECTORY|memory", value_hint = ValueHint::DirPath)]
    checkpoint: Option<PathBuf>,
    /// Take a checkpoint this often; without this option, only the program itself takes checkpoints
    #[arg(long, value_name = "SECONDS", requires = "checkpoint", value_parser = seconds)]
    every: Option<f64>,
    /// If the program is killed or loses a host, restart it from its last checkpoint, or from its beginning if there is none,
    /// at most N times
    #[arg(long, value_name = "N", default_value_t = 0, requires = "checkpoint")]
    pub(super) restarts: u32,
}

impl State {
    /// Checks that no other program takes checkpoints into the directory.
    pub(super) fn check(&self) -> river::Result {
        match &self.checkpoint {
            Some(directory) if directory.as_os_str() != MEMORY => Ok(Stored::can_be_taken_into(directory)?),
            _ => Ok(()),
        }
    }

    /// Configures the program's checkpoints in its environment.
    pub(super) fn keep(&self, command: &mut Command) -> io::Result<Keeping<'_>> {
        if self.recoverable || self.checkpoint.is_some() {
            command.env("RIVER_RECOVERABLE", "1");
        }
        let Some(directory) = &self.checkpoint else { return Ok(Keeping::Nothing) };
        let in_memory = directory.as_os_str() == MEMORY;
        let to = if in_memory { directory.clone() } else { path::absolute(directory)? };
        command.env("RIVER_CHECKPOINT", to);
        let run = ProgramId::fresh();
        command.env("RIVER_CHECKPOINT_RUN", run.to_string());
        if let Some(every) = self.every {
            command.env("RIVER_CHECKPOINT_EVERY", every.to_string());
        }
        Ok(if in_memory {
            Keeping::Memory(Kept { run, directory: tempfile::tempdir()? })
        } else {
            Keeping::Directory(directory, run)
        })
    }
}

/// Parses an interval in seconds on the command line.
pub(super) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if seconds > 0.0 && seconds < 1e9 => Ok(seconds),
        _ => Err("it must be a number of seconds greater than zero".into()),
    }
}

/// Where the checkpoints of a run are.
pub(super) enum Keeping<'a> {
    Nothing,
    /// The directory may also hold checkpoints of earlier runs.
    Directory(&'a Path, ProgramId),
    Memory(Kept),
}

impl Keeping<'_> {
    /// The last checkpoint of this run, not of another one.
    pub(super) fn last(&self, started: &[Vm]) -> Last {
        match self {
            Keeping::Nothing => Last::None("no checkpoints are taken".into()),
            Keeping::Directory(directory, run) => last_of(directory, *run),
            Keeping::Memory(kept) => kept.fetch(started),
        }
    }

    /// Drops checkpoints that nobody will restart from. Those in a directory stay, for `river restore`.
    pub(super) fn forget(&self, started: &[Vm]) {
        if let Keeping::Memory(kept) = self {
            kept.forget(started);
        }
    }
}

/// Where to restart a program that died.
pub(super) enum Last {
    Stored(Box<Stored>),
    /// From its beginning, and why.
    None(String),
    /// Unknown, and why: there may be checkpoints that cannot be read now, and a program that started from its beginning would
    /// replace them.
    Unreadable(String),
}

/// The last checkpoint of a run in a directory.
pub(super) fn last_of(directory: &Path, run: ProgramId) -> Last {
    match patiently(|| match Stored::latest_of(directory, run) {
        Err(error @ StateError::NoCheckpoint { .. }) => Ok(Last::None(error.to_string())),
        stored => stored.map(|stored| Last::Stored(stored.into())),
    }) {
        Ok(last) => last,
        Err(error) => {
            Last::Unreadable(format!("{error}. Once it can be read again, `river restore` continues from it"))
        }
    }
}

/// Tries something a few times.
fn patiently<T>(mut act: impl FnMut() -> Result<T, StateError>) -> Result<T, StateError> {
    for _ in 1..TRIES {
        match act() {
            Ok(done) => return Ok(done),
            Err(_) => thread::sleep(PAUSE),
        }
    }
    act()
}

/// Checkpoints kept by VMs, and the directory into which they are copied when they are needed.
pub(super) struct Kept {
    run: ProgramId,
    directory: TempDir,
}

impl Kept {
    /// Copies the newest one here, and drops it from the VMs: if the program dies again before it has taken another one, it
    /// restarts from this copy.
    fn fetch(&self, started: &[Vm]) -> Last {
        let last = match self.bring(started) {
            Ok(stored) => Last::Stored(stored.into()),
            Err(StateError::NoneKept(why)) => match Stored::latest(self.directory.path()) {
                Ok(stored) => {
                    tell(format_args!("[river: {why}; continuing from the one before]"));
                    Last::Stored(stored.into())
                }
                Err(StateError::NoCheckpoint { .. }) => Last::None(why),
                Err(error) => return Last::Unreadable(error.to_string()),
            },
            Err(error) => return Last::Unreadable(error.to_string()),
        };
        // What is left of them is useless to a program that starts from its beginning, or goes on from here.
        self.forget(started);
        last
    }

    /// Tries for as long as VMs keep it: nobody else goes on from it.
    fn bring(&self, started: &[Vm]) -> Result<Stored, StateError> {
        let (began, mut told) = (Instant::now(), false);
        let directory = self.directory.path();
        loop {
            let brought = patiently(|| {
                core::kept::fetch(self.run, &vms(started)?, directory)?;
                Stored::latest(directory)
            });
            match brought {
                Err(error) if !matches!(error, StateError::NoneKept(_)) && began.elapsed() < KEPT_FOR => {
                    if !told {
                        tell(format_args!(
                            "[river: the program died, and its last checkpoint cannot be fetched: {error}. VMs keep it for {} \
                             minutes, and until then it is tried again; Ctrl-C gives up]",
                            KEPT_FOR.as_secs() / 60
                        ));
                        told = true;
                    }
                    thread::sleep(LONG_PAUSE);
                }
                brought => return brought,
            }
        }
    }

    fn forget(&self, started: &[Vm]) {
        // A VM that is not found drops them later.
        if let Ok(vms) = vms(started) {
            core::kept::forget(self.run, &vms);
        }
    }
}

/// The VMs that may keep them: those started for the run, or all that can be found.
fn vms(started: &[Vm]) -> Result<Vec<VmInfo>, StateError> {
    if started.is_empty() {
        let found = core::find(&Query::default()).map_err(|error| StateError::Memory(error.to_string()))?;
        Ok(found.vms)
    } else {
        Ok(started.iter().map(Vm::info).collect())
    }
}

/// A program that is run, and restarted when it dies.
pub(super) struct Lives {
    command: Command,
    restarts: u32,
    /// The program writes to this file if it fails after it has lost a host.
    lost: NamedTempFile,
}

impl Lives {
    pub(super) fn new(mut command: Command, restarts: u32) -> io::Result<Self> {
        let lost = NamedTempFile::new()?;
        command.env("RIVER_LOST_A_HOST", lost.path());
        Ok(Self { command, restarts, lost })
    }

    /// Runs it to its end. Each time it dies, restarts it from `last`, its last checkpoint, or else from its beginning.
    /// Returns how it ended, and whether it died for good: not if there may be a checkpoint to go on from later.
    pub(super) fn run(mut self, last: impl Fn() -> Last) -> river::Result<(End, bool)> {
        let runner = Runner::new()?;
        let mut end = runner.run(&mut self.command)?;
        for restart in 1..=self.restarts {
            if !self.is_death(end) {
                break;
            }
            self.lost.as_file().set_len(0)?;
            let count = format!("restart {restart} of {}", self.restarts);
            end = match last() {
                Last::Stored(stored) => {
                    let number = stored.number;
                    tell(format_args!(
                        "[river: the program died; continuing from checkpoint {number}, {count}]"
                    ));
                    runner.run(&mut restored(&stored, self.command.get_envs())?)?
                }
                Last::None(why) => {
                    tell(format_args!("[river: the program died ({why}); starting over, {count}]"));
                    runner.run(&mut self.command)?
                }
                Last::Unreadable(why) => {
                    tell(format_args!(
                        "[river: the program died, and its last checkpoint cannot be read: {why}]"
                    ));
                    return Ok((end, false));
                }
            };
        }
        Ok((end, self.is_death(end)))
    }

    /// Whether it died of something that may not happen again: it failed after it had lost a host, or was killed, but not
    /// by a user who wants it to end.
    fn is_death(&self, end: End) -> bool {
        let End::Status(status) = end else { return false };
        let asked = [SIGINT, SIGTERM, SIGHUP, SIGQUIT];
        match status.signal() {
            Some(signal) => !asked.contains(&signal),
            None => !status.success() && self.lost.as_file().metadata().is_ok_and(|file| file.len() > 0),
        }
    }
}
