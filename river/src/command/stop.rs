//! `river stop`.

use clap::builder::NonEmptyStringValueParser;
use river::VrError;
use river::core::{Query, VmInfo, VmState, stop};

use super::{begins_with, plural, print, search, tell};

/// Stop virtual machines, even if a program uses them
///
/// What a program runs on them ends too, and the program is told that they are gone; use --idle to spare VMs that a
/// program uses. If one of the names is not found, nothing is stopped.
#[derive(clap::Args)]
#[command(
    override_usage = "river stop [OPTIONS] NAME|ID...\n       river stop [OPTIONS] --all\n       river stop [OPTIONS] --idle",
    group = clap::ArgGroup::new("which").required(true).multiple(true),
    after_help = "\
Examples:
  river stop lab-0 lab-1   two, by name
  river stop 3f9a          the one whose id begins with 3f9a (see `river ls`)
  river stop --idle        all that no program uses
  river stop --all         all

Exit status:
  0  all of those VMs were stopped, even if there were none
  1  an error, reported on stderr: there is no VM with that name, or one could not be stopped
  2  the command line is invalid"
)]
pub(crate) struct Args {
    /// Names of VMs, or the first four or more digits of their ids
    #[arg(value_name = "NAME|ID", group = "which", value_parser = NonEmptyStringValueParser::new())]
    names: Vec<String>,
    /// All that can be found
    #[arg(long, group = "which", conflicts_with = "names")]
    all: bool,
    /// Only VMs that no program uses: of those named, or of all
    #[arg(long, group = "which")]
    idle: bool,
}

pub(crate) fn run(args: &Args) -> river::Result {
    let vms = search(&Query::default())?.vms;
    if vms.is_empty() && args.names.is_empty() {
        tell("no VM was found, so there is nothing to stop");
        return Ok(());
    }
    let mut chosen = choose(&vms, &args.names)?;
    if args.idle {
        chosen.retain(|vm| {
            if let VmState::Leased { name, .. } = &vm.state {
                tell(format_args!("VM {} was not stopped: {name} uses it", vm.name));
            }
            vm.state == VmState::Idle
        });
    }
    order_each(&chosen, "stopped", |vm| {
        stop(vm)?;
        Ok(match &vm.state {
            VmState::Idle => format!("stopped VM {}\n", vm.name),
            VmState::Leased { name, .. } => format!("stopped VM {}, which {name} used\n", vm.name),
        })
    })
}

/// Gives an order to all of them, even if it fails for some. What `order` returns is printed.
pub(super) fn order_each(
    vms: &[&VmInfo],
    done: &str,
    order: impl Fn(&VmInfo) -> river::Result<String>,
) -> river::Result {
    let mut failed = 0;
    for vm in vms {
        match order(vm) {
            Ok(said) => print(&said)?,
            Err(error) => {
                tell(error);
                failed += 1;
            }
        }
    }
    if failed > 0 {
        return Err(VrError::msg(format!(
            "{} of {} could not be {done}: `river ls` shows whether they are still there",
            plural(failed),
            vms.len()
        )));
    }
    Ok(())
}

/// The VMs with these names, each once; all VMs if there are no names.
pub(super) fn choose<'a>(vms: &'a [VmInfo], names: &[String]) -> river::Result<Vec<&'a VmInfo>> {
    if names.is_empty() {
        return Ok(vms.iter().collect());
    }
    let mut chosen: Vec<&VmInfo> = Vec::new();
    for name in names {
        let vm = choose_one(vms, name)?;
        if !chosen.iter().any(|other| other.id == vm.id) {
            chosen.push(vm);
        }
    }
    Ok(chosen)
}

fn choose_one<'a>(vms: &'a [VmInfo], name: &str) -> river::Result<&'a VmInfo> {
    let mut fitting: Vec<&VmInfo> = vms.iter().filter(|vm| vm.name == name).collect();
    if fitting.is_empty() {
        fitting = vms.iter().filter(|vm| begins_with(vm.id, name)).collect();
    }
    match fitting[..] {
        [vm] => Ok(vm),
        [] if vms.is_empty() => {
            Err(VrError::msg(format!("there is no VM {name}: no VM was found at all, so nothing was done")))
        }
        [] => {
            let names: Vec<&str> = vms.iter().map(|vm| vm.name.as_str()).collect();
            Err(VrError::msg(format!(
                "there is no VM {name}, so nothing was done; there are: {}",
                names.join(", ")
            )))
        }
        _ => {
            let ids: Vec<String> = fitting.iter().map(|vm| format!("{} {}", vm.name, vm.id)).collect();
            Err(VrError::msg(format!(
                "{name} could be any of {}, so nothing was done; give more of the id: {}",
                plural(fitting.len()),
                ids.join(", ")
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::command::checkpoint::tests::vm;

    #[test]
    fn all_are_told_also_after_one_that_fails() {
        let vms = ["lab-0", "lab-1", "lab-2"].map(|name| vm(name, None));
        let told = RefCell::new(Vec::new());
        let result = order_each(&vms.iter().collect::<Vec<_>>(), "drained", |vm| {
            told.borrow_mut().push(vm.name.clone());
            if vm.name == "lab-0" { Err(VrError::msg("it is cut off")) } else { Ok(String::new()) }
        });
        assert_eq!(told.into_inner(), ["lab-0", "lab-1", "lab-2"]);
        let error = result.unwrap_err().to_string();
        assert!(error.starts_with("1 VM of 3 could not be drained"), "{error}");
    }
}
