//! Several machines, made of network namespaces: each with its own address, on a bridge in a further namespace. Nothing is
//! ever sent outside them.

mod scene;

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use scene::{Process, Scene};

/// Three machines with addresses 10.77.0.1 to 3.
struct Net {
    name: String,
}

const MACHINES: usize = 3;

fn run(command: &str) -> bool {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output();
    output.is_ok_and(|output| output.status.success())
}

impl Net {
    /// Returns `None`, after saying so, where that cannot be done.
    fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("rv{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let net = Self { name };
        let possible = rustix::process::geteuid().is_root() && run("ip -V") && net.build();
        if !possible {
            eprintln!("skipped: needs root and iproute2");
        }
        possible.then_some(net)
    }

    fn build(&self) -> bool {
        let switch = &self.name;
        let mut done = run(&format!("ip netns add {switch}"))
            && run(&format!("ip -n {switch} link add br0 type bridge"))
            && run(&format!("ip -n {switch} link set br0 up"));
        for i in 1..=MACHINES {
            let machine = self.machine(i);
            done = done
                && run(&format!("ip netns add {machine}"))
                && run(&format!("ip -n {switch} link add p{i} type veth peer name eth0 netns {machine}"))
                && run(&format!("ip -n {switch} link set p{i} master br0 up"))
                && run(&format!("ip -n {machine} address add 10.77.0.{i}/24 broadcast + dev eth0"))
                && run(&format!("ip -n {machine} link set eth0 up"))
                && run(&format!("ip -n {machine} link set lo up"))
                && run(&format!("ip netns exec {machine} true"));
        }
        done
    }

    fn machine(&self, i: usize) -> String {
        format!("{}m{i}", self.name)
    }

    /// How many bytes a machine has sent to others.
    fn sent(&self, i: usize) -> u64 {
        let file = "/sys/class/net/eth0/statistics/tx_bytes";
        let output =
            Command::new("ip").args(["netns", "exec", &self.machine(i), "cat", file]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().parse().unwrap()
    }

    /// Starts a process on a machine.
    fn start(&self, scene: &Scene, i: usize, part: &str, env: &[(&str, &str)]) -> Process {
        let machine = self.machine(i);
        let mut command = scene.command(&["ip", "netns", "exec", &machine], part);
        Process::start(command.envs(env.iter().copied()))
    }

    fn vm(&self, scene: &Scene, i: usize, name: &str, network: bool) -> Process {
        scene.vm(&["ip", "netns", "exec", &self.machine(i)], name, network)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for i in 1..=MACHINES {
            run(&format!("ip netns del {}", self.machine(i)));
        }
        run(&format!("ip netns del {}", self.name));
    }
}

const NETWORK: (&str, &str) = ("RIVER_NETWORK", "1");

#[test]
fn vms_of_all_machines_are_found_and_a_program_runs_over_them() {
    let Some(net) = Net::new() else { return };
    let scene = Scene::new();
    let _vms: Vec<Process> = (1..=3).map(|i| net.vm(&scene, i, &format!("vm{i}"), true)).collect();
    let _second = net.vm(&scene, 2, "vm2b", true);
    let _shy = net.vm(&scene, 2, "shy", false);

    let found = net.start(&scene, 1, "find", &[NETWORK]).expect("found");
    let names: Vec<&str> = found.split(", ").map(|vm| vm.split(':').next().unwrap()).collect();
    assert_eq!(names, ["vm1@127.0.0.1", "vm2@10.77.0.2", "vm2b@10.77.0.2", "vm3@10.77.0.3"]);

    // Unless told otherwise, searches stay within the machine.
    let found = net.start(&scene, 1, "find", &[]).expect("found");
    assert!(found.starts_with("vm1@127.0.0.1") && !found.contains("10.77"), "{found}");

    // Only the machines that are named are asked; the one VM there to which the kernel delivers the probe asks the others.
    let found = net.start(&scene, 1, "find", &[("RIVER_HOSTS", "10.77.0.2, 10.77.0.3")]).expect("found");
    let names: Vec<&str> = found.split(", ").map(|vm| vm.split(':').next().unwrap()).collect();
    assert_eq!(names, ["vm1@127.0.0.1", "vm2@10.77.0.2", "vm2b@10.77.0.2", "vm3@10.77.0.3"]);

    // From 1 to 1, 2, 2, 3 and back, with the image sent to each, compressed if it leaves the machine.
    let before = net.sent(1);
    let program = net.start(&scene, 1, "once", &[NETWORK, ("RIVER_TEST_COUNT", "4")]);
    let allocated = program.expect("allocated");
    assert_eq!(allocated.split(' ').count(), 4, "{allocated}");
    program.expect("served");
    program.expect("ended");
    for name in ["vm2", "vm3"] {
        let cache = std::fs::read_dir(scene.path(&format!("cache-{name}"))).unwrap();
        assert!(cache.count() > 0, "the image was shipped to {name}");
    }
    let image = std::fs::read_dir(scene.path("cache-vm3"))
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len());
    let (image, sent) = (image.max().unwrap(), net.sent(1) - before);
    // Besides the images, 3 MB of messages are sent.
    assert!(sent > image && sent < 3 * image * 8 / 10 + (4 << 20), "{sent} bytes for 3 images of {image}");
}

#[test]
fn a_machine_that_is_cut_off_is_lost_to_the_program_and_free_again() {
    let Some(net) = Net::new() else { return };
    let scene = Scene::new();
    let _vms: Vec<Process> = (2..=3).map(|i| net.vm(&scene, i, &format!("vm{i}"), true)).collect();
    let program = net.start(&scene, 1, "watch", &[NETWORK, ("RIVER_TEST_COUNT", "2")]);
    program.expect("served");
    assert!(run(&format!("ip -n {} link set p3 down", net.name)));
    let cut = Instant::now();
    let why = program.expect("down");
    assert!(cut.elapsed() < Duration::from_secs(30), "{:?}", cut.elapsed());
    assert!(why.contains("vm3"), "{why}");
    loop {
        let found = net.start(&scene, 3, "find", &[]).expect("found");
        if found.ends_with("idle") {
            break;
        }
        assert!(cut.elapsed() < Duration::from_secs(30), "{found}");
    }
}

impl Net {
    /// Delays packets and loses some, or only loses some, depending on the kernel. Returns `false` if it can do neither.
    fn spoil(&self) -> bool {
        let each = |command: &dyn Fn(String) -> bool| (1..=MACHINES).all(|i| command(self.machine(i)));
        if each(&|machine| {
            run(&format!("tc -n {machine} qdisc add dev eth0 root netem delay 5ms 2ms loss 2%"))
        }) {
            return true;
        }
        eprintln!("no delay, only loss: that needs tc and the kernel's netem");
        each(&|machine| {
            let nft = |rule: &str| run(&format!("ip netns exec {machine} nft {rule}"));
            nft("add table inet spoil")
                && nft("add chain inet spoil in { type filter hook input priority 0 ; }")
                && nft("add rule inet spoil in iifname eth0 numgen random mod 100 < 3 drop")
        })
    }
}

#[test]
fn delay_and_loss_of_packets_break_nothing() {
    let Some(net) = Net::new() else { return };
    if !net.spoil() {
        eprintln!("skipped: needs the kernel's netem, or nftables");
        return;
    }
    let scene = Scene::new();
    let _vms: Vec<Process> = (1..=3).map(|i| net.vm(&scene, i, &format!("vm{i}"), true)).collect();
    let program = net.start(&scene, 1, "once", &[NETWORK, ("RIVER_TEST_COUNT", "3")]);
    program.expect("served");
    program.expect("ended");
}

/// Loses packets too, and needs no special features of the kernel.
#[test]
fn a_cable_that_fails_for_moments_breaks_nothing() {
    let Some(net) = Net::new() else { return };
    let scene = Scene::new();
    let _vms: Vec<Process> = (1..=3).map(|i| net.vm(&scene, i, &format!("vm{i}"), true)).collect();
    let program = net.start(&scene, 1, "long", &[NETWORK, ("RIVER_TEST_COUNT", "3")]);
    program.expect("allocated");
    for _ in 0..4 {
        for (state, time) in [("down", 300), ("up", 200)] {
            assert!(run(&format!("ip -n {} link set p2 {state}", net.name)));
            std::thread::sleep(Duration::from_millis(time));
        }
    }
    program.expect("served");
    program.expect("ended");
}

#[test]
fn without_a_key_nobody_listens_on_the_network() {
    let scene = Scene::new();
    let missing = scene.path("no such key");
    for part in ["find", "once", "vm"] {
        let mut command = scene.command(&[], part);
        command.env("RIVER_KEY_FILE", &missing).env("RIVER_TEST_NAME", "vm").env("RIVER_TEST_NETWORK", "1");
        let output = command.env(NETWORK.0, NETWORK.1).output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(text.contains("no cluster key") && text.contains("river key new"), "{text}");
        assert!(!missing.exists());
    }
}

/// Not a test: what `Scene::command` runs.
#[test]
fn helper_process() {
    scene::play();
}
