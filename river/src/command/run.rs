//! `river run`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::num::NonZeroUsize;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use clap::ValueHint;
use river::VrError;
use river::core::{self, Query, Vm, VmConfig};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use super::restarts::{Lives, State};
use super::{FAILED, count, exit, plural, search, signals, tell};

const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// How often to look for another port if someone else takes the one that was found.
const ATTEMPTS: usize = 5;

/// Run a program on running virtual machines, or on some that are started for this run
///
/// With -n N, the program uses running VMs if N of them are idle, and sees only N; otherwise N are started on this machine
/// for this run, and it sees only those. Without -n, it may use all that are running; if none is idle, one per core is
/// started. VMs that were started for a run end with it.
#[derive(clap::Args)]
#[command(
    override_usage = "river run [OPTIONS] PROGRAM [ARGS]...",
    after_help = "\
Examples:
  river run -n 4 ./pi 1000000               on four VMs
  river run -n 4 cargo run --release        the same, built by cargo first
  river run ./pi                            on all VMs that can be found, or on one per core
  river run --checkpoint state --every 10 --restarts 3 ./pi
                                            survives the death of any machine; see `river restore --help`
  river run --checkpoint memory --every 10 --restarts 3 ./pi
                                            the same without a disk: VMs keep each other's checkpoints

Environment of PROGRAM:
  RIVER_VMS   how many VMs it may use, if -n is given or VMs were started
  RIVER_PORT  the UDP port on which it finds them, if they were started for this run
  RIVER_RECOVERABLE, RIVER_CHECKPOINT, RIVER_CHECKPOINT_EVERY
              1, the directory and the seconds, according to the options above
  RIVER_OWN_PORT
              the same port, so that `river restore` does not search there later
  RIVER_CHECKPOINT_RUN, RIVER_LOST_A_HOST
              the id of this run in its checkpoints; a file in which it reports that it lost a host

Signals: Ctrl-C and Ctrl-\\ in a terminal reach PROGRAM, and `river run` waits until it ends. SIGTERM
and SIGHUP are forwarded to it.

Exit status: that of PROGRAM; 128 plus the signal number if a signal killed it; and
    2  the command line is invalid
  125  River failed: VMs could not be searched for or started
  126  PROGRAM cannot be executed
  127  PROGRAM was not found"
)]
pub(crate) struct Args {
    #[command(flatten)]
    job: Job,
    #[command(flatten)]
    state: State,
}

/// What is run, and on how many VMs.
#[derive(clap::Args)]
pub(super) struct Job {
    /// How many VMs
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = count)]
    count: Option<NonZeroUsize>,
    /// The program and its arguments
    #[arg(
        value_name = "PROGRAM [ARGS]",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_hint = ValueHint::CommandWithArguments
    )]
    command: Vec<OsString>,
}

impl Job {
    /// Returns the command that runs it, and the VMs started for it, which must live until the program has ended.
    pub(super) fn prepare(&self) -> river::Result<(Command, Vec<Vm>)> {
        let [program, arguments @ ..] = &self.command[..] else {
            return Err(VrError::msg("no PROGRAM was given"));
        };
        let mut command = Command::new(program);
        command.args(arguments);
        let vms = provide_vms(self.count.map(NonZeroUsize::get), &mut command)?;
        Ok((command, vms))
    }
}

pub(crate) fn run(args: &Args) -> ExitCode {
    exit(try_run(args))
}

fn try_run(args: &Args) -> river::Result<u8> {
    args.state.check()?;
    let (mut command, vms) = args.job.prepare()?;
    let keeping = args.state.keep(&mut command)?;
    let (end, died) = Lives::new(command, args.state.restarts)?.run(|| keeping.last(&vms))?;
    if died {
        keeping.forget(&vms);
    }
    Ok(end.code())
}

/// How a program ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// It was never started.
    NotRun(u8),
    Status(ExitStatus),
}

impl End {
    /// The exit code that reports it to the shell.
    pub(super) fn code(self) -> u8 {
        match self {
            End::NotRun(code) => code,
            End::Status(status) => exit_code(status),
        }
    }
}

/// Runs a program, and waits for its end.
pub(super) fn run_to_the_end(command: &mut Command) -> river::Result<End> {
    Runner::new()?.run(command)
}

/// Sets the program's environment so that it finds its VMs, and returns those that were started for it.
pub(super) fn provide_vms(wanted: Option<usize>, command: &mut Command) -> river::Result<Vec<Vm>> {
    let count = wanted.map(|wanted| u32::try_from(wanted).unwrap_or(u32::MAX));
    let found = search(&Query { count, idle_only: true, ..Query::default() })?.vms.len();
    if found >= wanted.unwrap_or(1) {
        if let Some(wanted) = wanted {
            command.env("RIVER_VMS", wanted.to_string());
        }
        return Ok(Vec::new());
    }
    let count = wanted.unwrap_or_else(|| thread::available_parallelism().map_or(1, NonZeroUsize::get));
    let (vms, port) = start(count)?;
    let idle = match found {
        0 => "no idle VM was found".to_owned(),
        1 => format!("1 idle VM was found, not {count}"),
        _ => format!("{found} idle VMs were found, not {count}"),
    };
    tell(format_args!("[river run: {idle}; started {} on this machine for this run]", plural(count)));
    command.env("RIVER_VMS", count.to_string());
    command.env("RIVER_PORT", port.to_string()).env("RIVER_OWN_PORT", port.to_string());
    // It must find only these VMs.
    command.env_remove("RIVER_HOSTS").env_remove("RIVER_NETWORK");
    Ok(vms)
}

/// Starts VMs on a port of their own, so that only programs that are given the port find them.
fn start(count: usize) -> river::Result<(Vec<Vm>, u16)> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let port =
            free_port().map_err(|error| VrError::msg(format!("cannot find a free UDP port: {error}")))?;
        match Vm::start_many(&VmConfig::default().name("run").discovery_port(port), count) {
            Ok(vms) => return Ok((vms, port)),
            Err(core::VmError::Responder(_)) if attempts < ATTEMPTS => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Finds a UDP port that nobody uses for searches. The address is the one on which VMs are searched for.
fn free_port() -> io::Result<u16> {
    Ok(UdpSocket::bind((Ipv4Addr::new(127, 255, 255, 255), 0))?.local_addr()?.port())
}

/// Explains why a program does not start, and what to do.
fn explain(program: &OsStr, error: &io::Error) -> String {
    let path = Path::new(program);
    match error.kind() {
        io::ErrorKind::NotFound if path.components().count() > 1 || path.has_root() => {
            "there is no such file, or it is a script whose interpreter is missing".into()
        }
        io::ErrorKind::NotFound => {
            format!(
                "it is not in any directory of PATH; write ./{} if it is in the current directory",
                path.display()
            )
        }
        io::ErrorKind::PermissionDenied if path.is_dir() => "it is a directory".into(),
        io::ErrorKind::PermissionDenied => "it is not executable; if it is a program, use `chmod +x`".into(),
        _ => error.to_string(),
    }
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(FAILED)
}

/// Signals that are the program's business while it runs.
const SIGNALS: [i32; 4] = [SIGINT, SIGQUIT, SIGTERM, SIGHUP];

/// Runs programs, one after another. While none runs, signals end this process as usual.
pub(super) struct Runner {
    /// Whether no program is running. Once a process has handled a signal, it must restore the default behaviour itself.
    idle: Arc<AtomicBool>,
}

impl Runner {
    pub(super) fn new() -> io::Result<Self> {
        let idle = Arc::new(AtomicBool::new(true));
        for signal in signals::heeded(&SIGNALS) {
            signal_hook::flag::register_conditional_default(signal, idle.clone())?;
        }
        Ok(Self { idle })
    }

    /// Runs a program, and waits for its end.
    pub(super) fn run(&self, command: &mut Command) -> river::Result<End> {
        // They must not end this process before the program. Signals that this process was started to ignore (by `nohup`,
        // for example) stay ignored by the program too; the others have their default meaning for it.
        let taken = signals::take(&SIGNALS)?;
        self.idle.store(false, Relaxed);
        let end = match command.spawn() {
            Ok(child) => wait(child, taken).map(End::Status),
            Err(error) => {
                let program = command.get_program();
                tell(format_args!("error: cannot run {}: {}", program.display(), explain(program, &error)));
                Ok(End::NotRun(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN }))
            }
        };
        self.idle.store(true, Relaxed);
        Ok(end?)
    }
}

/// Waits for the end of the program, and forwards signals that only this process gets.
fn wait(mut child: Child, mut signals: Signals) -> io::Result<ExitStatus> {
    let handle: Handle = signals.handle();
    let pid = Pid::from_child(&child);
    // `true` until the program has been waited for; after that, its id may belong to another process.
    let alive = Arc::new(Mutex::new(true));
    let watched = alive.clone();
    let passing = thread::Builder::new().name("river-run-signals".into()).spawn(move || {
        for signal in &mut signals {
            // A terminal sends the other two to the program as well.
            let signal = match signal {
                SIGTERM => Signal::TERM,
                SIGHUP => Signal::HUP,
                _ => continue,
            };
            let alive = watched.lock().unwrap_or_else(PoisonError::into_inner);
            if *alive {
                let _ = rustix::process::kill_process(pid, signal);
            }
        }
    })?;
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while let Err(rustix::io::Errno::INTR) = rustix::process::waitid(WaitId::Pid(pid), options) {}
    let status = {
        let mut alive = alive.lock().unwrap_or_else(PoisonError::into_inner);
        *alive = false;
        child.wait()
    };
    handle.close();
    let _ = passing.join();
    status
}
