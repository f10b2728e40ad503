//! `river checkpoint`.

use std::path::{self, PathBuf};

use clap::ValueHint;
use clap::builder::NonEmptyStringValueParser;
use river::VrError;
use river::core::{self, Query, VmInfo, VmState, vm_status};

use super::{begins_with, print, search};

/// Write a checkpoint of a running program
///
/// All its VRs are paused for a moment and copied, together with the messages in transit between them. The checkpoint is
/// written to a directory on the machine of the program's initiator, with the program's executable. The program must be
/// recoverable (see `river run --recoverable`), and use a VM that can be found.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  river checkpoint pi state          of the program `pi`, into ./state
  river checkpoint 4711 state        of the program whose process id is 4711 (see `river ls`)
  river restore state                continue from there, later or elsewhere

Exit status:
  0  the checkpoint was written
  1  an error, reported on stderr; the program continues, and older checkpoints are kept
  2  the command line is invalid")]
pub(crate) struct Args {
    /// The program: its name, its process id, or the first four or more digits of its id
    #[arg(value_name = "PROGRAM", value_parser = NonEmptyStringValueParser::new())]
    program: String,
    /// Where to write it; created if it does not exist
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
        "checkpoint {} of {name}: {} bytes, the program was paused for {milliseconds:.1} ms\n",
        taken.number, taken.bytes
    ))?)
}

/// Finds a VM through which the program can be reached, and the program's name.
pub(super) fn find<'a>(vms: &'a [VmInfo], wanted: &str) -> river::Result<(&'a VmInfo, &'a str)> {
    find_one(vms, wanted, has_host)
}

/// Whether a program runs on the VM, and has not only leased it: such a VM knows where the program's initiator is.
fn has_host(vm: &VmInfo) -> bool {
    vm_status(vm).is_ok_and(|status| status.lease.is_some_and(|lease| lease.host.is_some()))
}

/// Of the VMs that the program uses, returns the first one that `preferred` accepts, or else any.
fn find_one<'a>(
    vms: &'a [VmInfo],
    wanted: &str,
    preferred: impl Fn(&VmInfo) -> bool,
) -> river::Result<(&'a VmInfo, &'a str)> {
    let used = vms.iter().filter_map(|vm| match &vm.state {
        VmState::Leased { program, name } => Some((vm, program, name.as_str())),
        VmState::Idle => None,
    });
    let is_called = |name: &str| {
        // "pi (process 4711 on lab)"
        let (executable, rest) = name.split_once(" (process ").unwrap_or((name, ""));
        executable == wanted || rest.split(' ').next() == Some(wanted)
    };
    let mut fitting: Vec<_> = used.clone().filter(|(_, _, name)| is_called(name)).collect();
    if fitting.is_empty() {
        fitting = used.filter(|(_, program, _)| begins_with(program, wanted)).collect();
    }
    match fitting[..] {
        [] => Err(VrError::msg(format!(
            "no program {wanted} uses a VM that can be found: `river ls` shows those that do"
        ))),
        [(vm, program, name), ref more @ ..] if more.iter().all(|(_, other, _)| *other == program) => {
            let preferred = fitting.iter().map(|(vm, ..)| *vm).find(|vm| preferred(vm));
            Ok((preferred.unwrap_or(vm), name))
        }
        _ => Err(VrError::msg(format!(
            "several programs are called {wanted}: use the process id, which `river ls` shows"
        ))),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;

    use river::core::{ProgramId, VmId};

    use super::*;

    pub(crate) fn vm(name: &str, program: Option<(ProgramId, &str)>) -> VmInfo {
        let leased = |(program, name): (ProgramId, &str)| VmState::Leased { program, name: name.into() };
        VmInfo {
            id: VmId::fresh(),
            name: name.into(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            cores: 1,
            memory: 0,
            triple: String::new(),
            labels: Vec::new(),
            state: program.map_or(VmState::Idle, leased),
            uptime: Duration::ZERO,
            version: String::new(),
        }
    }

    #[test]
    fn a_program_is_found_by_its_name_its_process_or_four_digits_of_its_id() {
        let (pi, other) = (ProgramId::fresh(), ProgramId::fresh());
        let used = |program, name| Some((program, name));
        let vms = [
            vm("lab-0", None),
            vm("lab-1", used(pi, "pi (process 11 on lab)")),
            vm("lab-2", used(pi, "pi (process 11 on lab)")),
            vm("lab-3", used(other, "e (process 12 on lab)")),
            vm("lab-4", used(ProgramId::fresh(), "e (process 13 on lab)")),
        ];
        let find = |wanted: &str, preferred: &str| {
            let found = find_one(&vms, wanted, |vm| vm.name == preferred);
            found.map(|(vm, _)| vm.name.clone()).map_err(|error| error.to_string())
        };
        let found = |wanted: &str| find(wanted, "none");
        for wanted in ["pi", "11", &pi.to_string().to_uppercase()] {
            assert_eq!(found(wanted).as_deref(), Ok("lab-1"), "{wanted}");
        }
        assert_eq!(find("pi", "lab-2").as_deref(), Ok("lab-2"));
        assert_eq!(find("pi", "lab-3").as_deref(), Ok("lab-1"));
        assert_eq!(found("12").as_deref(), Ok("lab-3"));
        assert!(found("e").unwrap_err().contains("several programs"));
        // Fewer digits are ambiguous.
        assert!(found(&pi.to_string()[..3]).unwrap_err().contains("no program"));
    }
}
