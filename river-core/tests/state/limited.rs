//! Checkpoints while mailboxes are full.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use river_core::{QueueLimit, Result, Selector, SendError, VirtualResource, Vr, VrId, WhenFull};
use serde::{Deserialize, Serialize};

use crate::CHANNEL;

/// Takes nothing out of its mailbox, which has a limit, until there is a checkpoint.
#[derive(Serialize, Deserialize)]
struct Narrow {
    state: PathBuf,
}

/// Fills the mailbox, and tells the initiator before each envelope.
#[derive(Serialize, Deserialize)]
struct Filler {
    narrow: VrId,
}

const MANY: u64 = 20;

impl VirtualResource for Narrow {
    fn main(&mut self, vr: &Vr) -> Result {
        let parent = vr.parent().expect("a parent");
        let when_full = WhenFull::Wait;
        vr.limit_queue(Some(QueueLimit { messages: 2, bytes: 1 << 20, when_full }));
        vr.send_bytes(parent, CHANNEL, 1, vec![])?;
        let taken = || self.state.join("checkpoint-000001.river").exists();
        while !vr.effect(taken)? {
            let soon = Instant::now() + Duration::from_millis(5);
            vr.receive_until(Selector::on(CHANNEL).lane(3), Some(soon), |_| true).unwrap_err();
        }
        let mut sum = 0;
        for _ in 0..MANY {
            sum = sum * 3 + u64::from(vr.receive(Selector::on(CHANNEL).lane(2))?.payload.head()[0]);
        }
        vr.send_bytes(parent, CHANNEL, 4, sum.to_le_bytes().to_vec())?;
        Ok(())
    }
}

impl VirtualResource for Filler {
    fn main(&mut self, vr: &Vr) -> Result {
        for number in 0..MANY {
            vr.send_bytes(vr.parent().expect("a parent"), CHANNEL, 5, vec![number as u8])?;
            vr.send_bytes(self.narrow, CHANNEL, 2, vec![number as u8])?;
        }
        Ok(())
    }
}

#[test]
fn who_waits_for_room_does_not_keep_a_checkpoint_from_being_taken() {
    for vms in [1, 2] {
        let directory = tempfile::tempdir().unwrap();
        let body = |vr: &Vr| -> Result<(u64, bool)> {
            let vms = vr.start_local(vms)?;
            let narrow = vr.deploy(&vms[..1], |_| Narrow { state: directory.path().into() })?[0];
            vr.receive(Selector::on(CHANNEL).lane(1).from(narrow))?;
            let filler = vr.deploy(&vms[vms.len() - 1..], |_| Filler { narrow })?[0];
            // It is about to send an envelope for which there is no room.
            for _ in 0..3 {
                vr.receive(Selector::on(CHANNEL).lane(5).from(filler))?;
            }
            let taken = vr.checkpoint(directory.path())?;
            let sum = vr.receive(Selector::on(CHANNEL).lane(4).from(narrow))?;
            Ok((u64::from_le_bytes(sum.payload.head()[..].try_into()?), taken.resumed))
        };
        let (sum, resumed) = river_core::try_run_recoverable(body).unwrap();
        assert!(!resumed);
        assert_eq!(river_core::restore(directory.path(), body).unwrap(), (sum, true));
    }
}

/// Takes one envelope at a time, and only when it is told to.
#[derive(Serialize, Deserialize)]
struct Full;

impl VirtualResource for Full {
    fn main(&mut self, vr: &Vr) -> Result {
        vr.limit_queue(Some(QueueLimit { messages: 1, bytes: usize::MAX, when_full: WhenFull::Refuse }));
        let parent = vr.parent().expect("a parent");
        vr.send_bytes(parent, CHANNEL, 1, Vec::new())?;
        vr.receive(Selector::on(CHANNEL).lane(9))?;
        Ok(())
    }
}

/// Sends to a full mailbox repeatedly, until it is told to stop; reports how often it was refused.
#[derive(Serialize, Deserialize)]
struct Pushing {
    to: VrId,
    refused: u64,
}

impl VirtualResource for Pushing {
    fn main(&mut self, vr: &Vr) -> Result {
        let parent = vr.parent().expect("a parent");
        loop {
            vr.safepoint(self)?;
            if vr.try_receive_where(Selector::on(CHANNEL).from(parent), |_| true)?.is_some() {
                vr.send_bytes(parent, CHANNEL, 2, self.refused.to_le_bytes().to_vec())?;
                return Ok(());
            }
            for _ in 0..50 {
                match vr.send_bytes(self.to, CHANNEL, 1, Vec::new()) {
                    Err(SendError::Full(_)) => self.refused += 1,
                    other => other?,
                }
            }
        }
    }
}

/// A send that is refused was recorded before it was made, and never arrives, so nobody may wait for it.
#[test]
fn sends_that_are_refused_do_not_hold_a_checkpoint_up() {
    let directory = tempfile::tempdir().unwrap();
    let body = |vr: &Vr| {
        let vms = vr.start_local(2)?;
        let full = vr.deploy(&vms[..1], |_| Full)?[0];
        vr.receive(Selector::on(CHANNEL).from(full))?;
        let places = [vms[0].clone(), vms[1].clone()];
        let pushing = vr.deploy(&places, |_| Pushing { to: full, refused: 0 })?;
        for _ in 0..60 {
            vr.checkpoint(directory.path())?;
        }
        for pushing in pushing.iter() {
            vr.send_bytes(pushing, CHANNEL, 0, Vec::new())?;
            let refused = vr.receive(Selector::on(CHANNEL).lane(2).from(pushing))?;
            assert!(u64::from_le_bytes(refused.payload.head()[..].try_into()?) > 0);
        }
        Ok(())
    };
    river_core::try_run_recoverable(body).unwrap();
}
