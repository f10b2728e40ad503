//! Programs on virtual machines that are real processes on loopback.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use river_core::testing::for_each_topology;
use river_core::{Channel, Count, Down, RecvError, Result, Selector, VirtualResource, Vr, VrError, Why};
use serde::{Deserialize, Serialize};

const CHANNEL: Channel = Channel::named("test");

#[derive(Serialize, Deserialize)]
struct Greeter {
    number: usize,
}

impl VirtualResource for Greeter {
    fn main(&mut self, vr: &Vr) -> Result {
        let text = format!("{} on {} in process {}", self.number, vr.vm(), std::process::id());
        println!("greeter {} speaks", self.number);
        vr.send_bytes(vr.parent().unwrap(), CHANNEL, 0, text.into_bytes())?;
        Ok(())
    }
}

#[test]
fn vrs_run_on_local_vms_and_report_to_their_parent() {
    let texts = river_core::try_run(|vr| {
        let vms = vr.start_local(3)?;
        let group = vr.deploy(&vms, |number| Greeter { number })?;
        let mut texts = Vec::new();
        for id in group.iter() {
            let envelope = vr.receive(Selector::on(CHANNEL).from(id))?;
            texts.push(String::from_utf8_lossy(&envelope.payload.to_bytes()).into_owned());
        }
        for id in group.iter() {
            let error = vr.receive(Selector::on(CHANNEL).from(id)).unwrap_err();
            assert!(matches!(error, RecvError::Down(Down { why: Why::Finished, .. })), "{error}");
        }
        Ok(texts)
    })
    .unwrap();
    for (i, text) in texts.iter().enumerate() {
        assert!(text.starts_with(&format!("{i} on local-{i}")), "{text}");
        assert!(!text.ends_with(&format!("process {}", std::process::id())), "{text}");
    }
}

#[derive(Serialize, Deserialize)]
enum Fate {
    Panic,
    Fail,
    Exit,
    Kill,
}

impl VirtualResource for Fate {
    fn main(&mut self, vr: &Vr) -> Result {
        vr.send_bytes(vr.parent().unwrap(), CHANNEL, 0, std::process::id().to_le_bytes().to_vec())?;
        eprintln!("last words");
        match self {
            Fate::Panic => panic!("as asked"),
            Fate::Fail => Err(VrError::msg("cannot go on")),
            Fate::Exit => std::process::exit(3),
            Fate::Kill => {
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?;
                Ok(())
            }
        }
    }
}

fn fate(fate: impl Fn() -> Fate) -> Why {
    river_core::try_run(|vr| {
        let vms = vr.start_local(1)?;
        let group = vr.deploy(&vms, |_| fate())?;
        vr.receive(Selector::on(CHANNEL).from(group[0]))?;
        match vr.receive(Selector::on(CHANNEL)).unwrap_err() {
            RecvError::Down(Down { who, why }) => {
                assert_eq!(who, group[0]);
                Ok(why)
            }
            other => panic!("{other}"),
        }
    })
    .unwrap()
}

#[test]
fn a_panic_is_told_with_its_text() {
    let why = fate(|| Fate::Panic);
    assert!(
        matches!(&why, Why::Panicked(text) if text.contains("as asked") && text.contains("core.rs")),
        "{why}"
    );
}

#[test]
fn an_error_is_told_with_its_text() {
    let why = fate(|| Fate::Fail);
    assert_eq!(why, Why::Failed("cannot go on".into()));
}

#[test]
fn a_host_that_exits_is_told_with_its_code_and_last_lines() {
    let why = fate(|| Fate::Exit);
    let Why::HostDied { vm, how, last_lines } = &why else { panic!("{why}") };
    assert_eq!((vm.as_str(), how.as_str()), ("local-0", "exit code 3"));
    assert_eq!(last_lines.last().map(String::as_str), Some("last words"));
}

#[test]
fn a_host_that_is_killed_is_told_with_the_signal() {
    let why = fate(|| Fate::Kill);
    assert!(matches!(&why, Why::HostDied { how, .. } if how == "signal 9 (SIGKILL)"), "{why}");
}

#[derive(Serialize, Deserialize)]
struct Ring {
    rounds: u64,
}

impl VirtualResource for Ring {
    fn main(&mut self, vr: &Vr) -> Result {
        let next = vr.receive(Selector::on(CHANNEL).from(vr.parent().unwrap()))?;
        let next = river_core::VrId::from_uuid(uuid::Uuid::from_slice(next.payload.head())?);
        for _ in 0..self.rounds {
            let token = vr.receive(Selector::on(CHANNEL))?;
            let count = u64::from_le_bytes(token.payload.head()[..8].try_into()?) + 1;
            vr.send_bytes(next, CHANNEL, 0, count.to_le_bytes().to_vec())?;
        }
        Ok(())
    }
}

#[test]
fn a_token_goes_round_a_ring_of_vrs_that_only_know_names() {
    for (vms, vrs) in [(1, 4), (4, 4)] {
        let count = river_core::try_run(|vr| {
            let vms: Vec<_> = vr.start_local(vms)?.into_iter().cycle().take(vrs).collect();
            let ring = vr.deploy(&vms, |_| Ring { rounds: 100 })?;
            for i in 0..vrs {
                let next = if i + 1 < vrs { ring[i + 1] } else { vr.id() };
                vr.send_bytes(ring[i], CHANNEL, 0, next.as_uuid().as_bytes().to_vec())?;
            }
            let mut count = 0_u64;
            for _ in 0..100 {
                vr.send_bytes(ring[0], CHANNEL, 0, count.to_le_bytes().to_vec())?;
                let token = vr.receive(Selector::on(CHANNEL).from(ring[vrs - 1]))?;
                count = u64::from_le_bytes(token.payload.head()[..8].try_into()?);
            }
            Ok(count)
        });
        assert_eq!(count.unwrap(), 400);
    }
}

#[test]
fn two_programs_never_hold_the_same_vm() {
    let vm = river_core::Vm::start(river_core::VmConfig::default().hidden()).unwrap();
    river_core::try_run(|first| {
        let leased = first.allocate(vec![vm.info()], 1)?;
        let error = river_core::try_run(|second| Ok(second.allocate(vec![vm.info()], 1)?)).unwrap_err();
        assert!(error.to_string().contains("in use by"), "{error}");
        first.release(&leased)?;
        river_core::try_run(|second| Ok(second.allocate(vec![vm.info()], Count::AtLeast(1))?)).unwrap();
        Ok(())
    })
    .unwrap();
}

/// A VR that runs a program of its own, on a VM of its own.
#[derive(Serialize, Deserialize)]
struct Nested;

impl VirtualResource for Nested {
    fn main(&mut self, vr: &Vr) -> Result {
        let answer = river_core::try_run(|own| {
            let counter = own.deploy(&own.start_local(1)?, |_| Counter { count: 41 })?[0];
            own.send_bytes(counter, CHANNEL, 0, Vec::new())?;
            Ok(own.receive(Selector::on(CHANNEL))?.payload.to_bytes().to_vec())
        })?;
        let parent = vr.parent().ok_or_else(|| VrError::msg("it is deployed"))?;
        Ok(vr.send_bytes(parent, CHANNEL, 0, answer)?)
    }
}

#[test]
fn a_vr_may_start_a_program_of_its_own() {
    for_each_topology(|_, make_vms| {
        let answer = river_core::try_run(|vr| {
            vr.deploy(&make_vms(vr, 1)?, |_| Nested)?;
            Ok(vr.receive(Selector::on(CHANNEL))?.payload.to_bytes().to_vec())
        });
        assert_eq!(answer.unwrap(), 42_u64.to_le_bytes());
    });
}

#[derive(Serialize, Deserialize)]
struct Counter {
    count: u64,
}

impl VirtualResource for Counter {
    fn main(&mut self, vr: &Vr) -> Result {
        loop {
            let envelope = vr.receive(Selector::on(CHANNEL))?;
            self.count += 1;
            vr.send_bytes(envelope.src, CHANNEL, 0, self.count.to_le_bytes().to_vec())?;
            if self.count == 3 {
                return Ok(());
            }
        }
    }
}

#[test]
fn a_service_is_one_vr_for_all_who_ask_and_a_new_one_after_its_end() {
    river_core::try_run(|vr| {
        let vms = vr.start_local(2)?;
        let ask = |service| {
            vr.send_bytes(service, CHANNEL, 0, vec![])?;
            let answer = vr.receive(Selector::on(CHANNEL).from(service))?;
            Ok::<_, VrError>(answer.payload.head()[0])
        };
        let first = vr.service(&vms[0], "counter", || Counter { count: 0 })?;
        assert_eq!(vr.service(&vms[0], "counter", || Counter { count: 0 })?, first);
        assert_ne!(vr.service(&vms[1], "counter", || Counter { count: 0 })?, first);
        assert_eq!([ask(first)?, ask(first)?, ask(first)?], [1, 2, 3]);
        let ended = vr.receive(Selector::on(CHANNEL).from(first)).unwrap_err();
        assert!(ended.is_disconnected(), "{ended}");
        // The directory is told of the end by another path than this VR.
        let mut second = first;
        while second == first {
            second = vr.service(&vms[0], "counter", || Counter { count: 0 })?;
        }
        assert_eq!(ask(second)?, 1);
        Ok(())
    })
    .unwrap();
}

#[derive(Serialize, Deserialize)]
struct Silent;

impl VirtualResource for Silent {
    fn main(&mut self, vr: &Vr) -> Result {
        vr.send_bytes(vr.parent().unwrap(), CHANNEL, 0, std::process::id().to_le_bytes().to_vec())?;
        vr.receive(Selector::on(CHANNEL))?;
        Ok(())
    }
}

#[test]
fn a_stopped_host_is_declared_lost_and_does_not_come_back() {
    river_core::try_run(|vr| {
        let vms = vr.start_local(1)?;
        let silent = vr.deploy(&vms, |_| Silent)?;
        let hello = vr.receive(Selector::on(CHANNEL).from(silent[0]))?;
        let pid = i32::from_le_bytes(hello.payload.head()[..4].try_into()?);
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::STOP)?;
        let RecvError::Down(down) = vr.receive(Selector::on(CHANNEL).from(silent[0])).unwrap_err() else {
            panic!("no notice");
        };
        assert!(down.to_string().contains("has not been heard of for 8s"), "{down}");
        // Its VM ends it; nobody need wake it for that.
        while rustix::process::test_kill_process(pid).is_ok() {
            std::thread::yield_now();
        }
        Ok(())
    })
    .unwrap();
}

#[derive(Serialize, Deserialize)]
struct Greedy;

impl VirtualResource for Greedy {
    fn main(&mut self, _: &Vr) -> Result {
        let files: std::io::Result<Vec<_>> = (0..1000).map(|_| std::fs::File::open("/dev/null")).collect();
        files?;
        Ok(())
    }
}

#[test]
fn a_host_is_kept_within_its_limits() {
    let limits = river_core::HostLimits { open_files: Some(100), ..Default::default() };
    let vm = river_core::Vm::start(river_core::VmConfig::default().hidden().limits(limits)).unwrap();
    river_core::try_run(|vr| {
        let vms = vr.allocate(vec![vm.info()], 1)?;
        let greedy = vr.deploy(&vms, |_| Greedy)?;
        let error = vr.receive(Selector::on(CHANNEL).from(greedy[0])).unwrap_err().to_string();
        assert!(error.contains("Too many open files"), "{error}");
        Ok(())
    })
    .unwrap();
}

#[derive(Serialize, Deserialize)]
struct Hungry;

impl VirtualResource for Hungry {
    fn main(&mut self, vr: &Vr) -> Result {
        // By the time that it is told to go on, its deployment is complete.
        vr.receive(Selector::on(CHANNEL))?;
        let memory = vec![1_u8; 1 << 40];
        vr.send_bytes(vr.id(), CHANNEL, 0, memory)?;
        Ok(())
    }
}

#[test]
fn who_dies_of_a_limit_is_told_of_it() {
    let limits = river_core::HostLimits { memory: Some(4 << 30), ..Default::default() };
    let vm = river_core::Vm::start(river_core::VmConfig::default().hidden().limits(limits)).unwrap();
    river_core::try_run(|vr| {
        let vms = vr.allocate(vec![vm.info()], 1)?;
        let hungry = vr.deploy(&vms, |_| Hungry)?;
        vr.send_bytes(hungry[0], CHANNEL, 0, vec![])?;
        let error = vr.receive(Selector::on(CHANNEL).from(hungry[0])).unwrap_err().to_string();
        assert!(error.contains("(its VM allows a host 4096 MiB of memory)"), "{error}");
        assert!(error.contains("memory allocation of"), "{error}");
        Ok(())
    })
    .unwrap();
}

#[derive(Serialize, Deserialize)]
struct Chatterbox;

impl VirtualResource for Chatterbox {
    fn main(&mut self, vr: &Vr) -> Result {
        let line = "x".repeat(1000);
        for _ in 0..300_000 {
            println!("{line}");
        }
        vr.send_bytes(vr.parent().unwrap(), CHANNEL, 0, vec![])?;
        Ok(())
    }
}

/// Started by the test below, with nobody reading its output.
#[test]
fn chatterbox() {
    if std::env::var_os("RIVER_TEST_CHATTERBOX").is_none() {
        return;
    }
    river_core::try_run::<()>(|vr| {
        let vms = vr.start_local(1)?;
        let chatterbox = vr.deploy(&vms, |_| Chatterbox)?;
        vr.receive(Selector::on(CHANNEL).from(chatterbox[0]))?;
        // The output cannot be printed, and ending the program waits for it: nothing else can be seen of it.
        eprintln!("it has spoken");
        std::process::exit(0);
    })
    .unwrap();
}

#[test]
fn a_program_that_nobody_reads_is_not_stopped_by_what_its_vrs_print() {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "chatterbox", "--nocapture"])
        .env("RIVER_TEST_CHATTERBOX", "1")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let errors = std::io::BufReader::new(child.stderr.take().unwrap());
    assert!(
        std::io::BufRead::lines(errors).map_while(std::io::Result::ok).any(|line| line == "it has spoken")
    );
    assert!(child.wait().unwrap().success());
}

#[derive(Serialize, Deserialize)]
enum Labelled {
    Panics,
    /// Computing its label takes until the next one runs.
    Waits,
    Opens,
}

static GATE: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

impl VirtualResource for Labelled {
    fn main(&mut self, vr: &Vr) -> Result {
        if matches!(self, Labelled::Opens) {
            *GATE.0.lock().unwrap() = true;
            GATE.1.notify_all();
        }
        vr.send_bytes(vr.parent().unwrap(), CHANNEL, 0, Vec::new())?;
        Ok(())
    }

    fn label(&self) -> Option<String> {
        match self {
            Labelled::Panics => panic!("no label"),
            Labelled::Waits => {
                let closed = GATE.0.lock().unwrap();
                let limit = Duration::from_secs(60);
                let (_open, waited) = GATE.1.wait_timeout_while(closed, limit, |open| !*open).unwrap();
                assert!(!waited.timed_out(), "nobody opened");
                Some("patient".into())
            }
            Labelled::Opens => None,
        }
    }
}

#[test]
fn a_label_that_panics_or_blocks_harms_nobody() {
    let whys = river_core::try_run(|vr| {
        let vms = vr.start_local(1)?;
        let mut ids = Vec::new();
        for next in [|_| Labelled::Panics, |_| Labelled::Waits, |_| Labelled::Opens] {
            ids.push(vr.deploy(&vms, next)?[0]);
        }
        for id in &ids {
            vr.receive(Selector::on(CHANNEL).from(*id))?;
        }
        Ok(ids.iter().map(|id| vr.receive(Selector::on(CHANNEL).from(*id)).unwrap_err()).collect::<Vec<_>>())
    });
    for error in whys.unwrap() {
        assert!(matches!(error, RecvError::Down(Down { why: Why::Finished, .. })), "{error}");
    }
}
