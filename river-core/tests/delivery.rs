//! Tests every promise in the section "Delivery" of the crate's documentation, one per test, on every topology.
//!
//! No test sleeps until something has happened: every wait ends with the event, or is a failure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use river_core::testing::for_each_topology;
use river_core::{
    Channel, Down, Envelope, RecvError, Result, Selector, SendError, VirtualResource, Vr, VrId, Why,
};
use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The messages under test; the lane is the number of a message, from 1.
const DATA: Channel = Channel::named("test data");
/// The messages by which the VRs of a test coordinate.
const TALK: Channel = Channel::named("test talk");
const PATIENCE: Duration = Duration::from_secs(60);
/// From nothing to more than fits into a ring, and to sizes that do not pass through one.
const SIZES: [usize; 8] = [0, 1, 8, 100, 5000, 70_000, 300_000, 1_500_000];

type Received = std::result::Result<Envelope, RecvError>;

/// A VR with a simple job. Each is first told what it must know.
#[derive(Serialize, Deserialize)]
enum Actor {
    /// Is told destinations; sends this many messages of all sizes to each of them in turn, and ends.
    Sender { count: u64 },
    /// Is told a number of senders; receives this many messages from each in order, and reports how many there were.
    Receiver { count: u64 },
    /// Is told a VR, watches it, says so; receives messages until one reports that it is down, and reports both.
    Collector,
    /// Is told a VR; receives from it, and reports what the receive returned.
    Asker,
    /// Reports its process; sends every message back.
    Echo,
    /// Reports its process; sends messages forever.
    Flood,
    /// Is told something; panics.
    Panics,
    /// Is told something; ends without having received a message.
    Deaf,
}

impl VirtualResource for Actor {
    fn main(&mut self, vr: &Vr) -> Result {
        let parent = vr.parent().unwrap();
        match *self {
            Actor::Sender { count } => {
                let to: Vec<VrId> = told(vr, parent)?;
                (1..=count).try_for_each(|number| to.iter().try_for_each(|to| send(vr, *to, number)))?;
            }
            Actor::Receiver { count } => {
                let senders: usize = told(vr, parent)?;
                tell(vr, parent, &receive_all(vr, senders, count)?)?;
            }
            Actor::Collector => {
                let who: VrId = told(vr, parent)?;
                vr.watch(who);
                tell(vr, parent, &())?;
                let collected = collect(vr, Selector::on(DATA))?;
                tell(vr, parent, &collected)?;
            }
            Actor::Asker => {
                let who: VrId = told(vr, parent)?;
                tell(vr, parent, &down(receive(vr, Selector::on(DATA).from(who))))?;
            }
            Actor::Echo => {
                tell(vr, parent, &std::process::id())?;
                loop {
                    let Envelope { src, lane, payload, .. } = receive(vr, Selector::on(DATA))?;
                    vr.send_bytes(src, DATA, lane, payload)?;
                }
            }
            Actor::Flood => {
                tell(vr, parent, &std::process::id())?;
                (1..).try_for_each(|number| send(vr, parent, number))?;
            }
            Actor::Panics => {
                let () = told(vr, parent)?;
                panic!("as asked");
            }
            Actor::Deaf => told(vr, parent)?,
        }
        Ok(())
    }
}

fn tell(vr: &Vr, to: VrId, what: &impl Serialize) -> Result {
    Ok(vr.send_bytes(to, TALK, 0, postcard::to_stdvec(what)?)?)
}

fn told<T: DeserializeOwned>(vr: &Vr, by: VrId) -> Result<T> {
    Ok(postcard::from_bytes(&receive(vr, Selector::on(TALK).from(by))?.payload.to_bytes())?)
}

fn receive(vr: &Vr, selector: Selector) -> Received {
    vr.receive_until(selector, Some(Instant::now() + PATIENCE), |_| true)
}

/// Returns the notice with which a receive ended.
fn down(received: Received) -> Down {
    match received {
        Err(RecvError::Down(down)) => down,
        other => panic!("a notice was expected, not {other:?}"),
    }
}

/// Returns the message with this number: its contents differ from those of its neighbours.
fn content(number: u64) -> Vec<u8> {
    let size = match number {
        _ if number.is_multiple_of(40) => SIZES[6],
        _ if number.is_multiple_of(25) => SIZES[7],
        _ => SIZES[(number * 5 % 6) as usize],
    };
    vec![number as u8; size]
}

fn send(vr: &Vr, to: VrId, number: u64) -> std::result::Result<(), SendError> {
    vr.send_bytes(to, DATA, number, content(number))
}

/// Checks that this is the message with this number, complete, and that none is missing before it.
fn check(envelope: &Envelope, number: u64) {
    let Envelope { src, lane, seq, payload, .. } = envelope;
    assert_eq!(*lane, number, "from {src}");
    assert!(payload.to_bytes() == content(number), "message {number} from {src} is garbled");
    assert!(*seq >= number - 1, "message {number} from {src} has sequence number {seq}");
}

/// Receives `count` messages from each of this many VRs, in any order between them, and then their ends.
fn receive_all(vr: &Vr, senders: usize, count: u64) -> Result<u64> {
    let mut last: HashMap<VrId, u64> = HashMap::new();
    for _ in 0..senders as u64 * count {
        let envelope = receive(vr, Selector::on(DATA))?;
        let number = last.entry(envelope.src).or_default();
        *number += 1;
        check(&envelope, *number);
    }
    assert_eq!(last.len(), senders);
    for who in last.keys() {
        // If there were one more, this would be it.
        assert_eq!(down(receive(vr, Selector::on(DATA).from(*who))), Down { who: *who, why: Why::Finished });
    }
    Ok(last.values().sum())
}

/// Receives messages 1, 2, ... until the notice comes. Returns how many there were, and the notice.
fn collect(vr: &Vr, selector: Selector) -> Result<(u64, Down)> {
    for number in 1.. {
        match receive(vr, selector) {
            Ok(envelope) => check(&envelope, number),
            Err(RecvError::Down(down)) => return Ok((number - 1, down)),
            Err(other) => return Err(other.into()),
        }
    }
    unreachable!("there are not that many")
}

fn signal(process: u32, signal: Signal) {
    kill_process(Pid::from_raw(process as i32).unwrap(), signal).unwrap();
}

/// Stops a process, and returns once none of its threads runs any more.
fn stop(process: u32) {
    signal(process, Signal::STOP);
    let stopped = |stat: String| stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with('T'));
    let all_stopped = || {
        let mut threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap().flatten();
        // A thread that has ended meanwhile has no file.
        threads.all(|thread| std::fs::read_to_string(thread.path().join("stat")).map_or(true, stopped))
    };
    while !all_stopped() {
        std::thread::yield_now();
    }
}

/// Runs a program with this many places on each topology.
fn everywhere(places: usize, program: impl Fn(&Vr, &[river_core::VmInfo]) -> Result) {
    for_each_topology(|name, make_vms| {
        river_core::try_run(|vr| program(vr, &make_vms(vr, places)?))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    });
}

#[test]
fn each_pair_is_first_in_first_out_and_nothing_comes_twice() {
    const COUNT: u64 = 200;
    everywhere(3, |vr, vms| {
        let receivers = vr.deploy(&vms[..2], |_| Actor::Receiver { count: COUNT })?;
        let many: Vec<_> = vms.iter().cycle().take(8).cloned().collect();
        let senders = vr.deploy(&many, |_| Actor::Sender { count: COUNT })?;
        let all: Vec<VrId> = receivers.iter().chain([vr.id()]).collect();
        receivers.iter().try_for_each(|id| tell(vr, id, &senders.len()))?;
        senders.iter().try_for_each(|id| tell(vr, id, &all))?;
        assert_eq!(receive_all(vr, senders.len(), COUNT)?, 8 * COUNT);
        for id in receivers.iter() {
            assert_eq!(told::<u64>(vr, id)?, 8 * COUNT);
        }
        Ok(())
    });
}

#[test]
fn a_selector_may_take_a_later_message_first_but_none_twice() {
    const COUNT: u64 = 120;
    everywhere(1, |vr, vms| {
        let sender = vr.deploy(vms, |_| Actor::Sender { count: COUNT })?[0];
        tell(vr, sender, &[vr.id()].to_vec())?;
        for number in (1..=COUNT).rev().step_by(2) {
            check(&receive(vr, Selector::on(DATA).lane(number))?, number);
        }
        for number in (1..=COUNT).step_by(2) {
            check(&receive(vr, Selector::on(DATA).from(sender))?, number);
        }
        assert_eq!(down(receive(vr, Selector::on(DATA).from(sender))).why, Why::Finished);
        assert_eq!(vr.peek_where(Selector::on(DATA), |envelope| Some(envelope.lane)), None);
        Ok(())
    });
}

#[test]
fn ok_is_accepted_not_received_and_what_is_never_received_is_told() {
    everywhere(1, |vr, vms| {
        let deaf = vr.deploy(vms, |_| Actor::Deaf)?[0];
        // It receives none of them at any time.
        (1..=30).try_for_each(|number| send(vr, deaf, number))?;
        tell(vr, deaf, &())?;
        assert_eq!(down(receive(vr, Selector::on(DATA).from(deaf))).why, Why::Finished);
        Ok(())
    });
}

#[test]
fn a_host_killed_while_it_receives_costs_only_what_its_notice_follows() {
    everywhere(2, |vr, vms| {
        let echo = vr.deploy(&vms[..1], |_| Actor::Echo)?[0];
        let process: u32 = told(vr, echo)?;
        // A VR elsewhere watches; on one VM it dies, too.
        let apart = vms[0].id != vms[1].id;
        let watcher = if apart { Some(vr.deploy(&vms[1..], |_| Actor::Collector)?[0]) } else { None };
        if let Some(watcher) = watcher {
            tell(vr, watcher, &echo)?;
            let () = told(vr, watcher)?;
        }
        let (mut sent, mut echoed) = (0, 0);
        let refused = loop {
            match send(vr, echo, sent + 1) {
                Ok(()) => sent += 1,
                Err(SendError::Down(down)) => break down,
                Err(other) => return Err(other.into()),
            }
            // The notice may come here first; then the next send fails.
            while let Ok(Some(envelope)) = vr.try_receive_where(Selector::on(DATA), |_| true) {
                echoed += 1;
                check(&envelope, echoed);
                if echoed == 100 {
                    signal(process, Signal::KILL);
                }
            }
        };
        let killed = |down: &Down| {
            let by_signal = matches!(&down.why, Why::HostDied { how, .. } if how.contains("signal 9"));
            assert!(down.who == echo && by_signal, "{down}");
        };
        killed(&refused);
        // What came back before its end is complete and in order; then the notice comes, every time.
        let last = loop {
            match receive(vr, Selector::on(DATA).from(echo)) {
                Ok(envelope) => {
                    echoed += 1;
                    check(&envelope, echoed);
                }
                error => break down(error),
            }
        };
        killed(&last);
        assert!((100..=sent).contains(&echoed), "{echoed} of {sent} came back");
        assert_eq!(down(receive(vr, Selector::on(DATA).from(echo))), last);
        if let Some(watcher) = watcher {
            let (none, notice): (u64, Down) = told(vr, watcher)?;
            killed(&notice);
            assert_eq!(none, 0);
        }
        Ok(())
    });
}

#[test]
fn a_host_killed_while_it_sends_leaves_no_gap_before_its_notice() {
    everywhere(1, |vr, vms| {
        let flood = vr.deploy(vms, |_| Actor::Flood)?[0];
        let process: u32 = told(vr, flood)?;
        for number in 1..=100 {
            check(&receive(vr, Selector::on(DATA).from(flood))?, number);
        }
        signal(process, Signal::KILL);
        let end = (101..).find_map(|number| match receive(vr, Selector::on(DATA).from(flood)) {
            Ok(envelope) => {
                check(&envelope, number);
                None
            }
            error => Some(down(error)),
        });
        assert!(matches!(end, Some(Down { why: Why::HostDied { .. }, .. })), "{end:?}");
        assert_eq!(vr.peek_where(Selector::on(DATA), |envelope| Some(envelope.lane)), None);
        Ok(())
    });
}

#[test]
fn a_notice_comes_after_everything_that_was_sent() {
    const COUNT: u64 = 10_000;
    everywhere(2, |vr, vms| {
        let sender = vr.deploy(&vms[..1], |_| Actor::Sender { count: COUNT })?[0];
        let collector = vr.deploy(&vms[1..], |_| Actor::Collector)?[0];
        tell(vr, collector, &sender)?;
        let () = told(vr, collector)?;
        tell(vr, sender, &[collector, vr.id()].to_vec())?;
        let expected = (COUNT, Down { who: sender, why: Why::Finished });
        assert_eq!(collect(vr, Selector::on(DATA).from(sender))?, expected);
        assert_eq!(told::<(u64, Down)>(vr, collector)?, expected);
        Ok(())
    });
}

#[test]
fn a_receive_from_one_who_is_gone_returns() {
    everywhere(2, |vr, vms| {
        let ask = |who: VrId| {
            let asker = vr.deploy(&vms[1..], |_| Actor::Asker)?[0];
            tell(vr, asker, &who).map(|()| asker)
        };
        // Whether it waits already when the other one panics, or comes later, it is told.
        let panics = vr.deploy(&vms[..1], |_| Actor::Panics)?[0];
        let early = ask(panics)?;
        tell(vr, panics, &())?;
        let notice = down(receive(vr, Selector::on(DATA).from(panics)));
        assert!(matches!(&notice.why, Why::Panicked(text) if text.contains("as asked")), "{notice}");
        assert_eq!(told::<Down>(vr, early)?, notice);
        assert_eq!(told::<Down>(vr, ask(panics)?)?, notice);
        assert_eq!(down(receive(vr, Selector::on(DATA).from(panics))), notice);
        // A VR that never existed.
        let nobody = VrId::fresh();
        let unknown = Down { who: nobody, why: Why::Unknown };
        assert_eq!(told::<Down>(vr, ask(nobody)?)?, unknown);
        assert_eq!(down(receive(vr, Selector::on(DATA).from(nobody))), unknown);
        assert_eq!(send(vr, nobody, 1), Err(SendError::Down(unknown)));
        Ok(())
    });
}

#[test]
fn the_failure_of_a_child_is_told_unasked_and_its_normal_end_is_not() {
    everywhere(2, |vr, vms| {
        let normal = vr.deploy(vms, |_| Actor::Deaf)?;
        normal.iter().try_for_each(|id| tell(vr, id, &()))?;
        let panics = vr.deploy(vms, |_| Actor::Panics)?;
        for id in panics.iter() {
            tell(vr, id, &())?;
            // The receive names no source.
            let notice = down(receive(vr, Selector::on(DATA)));
            assert_eq!(notice.who, id);
            assert!(matches!(notice.why, Why::Panicked(_)), "{notice}");
        }
        assert!(vr.try_receive_where(Selector::on(DATA), |_| true)?.is_none());
        Ok(())
    });
}

#[test]
fn who_watches_is_told_after_the_messages_until_it_takes_the_watch_back() {
    const COUNT: u64 = 50;
    everywhere(2, |vr, vms| {
        let sender = vr.deploy(&vms[..1], |_| Actor::Sender { count: COUNT })?[0];
        let watcher = vr.deploy(&vms[1..], |_| Actor::Collector)?[0];
        tell(vr, watcher, &sender)?;
        let () = told(vr, watcher)?;
        vr.watch(sender);
        vr.unwatch(sender);
        tell(vr, sender, &[watcher].to_vec())?;
        assert_eq!(told::<(u64, Down)>(vr, watcher)?, (COUNT, Down { who: sender, why: Why::Finished }));
        assert!(vr.try_receive_where(Selector::on(DATA), |_| true)?.is_none());
        // A watch that comes too late is answered as well.
        vr.watch(sender);
        assert_eq!(down(receive(vr, Selector::on(DATA))), Down { who: sender, why: Why::Finished });
        Ok(())
    });
}

#[test]
fn a_stopped_host_is_late_not_dead() {
    // Longer than a broken connection waits for the verdict on its host.
    const STOPPED: Duration = Duration::from_millis(2500);
    everywhere(1, |vr, vms| {
        let echo = vr.deploy(vms, |_| Actor::Echo)?[0];
        let process: u32 = told(vr, echo)?;
        send(vr, echo, 1)?;
        check(&receive(vr, Selector::on(DATA).from(echo))?, 1);
        stop(process);
        // No more than the buffers in between hold: a sender waits for a process that does not read.
        (2..=12).try_for_each(|number| send(vr, echo, number))?;
        let error = vr.receive_until(Selector::on(DATA).from(echo), Some(Instant::now() + STOPPED), |_| true);
        assert!(matches!(error, Err(RecvError::Timeout { .. })), "{error:?}");
        signal(process, Signal::CONT);
        for number in 2..=12 {
            check(&receive(vr, Selector::on(DATA).from(echo))?, number);
        }
        Ok(())
    });
}
