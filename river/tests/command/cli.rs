//! Command lines, help and completions; `river ls` and the limits of `river vm`.

use std::process::{Command, Stdio};

use river::core::Vr;

use crate::lab::{Lab, text};

#[test]
fn bad_command_lines_are_told_in_a_sentence() {
    let lab = Lab::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let udp = std::net::UdpSocket::bind(("127.255.255.255", 0)).unwrap();
    let udp_port = udp.local_addr().unwrap().port().to_string();
    let cases: [(&[&str], i32, &str); 21] = [
        (&["vm", "-n", "0"], 2, "it must be a number of VMs, at least 1"),
        (&["run", "-n", "many", "true"], 2, "it must be a number of VMs, at least 1"),
        (&["vm", "--listen", "127.0.0.1:9999"], 2, "it must be a port number, without an address"),
        (&["restore", "nowhere"], 125, "nowhere: there is no such directory; `river run --checkpoint`"),
        (&["states", "nowhere"], 1, "nowhere: there is no such directory"),
        (&["states", "/dev/null"], 1, "/dev/null: it is not a directory"),
        (&["replay", "nowhere", "--vr", "initiator"], 125, "nowhere: there is no such directory"),
        (&["replay", "/", "--vr", "initiator"], 125, "/ contains no recording: `river record` writes one"),
        (&["checkpoint", "pi", "state"], 1, "no program pi uses a VM that can be found"),
        (&["vm", "-n", "2", "--listen", "9999"], 1, "drop -n or --listen"),
        (&["vm", "--listen", &port], 1, "cannot listen on 127.0.0.1"),
        (&["vm", "--port", &udp_port], 1, "is taken by another program"),
        (&["vm", "--port", "0"], 2, "0 is not in 1..=65535"),
        (&["vm", "--memory", "much"], 2, "\"much\" is not a size: use a number of bytes"),
        (&["vm", "--memory", "0"], 2, "greater than zero"),
        (&["vm", "--open-files", "0"], 2, "0 is not in 1.."),
        (
            &["vm", "--open-files", "4000000000"],
            1,
            "--open-files 4000000000: the system allows a process at most",
        ),
        (&["ls", "--memory", "-1"], 2, "unexpected argument"),
        (&["completions", "tcsh"], 2, "possible values: bash"),
        (&["key"], 2, "river key [OPTIONS] <COMMAND>"),
        (&["frobnicate"], 2, "unrecognized subcommand"),
    ];
    for (args, code, expected) in cases {
        let output = lab.river(args).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        assert!(text(&output).contains(expected), "{args:?}: {}", text(&output));
    }
    let homeless = lab
        .river(&["vm"])
        .env_remove("RIVER_KEY_FILE")
        .env_remove("HOME")
        .env_remove("XDG_CONFIG_HOME")
        .output();
    let homeless = homeless.unwrap();
    assert_eq!(homeless.status.code(), Some(1));
    assert!(text(&homeless).contains("RIVER_KEY_FILE"), "{}", text(&homeless));
    let bad_port = lab.river(&["ls"]).env("RIVER_PORT", "70000").output().unwrap();
    assert!(text(&bad_port).contains("RIVER_PORT is \"70000\""), "{}", text(&bad_port));
}

#[test]
fn every_command_has_help_with_examples_and_exit_codes() {
    let lab = Lab::new();
    for command in
        [&[][..], &["vm"], &["ls"], &["run"], &["top"], &["trace"], &["stop"], &["key"], &["doctor"]]
    {
        let (help, _) = lab.ends(&[command, &["--help"]].concat(), 0);
        assert!(help.contains("Examples:") && help.contains("Exit status:"), "{help}");
    }
}

#[test]
fn filters_choose_what_is_listed() {
    let mut lab = Lab::new();
    lab.start_vms_with(2, &["--label", "gpu"]);
    lab.start_vms_with(1, &["--label", "big", "--label", "slow"]);
    let cases: [(&[&str], usize); 12] = [
        (&["--idle"], 3),
        (&["--name", "lab-1"], 1),
        (&["--name", "la"], 0),
        (&["--label", "gpu"], 2),
        (&["--label", "slow", "--name", "lab"], 1),
        (&["--label", "slow", "--name", "lab-0"], 0),
        (&["--cores", "1"], 3),
        (&["--cores", "100000"], 0),
        (&["--memory", "1M"], 3),
        (&["--memory", "1000T"], 0),
        (&["--arch", std::env::consts::ARCH], 3),
        (&["--arch", "vax"], 0),
    ];
    for (filters, count) in cases {
        assert_eq!(lab.vms_that(filters).len(), count, "{filters:?}");
    }
    let (before, vms) = (lab.vms(), lab.vms());
    let cores = std::thread::available_parallelism().unwrap().get();
    for (before, vm) in before.iter().zip(&vms) {
        assert_eq!(vm["cores"], cores, "{vm}");
        // Of the machine, or what a container allows of it.
        assert!(vm["memory"].as_u64().unwrap() >= 64 << 20, "{vm}");
        assert!(vm["architecture"].as_str().unwrap().starts_with(std::env::consts::ARCH), "{vm}");
        let uptime = |vm: &serde_json::Value| vm["uptime"].as_f64().unwrap();
        assert!(uptime(before) > 0.0 && uptime(vm) > uptime(before), "{before} {vm}");
    }
    let (_, stderr) = lab.ends(&["ls", "--arch", "vax"], 0);
    assert!(stderr.contains("no VM that matches was found"), "{stderr}");
}

#[test]
fn a_table_says_which_program_has_a_vm() {
    let mut lab = Lab::new();
    lab.start_vms(5);
    let mut program = lab.program("sleep").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    crate::lab::wait_for_line(&mut program, "all are asleep");
    let (table, _) = lab.ends(&["ls"], 0);
    let header: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header[6..], ["STATE", "PROGRAM", "ID"]);
    assert_eq!(table.matches("leased  command-").count(), 4, "{table}");
    assert_eq!(table.lines().filter(|line| line.contains("idle    -  ")).count(), 1, "{table}");
    assert_eq!(lab.vms_that(&["--idle"]).len(), 1);
    program.kill().unwrap();
    program.wait().unwrap();
}

#[test]
fn limits_hold_for_hosts() {
    let mut lab = Lab::new();
    lab.start_vms_with(1, &["--memory", "8G", "--open-files", "123", "--cpu-seconds", "1000"]);
    let output = text(&lab.program("limits").output().unwrap());
    for (limit, value) in
        [("Max address space", "8589934592"), ("Max open files", "123"), ("Max cpu time", "1000")]
    {
        let line = output.lines().find(|line| line.contains(limit));
        assert!(line.is_some_and(|line| line.contains(value)), "{limit}: {output}");
    }
}

#[test]
fn completions_are_scripts_that_know_the_commands() {
    let lab = Lab::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (script, _) = lab.ends(&["completions", shell], 0);
        for word in ["vm", "ls", "run", "stop", "restore", "key", "completions", "--cpu-seconds", "export"] {
            let word = if shell == "fish" { word.trim_start_matches("--") } else { word };
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let (script, _) = lab.ends(&["completions", "bash"], 0);
    let complete = format!(
        "{script}\nCOMP_WORDS=(river sto); COMP_CWORD=1; _river river sto river; echo ${{COMPREPLY[@]}}"
    );
    match Command::new("bash").args(["-c", &complete]).output() {
        Ok(output) => assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "stop"),
        Err(error) => eprintln!("skipped: no bash here ({error})"),
    }
}

#[test]
fn there_is_a_manual_page_for_each_command() {
    let lab = Lab::new();
    lab.ends(&["man", "man1"], 0);
    for page in ["river", "river-vm", "river-key-export", "river-doctor"] {
        let text = std::fs::read_to_string(lab.path("empty/man1").join(page).with_extension("1")).unwrap();
        assert!(text.contains(&format!(".TH {page} 1")) && text.contains(".SH SYNOPSIS"), "{text}");
    }
    let (_, stderr) = lab.ends(&["man", "/proc/nowhere"], 1);
    assert!(stderr.contains("cannot write manual pages to /proc/nowhere"), "{stderr}");
}

#[test]
fn the_version_is_that_of_the_package() {
    let (version, _) = Lab::new().ends(&["--version"], 0);
    assert!(version.starts_with(concat!("river ", env!("CARGO_PKG_VERSION"))), "{version}");
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let lab = Lab::new();
    let mut child =
        lab.river(&["completions", "zsh"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output));
}

/// The initiator of kind `fails`.
pub(crate) fn fails(_: &Vr) -> river::Result {
    Err(river::VrError::msg("on purpose"))
}

#[test]
fn that_nobody_reads_what_it_says_is_no_error_either() {
    let lab = Lab::new();
    lab.ends(&["key", "new"], 0);
    let deaf = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    // A logged warning, too.
    let cases: [(&[&str], i32); 3] =
        [(&["ls"], 0), (&["stop", "lab-0"], 1), (&["run", "no-such-program"], 127)];
    for (args, code) in cases {
        let status = lab.river(args).env("RIVER_HOSTS", "a..b").stderr(deaf()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{args:?}");
    }
    // Nor does it end a program: a panic would end it with 101.
    let status = lab.program("fails").stdout(Stdio::null()).stderr(deaf()).status().unwrap();
    assert_eq!(status.code(), Some(1));
}
