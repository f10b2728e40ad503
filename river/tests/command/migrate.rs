//! VRs that are moved by command, and VMs that are drained under a running program.

use std::process::Stdio;
use std::time::Duration;

use river::core::Vr;
use river::prelude::{Sfm, msg, pat};

use super::lab::{Lab, eventually, text, wait_for_line};
use super::state::Counting;

/// Names a file; the count ends once it exists.
pub(crate) const UNTIL: &str = "RIVER_TEST_UNTIL";
const LIMIT: Duration = Duration::from_secs(60);

/// The initiator of kind `count-until`: counts with two counters until the file exists.
pub(crate) fn count_until(vr: &Vr) -> river::Result {
    let until = std::env::var(UNTIL)?;
    let vms = vr.allocate(vr.discover(river::core::Query { count: Some(2), ..Default::default() })?, 2)?;
    let counters = vr.deploy(&vms, |_| Counting { count: 0 })?;
    let mut round = 0_u64;
    while !vr.effect(|| std::path::Path::new(&until).exists())? {
        round += 1;
        for counter in counters.iter() {
            vr.send(counter, msg! { round: round })?;
        }
        for counter in counters.iter() {
            let count = vr.recv(pat! { src: counter })?.get::<u64>("count")?;
            assert_eq!(count, round);
        }
        if round == 20 {
            println!("is counting");
        }
    }
    println!("counted to the end");
    Ok(())
}

/// The initiator of kind `on-the-last`: leases three VMs, and uses only the last of them.
pub(crate) fn on_the_last(vr: &Vr) -> river::Result {
    let mut vms =
        vr.allocate(vr.discover(river::core::Query { count: Some(3), ..Default::default() })?, 3)?;
    vms.sort_by(|a, b| a.name.cmp(&b.name));
    vr.deploy(&vms[2..], |_| Counting { count: 0 })?;
    println!("is there");
    vr.recv(pat! { never: true })?;
    Ok(())
}

#[test]
fn a_program_is_reached_through_the_one_vm_where_it_has_a_host() {
    let mut lab = Lab::new();
    lab.start_vms(3);
    let mut command = lab.program("on-the-last");
    let mut program = command.env("RIVER_RECOVERABLE", "1").stdout(Stdio::piped()).spawn().unwrap();
    wait_for_line(&mut program, "is there");
    let (told, _) = lab.ends(&["top", "--once", "--json"], 0);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["programs"].as_array().map(Vec::len), Some(1), "{told:#}");
    assert_eq!(told["errors"], serde_json::json!([]), "{told:#}");
    let pid = program.id().to_string();
    lab.ends(&["checkpoint", &pid, lab.path("state").to_str().unwrap()], 0);
    let (_, error) = lab.ends(&["migrate", &pid, "?", "lab-0"], 1);
    assert!(error.contains("; it has "), "{error}");
    program.kill().unwrap();
    program.wait().unwrap();
}

#[test]
fn vrs_leave_a_vm_by_command_and_before_it_ends() {
    let mut lab = Lab::new();
    lab.start_vms(4);
    let until = lab.path("until");
    let mut command = lab.program("count-until");
    command.env("RIVER_RECOVERABLE", "1").env(UNTIL, &until);
    let mut program = command.stdout(Stdio::piped()).spawn().unwrap();
    wait_for_line(&mut program, "is counting");
    let pid = program.id().to_string();
    let place = |name: &str| {
        let vms = lab.vms();
        vms.iter().find(|vm| vm["name"] == name).map(|vm| vm["state"] == "idle")
    };
    let (used, free): (Vec<String>, Vec<String>) =
        lab.names().into_iter().partition(|name| place(name) == Some(false));
    assert_eq!((used.len(), free.len()), (2, 2));

    // The error lists the VRs.
    let (_, error) = lab.ends(&["migrate", &pid, "?", &free[0]], 1);
    let (_, known) = error.split_once("; it has ").expect("a list");
    let id = known.split(", ").find_map(|one| one.trim().strip_suffix(&format!(" on {}", used[0])));
    let id = id.expect("one on the first VM").to_owned();
    let (_, error) = lab.ends(&["migrate", &pid, &id, "nowhere"], 1);
    assert!(error.contains("no VM nowhere"), "{error}");
    let (_, error) = lab.ends(&["migrate", "nobody", &id, &free[0]], 1);
    assert!(error.contains("no program nobody uses a VM"), "{error}");

    // To a VM that the program had not leased.
    let (told, _) = lab.ends(&["migrate", &pid, &id, &free[0]], 0);
    assert!(told.contains(&format!("is now on VM {}", free[0])) && told.contains("was paused for"), "{told}");
    let (told, _) = lab.ends(&["migrate", &pid, &id, &free[0]], 0);
    assert!(told.contains("already"), "{told}");

    // All VMs but one leave, one after the other.
    for name in [&used[1], &free[0], &used[0]] {
        lab.ends(&["vm", "--drain", name], 0);
        eventually(LIMIT, "the VM has ended", || !lab.names().contains(name));
    }
    assert!(program.try_wait().unwrap().is_none(), "it goes on");
    std::fs::write(until, "").unwrap();
    let output = program.wait_with_output().unwrap();
    assert!(output.status.success() && text(&output).contains("counted to the end"), "{}", text(&output));
}
