//! A program continues from a checkpoint exactly as it continued without one.

use std::path::Path;

use rand_core::Rng;
use river_core::{Down, RecvError, Result, Selector, VirtualResource, VmInfo, Vr, VrId, Why};
use serde::{Deserialize, Serialize};

use crate::{Adder, CHANNEL, Sleeper};

/// Adds a random number to what it receives, and passes it on; reports to the initiator now and then.
#[derive(Serialize, Deserialize)]
struct Station {
    next: Option<VrId>,
    sum: u64,
    rounds: u64,
    /// Whether it makes safepoints.
    short: bool,
}

impl VirtualResource for Station {
    fn main(&mut self, vr: &Vr) -> Result {
        let next = match self.next {
            Some(next) => next,
            None => {
                let next = vr.receive(Selector::on(CHANNEL).from(vr.parent().expect("a parent")))?;
                *self.next.insert(VrId::from_uuid(uuid::Uuid::from_slice(next.payload.head())?))
            }
        };
        while self.rounds > 0 {
            if self.short {
                vr.safepoint(self)?;
            }
            let envelope = vr.receive(Selector::on(CHANNEL).lane(7))?;
            let value = u64::from_le_bytes(envelope.payload.head()[..].try_into()?);
            let value = value.rotate_left(1) ^ (vr.rng().next_u64() % 1000);
            self.sum = self.sum.wrapping_add(value);
            self.rounds -= 1;
            // The next one may have ended already.
            let _ = vr.send_bytes(next, CHANNEL, 7, value.to_le_bytes().to_vec());
        }
        vr.send_bytes(vr.parent().expect("a parent"), CHANNEL, 9, self.sum.to_le_bytes().to_vec())?;
        Ok(())
    }
}

const ROUNDS: u64 = 200;

const TOKENS: u64 = 5;

/// A ring of stations, through which tokens run; checkpointed meanwhile. Returns the sums, and whether it was resumed.
fn ring(vr: &Vr, vms: &[VmInfo], directory: &Path, short: bool) -> Result<(Vec<u64>, bool)> {
    let ring = vr.deploy(vms, |_| Station { next: None, sum: 0, rounds: ROUNDS, short })?;
    for i in 0..ring.len() {
        let next = ring[(i + 1) % ring.len()];
        vr.send_bytes(ring[i], CHANNEL, 0, next.as_uuid().as_bytes().to_vec())?;
    }
    for token in 0..TOKENS {
        vr.send_bytes(ring[0], CHANNEL, 7, (vr.rng().next_u64() + token).to_le_bytes().to_vec())?;
    }
    let taken = vr.checkpoint(directory)?;
    let mut sums = Vec::new();
    for station in ring.iter() {
        let sum = vr.receive(Selector::on(CHANNEL).lane(9).from(station))?;
        sums.push(u64::from_le_bytes(sum.payload.head()[..].try_into()?));
    }
    Ok((sums, taken.resumed))
}

#[test]
fn a_program_goes_on_from_a_checkpoint_with_what_was_under_way() {
    for (vms, short) in [(1, false), (1, true), (3, false), (3, true)] {
        let directory = tempfile::tempdir().unwrap();
        let body = |vr: &Vr| {
            let vms: Vec<_> = vr.start_local(vms)?.into_iter().cycle().take(3).collect();
            ring(vr, &vms, directory.path(), short)
        };
        let (sums, resumed) = river_core::try_run_recoverable(body).unwrap();
        assert!(!resumed);
        // Restored twice from the same checkpoint.
        for _ in 0..2 {
            let (same, resumed) = river_core::restore(directory.path(), body).unwrap();
            assert!(resumed);
            assert_eq!(sums, same);
        }
    }
}

#[test]
fn a_program_that_is_not_deterministic_is_told_where() {
    let directory = tempfile::tempdir().unwrap();
    let body = |vr: &Vr| -> Result {
        let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        vr.send_bytes(vr.id(), CHANNEL, 0, clock.as_nanos().to_le_bytes().to_vec())?;
        vr.checkpoint(directory.path())?;
        Ok(())
    };
    river_core::try_run_recoverable(body).unwrap();
    let error = river_core::restore(directory.path(), body).unwrap_err().to_string();
    assert!(error.contains("line 1 of the record since its beginning says a send of 16 bytes"), "{error}");
    assert!(error.contains("with other bytes"), "{error}");
}

#[test]
fn effects_and_the_time_are_remembered() {
    let directory = tempfile::tempdir().unwrap();
    let mut acts = 0;
    let mut body = |vr: &Vr| -> Result<_> {
        let told = vr.effect(|| {
            acts += 1;
            acts
        })?;
        let now = vr.now();
        vr.checkpoint(directory.path())?;
        Ok((told, now, vr.rng().next_u64(), vr.program(), vr.fresh_number()))
    };
    let first = river_core::try_run_recoverable(&mut body).unwrap();
    let second = river_core::restore(directory.path(), &mut body).unwrap();
    assert_eq!(first, second);
    assert_eq!(acts, 1);
}

/// A VR that has ended before the checkpoint stays ended, and a VR that waits for its end is told of it.
#[test]
fn the_dead_stay_dead_and_children_may_be_deployed_later() {
    let directory = tempfile::tempdir().unwrap();
    let body = |vr: &Vr| -> Result<(u64, bool)> {
        let vms = vr.start_local(1)?;
        let first = vr.deploy(&vms, |_| Sleeper)?;
        vr.send_bytes(first[0], CHANNEL, 0, vec![])?;
        vr.watch(first[0]);
        vr.receive(Selector::on(CHANNEL)).unwrap_err();
        let taken = vr.checkpoint(directory.path())?;
        let again = vr.receive(Selector::on(CHANNEL).from(first[0])).unwrap_err();
        assert!(matches!(again, RecvError::Down(Down { why: Why::Finished, .. })), "{again}");
        // After the restore, only another incarnation of this VM exists.
        let adder = vr.deploy(&vms, |_| Adder { sum: 1 })?;
        vr.send_bytes(adder[0], CHANNEL, 1, 9_u64.to_le_bytes().to_vec())?;
        let sum = vr.receive(Selector::on(CHANNEL).from(adder[0]))?;
        Ok((u64::from_le_bytes(sum.payload.head()[..].try_into()?), taken.resumed))
    };
    let (first, resumed) = river_core::try_run_recoverable(body).unwrap();
    assert!(!resumed);
    assert_eq!(river_core::restore(directory.path(), body).unwrap(), (first, true));
}

#[test]
fn as_many_checkpoints_are_kept_as_was_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let numbers = || {
        let names = std::fs::read_dir(directory.path()).unwrap().flatten().map(|file| file.file_name());
        let mut numbers: Vec<u64> = names
            .filter_map(|name| {
                name.to_str()?.strip_prefix("checkpoint-")?.strip_suffix(".river")?.parse().ok()
            })
            .collect();
        numbers.sort_unstable();
        numbers
    };
    let kept = river_core::try_run_recoverable(|vr| {
        // Not even when none is asked for is the newest one removed.
        let keeps = [3, 3, 3, 3, 2, 0];
        let take = |keep| vr.checkpoint_keeping(directory.path(), keep).map(|_| numbers());
        Ok(keeps.map(take).into_iter().collect::<std::result::Result<Vec<_>, _>>()?)
    });
    let expected = [vec![1], vec![1, 2], vec![1, 2, 3], vec![2, 3, 4], vec![4, 5], vec![6]];
    assert_eq!(kept.unwrap(), expected);
}
