//! `river migrate`.

use clap::builder::NonEmptyStringValueParser;
use river::core::{self, Query};

use super::checkpoint::find;
use super::stop::choose;
use super::{print, search};

/// Move a VR of a program that is running to another VM
///
/// The VR takes along its state, its queue and all that it is in the middle of, and keeps its name; nothing that is under way
/// to it is lost, doubled or overtaken. The program has to be recoverable: see `river run --recoverable`. All its VRs are
/// stopped for a moment. The VM is leased by the program if it is idle.
///
/// If it cannot be done, nothing has changed: the VR goes on where it was.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  river migrate pi 5f3a9c10 lab-3     the VR whose id begins with 5f3a9c10, of the program `pi`, to VM lab-3
  river migrate 4711 5f3a lab-3       the program whose process is 4711, as `river ls` shows
  river migrate pi '?' lab-3          no VR is called `?`: says which there are, and where
  river vm --drain lab-0              move everything away from VM lab-0, and end it

Exit status:
  0  it lives there now
  1  an error, told on stderr
  2  the command line makes no sense")]
pub(crate) struct Args {
    /// The program: its name, its process id or at least four first digits of its id
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
            format!("VR {} of {program} was on VM {} already\n", args.vr, to.name)
        } else {
            let milliseconds = moved.pause.as_secs_f64() * 1000.0;
            format!(
                "VR {} of {program} is on VM {} now: {} bytes, the program stood still for {milliseconds:.1} ms\n",
                args.vr, to.name, moved.bytes
            )
        })?;
    }
    Ok(())
}
