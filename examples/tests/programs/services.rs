//! Two programs built from different sources and started independently, `rai_server` and `rai_client`: one finds the
//! other by name, calls it, holds objects there, and learns of its end; and vice versa.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::scene::Scene;

/// Only guards against hanging.
const LIMIT: Duration = Duration::from_secs(60);

impl Scene {
    fn server(&self, args: &[&str]) -> Process {
        let server = Process::start(&mut self.example("rai_server", args));
        assert!(server.line().starts_with("[serving"));
        server
    }

    /// A client that has found the server.
    fn client(&self, args: &[&str]) -> Process {
        let mut client = Process::start(self.example("rai_client", args).args(["--patience", "60"]));
        assert_eq!(client.ask("add 1 2"), "3");
        client
    }
}

/// Repeats the attempt until it succeeds.
fn until<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(start.elapsed() < LIMIT, "it does not come");
        std::thread::yield_now();
    }
}

/// A running program. Killed when dropped.
struct Process {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        let input = child.stdin.take();
        Self { child, input, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(LIMIT).expect("it says something")
    }

    fn say(&mut self, command: &str) {
        writeln!(self.input.as_mut().unwrap(), "{command}").unwrap();
    }

    fn ask(&mut self, command: &str) -> String {
        self.say(command);
        self.line()
    }

    /// Repeats the command until that is the answer.
    fn ask_until(&mut self, command: &str, answer: &str) {
        until(|| (self.ask(command) == answer).then_some(()));
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id() as i32).unwrap(), signal).unwrap();
    }

    /// Closes its input, and thereby ends the program.
    fn end(mut self) {
        self.input = None;
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_is_exported_can_be_called_and_nothing_else() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let mut client = scene.client(&[]);
    assert_eq!(client.ask("mean 1 2 6"), "3");
    assert_eq!(client.ask("push a b"), "1");
    assert_eq!(client.ask("push c"), "2");
    assert_eq!(
        (client.ask("pop"), client.ask("pop"), client.ask("pop")),
        ("c".into(), "a b".into(), "nothing".into())
    );
    let panicked = client.ask("sqrt -1");
    assert!(panicked.contains("sqrt panicked") && panicked.contains("-1 has no square root"), "{panicked}");
    let types = client.ask("types");
    assert_eq!(types, "error: add is (f64, f64) -> f64 on the server, and was called as (i32, i32) -> i32");
    let nobody = client.ask("nobody");
    assert!(nobody.contains("the server has no function nobody (it exports add, "), "{nobody}");
    let code = client.ask("code");
    assert!(code.contains("the server refuses") && code.contains("by name"), "{code}");
    assert_eq!(client.ask("add 3 4"), "7", "it has taken no harm");
    client.end();
    server.end();
}

#[test]
fn a_command_that_fails_or_makes_no_sense_fails_the_client_after_the_others() {
    let scene = Scene::new();
    let _server = scene.server(&[]);
    let mut client = scene.example("rai_client", ["--patience", "60"]);
    let output = client.args(["mean 1 two 6", "add 1 2 3", "push 1 two", "foo"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let no_command = |command| format!("error: {command:?} is no command: see --help");
    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        ["error: \"two\" is no number", &no_command("add 1 2 3"), "1", &no_command("foo")]
    );
    assert!(!output.status.success());
}

#[test]
fn the_way_to_a_panic_is_told_if_the_server_is_to() {
    let scene = Scene::new();
    let _server = Process::start(scene.example("rai_server", [""; 0]).env("RUST_BACKTRACE", "1"));
    let mut client = scene.example("rai_client", ["--patience", "60", "sqrt -1"]);
    let output = client.env("RUST_BACKTRACE", "0").output().unwrap();
    let (said, trace) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("-1 has no square root") && said.lines().count() == 1, "{said}");
    assert!(trace.contains("rai_server::") && trace.contains("rai_server.rs:"), "{trace}");
}

#[test]
fn a_client_that_dies_holds_nothing_any_more() {
    let scene = Scene::new();
    let _server = scene.server(&[]);
    let (mut killed, mut ended, mut left) = (scene.client(&[]), scene.client(&[]), scene.client(&[]));
    for client in [&mut killed, &mut ended, &mut left] {
        assert_eq!(client.ask("push x"), "1");
    }
    assert_eq!(left.ask("stacks"), "3");
    // Once more: the first stack of this client is freed with the last handle to it.
    assert_eq!(ended.ask("new"), "a new stack");
    left.ask_until("stacks", "3");
    killed.signal(Signal::KILL);
    left.ask_until("stacks", "2");
    ended.end();
    left.ask_until("stacks", "1");
    assert_eq!(left.ask("push y"), "2", "its own is still there");
}

#[test]
fn a_server_that_is_killed_ends_the_calls_and_the_next_one_is_found() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let mut clients = [scene.client(&[]), scene.client(&[])];
    for client in &mut clients {
        assert_eq!(client.ask("push x"), "1");
    }
    clients[0].say("wait");
    server.signal(Signal::KILL);
    for lost in [clients[0].line(), clients[1].ask("len")] {
        assert!(lost.contains("its server is gone") && lost.contains("rai_server (process"), "{lost}");
    }
    drop(server);
    let _next = scene.server(&[]);
    for client in &mut clients {
        assert_eq!(client.ask("again"), "found");
        assert_eq!(client.ask("stacks"), "0");
    }
}

#[test]
fn a_server_that_ends_says_so() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let mut client = scene.client(&[]);
    server.end();
    let lost = client.ask("add 1 2");
    assert!(lost.contains("ended with its program"), "{lost}");
    let nobody = client.ask("again");
    assert!(nobody.contains("no program publishes \"calculator\""), "{nobody}");
}

#[test]
fn whoever_is_silent_is_given_up_and_can_be_found_again() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let (mut client, mut stopped) = (scene.client(&[]), scene.client(&[]));
    assert_eq!(stopped.ask("push x"), "1");
    assert_eq!(client.ask("stacks"), "1");
    // What an unresponsive client held is freed.
    stopped.signal(Signal::STOP);
    client.ask_until("stacks", "0");
    stopped.signal(Signal::CONT);
    // The calls to an unresponsive server end.
    client.say("wait");
    server.signal(Signal::STOP);
    let lost = client.line();
    assert!(lost.contains("has not been heard of for 8s"), "{lost}");
    server.signal(Signal::CONT);
    client.ask_until("again", "found");
    assert_eq!(client.ask("add 1 2"), "3");
    let lost = stopped.ask("len");
    assert!(lost.contains("its server is gone"), "{lost}");
    stopped.ask_until("again", "found");
    assert_eq!(stopped.ask("push y"), "1");
}

#[test]
fn who_gives_no_command_is_told_which_there_are() {
    let scene = Scene::new();
    let server = scene.server(&[]);
    let help = scene.example("rai_client", ["--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let mut client = scene.example("rai_client", ["--patience", "60"]);
    let output = client.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains(&format!(
            "connected to \"calculator\", which is rai_server (process {} ",
            server.child.id()
        )),
        "{said}"
    );
    let commands = said.split_once("Commands:").unwrap().1;
    assert!(commands.contains("  add A B ") && help.contains(commands.trim()), "{said}{help}");
}

#[test]
fn names_that_are_nobodys_or_somebody_elses_too() {
    let scene = Scene::new();
    let output = scene.example("rai_client", ["--name", "sums", "add 1 2"]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("no program publishes \"sums\": is it running, with the same key"), "{error}");
    assert!(!output.status.success());
    let servers = [scene.server(&[]), scene.server(&[]), scene.server(&["--name", "other"])];
    // Two servers of the same name are noticed if both answer in time, which may take several tries on a busy machine.
    let error = until(|| {
        let output = scene.example("rai_client", ["add 1 2"]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        error.contains("\"calculator\" is published by rai_server (process").then_some(error)
    });
    for server in &servers[..2] {
        assert!(error.contains(&format!("(process {} ", server.child.id())), "{error}");
    }
    assert!(error.contains("end all but one"), "{error}");
    // The third must not be mentioned; with another key none is found.
    assert!(!error.contains(&format!("(process {} ", servers[2].child.id())), "{error}");
    let key = scene.write_key("another key", "a5");
    let mut stranger = scene.example("rai_client", ["--name", "other", "add 1 2"]);
    let output = stranger.env("RIVER_KEY_FILE", key).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("no program publishes \"other\""));
}

#[test]
fn a_server_on_a_vm_serves_several_at_a_time() {
    let scene = Scene::new();
    let server = scene.server(&["--vm", "--concurrent", "3"]);
    let (mut waiting, mut client) = (scene.client(&[]), scene.client(&[]));
    waiting.say("wait");
    assert_eq!(client.ask("push x"), "1");
    assert_eq!(client.ask("mean 1 2"), "1.5");
    // The program ends, and with it the host on its VM. The function may hear of it first.
    server.end();
    let ended = waiting.line();
    assert!(ended.contains("its server is gone") || ended == "it returned", "{ended}");
}
