//! `river doctor`: checks for common problems, one file per subject. Each check gathers facts, and a separate pure function
//! judges them.

mod cache;
mod clock;
mod finding;
mod key;
mod limits;
mod network;
mod versions;
mod vms;

use std::net::Ipv4Addr;

use river::VrError;

use self::finding::Verdict;
use self::network::Reach;
use self::vms::Searched;
use super::print;

/// Check whether anything keeps River from working on this machine, and say how to fix it
///
/// Checks the key and who may read it, the loopback interface and, with --network, the others, by sending datagrams and
/// connecting to this machine's own addresses; the virtual machines that answer; where executables are kept; open files,
/// threads, memory, cores; the clock. Nothing is changed, except that the directory for executables is created, as by `river vm`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  river doctor                      this machine alone
  river doctor --network            and its network, as with `river vm --network` or RIVER_NETWORK=1
  river doctor --json | jq '.checks[] | select(.verdict != \"ok\")'

Exit status:
  0  everything works; there may be warnings
  1  something does not work: the lines that begin with `fail` say what, and how to fix it
  2  the command line is invalid")]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Check the network interface with ADDRESS, too, or all of them [default: what `RIVER_NETWORK` says]
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "0.0.0.0")]
    network: Option<Ipv4Addr>,
}

pub(crate) fn run(args: &Args) -> river::Result {
    let mut findings = vec![versions::check()];
    let reach = Reach::from_environment();
    findings.extend(reach.as_ref().err().map(network::invalid));
    let Reach { network: asked_for, by_name } = reach.as_ref().copied().unwrap_or_default();
    let network = args.network.or(asked_for);
    let (key, usable) = key::check(network.is_some() || by_name);
    findings.push(key);
    findings.extend(network::check(network));
    // A search would create a key; only a program or a VM should. With invalid variables there is none.
    if usable && reach.is_ok() {
        findings.extend(vms::check(match (asked_for, by_name, network) {
            (None, false, None) => Searched::ThisMachine,
            (None, false, Some(_)) => Searched::ThisMachineOnly,
            _ => Searched::Network,
        }));
    }
    findings.push(cache::check());
    findings.extend(limits::check());
    findings.push(clock::check());

    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let (failures, warnings) = (count(Verdict::Fail), count(Verdict::Warn));
    if args.json {
        let report = serde_json::json!({ "ok": failures == 0, "checks": findings });
        print(&(serde_json::to_string_pretty(&report)? + "\n"))?;
    } else {
        let lines: String = findings.iter().map(ToString::to_string).collect();
        print(&format!("{lines}{}\n", summary(failures, warnings)))?;
    }
    if failures == 0 {
        return Ok(());
    }
    Err(VrError::msg(format!("{failures} of {} checks failed", findings.len())))
}

fn summary(failures: usize, warnings: usize) -> String {
    let some = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    match (failures, warnings) {
        (0, 0) => "everything works".into(),
        (0, warnings) => format!("everything works; {}", some(warnings, "warning")),
        (failures, 0) => some(failures, "failure"),
        (failures, warnings) => format!("{}, {}", some(failures, "failure"), some(warnings, "warning")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts() {
        assert_eq!(summary(0, 0), "everything works");
        assert_eq!(summary(0, 1), "everything works; 1 warning");
        assert_eq!(summary(2, 0), "2 failures");
        assert_eq!(summary(1, 3), "1 failure, 3 warnings");
    }
}
