//! `river migrate`.

use clap::builder::NonEmptyStringValueParser;
use river::core::{self, Query};

use super::checkpoint::find;
use super::stop::choose;
use super::{print, search};

/// Move a VR of a running program to another VM
///
/// The VR keeps its id, its state, its queue and the call that it is in; no message to it is lost, duplicated or reordered.
/// The program must be recoverable: see `river run --recoverable`. All its VRs are paused for a moment. If the VM is idle, the
/// program leases it.
///
/// If the move fails, nothing has changed: the VR continues where it was.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  river migrate pi 5f3a9c10 lab-3     the VR whose id begins with 5f3a9c10, of the program `pi`, to VM lab-3
  river migrate 4711 5f3a lab-3       of the program whose process id is 4711 (see `river ls`)
  river migrate pi '?' lab-3          no id begins with `?`: the error lists the VRs and their VMs
  river vm --drain lab-0              move everything off VM lab-0, and stop it

Exit status:
  0  the VR is on that VM
  1  an error, reported on stderr
  2  the command line is invalid")]
pub(crate) struct Args {
    /// The program: its name, its process id, or the first four or more digits of its id
    #[arg(value_name = "PROGRAM", value_parser = NonEmptyStringValueParser::new())]
    program: String,
    /// The beginning of the VR's id
    #[arg(value_name = "VR", value_parser = NonEmptyStringValueParser::new())]
    vr: String,
    /// The VM's name, or the beginning of its id
    #[arg(value_name = "VM", value_parser = NonEmptyStringValueParser::new())]
    vm: String,
}

pub(crate) fn run(args: &Args) -> river::Result {
    let vms = search(&Query::default())?.vms;
    let (used, program) = find(&vms, &args.program)?;
    for to in choose(&vms, std::slice::from_ref(&args.vm))? {
        let moved = core::migrate(used, &args.vr, to)?;
        print(&if moved.vrs == 0 {
            format!("VR {} of {program} was already on VM {}\n", args.vr, to.name)
        } else {
            let milliseconds = moved.pause.as_secs_f64() * 1000.0;
            format!(
                "VR {} of {program} is now on VM {}: {} bytes, the program was paused for {milliseconds:.1} ms\n",
                args.vr, to.name, moved.bytes
            )
        })?;
    }
    Ok(())
}
