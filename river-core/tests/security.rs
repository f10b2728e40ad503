//! Attacks on every port on which VMs, hosts and programs listen. After each attack all of them must still serve peers that
//! have the key, and none may have grown much.

mod scene;

use std::collections::HashSet;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use scene::{Process, Scene};

/// The length of a first message: header, ephemeral key, block and tag, see `noise`.
const FIRST_LEN: usize = 312;
const CONFIRM_LEN: usize = 16;
const PROBE_LEN: usize = 1024;
const MAGIC: &[u8] = b"RIVR\x06\0\0\0";
/// After this long without an answer, no more answers are awaited.
const QUIET: Duration = Duration::from_millis(150);
/// How many KiB a process may have grown after the attacks.
const GROWTH: u64 = 32 << 10;

/// Two VMs, and a program with a host on one of them.
struct World {
    scene: Scene,
    /// Not leased.
    vm: Process,
    leased: Process,
    program: Process,
    sizes: Vec<(u32, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    Tcp(SocketAddr),
    Udp(SocketAddr),
}

impl World {
    fn new() -> Self {
        let scene = Scene::new();
        let (vm, leased) = (scene.vm(&[], "free", false), scene.vm(&[], "leased", false));
        let program = Process::start(scene.command(&[], "resident").env("RIVER_TEST_NAME", "leased"));
        program.expect("served");
        let mut world = Self { scene, vm, leased, program, sizes: Vec::new() };
        world.check();
        world.sizes = world.pids().into_iter().map(|pid| (pid, resident(pid))).collect();
        assert_eq!(world.sizes.len(), 4);
        world
    }

    /// Returns the process ids of the VMs, the program and its host.
    fn pids(&self) -> Vec<u32> {
        let mut pids = vec![self.vm.child.id(), self.leased.child.id(), self.program.child.id()];
        for task in fs::read_dir(format!("/proc/{}/task", self.leased.child.id())).unwrap().flatten() {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            pids.extend(children.split_whitespace().map(|pid| pid.parse::<u32>().unwrap()));
        }
        pids
    }

    fn ports(&self) -> Vec<Port> {
        let ports: Vec<Port> = self.pids().into_iter().flat_map(listening).collect();
        let tcp = ports.iter().filter(|port| matches!(port, Port::Tcp(_))).count();
        assert_eq!(tcp, 4, "each process has one: {ports:?}");
        ports
    }

    /// Checks that all processes serve as before.
    fn check(&mut self) {
        let program = Process::start(self.scene.command(&[], "once").env("RIVER_TEST_NAME", "free"));
        program.expect("served");
        program.expect("ended");
        self.program.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        self.program.expect("pong");
        for (pid, before) in &self.sizes {
            let now = resident(*pid);
            assert!(now < before + GROWTH, "process {pid} has grown from {before} to {now} KiB");
        }
    }

    fn attack(&mut self, what: &str, attack: impl Fn(Port)) {
        for port in self.ports() {
            let start = Instant::now();
            attack(port);
            eprintln!("{what} on {port:?}: {:?}", start.elapsed());
        }
        self.check();
    }
}

/// Returns the resident memory of a process in KiB.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Returns every port on which a process listens, for connections or datagrams.
fn listening(pid: u32) -> Vec<Port> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let sockets: HashSet<String> = files
        .filter_map(|file| fs::read_link(file.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let mut ports = Vec::new();
    for (table, state) in [("tcp", "0A"), ("udp", "07"), ("tcp6", "0A"), ("udp6", "07")] {
        for line in fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default().lines().skip(1)
        {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields[3] != state || !sockets.contains(fields[9]) {
                continue;
            }
            assert!(!table.ends_with('6'), "nothing is to listen by IPv6: {line}");
            let (ip, port) = fields[1].split_once(':').unwrap();
            let ip = Ipv4Addr::from(u32::from_str_radix(ip, 16).unwrap().to_le_bytes());
            assert!(ip.is_loopback(), "nothing is to listen beyond loopback: {line}");
            let address = SocketAddr::from((ip, u16::from_str_radix(port, 16).unwrap()));
            ports.push(if table == "tcp" { Port::Tcp(address) } else { Port::Udp(address) });
        }
    }
    ports
}

/// Returns bytes that are different each time.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    fs::File::open("/dev/urandom").unwrap().take(length as u64).read_to_end(&mut bytes).unwrap();
    bytes
}

/// Sends bytes and returns the reply, until the other side closes the connection.
fn say(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // The other side may close before everything is sent.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    answer
}

/// Sends datagrams and counts the answers; waits for the first one no longer than `patience`.
fn ask_for(patience: Duration, address: SocketAddr, datagrams: impl IntoIterator<Item = Vec<u8>>) -> usize {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_broadcast(true).unwrap();
    socket.set_read_timeout(Some(patience)).unwrap();
    let (mut answers, mut buffer) = (0, [0; 4096]);
    for datagram in datagrams {
        socket.send_to(&datagram, address).unwrap();
    }
    while let Ok((length, _)) = socket.recv_from(&mut buffer) {
        assert!(length <= PROBE_LEN, "an answer is never longer than a probe");
        answers += 1;
        socket.set_read_timeout(Some(QUIET)).unwrap();
    }
    answers
}

/// Like [`ask_for`], when no answer is expected.
fn ask(address: SocketAddr, datagrams: impl IntoIterator<Item = Vec<u8>>) -> usize {
    ask_for(QUIET, address, datagrams)
}

#[test]
fn no_attack_without_the_key_gets_anywhere() {
    let mut world = World::new();
    let recorded = record_handshake(&world);
    let probe = record_probe(&world);

    world.attack("garbage", |port| match port {
        Port::Tcp(address) => {
            for length in [0, 1, 8, FIRST_LEN - 1, FIRST_LEN, 100_000] {
                assert!(say(address, &noise(length)).is_empty());
            }
            assert!(say(address, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").is_empty());
        }
        Port::Udp(address) => {
            let lengths = [0, 1, 24, 56, PROBE_LEN - 1, PROBE_LEN, PROBE_LEN + 1, 9000];
            assert_eq!(ask(address, lengths.map(noise)), 0);
        }
    });
    world.attack("a first message that only looks right", |port| match port {
        Port::Tcp(address) => {
            // A message made with another key looks no different from noise.
            let answer = say(address, &[MAGIC, &noise(FIRST_LEN - MAGIC.len())].concat());
            assert!(answer.len() == FIRST_LEN && answer[6] == 3 && answer[8..].iter().all(|b| *b == 0));
            // A peer of another version is told our version, and nothing else.
            let mut other = [MAGIC, &noise(FIRST_LEN - MAGIC.len())].concat();
            other[4] = 0xee;
            assert_eq!(say(address, &other)[6], 2);
        }
        Port::Udp(address) => {
            let body = [&b"RVRP\x04\0\0\0"[..], &noise(PROBE_LEN - 8)].concat();
            assert_eq!(ask(address, [body]), 0);
        }
    });
    world.attack("much more than a first message", |port| match port {
        Port::Tcp(address) => drop(say(address, &[MAGIC, &noise(4 << 20)].concat())),
        Port::Udp(address) => assert_eq!(ask(address, [noise(60_000)]), 0),
    });
    world.attack("a replayed handshake", |port| {
        let Port::Tcp(address) = port else { return };
        // The first message is genuine, so it is answered; but that is not the answer for which the rest was made.
        for length in [FIRST_LEN, FIRST_LEN + CONFIRM_LEN, recorded.len()] {
            assert_eq!(say(address, &recorded[..length]).len(), FIRST_LEN);
        }
    });
    world.attack("a changed probe", |port| {
        let Port::Udp(address) = port else { return };
        let changed = (0..PROBE_LEN).map(|at| {
            let mut changed = probe.clone();
            changed[at] ^= 1;
            changed
        });
        assert_eq!(ask(address, changed), 0);
    });
    let answers = AtomicUsize::new(0);
    world.attack("a replayed probe", |port| {
        let Port::Udp(address) = port else { return };
        // A VM that has answered often enough does not answer any more.
        let patience = if answers.load(Ordering::Relaxed) == 0 { Duration::from_secs(5) } else { QUIET };
        let more = ask_for(patience, address, std::iter::repeat_n(probe.clone(), 2000));
        answers.fetch_add(more, Ordering::Relaxed);
    });
    // Each VM gives a bounded number, whichever address was used.
    let answers = answers.into_inner();
    assert!((1..=2 * 32).contains(&answers), "{answers}");
}

/// Returns what a program first sends to a VM, recorded on the way.
fn record_handshake(world: &World) -> Vec<u8> {
    let Some(Port::Tcp(vm)) =
        listening(world.vm.child.id()).into_iter().find(|port| matches!(port, Port::Tcp(_)))
    else {
        panic!("the VM listens");
    };
    let proxy = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = proxy.local_addr().unwrap().to_string();
    let record = Arc::new(Mutex::new(Vec::new()));
    let recorded = record.clone();
    std::thread::spawn(move || {
        let mut near = proxy.accept().unwrap().0;
        let mut far = TcpStream::connect(vm).unwrap();
        let (mut back_from, mut back_to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut back_from, &mut back_to);
            let _ = back_to.shutdown(Shutdown::Both);
        });
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = near.read(&mut buffer) {
            record.lock().unwrap().extend(&buffer[..length]);
            far.write_all(&buffer[..length]).unwrap();
        }
        let _ = far.shutdown(Shutdown::Write);
    });
    let mut command = world.scene.command(&[], "once");
    let program = Process::start(command.env("RIVER_TEST_NAME", "free").env("RIVER_TEST_PROXY", address));
    program.expect("ended");
    let recorded = recorded.lock().unwrap();
    assert!(recorded.starts_with(MAGIC) && recorded.len() > FIRST_LEN + CONFIRM_LEN);
    recorded[..recorded.len().min(2000)].to_vec()
}

/// Returns a probe, which any process of the machine can overhear.
fn record_probe(world: &World) -> Vec<u8> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    let broadcast = SocketAddr::from(([127, 255, 255, 255], world.scene.port));
    socket.bind(&broadcast.into()).unwrap();
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let find = Process::start(&mut world.scene.command(&[], "find"));
    let mut probe = [0; 2000];
    let (length, _) = socket.recv_from(&mut probe).unwrap();
    assert_eq!(length, PROBE_LEN);
    find.expect("found");
    probe[..PROBE_LEN].to_vec()
}

#[test]
fn thousands_of_half_open_connections_keep_nobody_out() {
    let mut world = World::new();
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);
    let allowed = limit.current.unwrap_or(u64::MAX).min(10_300) as usize - 300;
    let mut ports = world.ports();
    ports.retain(|port| matches!(port, Port::Tcp(_)));
    let each = allowed / ports.len();
    eprintln!("{each} half-open connections on each of {} ports", ports.len());
    let mut open = Vec::new();
    for (i, port) in std::iter::repeat_n(ports, each).flatten().enumerate() {
        let Port::Tcp(address) = port else { continue };
        let mut stream = TcpStream::connect(address).unwrap();
        // Some connections are silent, some begin a handshake.
        if i % 3 == 0 {
            let _ = stream.write_all(&MAGIC[..i % 8]);
        }
        open.push(stream);
    }
    for pid in world.pids() {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        assert!(files < 600, "process {pid} has {files} files open");
    }
    world.check();
    drop(open);
    world.check();
}

#[test]
fn who_has_another_key_finds_nothing_and_is_refused() {
    let mut world = World::new();
    let key = world.scene.key("other", "a7");
    let found = Process::start(world.scene.command(&[], "find").env("RIVER_KEY_FILE", &key)).expect("found");
    assert_eq!(found, "");
    // Its own VM, with the same key, is found; at the address of a VM with the other key it is refused.
    let mut command = world.scene.command(&[], "vm");
    command.env("RIVER_KEY_FILE", &key).env("RIVER_TEST_NAME", "own");
    let own = Process::start(&mut command);
    own.expect("ready");
    let mut command = world.scene.command(&[], "once");
    command.env("RIVER_KEY_FILE", &key).env("RIVER_TEST_PROXY", free_vm(&world));
    let error = Process::start(&mut command).expect("failed");
    assert!(error.contains("cluster keys of the two sides differ"), "{error}");
    world.check();
}

fn free_vm(world: &World) -> String {
    let find = Process::start(world.scene.command(&[], "find").env("RIVER_TEST_NAME", "free"));
    let found = find.expect("found");
    found.split(['@', ' ']).nth(1).unwrap().to_owned()
}

#[test]
fn another_user_of_the_machine_cannot_use_the_vm() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can become another user");
        return;
    }
    let mut world = World::new();
    // A directory of the other user, with a copy of this executable.
    let theirs = tempfile::tempdir().unwrap();
    fs::set_permissions(theirs.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let executable = theirs.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &executable).unwrap();
    let stranger = |part: &str, key: &str| {
        let command = world.scene.command(&[], part);
        let mut stranger = Command::new(&executable);
        stranger
            .args(command.get_args())
            .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .env("RIVER_KEY_FILE", key)
            .env("RIVER_CACHE", theirs.path().join("cache"))
            .env("RIVER_TEST_NAME", "free")
            .current_dir(theirs.path())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .uid(65_534)
            .gid(65_534);
        let output = stranger.output().unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let own = theirs.path().join("key");
    let output = stranger("find", own.to_str().unwrap());
    assert!(output.contains("[found] \n"), "{output}");
    assert!(own.exists(), "a key of their own was made");
    // Other users cannot read the key of the VM's user, even if the directory is open.
    fs::set_permissions(world.scene.directory.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let output = stranger("find", world.scene.path("key").to_str().unwrap());
    assert!(output.contains("cannot read the cluster key"), "{output}");
    world.check();
}

#[test]
fn encryption_changes_nothing_for_programs() {
    let scene = Scene::new();
    let _vms = [scene.vm(&[], "one", false), scene.vm(&[], "two", false)];
    let program = Process::start(scene.command(&[], "once").env("RIVER_LINKS", "sealed"));
    program.expect("served");
    program.expect("ended");
}

/// Not a test: what `Scene::command` runs.
#[test]
fn helper_process() {
    scene::play();
}
