//! `river restore`.

use std::env;
use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{self, PathBuf};
use std::process::{Command, ExitCode};

use clap::ValueHint;
use river::VrError;
use river::core::{ProgramId, Stored};

use super::restarts::{Last, Lives, last_of, seconds};
use super::states::is_recording;
use super::{exit, for_child, is_there, tell};

/// Continue a program from its newest checkpoint
///
/// The checkpoint contains everything that is needed: the program's executable, its command line, its VRs and the messages in
/// transit between them. The VMs that it used are used again if they are idle, otherwise others; if there are fewer, they
/// share the work, and if there are none, some are started in the program's process. If the newest checkpoint is incomplete or
/// was altered, the one before it is used.
///
/// Environment variables that were passed on to the program's VRs have the values that they had, unless they are set now.
///
/// The program's initiator runs again from its last safepoint, or from its beginning, so it prints again what it had printed
/// since.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  river restore state              continue the program whose checkpoints are in ./state
  river restore --every 10 --restarts 3 state
                                   the same, with further checkpoints, as `river run --checkpoint state ...`
  RIVER_PORT=7485 river restore state
                                   on VMs at another port than before
  river states state               show what is there

Exit status: that of the program; 128 plus the signal number if a signal killed it; and
    2  the command line is invalid
  125  there is no usable checkpoint, or the program cannot be started")]
pub(crate) struct Args {
    /// The directory of the checkpoints
    #[arg(value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
    directory: PathBuf,
    /// Take further checkpoints into the directory this often; without this option, only the program itself takes them
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    every: Option<f64>,
    /// If the program is killed or loses a host, restart it from its last checkpoint, at most N times
    #[arg(long, value_name = "N", default_value_t = 0)]
    restarts: u32,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    exit(try_run(args))
}

fn try_run(args: &Args) -> river::Result<u8> {
    is_there(&args.directory)?;
    if is_recording(&args.directory) {
        return Err(VrError::msg(format!(
            "{} contains a recording, not a checkpoint: `river replay` replays its VRs",
            args.directory.display()
        )));
    }
    if args.every.is_some() {
        Stored::can_be_taken_into(&args.directory)?;
    }
    let stored = Stored::latest(&args.directory)?;
    for error in &stored.broken {
        tell(format_args!("skipped a checkpoint: {error}"));
    }
    let now: Vec<_> =
        stored.environment.iter().filter_map(|(name, _)| Some((name.clone(), env::var_os(name)?))).collect();
    let mut command = restored(&stored, now.iter().map(|(name, value)| (&**name, Some(&**value))))?;
    let run = ProgramId::fresh();
    tell(format_args!("[river restore: {}, from checkpoint {}]", stored.program, stored.number));
    command.env("RIVER_CHECKPOINT_RUN", run.to_string());
    match args.every {
        None => tell("[river restore: only the program itself takes further checkpoints; see --every]"),
        Some(every) => {
            command.env("RIVER_CHECKPOINT", path::absolute(&args.directory)?);
            command.env("RIVER_CHECKPOINT_EVERY", every.to_string());
        }
    }
    let last = || match last_of(&args.directory, run) {
        Last::None(_) => Last::Stored(stored.clone().into()),
        last => last,
    };
    let (end, _) = Lives::new(command, args.restarts)?.run(last)?;
    Ok(end.code())
}

/// The command that restarts the program from a checkpoint, in the environment that it had, except for these variables.
pub(super) fn restored<'a>(
    stored: &Stored,
    variables: impl IntoIterator<Item = (&'a OsStr, Option<&'a OsStr>)>,
) -> river::Result<Command> {
    let mut command = Command::new(path::absolute(&stored.image)?);
    if let Some((name, arguments)) = stored.arguments.split_first() {
        command.arg0(name).args(arguments);
    }
    command.envs(stored.environment.iter().cloned());
    for (name, value) in variables {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.env("RIVER_RESTORE", for_child(&stored.file)?);
    if stored.directory.is_dir() {
        command.current_dir(&stored.directory);
    }
    Ok(command)
}
