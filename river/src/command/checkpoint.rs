//! `river checkpoint`.

use std::path::{self, PathBuf};

use clap::ValueHint;
use clap::builder::NonEmptyStringValueParser;
use river::VrError;
use river::core::{self, Query, VmInfo, VmState};

use super::{print, search};

/// Checkpoint a program that is running
///
/// All its VRs are stopped for a moment, copied together with what is under way between them, and go on; the copy is
/// written to a directory on the machine of the program's initiator, with the program's executable. The program has to
/// be recoverable: see `river run --recoverable`. It has to use a VM that can be found.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  river checkpoint pi state          the program `pi` into ./state
  river checkpoint 4711 state        the one whose process is 4711, as `river ls` shows
  river restore state                go on from there, later or elsewhere

Exit status:
  0  it was written
  1  an error, told on stderr; the program goes on, and older checkpoints are still there
  2  the command line makes no sense")]
pub(crate) struct Args {
    /// The program: its name, its process id or the beginning of its id
    #[arg(value_name = "PROGRAM", value_parser = NonEmptyStringValueParser::new())]
    program: String,
    /// Where to; made if it is not there
    #[arg(value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
    directory: PathBuf,
    /// How many checkpoints to keep there
    #[arg(long, value_name = "N", default_value_t = 2)]
    keep: usize,
}

pub(crate) fn run(args: &Args) -> river::Result {
    let vms = search(&Query::default())?.vms;
    let (vm, name) = find(&vms, &args.program)?;
    let taken = core::checkpoint(vm, path::absolute(&args.directory)?, args.keep)?;
    let milliseconds = taken.pause.as_secs_f64() * 1000.0;
    Ok(print(&format!(
        "checkpoint {} of {name}: {} bytes, the program stood still for {milliseconds:.1} ms\n",
        taken.number, taken.bytes
    ))?)
}

/// A VM that the program uses, and the program's name.
pub(super) fn find<'a>(vms: &'a [VmInfo], wanted: &str) -> river::Result<(&'a VmInfo, &'a str)> {
    let mut found: Option<(&VmInfo, &str)> = None;
    for vm in vms {
        let VmState::Leased { program, name } = &vm.state else { continue };
        // "pi (process 4711 on lab)"
        let (executable, rest) = name.split_once(" (process ").unwrap_or((name, ""));
        let process = rest.split(' ').next().unwrap_or_default();
        if executable != wanted && process != wanted && !program.to_string().starts_with(wanted) {
            continue;
        }
        match found {
            Some((other, _)) if other.state != vm.state => {
                return Err(VrError::msg(format!(
                    "several programs are called {wanted}: use the process id, which `river ls` shows"
                )));
            }
            _ => found = Some((vm, name)),
        }
    }
    found.ok_or_else(|| {
        VrError::msg(format!("no program {wanted} uses a VM that can be found: `river ls` shows which do"))
    })
}
