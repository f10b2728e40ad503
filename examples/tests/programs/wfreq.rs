//! `wfreq` as a user runs it: its totals against a count of our own, and its reaction to bad input.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use river::core::{Vm, VmConfig};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::scene::{Scene, executable};

impl Scene {
    fn wfreq<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        self.example("wfreq", args)
    }

    fn json<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> (Value, i32) {
        let output = self.wfreq(args).arg("--json").output().unwrap();
        let json = serde_json::from_slice(&output.stdout);
        (json.unwrap_or_else(|error| panic!("{error}: {output:?}")), output.status.code().unwrap())
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Counts as Python's `bytes.split()` does, slowly and obviously.
fn naive(directory: &Path, counts: &mut HashMap<Vec<u8>, u64>) -> (usize, u64) {
    let (mut files, mut bytes) = (0, 0);
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            let (f, b) = naive(&entry.path(), counts);
            files += f;
            bytes += b;
        } else if kind.is_file() {
            let text = fs::read(entry.path()).unwrap();
            files += 1;
            bytes += text.len() as u64;
            for word in text.split(|byte| b" \t\n\r\x0b\x0c".contains(byte)).filter(|word| !word.is_empty()) {
                *counts.entry(word.to_vec()).or_default() += 1;
            }
        }
    }
    (files, bytes)
}

fn check_against_naive(scene: &Scene, directory: &Path, vms: &str) {
    let mut counts = HashMap::new();
    let (files, bytes) = naive(directory, &mut counts);
    let top = counts.len().to_string();
    let args = ["--vms", vms, "--chunk", "7", "--top", &top, directory.to_str().unwrap()];
    let (json, code) = scene.json(args);
    assert_eq!(code, 0, "{json}");
    assert_eq!(json["vms"].to_string(), vms);
    assert_eq!((json["files"].as_u64(), json["bytes"].as_u64()), (Some(files as u64), Some(bytes)));
    assert_eq!(json["distinct"].as_u64(), Some(counts.len() as u64));
    assert_eq!(json["words"].as_u64(), Some(counts.values().sum()));
    // Different words that are not UTF-8 are equal in JSON, so they are compared together.
    let mut expected: HashMap<String, u64> = HashMap::new();
    for (word, count) in counts {
        *expected.entry(String::from_utf8_lossy(&word).into()).or_default() += count;
    }
    let mut found: HashMap<String, u64> = HashMap::new();
    for pair in json["top"].as_array().unwrap() {
        *found.entry(pair[0].as_str().unwrap().into()).or_default() += pair[1].as_u64().unwrap();
    }
    assert!(found == expected);
}

#[test]
fn totals_equal_a_sequential_count_of_this_repository() {
    let scene = Scene::new();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("river-core");
    check_against_naive(&scene, &sources, "1");
    check_against_naive(&scene, &sources, "3");
}

#[test]
fn totals_equal_a_sequential_count_of_odd_files() {
    let scene = Scene::new();
    let tree = scene.path("tree");
    fs::create_dir_all(tree.join("with space/deep/er")).unwrap();
    let write = |name: &[u8], text: &[u8]| fs::write(tree.join(OsStr::from_bytes(name)), text).unwrap();
    write(b"empty", b"");
    write(b"blank", b" \n\t ");
    write(b"with space/a file", b"to be or not to be");
    write(b"with space/deep/er/spaces", b"a\x0bb\x0cc\rd\te\nf g");
    write(b"not utf-8 \xff\xfe", b"caf\xe9 \xff\xfe\x00 caf\xc3\xa9");
    write(b"binary", &(0..=255).cycle().take(70_000).collect::<Vec<u8>>());
    write(b"one long word", &vec![b'x'; 3 << 20]);
    // Larger than the pieces into which files are cut, with words across every cut.
    let line = b"words that do not end where a piece does ";
    write(b"large", &line.iter().copied().cycle().take(20 << 20).collect::<Vec<u8>>());
    for i in 0..500 {
        write(format!("small {i}").as_bytes(), format!("number {i} of five hundred").as_bytes());
    }
    symlink(&tree, tree.join("loop")).unwrap();
    symlink(tree.join("large"), tree.join("large again")).unwrap();
    for vms in ["1", "2", "4"] {
        check_against_naive(&scene, &tree, vms);
    }
}

#[test]
fn the_table_is_for_people_and_names_the_vms() {
    let scene = Scene::new();
    fs::write(scene.path("text"), "b a b\n").unwrap();
    let output = scene.wfreq(["--vms", "2", "text"]).output().unwrap();
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.starts_with("2  b\n1  a\n"), "{table}");
    assert!(table.contains("3  words\n") && table.contains("2  distinct words\n"), "{table}");
    assert_eq!(stderr(&output), "[trickle: found no VMs, started 2 local ones]\n");
}

#[test]
fn running_vms_are_found_and_too_few_are_an_error() {
    let scene = Scene::new();
    fs::write(scene.path("text"), "b a b\n").unwrap();
    // One environment for all tests of this process would be racy, so the VM is a process of its own.
    let mut vm = scene.vm();
    let output = scene.wfreq(["text"]).output().unwrap();
    assert!(stderr(&output).contains("[trickle: discovered 1 VM]"), "{output:?}");
    let output = scene.wfreq(["--vms", "3", "text"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("3 VMs were asked for, 1 could be had (scene)"), "{text}");
    assert!(text.contains("river vm -n 2"), "{text}");
    vm.kill().unwrap();
    vm.wait().unwrap();
}

#[test]
fn a_vm_that_is_lost_is_told_and_what_it_had_is_counted_by_others() {
    let scene = Scene::new();
    fs::create_dir(scene.path("text")).unwrap();
    let large = scene.path("text/0");
    fs::write(&large, "a b\n".repeat(1 << 20)).unwrap();
    let copies = if cfg!(debug_assertions) { 20 } else { 200 };
    for copy in 1..copies {
        fs::hard_link(&large, scene.path(format!("text/{copy}"))).unwrap();
    }
    // If the machine stalls at the wrong time, the count ends before the host is killed.
    let told = (0..10).any(|_| {
        let mut wfreq = scene.wfreq(["--vms", "2", "--chunk", "1", "text"]);
        let mut wfreq = wfreq.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(wfreq.stderr.take().unwrap());
        stderr.read_line(&mut String::new()).unwrap();
        let threads = fs::read_dir(format!("/proc/{}/task", wfreq.id())).unwrap().flatten();
        let mut hosts = threads.filter_map(|thread| {
            fs::read_to_string(thread.path().join("children")).ok()?.split_whitespace().next()?.parse().ok()
        });
        // None: the count has ended.
        if let Some(host) = hosts.next() {
            let _ = kill_process(Pid::from_raw(host).unwrap(), Signal::KILL);
        }
        stderr.read_to_end(&mut Vec::new()).unwrap();
        let output = wfreq.wait_with_output().unwrap();
        let table = String::from_utf8(output.stdout).unwrap();
        assert!(table.contains(&format!("{copies}  files\n")), "{table}");
        table.contains(" 2  VMs (1 lost)\n")
    });
    assert!(told);
}

#[test]
fn vms_of_another_version_are_an_error() {
    let scene = Scene::new();
    fs::write(scene.path("text"), "b a b\n").unwrap();
    let mut vm = scene.helper("foreign");
    let output = scene.wfreq(["text"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("speak protocol version 999") && text.contains("same version"), "{text}");
    vm.kill().unwrap();
    vm.wait().unwrap();
}

impl Scene {
    fn vm(&self) -> std::process::Child {
        self.helper("vm")
    }

    /// Starts this executable as a helper that answers searches; returns when it does.
    fn helper(&self, kind: &str) -> std::process::Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "wfreq::helper_process", "--nocapture"])
            .env("RIVER_TEST_HELPER", kind)
            .stdout(Stdio::piped());
        self.enter(&mut command);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line.contains("helper is ready")));
        child
    }
}

/// Not a real test: the process that `Scene::helper` runs.
#[test]
fn helper_process() {
    let Ok(kind) = std::env::var("RIVER_TEST_HELPER") else { return };
    let _vm = (kind == "vm").then(|| Vm::start(VmConfig::default().name("scene")).unwrap());
    if kind == "foreign" {
        river_core::testing::vm_of_version(std::env::var("RIVER_PORT").unwrap().parse().unwrap(), 999);
    }
    println!("helper is ready");
    loop {
        std::thread::park();
    }
}

#[test]
fn an_unreadable_file_loses_nothing_else() {
    let scene = Scene::new();
    let tree = scene.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("good"), "one two").unwrap();
    fs::write(tree.join("secret"), "three").unwrap();
    fs::set_permissions(tree.join("secret"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(scene.root(), fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = scene.wfreq(["--json", "--vms", "1", "tree", "no such file"]);
    if rustix::process::geteuid().is_root() {
        // Root can read everything.
        fs::copy(executable("wfreq"), scene.path("wfreq")).unwrap();
        command = Command::new(scene.path("wfreq"));
        command.args(["--json", "--vms", "1", "tree", "no such file"]).uid(65_534).gid(65_534);
        scene.enter(&mut command);
        command
            .env("RIVER_KEY_FILE", scene.path("key of nobody"))
            .env("RIVER_CACHE", scene.path("images of nobody"));
    }
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((json["files"].as_u64(), json["words"].as_u64()), (Some(1), Some(2)), "{json}");
    let unreadable = json["unreadable"].to_string();
    assert!(unreadable.contains("secret") && unreadable.contains("ermission denied"), "{unreadable}");
    assert!(unreadable.contains("no such file"), "{unreadable}");
}

#[test]
fn bad_command_lines_are_told_in_a_sentence() {
    let scene = Scene::new();
    fs::write(scene.path("text"), "b a b\n").unwrap();
    fs::create_dir(scene.path("nothing here")).unwrap();
    let cases: [(&[&str], i32, &str); 6] = [
        (&[], 2, "required arguments"),
        (&["--vms", "0", "text"], 2, "0 is not in 1.."),
        (&["--chunk", "0", "text"], 2, "0 is not in 1.."),
        (&["*.nothing"], 1, "no file to count"),
        (&["nothing here"], 1, "no file to count"),
        (&["--frobnicate", "text"], 2, "unexpected argument"),
    ];
    for (args, code, expected) in cases {
        let output = scene.wfreq(args).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        assert!(stderr(&output).contains(expected), "{args:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
    let mut homeless = scene.wfreq(["text"]);
    let homeless =
        homeless.env_remove("RIVER_KEY_FILE").env_remove("HOME").env_remove("XDG_CONFIG_HOME").output();
    let homeless = homeless.unwrap();
    assert_eq!(homeless.status.code(), Some(1));
    assert!(stderr(&homeless).contains("RIVER_KEY_FILE"), "{homeless:?}");
    // The discovery port is in use by a program that does not share it: that only affects VMs.
    let taken = std::net::UdpSocket::bind(("127.255.255.255", scene.port())).unwrap();
    let output = scene.wfreq(["text"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    drop(taken);
}

#[test]
fn help_has_examples() {
    let scene = Scene::new();
    let output = scene.wfreq(["--help"]).env_remove("HOME").output().unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("Examples:"));
}

#[test]
fn who_reads_the_counts_may_stop_early() {
    let scene = Scene::new();
    fs::write(scene.path("words.txt"), "a rose is a rose").unwrap();
    for options in [&["--vms", "1", "words.txt"][..], &["--vms", "1", "--json", "words.txt"]] {
        scene.example_into_closed_pipe("wfreq", options);
    }
}
