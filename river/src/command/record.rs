//! `river record`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueHint;

use super::run::{Job, run_to_the_end};
use super::states::is_recording;
use super::{exit, for_child, tell};

/// Run a program and record all its VRs, so that each can be run again alone
///
/// Everything that a VR is told is written to a file, from its beginning: envelopes, notices, the time, answers. The program
/// runs as with `river run --recoverable`, and VMs are found or started as with `river run`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  river record -o tape ./pi 1000000           all VRs of the program into ./tape
  river states tape                           what was recorded
  river replay tape --vr initiator            run the initiator again, alone

Exit status: as of `river run`.")]
pub(crate) struct Args {
    /// Where to; made if it is not there, and must hold no recording
    #[arg(short, long, value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
    output: PathBuf,
    #[command(flatten)]
    job: Job,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    exit(try_run(args))
}

fn try_run(args: &Args) -> river::Result<u8> {
    let (mut command, _vms) = args.job.prepare()?;
    command.env("RIVER_RECORD", for_child(&args.output)?);
    let code = run_to_the_end(&mut command)?.code();
    if !is_recording(&args.output) {
        tell(format_args!(
            "[river record: nothing was recorded: {} is no program of River, or has started one instead of being one]",
            command.get_program().display()
        ));
    }
    Ok(code)
}
