//! The VMs that answer, as programs would find them.

use river::core::{Found, PROTOCOL, Query, find};

use super::finding::{Finding, chain};
use super::network::reach;
use crate::command::plural;

const CHECK: &str = "virtual machines";

pub(super) fn check() -> Vec<Finding> {
    match find(&Query::default()) {
        Err(error) => vec![Finding::fail(
            CHECK,
            chain(&error),
            "correct the variable that is named; `river vm --help` and the guide list them all",
        )],
        Ok(found) => {
            let silent = found.vms.iter().filter_map(|vm| {
                let error = reach(vm.address).err()?;
                Some(format!("{} at {} ({error})", vm.name, vm.address))
            });
            let silent: Vec<String> = silent.collect();
            judge(&found, &silent)
        }
    }
}

fn judge(found: &Found, silent: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let count = found.vms.len();
    findings.push(if !silent.is_empty() {
        Finding::fail(
            CHECK,
            format!("{} answered, but there is no TCP connection to {}", plural(count), silent.join(", ")),
            "let the firewall there accept TCP connections (`river vm --listen PORT` fixes the port)",
        )
    } else if count == 0 {
        Finding::ok(
            CHECK,
            "none answers, and none need to: `river vm` starts one, `river run` starts some for a program",
        )
    } else {
        Finding::ok(CHECK, format!("{} can be found and connected to", plural(count)))
    });
    for (version, count) in &found.other_versions {
        findings.push(Finding::warn(
            CHECK,
            format!("{} more speak protocol version {version}, and this is {PROTOCOL}", plural(*count)),
            "install the same version of River there and here, and start the VMs anew",
        ));
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
        assert_eq!(judge(&found, &[]).len(), 1);
        found.other_versions.insert(1, 2);
        let findings = judge(&found, &["lab at 192.0.2.1:7 (timed out)".into()]);
        assert_eq!(findings.iter().map(|f| f.verdict).collect::<Vec<_>>(), [Verdict::Fail, Verdict::Warn]);
        assert!(findings[1].says.contains("2 VMs more speak protocol version 1"), "{}", findings[1].says);
    }
}
