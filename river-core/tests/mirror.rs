//! Mirrored VRs: their processes are killed while others talk to them, and nobody notices.

use std::collections::BTreeMap;
use std::time::Duration;

use rand_core::Rng;
use river_core::testing::{MakeVms, for_each_topology};
use river_core::{
    Channel, Envelope, RecvError, Result, Selector, VirtualResource, VmInfo, Vr, VrError, VrId, Why,
};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

const CHANNEL: Channel = Channel::named("test");
/// Numbered envelopes, and their answers.
const NUMBERS: u64 = 1;
/// The end of a stream.
const END: u64 = 2;
const REPORT: u64 = 3;
/// Asks in which process it runs.
const WHERE: u64 = 4;

fn number(bytes: &[u8]) -> Result<u64> {
    Ok(u64::from_le_bytes(bytes.try_into()?))
}

/// Takes numbers, which must be consecutive from each sender, and answers each with a number of its own.
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
                    let vm = vr.effect(|| u64::from(std::os::unix::process::parent_id()))?;
                    let answer = [process.to_le_bytes(), vm.to_le_bytes()].concat();
                    vr.send_bytes(envelope.src, CHANNEL, WHERE, answer)?;
                }
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
                let answer =
                    vr.receive(Selector::on(CHANNEL).lane(NUMBERS).from(self.to))?.payload.to_bytes();
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

/// A receive of the initiator, which continues when VRs other than the one that it waits for die.
fn from(vr: &Vr, who: VrId, lane: u64) -> std::result::Result<Envelope, RecvError> {
    loop {
        match vr.receive(Selector::on(CHANNEL).lane(lane).from(who)) {
            Err(RecvError::Down(down)) if down.who != who => {}
            other => return other,
        }
    }
}

/// Returns the process that a VR is in, and the process that started that one.
fn processes_of(vr: &Vr, who: VrId) -> Result<(Pid, Pid)> {
    vr.send_bytes(who, CHANNEL, WHERE, Vec::new())?;
    let answer = from(vr, who, WHERE)?.payload.to_bytes();
    let pid = |bytes| Ok::<_, VrError>(Pid::from_raw(i32::try_from(number(bytes)?)?).expect("a process"));
    Ok((pid(&answer[..8])?, pid(&answer[8..])?))
}

/// A target is mirrored, with sources on VMs whose processes stay; the target's process, or its VM, is killed repeatedly.
fn killed(vr: &Vr, make: &MakeVms, kill_vms: bool, short: bool, mirrored_source: bool) -> Result {
    let vms = make(vr, 5)?;
    let (safe, deadly) = vms.split_at(2);
    let target = vr.deploy(&deadly[..1], |_| Target::new(3, short))?[0];
    assert_eq!(vr.mirror(target, &deadly[1])?.vrs, 1);
    assert_eq!(vr.mirror(target, &deadly[1])?.vrs, 0, "it is there already");
    let on: Vec<VmInfo> = [&safe[0], &safe[1], &safe[0]].into_iter().cloned().collect();
    let sources = vr.deploy(&on, |index| Source { to: target, ahead: [1, 4, 20][index] })?;
    if mirrored_source {
        vr.mirror(sources[0], &safe[1])?;
    }
    let mut before = None;
    for round in 1..deadly.len() {
        let (process, vm) = processes_of(vr, target)?;
        assert_ne!(before.replace(process), Some(process));
        std::thread::sleep(Duration::from_micros(vr.rng().next_u64() % 20_000));
        kill_process(if kill_vms { vm } else { process }, Signal::KILL)?;
        // It continues in another process, and after a while has a twin again: on the last of the VMs that may die.
        while processes_of(vr, target)?.0 == process {}
        if round + 1 < deadly.len() {
            vr.mirror(target, &deadly[2])?;
        }
    }
    for source in sources.iter() {
        vr.send_bytes(source, CHANNEL, END, Vec::new())?;
    }
    let mut total = 0;
    for source in sources.iter() {
        total += number(from(vr, source, REPORT)?.payload.head())?;
    }
    assert_eq!(number(from(vr, target, REPORT)?.payload.head())?, total);
    assert!(total > 0);
    Ok(())
}

fn survive(rounds: usize, mirrored_source: bool) {
    for_each_topology(|topology, make| {
        if topology == "one VM" {
            let body = |vr: &Vr| {
                let vms = make(vr, 2)?;
                let target = vr.deploy(&vms[..1], |_| Target::new(1, true))?[0];
                let error = vr.mirror(target, &vms[1]).unwrap_err().to_string();
                assert!(error.contains("has to be on another VM"), "{error}");
                assert!(vr.deploy_mirrored(&vms, |_| Target::new(1, true)).is_err());
                Ok(())
            };
            return river_core::try_run_recoverable(body).unwrap();
        }
        for round in 0..rounds {
            let kill_vms = topology.contains("VM processes") && round % 3 == 2;
            let body = |vr: &Vr| killed(vr, make, kill_vms, round % 2 == 0, mirrored_source);
            river_core::try_run_recoverable(body).unwrap();
        }
    });
}

#[test]
fn a_mirrored_vr_outlives_its_processes_and_nothing_is_lost_doubled_or_overtaken() {
    survive(6, false);
}

#[test]
fn two_that_are_mirrored_talk_to_each_other_while_processes_die() {
    survive(4, true);
}

#[test]
fn several_that_are_deployed_mirrored_survive_the_same_death() {
    let body = |vr: &Vr| {
        let vms = vr.start_local(4)?;
        let group = vr.deploy_mirrored(&vms[..2], |_| Target::new(1, true))?;
        let mut count = 0_u64;
        for round in 0..2 {
            let (process, _) = processes_of(vr, group[0])?;
            kill_process(process, Signal::KILL)?;
            for _ in 0..50 {
                for target in group.iter() {
                    vr.send_bytes(target, CHANNEL, NUMBERS, count.to_le_bytes().to_vec())?;
                    assert_eq!(number(&from(vr, target, NUMBERS)?.payload.to_bytes()[..8])?, count);
                }
                count += 1;
            }
            // Only when they have twins again can the process die without harm.
            if round == 0 {
                for target in group.iter() {
                    vr.mirror(target, &vms[3])?;
                }
            }
        }
        Ok(())
    };
    river_core::try_run_recoverable(body).unwrap();
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
        kill_process(processes_of(vr, other)?.0, Signal::KILL)?;
        // It continues without a twin.
        for count in 0..100_u64 {
            vr.send_bytes(target, CHANNEL, NUMBERS, count.to_le_bytes().to_vec())?;
            let answer = from(vr, target, NUMBERS)?;
            assert_eq!(number(&answer.payload.to_bytes()[..8])?, count);
        }
        kill_process(processes_of(vr, target)?.0, Signal::KILL)?;
        let Err(RecvError::Down(down)) = from(vr, target, REPORT) else {
            panic!("it lives");
        };
        assert!(matches!(down.why, Why::HostDied { .. }), "{down}");
        Ok(())
    };
    river_core::try_run_recoverable(body).unwrap();
}
