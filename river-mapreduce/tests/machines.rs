//! Two machines, made of network namespaces, with a link between them: shuffled data is compressed. Nothing is ever
//! sent outside them.

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use river_core::{Query, Vm, VmConfig, Vr};
use river_mapreduce::{Cluster, Input, Job, MapContext, ReduceContext, Values, job};

fn run(command: &str) -> bool {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output();
    output.is_ok_and(|output| output.status.success())
}

/// Two namespaces with addresses 10.78.0.1 and 2.
struct Net([String; 2]);

impl Net {
    /// Returns `None`, with a message, where that is not possible.
    fn new() -> Option<Self> {
        let net = Self([1, 2].map(|i| format!("rmr{}m{i}", std::process::id())));
        let [a, b] = &net.0;
        let mut done = rustix::process::geteuid().is_root()
            && run(&format!("ip netns add {a}"))
            && run(&format!("ip netns add {b}"))
            && run(&format!("ip -n {a} link add eth0 type veth peer name eth0 netns {b}"));
        for (i, machine) in (1..).zip(&net.0) {
            done = done
                && run(&format!("ip -n {machine} address add 10.78.0.{i}/24 broadcast + dev eth0"))
                && run(&format!("ip -n {machine} link set eth0 up"))
                && run(&format!("ip -n {machine} link set lo up"))
                && run(&format!("ip netns exec {machine} true"));
        }
        if !done {
            eprintln!("skipped: needs root and iproute2");
        }
        done.then_some(net)
    }

    /// Runs this executable on a machine, in the given role.
    fn start(&self, machine: usize, part: &str, scratch: &Path) -> Process {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.0[machine]])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "helper_process", "--nocapture"])
            .env("RIVER_TEST_PART", part)
            .env("RIVER_PORT", (24_000 + std::process::id() % 8000).to_string())
            .env("RIVER_KEY_FILE", scratch.join("key"))
            .env("RIVER_CACHE", scratch.join(format!("cache-{part}")))
            .env("RIVER_NETWORK", "1")
            .env_remove("RIVER_HOSTS")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        Process::start(&mut command)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for machine in &self.0 {
            run(&format!("ip netns del {machine}"));
        }
    }
}

/// A running process, whose lines can be waited for. Killed when dropped.
struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, lines }
    }

    /// Returns the text after `word` in the next line that contains `[word]`.
    fn expect(&self, word: &str) -> String {
        let word = format!("[{word}]");
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(60));
            let line = line.unwrap_or_else(|error| panic!("{word} was expected, {error}"));
            if let Some((_, rest)) = line.split_once(&word) {
                return rest.trim().to_owned();
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_travels_between_machines_is_compressed() {
    let Some(net) = Net::new() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let key = scratch.path().join("key");
    std::fs::write(&key, "5e".repeat(32)).unwrap();
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    let vms: Vec<Process> =
        (0..2).map(|machine| net.start(machine, &format!("vm{machine}"), scratch.path())).collect();
    vms.iter().for_each(|vm| drop(vm.expect("ready")));
    let program = net.start(0, "program", scratch.path());
    let bytes = |word: &str| program.expect(word).parse::<u64>().unwrap();
    let (plain, usual) = (bytes("plain"), bytes("usual"));
    // About half of the records are needed on a different machine than they are made on.
    assert!(plain > RECORDS * LENGTH as u64 / 8, "{plain} bytes");
    assert!(usual < plain / 2, "{usual} bytes instead of {plain}");
    program.expect("equal");
}

const RECORDS: u64 = 40_000;
const LENGTH: usize = 200;

fn program(vr: &Vr) -> river_core::Result {
    let vms = vr.discover(Query { count: Some(2), ..Query::default() })?;
    let cluster = Cluster::on(vr, &vr.allocate(vms, 2)?)?;
    let text = job(
        |n: u64, out: &mut MapContext<'_, u64, String>| {
            out.emit(n.wrapping_mul(0x9e37_79b9_7f4a_7c15), &"compressible ".repeat(20)[..LENGTH]);
        },
        |key: u64, texts: &mut Values<'_, String>, out: &mut ReduceContext<'_, u64, u64>| {
            while let Some(text) = texts.next_view() {
                out.emit(key, text.len() as u64);
            }
        },
    );
    let job = || Job::new(text, Input::generate(RECORDS)).reducers(4);
    let crossed = || -> river_core::Result<u64> {
        let count =
            |way: &str| std::fs::read_to_string(format!("/sys/class/net/eth0/statistics/{way}_bytes"));
        Ok(count("rx")?.trim().parse::<u64>()? + count("tx")?.trim().parse::<u64>()?)
    };
    let start = crossed()?;
    let plain = job().compress(false).run(&cluster)?.collect()?;
    let middle = crossed()?;
    println!("[plain] {}", middle - start);
    let usual = job().run(&cluster)?.collect()?;
    println!("[usual] {}", crossed()? - middle);
    assert_eq!(plain.len() as u64, RECORDS);
    assert!(plain == usual);
    println!("[equal]");
    Ok(())
}

/// Not a real test: the process that `Net::start` runs.
#[test]
fn helper_process() {
    match std::env::var("RIVER_TEST_PART").as_deref() {
        Ok("program") => river_core::try_run(program).unwrap(),
        Ok(name) => {
            let config = VmConfig::default().name(name).network(Ipv4Addr::UNSPECIFIED);
            let vm = Vm::start(config).unwrap();
            println!("[ready] {}", vm.info().address);
            loop {
                std::thread::park();
            }
        }
        Err(_) => {}
    }
}
