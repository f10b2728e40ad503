//! VRs that move between machines while others talk to them.

use std::collections::BTreeMap;
use std::time::Duration;

use rand_core::Rng;
use river_core::{
    Channel, MigrateError, RecvError, Result, Selector, VirtualResource, Vm, VmConfig, VmInfo, Vr, VrId, Why,
};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

const CHANNEL: Channel = Channel::named("test");
/// How often a VR moves.
const ROUNDS: usize = 12;
/// Numbered envelopes, and their answers.
const NUMBERS: u64 = 1;
/// The end of a stream.
const END: u64 = 2;
const REPORT: u64 = 3;
const WHERE: u64 = 4;

fn number(bytes: &[u8]) -> Result<u64> {
    Ok(u64::from_le_bytes(bytes.try_into()?))
}

/// Checks that the numbers from each sender are consecutive, and answers each.
#[derive(Serialize, Deserialize)]
struct Target {
    next: BTreeMap<VrId, u64>,
    streams: usize,
    /// Whether it makes safepoints.
    short: bool,
}

impl VirtualResource for Target {
    fn main(&mut self, vr: &Vr) -> Result {
        while self.streams > 0 {
            if self.short {
                vr.safepoint(self)?;
            }
            let envelope = vr.receive(Selector::on(CHANNEL))?;
            match envelope.lane {
                NUMBERS => {
                    let next = self.next.entry(envelope.src).or_default();
                    let came = number(envelope.payload.head())?;
                    if came != *next {
                        return Err(river_core::VrError::msg(format!("{came} came, not {next}")));
                    }
                    *next += 1;
                    vr.send_bytes(envelope.src, CHANNEL, NUMBERS, envelope.payload)?;
                }
                WHERE => vr.send_bytes(envelope.src, CHANNEL, WHERE, vr.vm().as_bytes().to_vec())?,
                _ => self.streams -= 1,
            }
        }
        let total: u64 = self.next.values().sum();
        vr.send_bytes(vr.parent().expect("a parent"), CHANNEL, REPORT, total.to_le_bytes().to_vec())?;
        Ok(())
    }
}

/// Sends numbers, some of them before the answers to earlier ones, until it is told to stop; reports how many.
#[derive(Serialize, Deserialize)]
struct Source {
    to: VrId,
    ahead: u64,
}

impl VirtualResource for Source {
    fn main(&mut self, vr: &Vr) -> Result {
        let (mut sent, mut answered) = (0_u64, 0);
        let parent = vr.parent().expect("a parent");
        loop {
            let stop = vr.try_receive_where(Selector::on(CHANNEL).lane(END).from(parent), |_| true)?;
            while stop.is_none() && sent < answered + self.ahead {
                vr.send_bytes(self.to, CHANNEL, NUMBERS, sent.to_le_bytes().to_vec())?;
                sent += 1;
            }
            if stop.is_some() {
                while answered < sent {
                    self.answer(vr, &mut answered)?;
                }
                vr.send_bytes(self.to, CHANNEL, END, Vec::new())?;
                vr.send_bytes(parent, CHANNEL, REPORT, sent.to_le_bytes().to_vec())?;
                return Ok(());
            }
            self.answer(vr, &mut answered)?;
        }
    }
}

impl Source {
    fn answer(&self, vr: &Vr, answered: &mut u64) -> Result {
        let answer = vr.receive(Selector::on(CHANNEL).lane(NUMBERS).from(self.to))?;
        assert_eq!(number(answer.payload.head())?, *answered);
        *answered += 1;
        Ok(())
    }
}

fn where_is(vr: &Vr, target: VrId) -> std::result::Result<String, RecvError> {
    let _ = vr.send_bytes(target, CHANNEL, WHERE, Vec::new());
    let answer = vr.receive(Selector::on(CHANNEL).lane(WHERE).from(target))?;
    Ok(String::from_utf8_lossy(answer.payload.head()).into_owned())
}

#[test]
fn streams_go_on_while_their_target_moves_again_and_again() {
    for short in [false, true] {
        let body = |vr: &Vr| {
            let vms = vr.start_local(3)?;
            let target = vr.deploy(&vms[..1], |_| Target { next: BTreeMap::new(), streams: 3, short })?[0];
            let sources = vr.deploy(&vms, |index| Source { to: target, ahead: [1, 4, 20][index] })?;
            for round in 1..=ROUNDS {
                let vm = &vms[round % vms.len()];
                let moved = vr.migrate(target, vm)?;
                assert_eq!(moved.vrs, 1);
                assert!(moved.bytes > 0 && moved.pause > Duration::ZERO);
                assert_eq!(where_is(vr, target)?, vm.name);
                // Also move one that talks to it.
                vr.migrate(sources[round % 3], &vms[(round / 2) % 3])?;
            }
            assert_eq!(vr.migrate(target, &vms[ROUNDS % 3])?.vrs, 0, "it is there already");
            for source in sources.iter() {
                vr.send_bytes(source, CHANNEL, END, Vec::new())?;
            }
            let mut total = 0;
            for source in sources.iter() {
                let sent = vr.receive(Selector::on(CHANNEL).lane(REPORT).from(source))?;
                total += number(sent.payload.head())?;
            }
            let got = vr.receive(Selector::on(CHANNEL).lane(REPORT).from(target))?;
            assert_eq!(number(got.payload.head())?, total);
            assert!(total > 0);
            Ok(())
        };
        river_core::try_run_recoverable(body).unwrap();
    }
}

/// Moves itself from one VM to the next, and ends as it is told.
#[derive(Serialize, Deserialize)]
struct Traveller {
    vms: Vec<VmInfo>,
}

impl VirtualResource for Traveller {
    fn main(&mut self, vr: &Vr) -> Result {
        for vm in &self.vms {
            let effects = vr.effect(|| 1)?;
            vr.migrate(vr.id(), vm)?;
            assert_eq!((vr.vm(), effects), (vm.name.as_str(), 1));
        }
        vr.receive(Selector::on(CHANNEL).lane(END))?;
        Err(river_core::VrError::msg("as it was told"))
    }
}

/// Reports each end that it is told of.
#[derive(Serialize, Deserialize)]
struct Watcher(VrId);

impl VirtualResource for Watcher {
    fn main(&mut self, vr: &Vr) -> Result {
        let parent = vr.parent().expect("a parent");
        vr.watch(self.0);
        vr.send_bytes(parent, CHANNEL, REPORT, b"watches".to_vec())?;
        let Err(RecvError::Down(down)) = vr.receive(Selector::on(CHANNEL)) else { return Ok(()) };
        vr.send_bytes(parent, CHANNEL, REPORT, down.to_string().into_bytes())?;
        Ok(())
    }
}

#[test]
fn a_vr_moves_itself_and_its_end_is_told_to_all_who_watch() {
    let body = |vr: &Vr| {
        let vms = vr.start_local(3)?;
        let tour: Vec<VmInfo> = vms.iter().cycle().take(7).cloned().collect();
        let traveller = vr.deploy(&vms[..1], |_| Traveller { vms: tour.clone() })?[0];
        let watchers = vr.deploy(&vms, |_| Watcher(traveller))?;
        for watcher in watchers.iter() {
            vr.receive(Selector::on(CHANNEL).lane(REPORT).from(watcher))?;
        }
        // A watcher and the VR that it watches pass each other.
        vr.migrate(watchers[0], &vms[2])?;
        vr.send_bytes(traveller, CHANNEL, END, Vec::new())?;
        let told = |watcher| -> Result<String> {
            loop {
                match vr.receive(Selector::on(CHANNEL).lane(REPORT).from(watcher)) {
                    Ok(envelope) => return Ok(String::from_utf8_lossy(envelope.payload.head()).into_owned()),
                    // The traveller is this VR's child, so its end is reported here, too.
                    Err(RecvError::Down(down)) if down.who == traveller => {}
                    Err(other) => return Err(other.into()),
                }
            }
        };
        for watcher in watchers.iter() {
            let text = told(watcher)?;
            assert!(text.contains("as it was told"), "{text}");
        }
        let error = vr.migrate(traveller, &vms[1]).unwrap_err();
        assert!(matches!(&error, MigrateError::Ended(down) if down.who == traveller), "{error}");
        Ok(())
    };
    river_core::try_run_recoverable(body).unwrap();
}

/// Reports its process.
#[derive(Serialize, Deserialize)]
struct Process;

impl VirtualResource for Process {
    fn main(&mut self, vr: &Vr) -> Result {
        let id = u64::from(std::process::id());
        vr.send_bytes(vr.parent().expect("a parent"), CHANNEL, WHERE, id.to_le_bytes().to_vec())?;
        vr.receive(Selector::on(CHANNEL).lane(END))?;
        Ok(())
    }
}

#[test]
fn a_target_that_dies_in_the_middle_takes_the_vr_along_or_leaves_it_where_it_was() {
    let (mut stayed, mut moved) = (0, 0);
    for round in 0..20 {
        let body = |vr: &Vr| {
            let vms = vr.start_local(2)?;
            let target = vr.deploy(&vms[..1], |_| Target {
                next: BTreeMap::new(),
                streams: 1,
                short: round % 2 == 0,
            })?[0];
            for number in 0..500_u64 {
                vr.send_bytes(target, CHANNEL, NUMBERS, number.to_le_bytes().to_vec())?;
            }
            let process = vr.deploy(&vms[1..], |_| Process)?[0];
            let pid = number(vr.receive(Selector::on(CHANNEL).lane(WHERE).from(process))?.payload.head())?;
            let pid = Pid::from_raw(i32::try_from(pid)?).expect("a process");
            let delay = Duration::from_micros(vr.rng().next_u64() % 6_000);
            let killer = std::thread::spawn(move || {
                std::thread::sleep(delay);
                kill_process(pid, Signal::KILL)
            });
            let result = vr.migrate(target, &vms[1]);
            killer.join().expect("a thread")?;
            let answer = loop {
                match where_is(vr, target) {
                    Err(RecvError::Down(down)) if down.who == process => {}
                    other => break other,
                }
            };
            match (result, answer) {
                // The move was undone: it is where it was.
                (Err(MigrateError::GivenUp(_) | MigrateError::Vm { .. }), Ok(place)) => {
                    assert_eq!(place, vms[0].name);
                    stayed += 1;
                    let mut expected = 0;
                    while expected < 500 {
                        match vr.receive(Selector::on(CHANNEL).lane(NUMBERS).from(target)) {
                            Ok(answer) => assert_eq!(number(answer.payload.head())?, expected),
                            Err(RecvError::Down(down)) if down.who == process => continue,
                            Err(error) => return Err(error.into()),
                        }
                        expected += 1;
                    }
                }
                // It has moved, and died there; or it had answered before.
                (Ok(_), Err(RecvError::Down(down))) => {
                    assert!(matches!(&down.why, Why::HostDied { vm, .. } if *vm == vms[1].name), "{down}");
                    moved += 1;
                }
                (Ok(_), Ok(place)) => {
                    assert_eq!(place, vms[1].name);
                    moved += 1;
                }
                other => panic!("{other:?}"),
            }
            Ok(())
        };
        river_core::try_run_recoverable(body).unwrap();
    }
    assert_eq!(stayed + moved, 20);
}

#[test]
fn what_cannot_be_moved_is_refused_in_a_sentence_and_goes_on() {
    let busy = Vm::start(VmConfig::default().hidden().name("busy")).unwrap();
    let info = busy.info();
    let (have, stop) = (std::sync::mpsc::channel(), std::sync::mpsc::channel::<()>());
    let (leased, stopped, taken) = (have.0, stop.1, info.clone());
    let other = std::thread::spawn(move || {
        river_core::try_run(|vr| {
            vr.allocate(vec![taken.clone()], 1)?;
            let _ = leased.send(());
            let _ = stopped.recv();
            Ok(())
        })
    });
    have.1.recv().unwrap();
    let body = |vr: &Vr| {
        let vms = vr.start_local(2)?;
        let target = vr.deploy(&vms[..1], |_| Target { next: BTreeMap::new(), streams: 1, short: true })?[0];
        let text = |vr: VrId, vm: &VmInfo, me: &Vr| me.migrate(vr, vm).unwrap_err().to_string();
        let unknown = text(VrId::from_uuid(uuid::Uuid::from_u128(7)), &vms[1], vr);
        assert!(unknown.contains("has no VR 00000000") && unknown.contains(" on local-0"), "{unknown}");
        let initiator = text(vr.id(), &vms[1], vr);
        assert!(initiator.contains("is the program's initiator"), "{initiator}");
        let full = text(target, &info, vr);
        assert!(full.contains("VM busy: it is in use by"), "{full}");
        let mut gone = info.clone();
        (gone.name, gone.address) = ("gone".into(), "127.0.0.1:1".parse()?);
        let gone = text(target, &gone, vr);
        assert!(gone.contains("VM gone: "), "{gone}");
        assert_eq!(where_is(vr, target)?, vms[0].name);
        Ok(())
    };
    river_core::try_run_recoverable(body).unwrap();
    let body = |vr: &Vr| {
        let vms = vr.start_local(2)?;
        let target = vr.deploy(&vms[..1], |_| Target { next: BTreeMap::new(), streams: 1, short: true })?[0];
        let error = vr.migrate(target, &vms[1]).unwrap_err().to_string();
        assert!(error.contains("is not recoverable") && error.contains("river run --recoverable"), "{error}");
        assert_eq!(where_is(vr, target)?, vms[0].name);
        Ok(())
    };
    river_core::try_run(body).unwrap();
    drop(stop.0);
    other.join().unwrap().unwrap();
}
