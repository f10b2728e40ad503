//! Mirrored VRs: their processes are killed while others talk to them, and nobody can tell.

use std::collections::BTreeMap;
use std::time::Duration;

use rand_core::Rng;
use river_core::{Channel, MigrateError, RecvError, Result, Selector, VirtualResource, VmInfo, Vr, VrError, VrId, Why};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

const CHANNEL: Channel = Channel::named("test");
/// Numbered envelopes, and their answers.
const NUMBERS: u64 = 1;
/// The end of a stream.
const END: u64 = 2;
const REPORT: u64 = 3;
/// Where it runs: its process.
const WHERE: u64 = 4;

fn number(bytes: &[u8]) -> Result<u64> {
    Ok(u64::from_le_bytes(bytes.try_into()?))
}

/// Takes numbers, which come one after the other from everybody, and answers each with a number of its own.
#[derive(Serialize, Deserialize)]
struct Target {
    next: BTreeMap<VrId, u64>,
    answers: u64,
    streams: usize,
    /// Whether it makes safepoints.
    short: bool,
}

impl Target {
    fn new(streams: usize, short: bool) -> Self {
        Self { next: BTreeMap::new(), answers: 0, streams, short }
    }
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
                        return Err(VrError::msg(format!("{came} came, not {next}")));
                    }
                    *next += 1;
                    self.answers += 1;
                    let answer = [came.to_le_bytes(), self.answers.to_le_bytes()].concat();
                    vr.send_bytes(envelope.src, CHANNEL, NUMBERS, answer)?;
                }
                WHERE => {
                    let process = vr.effect(|| u64::from(std::process::id()))?;
                    vr.send_bytes(envelope.src, CHANNEL, WHERE, process.to_le_bytes().to_vec())?;
                }
                _ => self.streams -= 1,
            }
        }
        let total: u64 = self.next.values().sum();
        vr.send_bytes(vr.parent().expect("a parent"), CHANNEL, REPORT, total.to_le_bytes().to_vec())?;
        Ok(())
    }
}

/// Sends numbers, some of them ahead of their answers, until it is told to stop; says how many.
#[derive(Serialize, Deserialize)]
struct Source {
    to: VrId,
    ahead: u64,
}

impl VirtualResource for Source {
    fn main(&mut self, vr: &Vr) -> Result {
        let (mut sent, mut answered, mut last) = (0_u64, 0, 0);
        let parent = vr.parent().expect("a parent");
        vr.watch(self.to);
        loop {
            let stop = vr.try_receive_where(Selector::on(CHANNEL).lane(END).from(parent), |_| true)?;
            while stop.is_none() && sent < answered + self.ahead {
                vr.send_bytes(self.to, CHANNEL, NUMBERS, sent.to_le_bytes().to_vec())?;
                sent += 1;
            }
            let until = if stop.is_some() { sent } else { answered + 1 };
            while answered < until {
                let answer = vr.receive(Selector::on(CHANNEL).lane(NUMBERS).from(self.to))?.payload.to_bytes();
                let (came, count) = (number(&answer[..8])?, number(&answer[8..])?);
                if came != answered || count <= last {
                    return Err(VrError::msg(format!("answer {came}, {count} after {answered}, {last}")));
                }
                (answered, last) = (answered + 1, count);
            }
            if stop.is_some() {
                vr.send_bytes(self.to, CHANNEL, END, Vec::new())?;
                vr.send_bytes(parent, CHANNEL, REPORT, sent.to_le_bytes().to_vec())?;
                return Ok(());
            }
        }
    }
}

/// A receive of the initiator, to which the deaths of others than those it waits for are no reason to stop.
fn from(vr: &Vr, who: VrId, lane: u64) -> Result<u64> {
    loop {
        match vr.receive(Selector::on(CHANNEL).lane(lane).from(who)) {
            Ok(envelope) => return number(envelope.payload.head()),
            Err(RecvError::Down(down)) if down.who != who => {}
            Err(other) => return Err(other.into()),
        }
    }
}

fn process_of(vr: &Vr, who: VrId) -> Result<Pid> {
    vr.send_bytes(who, CHANNEL, WHERE, Vec::new())?;
    let process = from(vr, who, WHERE)?;
    Ok(Pid::from_raw(i32::try_from(process)?).expect("a process"))
}

/// A target that is mirrored; sources on VMs whose processes stay; the target's is killed again and again.
fn killed(vr: &Vr, vms: usize, short: bool, mirrored_source: bool) -> Result {
    let vms = vr.start_local(vms)?;
    let (safe, deadly) = vms.split_at(2);
    let target = vr.deploy(&deadly[..1], |_| Target::new(3, short))?[0];
    // The VMs that stay are taken last: the twins go where the least is.
    assert_eq!(vr.mirror(target, &deadly[1])?.vrs, 1);
    assert_eq!(vr.mirror(target, &deadly[1])?.vrs, 0, "it is there already");
    let on: Vec<VmInfo> = [&safe[0], &safe[1], &safe[0]].into_iter().cloned().collect();
    let sources = vr.deploy(&on, |index| Source { to: target, ahead: [1, 4, 20][index] })?;
    if mirrored_source {
        vr.mirror(sources[0], &safe[1])?;
    }
    let mut before = None;
    for _ in 1..deadly.len() {
        let process = process_of(vr, target)?;
        assert_ne!(before.replace(process), Some(process));
        std::thread::sleep(Duration::from_micros(vr.rng().next_u64() % 20_000));
        kill_process(process, Signal::KILL)?;
        // It answers from another process, and waits there until it has a twin again.
        let mut now = process_of(vr, target)?;
        while now == process {
            now = process_of(vr, target)?;
        }
        for vm in deadly.iter().chain(safe) {
            match vr.mirror(target, vm) {
                Ok(_) => break,
                Err(MigrateError::Vm { .. }) => {}
                Err(other) => return Err(other.into()),
            }
        }
    }
    for source in sources.iter() {
        vr.send_bytes(source, CHANNEL, END, Vec::new())?;
    }
    let mut total = 0;
    for source in sources.iter() {
        total += from(vr, source, REPORT)?;
    }
    assert_eq!(from(vr, target, REPORT)?, total);
    assert!(total > 0);
    Ok(())
}

#[test]
fn a_mirrored_vr_outlives_its_processes_and_nothing_is_lost_doubled_or_overtaken() {
    for round in 0..6 {
        river_core::try_run_recoverable(|vr| killed(vr, 5, round % 2 == 0, false)).unwrap();
    }
}

#[test]
fn two_that_are_mirrored_talk_to_each_other_while_processes_die() {
    for round in 0..4 {
        river_core::try_run_recoverable(|vr| killed(vr, 5, round % 2 == 0, true)).unwrap();
    }
}

#[test]
fn it_does_not_matter_where_its_twin_dies_and_without_one_it_ends_as_others_do() {
    let body = |vr: &Vr| {
        let vms = vr.start_local(2)?;
        let target = vr.deploy(&vms[..1], |_| Target::new(1, true))?[0];
        let other = vr.deploy(&vms[1..], |_| Target::new(1, true))?[0];
        vr.mirror(target, &vms[1])?;
        let error = vr.mirror(target, &vms[0]).unwrap_err().to_string();
        assert!(error.contains("has to be on another VM"), "{error}");
        kill_process(process_of(vr, other)?, Signal::KILL)?;
        // It goes on alone.
        for count in 0..100_u64 {
            vr.send_bytes(target, CHANNEL, NUMBERS, count.to_le_bytes().to_vec())?;
            let answer = loop {
                match vr.receive(Selector::on(CHANNEL).lane(NUMBERS).from(target)) {
                    Err(RecvError::Down(down)) if down.who == other => {}
                    answer => break answer?,
                }
            };
            assert_eq!(number(&answer.payload.to_bytes()[..8])?, count);
        }
        kill_process(process_of(vr, target)?, Signal::KILL)?;
        let Err(RecvError::Down(down)) = vr.receive(Selector::on(CHANNEL).lane(REPORT).from(target)) else {
            panic!("it lives");
        };
        assert!(matches!(down.why, Why::HostDied { .. }), "{down}");
        Ok(())
    };
    river_core::try_run_recoverable(body).unwrap();
}
