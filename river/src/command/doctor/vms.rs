//! The VMs that answer, as programs would find them.

use std::thread;

use river::VrError;
use river::core::{Found, Query, find};

use super::finding::Finding;
use super::network::reach;
use crate::command::{SAME_VERSION, another_version, plural};

const CHECK: &str = "virtual machines";

/// Checks the VMs. `here_only` means that the network is of interest, but nothing says to search it.
pub(super) fn check(here_only: bool) -> Vec<Finding> {
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
            judge(&found, &silent.collect::<Vec<_>>(), here_only)
        }
    }
}

fn judge(found: &Found, silent: &[String], here_only: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let where_searched = if here_only {
        "; only this machine was searched: `RIVER_NETWORK=1 river doctor` searches the network, as programs with that variable do"
    } else {
        ""
    };
    let count = found.vms.len();
    findings.push(if !silent.is_empty() {
        Finding::fail(
            CHECK,
            format!("{} answered, but TCP connections fail to {}", plural(count), silent.join(", ")),
            "let the firewall there accept TCP connections (`river vm --listen PORT` fixes the port)",
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
        assert_eq!(judge(&found, &[], false).len(), 1);
        found.other_versions.insert(1, 2);
        let findings = judge(&found, &["lab at 192.0.2.1:7 (timed out)".into()], false);
        assert_eq!(findings.iter().map(|f| f.verdict).collect::<Vec<_>>(), [Verdict::Fail, Verdict::Warn]);
        assert!(
            findings[1].message.contains("2 VMs speak protocol version 1, and"),
            "{}",
            findings[1].message
        );
    }

    #[test]
    fn that_others_were_not_asked_is_said() {
        for (here_only, said) in [(true, true), (false, false)] {
            let findings = judge(&Found::default(), &[], here_only);
            assert_eq!(findings[0].message.contains("only this machine"), said, "{}", findings[0].message);
        }
    }
}
