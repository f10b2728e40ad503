//! The VMs that answer, as programs would find them.

use std::thread;

use river::VrError;
use river::core::{DISCOVERY_PORT, Found, Query, discovery_port, find};

use super::finding::Finding;
use super::network::reach;
use crate::command::{SAME_VERSION, another_version, plural};

const CHECK: &str = "virtual machines";

/// How far VMs are searched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Searched {
    ThisMachine,
    /// The network is of interest, but nothing says to search it.
    ThisMachineOnly,
    Network,
}

/// Checks the VMs.
pub(super) fn check(searched: Searched) -> Vec<Finding> {
    match find(&Query::default()) {
        Err(error) => vec![Finding::fail(
            CHECK,
            VrError::from(error).to_string(),
            "correct the variable that is named; `river vm --help` and the guide list them all",
        )],
        Ok(found) => {
            // All in parallel: each one that is unreachable takes seconds.
            let results = thread::scope(|scope| {
                let threads: Vec<_> = found.vms.iter().map(|vm| scope.spawn(|| reach(vm.address))).collect();
                threads.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>()
            });
            let silent = found.vms.iter().zip(results).filter_map(|(vm, result)| {
                let error = result.ok()?.err()?;
                Some(format!("{} at {} ({error})", vm.name, vm.address))
            });
            judge(&found, &silent.collect::<Vec<_>>(), searched, discovery_port().unwrap_or(DISCOVERY_PORT))
        }
    }
}

fn judge(found: &Found, silent: &[String], searched: Searched, port: u16) -> Vec<Finding> {
    let mut findings = Vec::new();
    let open = format!("UDP to and from port {port}, and TCP to all ports, between the machines");
    let count = found.vms.len();
    let where_searched = match searched {
        Searched::ThisMachineOnly => {
            "; only this machine was searched: `RIVER_NETWORK=1 river doctor` searches the network, as programs with that \
             variable do"
                .into()
        }
        Searched::Network if count == 0 => {
            format!("; to find those of other machines, firewalls must accept {open}")
        }
        Searched::Network | Searched::ThisMachine => String::new(),
    };
    findings.push(if !silent.is_empty() {
        Finding::fail(
            CHECK,
            format!("{} answered, but TCP connections fail to {}", plural(count), silent.join(", ")),
            format!(
                "let the firewalls accept {open}: programs and their hosts listen on any free port (`river vm --listen` sets \
                 that of a VM only)"
            ),
        )
    } else if count == 0 {
        Finding::ok(
            CHECK,
            format!(
                "none was found, and none is needed: `river vm` starts one, `river run` starts some for a program{where_searched}"
            ),
        )
    } else {
        Finding::ok(CHECK, format!("{} can be found and connected to{where_searched}", plural(count)))
    });
    for (version, count) in &found.other_versions {
        findings.push(Finding::warn(CHECK, another_version(*version, *count), SAME_VERSION));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::doctor::finding::Verdict;

    #[test]
    fn another_version_is_a_warning_and_a_silent_vm_a_failure() {
        let mut found = Found::default();
        assert_eq!(judge(&found, &[], Searched::ThisMachine, 7).len(), 1);
        found.other_versions.insert(1, 2);
        let findings = judge(&found, &["lab at 192.0.2.1:7 (timed out)".into()], Searched::Network, 7);
        let fix = findings[0].fix.as_deref().unwrap();
        assert!(fix.contains("UDP to and from port 7, and TCP to all ports"), "{fix}");
        assert_eq!(findings.iter().map(|f| f.verdict).collect::<Vec<_>>(), [Verdict::Fail, Verdict::Warn]);
        assert!(
            findings[1].message.contains("2 VMs speak protocol version 1, and"),
            "{}",
            findings[1].message
        );
    }

    #[test]
    fn that_others_were_not_asked_or_cannot_answer_is_said() {
        let cases = [
            (Searched::ThisMachineOnly, "only this machine was searched"),
            (Searched::Network, "firewalls must accept UDP to and from port 7"),
            (Searched::ThisMachine, "`river run` starts some for a program"),
        ];
        for (searched, said) in cases {
            let findings = judge(&Found::default(), &[], searched, 7);
            assert!(findings[0].message.contains(said), "{}", findings[0].message);
            assert_eq!(findings[0].message.contains("; "), searched != Searched::ThisMachine);
        }
    }
}
