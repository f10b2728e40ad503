//! `river record`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueHint;

use super::run::{Job, run_to_the_end};
use super::states::is_recording;
use super::{exit, for_child, tell};

/// Run a program and record all its VRs, so that each can be replayed alone
///
/// Everything that a VR receives is written to a file, from its start: envelopes, notices, the time, answers to its calls. The
/// program runs as with `river run --recoverable`, and VMs are found or started as with `river run`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  river record -o tape ./pi 1000000           record all VRs of the program into ./tape
  river states tape                           show what was recorded
  river replay tape --vr initiator            replay the initiator, alone

Exit status: as for `river run`.")]
pub(crate) struct Args {
    /// The directory for the recording; created if it does not exist; must not contain a recording
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
            "[river record: nothing was recorded: {} is not a River program, or started one as a child process]",
            command.get_program().display()
        ));
    }
    Ok(code)
}
