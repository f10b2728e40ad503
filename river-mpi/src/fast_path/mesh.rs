//! Where the ranks of a communicator that share a process find the queues between them, and publish what they sleep for.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use crossbeam_utils::CachePadded;
use river_core::VrId;

use super::queue::{Receiver, Sender, pair};
use crate::queue::{Wait, sleep};

/// Identifies a mesh within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct MeshKey {
    /// The first of its members: groups with the same context have no member in common, and neither have different jobs.
    pub(super) first: VrId,
    pub(super) context: u32,
}

/// Meshes that some of their members have not entered yet.
static OPEN: LazyLock<Mutex<HashMap<MeshKey, Arc<Mesh>>>> = LazyLock::new(Mutex::default);

/// The ends of a queue that have not been taken yet.
type Ends = (Option<Sender>, Option<Receiver>);

#[derive(Debug)]
pub(super) struct Mesh {
    /// By source and destination.
    ends: Mutex<HashMap<(u32, u32), Ends>>,
    /// What each rank sleeps for; 0 if it is awake.
    asleep: Box<[CachePadded<AtomicU64>]>,
    entered: Mutex<usize>,
    /// How many ranks enter it.
    members: usize,
    /// How senders wait for room.
    waits: Wait,
}

impl Mesh {
    /// Enters the mesh with this key. `members` of the communicator's `ranks` ranks enter it; its senders wait for room as
    /// `waits` says.
    pub(super) fn enter(key: MeshKey, members: usize, ranks: usize, waits: Wait) -> Arc<Self> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let asleep = (0..ranks).map(|_| CachePadded::default()).collect();
            Arc::new(Self { ends: Mutex::default(), asleep, entered: Mutex::new(0), members, waits })
        };
        let mesh = open.entry(key).or_insert_with(new).clone();
        let all_are_here = {
            let mut entered = mesh.entered.lock().unwrap_or_else(PoisonError::into_inner);
            *entered += 1;
            *entered == members
        };
        if all_are_here {
            open.remove(&key);
        }
        mesh
    }

    /// Takes the sending end of the queue between two ranks, which can be taken once.
    pub(super) fn sender(&self, from: u32, to: u32) -> Sender {
        self.end(from, to, |ends| &mut ends.0)
    }

    /// Takes the receiving end, like [`sender`](Self::sender).
    pub(super) fn receiver(&self, from: u32, to: u32) -> Receiver {
        self.end(from, to, |ends| &mut ends.1)
    }

    fn end<E>(&self, from: u32, to: u32, which: impl Fn(&mut Ends) -> &mut Option<E>) -> E {
        let mut all = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = all.entry((from, to)).or_insert_with(|| {
            let (sender, receiver) = pair(self.members, self.waits);
            (Some(sender), Some(receiver))
        });
        let end = which(ends).take();
        if matches!(ends, (None, None)) {
            all.remove(&(from, to));
        }
        end.expect("a rank enters once, and takes each end once")
    }

    /// Publishes that rank `me` sleeps until `from` sends it something in operation `tag`: see [`sleep`].
    pub(super) fn fall_asleep(&self, me: usize, from: u32, tag: i32) {
        sleep::fall_asleep(&self.asleep[me], reason(from, tag));
    }

    /// Withdraws what [`fall_asleep`](Self::fall_asleep) has published. Returns `false` if a sender has found it, and has
    /// sent or will send a wake-up message.
    pub(super) fn wake_up(&self, me: usize) -> bool {
        sleep::wake_up(&self.asleep[me])
    }

    /// Whether rank `whom` sleeps until `from` sends it something in operation `tag`, so that the caller has to wake it.
    pub(super) fn has_to_wake(&self, whom: usize, from: u32, tag: i32) -> bool {
        sleep::has_to_wake(&self.asleep[whom], reason(from, tag))
    }
}

fn reason(from: u32, tag: i32) -> u64 {
    (u64::from(from) + 1) << 32 | u64::from(tag.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(context: u32) -> MeshKey {
        MeshKey { first: VrId::fresh(), context }
    }

    #[test]
    fn a_room_is_kept_until_all_have_entered() {
        let key = key(4);
        let first = Mesh::enter(key, 2, 2, Wait::Looking);
        let mut sender = first.sender(0, 1);
        assert!(sender.push_copy(0, b"hello"));
        // A rank that leaves early leaves its messages behind.
        drop((sender, first));
        let second = Mesh::enter(key, 2, 2, Wait::Looking);
        assert!(second.receiver(0, 1).pop(0).is_some());
        assert!(!OPEN.lock().unwrap().contains_key(&key));
    }

    #[test]
    fn a_sleeper_is_woken_once_and_by_what_it_waits_for() {
        let mesh = Mesh::enter(key(2), 1, 3, Wait::Looking);
        mesh.fall_asleep(1, 0, 7);
        assert!(!mesh.has_to_wake(1, 2, 7) && !mesh.has_to_wake(1, 0, 6) && !mesh.has_to_wake(2, 0, 7));
        assert!(mesh.has_to_wake(1, 0, 7) && !mesh.has_to_wake(1, 0, 7));
        assert!(!mesh.wake_up(1));
        mesh.fall_asleep(1, 0, 8);
        assert!(mesh.wake_up(1) && !mesh.has_to_wake(1, 0, 8));
    }
}
