//! Two machines, made of network namespaces, with a link between them: shuffled data is compressed, and a job goes on
//! when the link is gone. Nothing is ever sent outside them.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use river_core::{Query, Vm, VmConfig, Vr};
use river_mapreduce::{Cluster, Input, Job, MapContext, MapReduce, ReduceContext, Values, job};
use serde::{Deserialize, Serialize};

/// Only to keep a test from hanging.
const LIMIT: Duration = Duration::from_secs(60);

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
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let net = Self([1, 2].map(|i| format!("rmr{}x{number}m{i}", std::process::id())));
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

    /// Starts a VM on each machine.
    fn vms(&self, scratch: &Path) -> Vec<Process> {
        let key = scratch.join("key");
        std::fs::write(&key, "5e".repeat(32)).unwrap();
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
        let vms: Vec<Process> =
            (0..2).map(|machine| self.start(machine, &format!("vm{machine}"), scratch)).collect();
        vms.iter().for_each(|vm| drop(vm.expect("ready")));
        vms
    }

    /// Runs this executable on a machine, in the given role.
    fn start(&self, machine: usize, part: &str, scratch: &Path) -> Process {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.0[machine]])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "helper_process", "--nocapture"])
            .env("RIVER_TEST_PART", part)
            .env("RIVER_TEST_SCRATCH", scratch)
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
            let line = self.lines.recv_timeout(LIMIT);
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
    let _vms = net.vms(scratch.path());
    let program = net.start(0, "compressing", scratch.path());
    let bytes = |word: &str| program.expect(word).parse::<u64>().unwrap();
    let (plain, usual) = (bytes("plain"), bytes("usual"));
    // About half of the records are needed on a different machine than they are made on.
    assert!(plain > RECORDS * LENGTH as u64 / 8, "{plain} bytes");
    assert!(usual < plain / 2, "{usual} bytes instead of {plain}");
    program.expect("equal");
}

const RECORDS: u64 = 40_000;
const LENGTH: usize = 200;

fn cluster(vr: &Vr) -> river_core::Result<Cluster<'_>> {
    let vms = vr.discover(Query { count: Some(2), ..Query::default() })?;
    Ok(Cluster::on(vr, &vr.allocate(vms, 2)?)?)
}

fn compressing(vr: &Vr) -> river_core::Result {
    let cluster = cluster(vr)?;
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

/// When the second machine is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum When {
    Map,
    Reduce,
}

/// Groups numbers by their remainder. The second machine announces a task, once, and waits in it.
#[derive(Clone, Serialize, Deserialize)]
struct CutOff {
    when: When,
    scratch: PathBuf,
}

impl CutOff {
    fn announce(&self, now: When) {
        if now == self.when
            && std::env::var("RIVER_TEST_PART").is_ok_and(|part| part == "vm1")
            && File::create_new(self.scratch.join("announced")).is_ok()
            && let Ok(mut stream) = UnixStream::connect(self.scratch.join("socket"))
        {
            let _ = stream.read(&mut [0]);
        }
    }
}

impl MapReduce for CutOff {
    type Input = u64;
    type Key = u64;
    type Value = u64;
    type OutKey = u64;
    type OutValue = u64;

    fn map(&self, n: u64, out: &mut MapContext<'_, u64, u64>) {
        self.announce(When::Map);
        out.emit(n % 100, n);
    }

    fn reduce(&self, key: u64, values: &mut Values<'_, u64>, out: &mut ReduceContext<'_, u64, u64>) {
        self.announce(When::Reduce);
        // The result depends on the order of the values.
        out.emit(key, values.fold(0, |hash, n| hash.wrapping_mul(31).wrapping_add(n)));
    }
}

fn cutting(vr: &Vr, when: When, scratch: &Path) -> river_core::Result {
    let cluster = cluster(vr)?;
    let code = CutOff { when, scratch: scratch.to_owned() };
    // What the lost machine has done or was doing is needed.
    let job = Job::new(code, Input::generate(20_000)).reducers(4).speculate(false);
    let outcome = job.run(&cluster)?;
    let report = outcome.report();
    assert!(report.lost.len() == 1 && report.lost[0].0 == "vm1", "{report}");
    assert_eq!(outcome.collect()?, job.run_serial()?.collect()?);
    // One machine is enough.
    assert_eq!(job.run(&cluster)?.collect()?, outcome.collect()?);
    println!("[equal]");
    Ok(())
}

fn goes_on_without_a_machine_that_is_cut_off(when: When) {
    let Some(net) = Net::new() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(scratch.path().join("socket")).unwrap();
    let _vms = net.vms(scratch.path());
    let program = net.start(0, &format!("{when:?}"), scratch.path());
    let (sender, announced) = channel();
    std::thread::spawn(move || sender.send(listener.accept()));
    let announced = announced.recv_timeout(LIMIT).unwrap().unwrap();
    assert!(run(&format!("ip -n {} link set eth0 down", net.0[1])));
    drop(announced);
    program.expect("equal");
}

#[test]
fn the_tasks_of_a_machine_that_is_cut_off_are_run_again() {
    goes_on_without_a_machine_that_is_cut_off(When::Map);
}

#[test]
fn the_output_of_a_machine_that_is_cut_off_is_made_again() {
    goes_on_without_a_machine_that_is_cut_off(When::Reduce);
}

/// Not a real test: the process that `Net::start` runs.
#[test]
fn helper_process() {
    let scratch = std::env::var_os("RIVER_TEST_SCRATCH").map(PathBuf::from).unwrap_or_default();
    match std::env::var("RIVER_TEST_PART").as_deref() {
        Ok("compressing") => river_core::try_run(compressing).unwrap(),
        Ok("Map") => river_core::try_run(|vr| cutting(vr, When::Map, &scratch)).unwrap(),
        Ok("Reduce") => river_core::try_run(|vr| cutting(vr, When::Reduce, &scratch)).unwrap(),
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
