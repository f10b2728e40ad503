//! VMs and programs as separate processes, for tests that attack them or take their network away: the test executable,
//! started again with a part to play.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use river_core::{
    Channel, Down, Query, RecvError, Result, Selector, VirtualResource, Vm, VmConfig, Vr, VrId,
};
use serde::{Deserialize, Serialize};

const CHANNEL: Channel = Channel::named("test");
const LIMIT: Duration = Duration::from_secs(60);

/// A directory with a key, and a discovery port that nobody else uses.
pub(crate) struct Scene {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) port: u16,
}

impl Scene {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let port = 23_000 + (std::process::id() % 1000) as u16 * 8 + NEXT.fetch_add(1, Ordering::Relaxed);
        let scene = Self { directory: tempfile::tempdir().unwrap(), port };
        scene.key("key", "5e");
        scene
    }

    /// Creates a key file with this name, for a key whose bytes are all `byte` (two hexadecimal digits).
    pub(crate) fn key(&self, name: &str, byte: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, byte.repeat(32)).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Returns a command that runs this executable with a part to play, behind the words of `prefix` if there are any.
    pub(crate) fn command(&self, prefix: &[&str], part: &str) -> Command {
        let executable = std::env::current_exe().unwrap();
        let mut command = match prefix {
            [] => Command::new(executable),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(executable);
                command
            }
        };
        command
            .args(["--exact", "helper_process", "--nocapture"])
            .env("RIVER_TEST_PART", part)
            .env("RIVER_PORT", self.port.to_string())
            .env("RIVER_KEY_FILE", self.path("key"))
            .env("RIVER_CACHE", self.path("cache"))
            .env_remove("RIVER_NETWORK")
            .env_remove("RIVER_HOSTS")
            .current_dir(self.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command
    }

    /// Starts a VM with this name, which listens on the network if `network` is set.
    pub(crate) fn vm(&self, prefix: &[&str], name: &str, network: bool) -> Process {
        let mut command = self.command(prefix, "vm");
        command.env("RIVER_TEST_NAME", name).env("RIVER_CACHE", self.path(&format!("cache-{name}")));
        if network {
            command.env("RIVER_TEST_NETWORK", "1");
        }
        let process = Process::start(&mut command);
        process.expect("ready");
        process
    }
}

/// A running process, whose output lines can be waited for. Killed when dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    lines: Receiver<String>,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(std::result::Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, lines }
    }

    /// Returns what follows `word` on the next line that contains `[word]`.
    pub(crate) fn expect(&self, word: &str) -> String {
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

/// Forwards what it receives to the next one, or back to the initiator.
#[derive(Serialize, Deserialize)]
struct Station;

impl VirtualResource for Station {
    fn main(&mut self, vr: &Vr) -> Result {
        let parent = vr.parent().expect("it was deployed");
        let next = vr.receive(Selector::on(CHANNEL).from(parent))?;
        let bytes: [u8; 16] = next.payload.to_bytes()[..].try_into()?;
        let next = VrId::from_uuid(uuid::Uuid::from_bytes(bytes));
        vr.watch(next);
        loop {
            let envelope = vr.receive(Selector::on(CHANNEL))?;
            vr.send_bytes(next, CHANNEL, 0, envelope.payload.to_bytes().to_vec())?;
        }
    }
}

/// Deploys a station on each VM and sends messages once around the ring.
fn ring(vr: &Vr, vms: &[river_core::VmInfo], sizes: &[usize]) -> Result<Vec<VrId>> {
    let group = vr.deploy(vms, |_| Station)?;
    let ids: Vec<VrId> = group.iter().collect();
    for (i, id) in ids.iter().enumerate() {
        let next = ids.get(i + 1).copied().unwrap_or(vr.id());
        vr.send_bytes(*id, CHANNEL, 0, next.as_uuid().as_bytes().to_vec())?;
    }
    for size in sizes {
        let sent: Vec<u8> = (0..*size).map(|at| (at * 7 + size) as u8).collect();
        vr.send_bytes(ids[0], CHANNEL, 0, sent.clone())?;
        let got = vr.receive(Selector::on(CHANNEL).from(ids[ids.len() - 1]))?;
        assert!(got.payload.to_bytes()[..] == sent);
    }
    Ok(ids)
}

/// Runs the part of a process that `Scene::command` has started. Returns at once in the test executable itself.
pub(crate) fn play() {
    let Ok(part) = std::env::var("RIVER_TEST_PART") else { return };
    let set = |name| std::env::var(name).ok();
    if part == "vm" {
        let mut config = VmConfig::default().name(set("RIVER_TEST_NAME").unwrap());
        if set("RIVER_TEST_NETWORK").is_some() {
            config = config.network(Ipv4Addr::UNSPECIFIED);
        }
        let vm = Vm::start(config).unwrap_or_else(|error| panic!("{error}"));
        println!("[ready] {}", vm.info().address);
        loop {
            std::thread::park();
        }
    }
    let query = Query {
        name: set("RIVER_TEST_NAME"),
        count: set("RIVER_TEST_COUNT").map(|count| count.parse().unwrap()),
        ..Query::default()
    };
    if part == "find" {
        let found = river_core::find(&query).unwrap_or_else(|error| panic!("{error}"));
        let vms: Vec<String> =
            found.vms.iter().map(|vm| format!("{}@{} {}", vm.name, vm.address, vm.state)).collect();
        println!("[found] {}", vms.join(", "));
        return;
    }
    let ended = river_core::try_run(|vr| {
        let mut vms = vr.discover(query)?;
        if let (Some(proxy), Some(vm)) = (set("RIVER_TEST_PROXY"), vms.first_mut()) {
            vm.address = proxy.parse::<SocketAddr>()?;
        }
        let vms = vr.allocate(vms, ..)?;
        let addresses: Vec<String> = vms.iter().map(|vm| vm.address.to_string()).collect();
        println!("[allocated] {}", addresses.join(" "));
        let stations = match part.as_str() {
            "long" => ring(vr, &vms, &[50_000; 200])?,
            _ => ring(vr, &vms, &[0, 1, 100_000, 3_000_000])?,
        };
        println!("[served]");
        if part == "resident" {
            for _ in std::io::stdin().lines() {
                vr.send_bytes(stations[0], CHANNEL, 0, b"ping".to_vec())?;
                vr.receive(Selector::on(CHANNEL).from(stations[stations.len() - 1]))?;
                println!("[pong]");
            }
        }
        if part == "watch" {
            match vr.receive(Selector::on(CHANNEL)) {
                Err(RecvError::Down(Down { why, .. })) => println!("[down] {why}"),
                other => println!("[down] not, but {other:?}"),
            }
        }
        Ok(())
    });
    match ended {
        Ok(()) => println!("[ended]"),
        Err(error) => println!("[failed] {error}"),
    }
}
