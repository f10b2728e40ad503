//! Mailboxes with a limit: a slow VR does not fill the memory, and nobody waits forever.

use std::time::Duration;

use river_core::testing::for_each_topology;
use river_core::{
    Channel, QueueLimit, RecvError, Result, Selector, SendError, VirtualResource, VmInfo, Vr, VrId, WhenFull,
};
use serde::{Deserialize, Serialize};

const DATA: Channel = Channel::named("limits data");
const WORD: Channel = Channel::named("limits word");
const SIZE: usize = 64 << 10;
const COUNT: u32 = 1500;

fn everywhere(body: impl Fn(&Vr, &[VmInfo]) -> Result) {
    for_each_topology(|name, make_vms| {
        river_core::try_run(|vr| body(vr, &make_vms(vr, 2)?))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    });
}

fn limit(when_full: WhenFull) -> Option<QueueLimit> {
    Some(QueueLimit { messages: 10, bytes: usize::MAX, when_full })
}

/// Lives until it is told to end.
#[derive(Serialize, Deserialize)]
struct Gate;

impl VirtualResource for Gate {
    fn main(&mut self, vr: &Vr) -> Result {
        vr.receive(Selector::on(WORD))?;
        Ok(())
    }
}

/// Sends `COUNT` envelopes as fast as possible. Reports its first refusal, and finally how often it was refused.
#[derive(Serialize, Deserialize)]
struct Fast {
    to: VrId,
}

impl VirtualResource for Fast {
    fn main(&mut self, vr: &Vr) -> Result {
        let parent = vr.parent().expect("it was deployed");
        vr.send_bytes(self.to, WORD, 0, vec![])?;
        vr.receive(Selector::on(WORD).from(self.to))?;
        let (mut number, mut refused) = (0, 0u32);
        while number < COUNT {
            let mut payload = vec![0; SIZE];
            payload[..4].copy_from_slice(&number.to_le_bytes());
            match vr.send_bytes(self.to, DATA, 0, payload) {
                Ok(()) => number += 1,
                Err(SendError::Full(_)) => {
                    if refused == 0 {
                        vr.send_bytes(parent, WORD, 0, vec![])?;
                    }
                    refused += 1;
                    std::thread::yield_now();
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(vr.send_bytes(parent, WORD, 0, refused.to_le_bytes().to_vec())?)
    }
}

/// Limits its mailbox, says so, takes everything once the mailbox is full and the gate is gone, and then reports the most
/// envelopes that waited. Nobody could tell it anything, as its mailbox is full.
#[derive(Serialize, Deserialize)]
struct Slow {
    gate: Option<VrId>,
}

impl VirtualResource for Slow {
    fn main(&mut self, vr: &Vr) -> Result {
        let parent = vr.parent().expect("it was deployed");
        vr.limit_queue(limit(if self.gate.is_some() { WhenFull::Refuse } else { WhenFull::Wait }));
        vr.send_bytes(parent, WORD, 0, vec![])?;
        // The notice that holds the sender off goes this way: a first dial would take long while it sends.
        let sender = vr.receive(Selector::on(WORD))?.src;
        vr.send_bytes(sender, WORD, 0, vec![])?;
        let mut most = 0;
        for expected in 0..COUNT {
            if expected == 0 {
                while vr.queue().messages < 10 {
                    let _ = vr.wait(Duration::from_secs(1));
                }
                if let Some(gate) = self.gate {
                    vr.receive(Selector::on(WORD).from(gate)).expect_err("it says nothing");
                }
            }
            most = most.max(vr.queue().messages);
            let envelope = vr.receive(Selector::on(DATA))?;
            assert_eq!(envelope.payload.to_bytes()[..4], expected.to_le_bytes());
        }
        Ok(vr.send_bytes(parent, WORD, 0, most.to_le_bytes().to_vec())?)
    }
}

/// Returns how often the sender was refused, and the most envelopes that waited.
fn run(vr: &Vr, vms: &[VmInfo], wait: bool) -> Result<(u32, usize)> {
    let gate = if wait { None } else { Some(vr.deploy(&vms[..1], |_| Gate)?[0]) };
    let slow = vr.deploy(&vms[..1], |_| Slow { gate })?[0];
    vr.receive(Selector::on(WORD).from(slow))?;
    let fast = vr.deploy(&vms[1..], |_| Fast { to: slow })?[0];
    if let Some(gate) = gate {
        vr.receive(Selector::on(WORD).from(fast))?;
        vr.send_bytes(gate, WORD, 0, vec![])?;
    }
    let refused = vr.receive(Selector::on(WORD).from(fast))?.payload.to_bytes();
    let most = vr.receive(Selector::on(WORD).from(slow))?.payload.to_bytes();
    Ok((u32::from_le_bytes(refused[..].try_into()?), usize::from_le_bytes(most[..].try_into()?)))
}

#[test]
fn a_sender_that_waits_loses_nothing_and_does_not_fill_the_memory() {
    everywhere(|vr, vms| {
        let (refused, most) = run(vr, vms, true)?;
        assert_eq!(refused, 0);
        assert!((10..COUNT as usize / 2).contains(&most), "{most} waited");
        Ok(())
    });
}

#[test]
fn a_sender_that_is_refused_is_told() {
    everywhere(|vr, vms| {
        let (refused, most) = run(vr, vms, false)?;
        assert!(refused > 0);
        assert!((10..COUNT as usize / 2).contains(&most), "{most} waited");
        Ok(())
    });
}

/// Limits its mailbox, lets it fill, and ends, one way or another.
#[derive(Serialize, Deserialize)]
struct Ends {
    abort: bool,
}

impl VirtualResource for Ends {
    fn main(&mut self, vr: &Vr) -> Result {
        vr.limit_queue(limit(WhenFull::Wait));
        vr.send_bytes(vr.parent().expect("it was deployed"), WORD, 0, vec![])?;
        while vr.queue().messages < 10 {
            let _ = vr.wait(Duration::from_secs(1));
        }
        if self.abort {
            std::process::abort();
        }
        Ok(())
    }
}

#[test]
fn who_waits_for_room_learns_that_there_will_be_none() {
    everywhere(|vr, vms| {
        for abort in [false, true] {
            let ends = vr.deploy(&vms[..1], |_| Ends { abort })?[0];
            vr.receive(Selector::on(WORD).from(ends))?;
            // Sooner or later one of these waits for room; sending to a VR that has ended is no error, receiving from it is.
            let down = loop {
                match vr.send_bytes(ends, DATA, 0, vec![0; SIZE]) {
                    Err(SendError::Down(down)) => break down,
                    other => other?,
                }
                match vr.try_receive_where(Selector::on(WORD).from(ends), |_| true) {
                    Err(RecvError::Down(down)) => break down,
                    other => assert!(other?.is_none()),
                }
            };
            assert_eq!((down.who, down.why.is_normal()), (ends, !abort), "{down}");
            // Takes the notice of a child's end, so that it does not surprise the next receive.
            assert!(vr.receive(Selector::on(WORD).from(ends)).is_err());
        }
        Ok(())
    });
}

#[test]
fn a_limit_counts_what_is_there_and_can_be_taken_back() {
    river_core::testing::threads(1, |vr, _, ids| {
        let send = || vr.send_bytes(ids[0], DATA, 0, vec![0; 100]);
        send().unwrap();
        send().unwrap();
        let by_bytes = QueueLimit { messages: 10, bytes: 250, when_full: WhenFull::Wait };
        vr.limit_queue(Some(by_bytes));
        send().unwrap();
        // A VR that would wait for itself is refused.
        assert_eq!(send(), Err(SendError::Full(ids[0])));
        assert_eq!((vr.queue().messages, vr.queue().bytes), (3, 300));
        vr.receive(Selector::on(DATA)).unwrap();
        send().unwrap();
        assert_eq!(send(), Err(SendError::Full(ids[0])));
        vr.limit_queue(None);
        send().unwrap();
        assert_eq!(vr.queue().messages, 4);
        assert!(vr.queue().oldest.is_some());
    });
}
