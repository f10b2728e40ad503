//! `river doctor`, with every problem really provoked.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::lab::{Lab, ends, eventually, text};

/// The result of a check: its verdict, its text, and how to fix it.
fn diagnose(command: &mut Command, check: &str) -> (String, String, String) {
    let output = command.output().unwrap();
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    let checks = report["checks"].as_array().unwrap();
    let failed = checks.iter().any(|check| check["verdict"] == "fail");
    assert_eq!(output.status.code(), Some(i32::from(failed)), "{report:#}");
    assert_eq!(report["ok"], !failed);
    for check in checks {
        let (verdict, fix) = (&check["verdict"], &check["fix"]);
        assert_eq!(*verdict == "ok", fix.is_null(), "what is not well can be mended: {check}");
    }
    let found = checks.iter().find(|finding| finding["check"] == check);
    let found = found.unwrap_or_else(|| panic!("{check} is not among {report:#}"));
    let field = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    (field("verdict"), field("message"), field("fix"))
}

fn doctor(lab: &Lab) -> Command {
    lab.river(&["doctor", "--json"])
}

#[test]
fn where_all_is_well_it_says_so_and_makes_no_key() {
    let mut lab = Lab::new();
    let (out, _) = lab.ends(&["doctor"], 0);
    for check in [
        "version",
        "key",
        "discovery",
        "connections",
        "image cache",
        "open files",
        "threads",
        "memory",
        "shared memory",
        "cores",
        "clock",
    ] {
        assert!(out.lines().any(|line| line.contains(&format!("  {check:<16}  "))), "{check}: {out}");
    }
    assert!(!out.lines().any(|line| line.starts_with("fail")), "{out}");
    assert!(!lab.path("key").exists());
    let (verdict, message, _) = diagnose(&mut doctor(&lab), "key");
    assert!(verdict == "ok" && message.contains("there is none yet"), "{message}");

    lab.start_vms(2);
    // A search ends after a quarter of a second, which may be too short on a busy machine.
    eventually(Duration::from_secs(60), "both VMs are found", || {
        diagnose(&mut doctor(&lab), "virtual machines").1 == "2 VMs can be found and connected to"
    });
    let (fingerprint, _) = lab.ends(&["key", "show"], 0);
    assert!(diagnose(&mut doctor(&lab), "key").1.contains(fingerprint.trim()));
    assert_eq!(diagnose(&mut doctor(&lab), "discovery").0, "ok", "beside VMs that have the port, too");
}

#[test]
fn a_program_that_asks_others_by_name_needs_their_key() {
    let lab = Lab::new();
    let (verdict, message, fix) = diagnose(doctor(&lab).env("RIVER_HOSTS", "192.0.2.1"), "key");
    assert!(verdict == "fail" && message.contains("there is none"), "{message}");
    assert!(fix.contains("river key import"), "{fix}");
    assert_eq!(diagnose(doctor(&lab).env("RIVER_HOSTS", "localhost"), "key").0, "ok");
    lab.ends(&["key", "new"], 0);
    let (_, message, _) = diagnose(doctor(&lab).arg("--network"), "virtual machines");
    assert!(message.contains("only this machine was searched"), "{message}");
}

#[test]
fn a_key_that_is_no_use_is_told() {
    let lab = Lab::new();
    lab.ends(&["key", "new"], 0);
    let key = lab.path("key");
    fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    let (verdict, message, fix) = diagnose(&mut doctor(&lab), "key");
    assert!(
        verdict == "fail" && message.contains("mode 644") && fix.contains("chmod 600"),
        "{message} {fix}"
    );
    fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();

    fs::set_permissions(lab.path(""), PermissionsExt::from_mode(0o777)).unwrap();
    let (verdict, message, fix) = diagnose(&mut doctor(&lab), "key");
    assert!(
        verdict == "warn" && message.contains("others can replace it") && fix.contains("chmod go-w"),
        "{message}"
    );
    fs::set_permissions(lab.path(""), PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(diagnose(&mut doctor(&lab), "key").0, "ok");

    if rustix::process::geteuid().is_root() {
        chown(&key, Some(12345), None).unwrap();
        let (verdict, message, _) = diagnose(&mut doctor(&lab), "key");
        assert!(verdict == "fail" && message.contains("belongs to user 12345"), "{message}");
        chown(&key, Some(0), None).unwrap();
    } else {
        eprintln!("skipped: a key of another user (only root can give a file away)");
    }

    fs::write(&key, "hello").unwrap();
    let (verdict, _, fix) = diagnose(&mut doctor(&lab), "key");
    assert!(verdict == "fail" && fix.contains("river key import"), "{fix}");

    fs::remove_file(&key).unwrap();
    let (verdict, message, fix) = diagnose(doctor(&lab).arg("--network"), "key");
    assert!(verdict == "fail" && message.contains("the network requires one"), "{message}");
    assert!(fix.contains("river key export | ssh"), "{fix}");
    // Not even root can create a file there.
    let (verdict, message, _) = diagnose(doctor(&lab).env("RIVER_KEY_FILE", "/proc/river/key"), "key");
    assert!(verdict == "fail" && message.contains("cannot be created"), "{message}");
    fs::write(&key, "").unwrap();
    let (verdict, message, _) = diagnose(doctor(&lab).env("RIVER_KEY_FILE", key.join("key")), "key");
    assert!(verdict == "fail" && message.contains("cannot read the cluster key"), "{message}");
}

#[test]
fn what_cannot_be_listened_on_is_told() {
    let mut lab = Lab::new();
    let taken = UdpSocket::bind(("127.255.255.255", lab.port)).unwrap();
    let (verdict, message, fix) = diagnose(&mut doctor(&lab), "discovery");
    assert!(verdict == "fail" && message.contains("is taken by another program"), "{message}");
    assert!(fix.contains("ss -ulpn"), "{fix}");
    drop(taken);
    // If a VM can start anyway, it is no failure.
    let taken = UdpSocket::bind(("127.0.0.1", lab.port)).unwrap();
    let (verdict, message, fix) = diagnose(&mut doctor(&lab), "discovery");
    assert!(verdict == "warn" && message.contains("another program has the port of 127.0.0.1"), "{message}");
    assert!(fix.contains("ss -ulpn"), "{fix}");
    lab.start_vms(1);
    eventually(Duration::from_secs(60), "the VM is found", || lab.idle() == 1);
    drop(taken);
    assert_eq!(diagnose(&mut doctor(&lab), "discovery").0, "ok");
    // An address reserved for documentation.
    let (verdict, message, _) = diagnose(doctor(&lab).args(["--network", "192.0.2.7"]), "discovery");
    assert!(verdict == "fail" && message.contains("192.0.2.7"), "{message}");
    let (verdict, ..) = diagnose(doctor(&lab).env("RIVER_PORT", "70000"), "discovery");
    assert_eq!(verdict, "fail");
}

#[test]
fn variables_that_make_no_sense_are_told() {
    let lab = Lab::new();
    let variables = [
        ("RIVER_NETWORK", "yes", "environment"),
        ("RIVER_HOSTS", "a b", "environment"),
        ("RIVER_HOSTS", "lab:0", "environment"),
        ("RIVER_CACHE_LIMIT", "much", "image cache"),
    ];
    for has_key in [false, true] {
        if has_key {
            lab.ends(&["key", "new"], 0);
        }
        for (variable, value, check) in variables {
            let (verdict, message, _) = diagnose(doctor(&lab).env(variable, value), check);
            assert!(verdict == "fail" && message.contains(variable) && message.contains(value), "{message}");
            // A search says the same.
            if check == "environment" {
                let (_, error) = ends(lab.river(&["ls"]).env(variable, value), 1);
                assert!(error.contains(&message), "{error}");
            }
        }
        assert_eq!(lab.path("key").exists(), has_key);
    }
}

#[test]
fn a_cache_that_holds_nothing_is_a_warning() {
    let lab = Lab::new();
    fs::write(lab.path("file"), "").unwrap();
    let (verdict, message, fix) =
        diagnose(doctor(&lab).env("RIVER_CACHE", lab.path("file/images")), "image cache");
    assert!(
        verdict == "warn" && message.contains("kept in memory") && fix.contains("RIVER_CACHE"),
        "{message}"
    );
    let open = lab.path("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).unwrap();
    let (verdict, message, _) = diagnose(doctor(&lab).env("RIVER_CACHE", &open), "image cache");
    assert!(verdict == "warn" && message.contains("writable for nobody else"), "{message}");
    let (verdict, message, _) = diagnose(doctor(&lab).env("RIVER_CACHE_LIMIT", "1000"), "image cache");
    assert!(verdict == "warn" && message.contains("at most 0 MiB"), "{message}");
}

#[test]
fn too_few_files_are_a_failure() {
    let lab = Lab::new();
    let mut shell = in_shell(&lab, &["sh", "-c"], "ulimit -n 20; exec $river doctor --json");
    let (verdict, message, fix) = diagnose(&mut shell, "open files");
    assert!(verdict == "fail" && message.contains("at most 20"), "{message}");
    assert!(fix.contains("limits.conf"), "the hard limit is as low: {fix}");
}

/// A shell that runs this script, with `$river` for the command.
fn in_shell(lab: &Lab, shell: &[&str], script: &str) -> Command {
    let river = lab.river(&[]);
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).arg(script).env("river", river.get_program()).current_dir(lab.path("empty"));
    for (name, value) in river.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// `river doctor` in its own network namespace, after these shell commands. Returns `None`, after saying so, if that is not
/// possible.
fn elsewhere(lab: &Lab, before: &str) -> Option<Command> {
    let possible = ["unshare -n true", "nft --version", "ip -V"].iter().all(|test| {
        Command::new("sh").args(["-c", test]).output().is_ok_and(|output| output.status.success())
    });
    if !possible {
        eprintln!("skipped: needs root, iproute2 and nftables");
        return None;
    }
    let script = format!("vm=; {before}; $river doctor --json; code=$?; [ -z $vm ] || kill $vm; exit $code");
    Some(in_shell(lab, &["unshare", "-n", "sh", "-c"], &script))
}

const FIREWALL: &str = "ip link set lo up; nft add table inet t; \
                        nft 'add chain inet t in { type filter hook input priority 0; }'";

#[test]
fn without_loopback_nothing_works_and_that_is_said() {
    let lab = Lab::new();
    let Some(mut doctor) = elsewhere(&lab, "true") else { return };
    let (verdict, message, fix) = diagnose(&mut doctor, "discovery");
    assert!(verdict == "fail" && fix.contains("ip link set lo up"), "{message} {fix}");
}

#[test]
fn a_firewall_that_drops_searches_is_found() {
    let lab = Lab::new();
    let drop = format!("{FIREWALL}; nft add rule inet t in udp dport {} drop", lab.port);
    let Some(mut doctor) = elsewhere(&lab, &drop) else { return };
    let (verdict, message, fix) = diagnose(&mut doctor, "discovery");
    assert!(
        verdict == "fail" && message.contains("127.255.255.255") && message.contains("firewall"),
        "{message}"
    );
    assert!(fix.contains(&format!("udp dport {}", lab.port)), "{fix}");
    assert_eq!(diagnose(&mut doctor, "connections").0, "ok");
}

#[test]
fn a_firewall_that_drops_connections_is_found() {
    let lab = Lab::new();
    let Some(mut doctor) =
        elsewhere(&lab, &format!("{FIREWALL}; nft add rule inet t in tcp dport 1-65535 drop"))
    else {
        return;
    };
    let (verdict, message, _) = diagnose(&mut doctor, "connections");
    assert!(
        verdict == "fail" && message.contains("TCP connections to 127.0.0.1, which is this machine, fail"),
        "{message}"
    );
    assert_eq!(diagnose(&mut doctor, "discovery").0, "ok");
}

#[test]
fn a_vm_that_answers_but_cannot_be_connected_to_is_a_failure() {
    let lab = Lab::new();
    let start =
        "$river vm --name lab --listen 9999 >vm & vm=$!; until grep -q waits vm || ! kill -0 $vm; do :; done";
    let script = format!("{FIREWALL}; {start}; nft add rule inet t in tcp dport 9999 drop");
    let Some(mut doctor) = elsewhere(&lab, &script) else { return };
    eventually(Duration::from_secs(60), "it is found, and cannot be connected to", || {
        let (verdict, message, fix) = diagnose(&mut doctor, "virtual machines");
        let expected = "1 VM answered, but TCP connections fail to lab at 127.0.0.1:9999";
        verdict == "fail" && message.starts_with(expected) && fix.contains("TCP to all ports")
    });
}
