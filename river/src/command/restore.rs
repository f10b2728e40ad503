//! `river restore`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{self, Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::ValueHint;
use river::VrError;
use river::core::Stored;

use super::is_there;
use super::run::{FAILED, run_to_the_end};
use super::states::is_recording;

/// Go on with a program from its newest checkpoint
///
/// The checkpoint holds all that is needed: the program's executable, its command line, its VRs and what was under way
/// between them. The VMs that it used are used again if they are idle, others if not; if there are fewer, they share the
/// work, and if there are none, some are started in the program's process. A checkpoint that is torn or was altered is passed
/// over for the one before it.
///
/// The program's initiator runs again from its last safepoint, or from its beginning, and so it prints again what it
/// had printed since.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  river restore state              go on with the program whose checkpoints are in ./state
  river states state               see what is there

Exit status: that of the program; 128 and the number of the signal if one killed it; and
    2  the command line makes no sense
  125  there is no usable checkpoint, or the program cannot be started")]
pub(crate) struct Args {
    /// Where the checkpoints are
    #[arg(value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
    directory: PathBuf,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    match try_run(args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn try_run(args: &Args) -> river::Result<u8> {
    is_there(&args.directory)?;
    if is_recording(&args.directory) {
        return Err(VrError::msg(format!(
            "{} holds a recording, not a checkpoint: `river replay` runs its VRs again",
            args.directory.display()
        )));
    }
    let stored = Stored::latest(&args.directory)?;
    for error in &stored.broken {
        eprintln!("passed over a checkpoint: {error}");
    }
    let mut command = restored(&args.directory, &stored)?;
    eprintln!("[river restore: {}, from checkpoint {}]", stored.program, stored.number);
    Ok(run_to_the_end(&mut command)?.code())
}

/// The program as it is to be started to go on from a checkpoint.
pub(super) fn restored(directory: &Path, stored: &Stored) -> river::Result<Command> {
    let directory = path::absolute(directory)?;
    let mut command = Command::new(path::absolute(&stored.image)?);
    if let Some((name, arguments)) = stored.arguments.split_first() {
        command.arg0(name).args(arguments);
    }
    let mut which = OsString::from(format!("{}:", std::process::id()));
    which.push(&directory);
    command.envs(stored.environment.iter().cloned()).env("RIVER_RESTORE", which);
    if stored.directory.is_dir() {
        command.current_dir(&stored.directory);
    }
    Ok(command)
}
