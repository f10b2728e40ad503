//! Messages between ranks that are threads of one process: instead of the mailbox, one single-producer queue per pair, which
//! a waiting rank polls itself. A short message costs the transfer of one cache line, and no allocation.
//!
//! Before a rank sleeps, or waits for anything but these queues, it raises a flag; a sender that finds the flag raised wakes
//! it with an empty envelope in its mailbox. So everything about sleep, failures and deadlocks stays with the mailbox.
//!
//! Not used by recoverable VRs, whose record must contain everything that they receive, nor by traced ones.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

use crossbeam_utils::CachePadded;
use river_core::{Payload, VrId};

use super::incoming::Incoming;
use super::{EAGER_SHM, Engine};
use crate::header::HEADER;
use crate::job::Place;
use crate::lend::Slots;
use crate::queue::{Arrived, Record, Wait, lines_for, queue, sleep};

type Sender = crate::queue::Sender<Payload>;
type Receiver = crate::queue::Receiver<Payload>;

/// The ranks of a job that share a process.
#[derive(Debug)]
struct Mesh {
    /// By rank; `None` for ranks of other processes.
    endpoints: Box<[Option<CachePadded<Endpoint>>]>,
    entered: Mutex<usize>,
}

/// What a rank shares with the others of its process.
#[derive(Debug)]
struct Endpoint {
    /// Whether the rank has to be woken: see [`sleep`].
    asleep: AtomicU64,
    /// How many queues to this rank there are.
    count: AtomicUsize,
    /// The receiving ends of queues that it has not taken yet; `None` once it is gone.
    fresh: Mutex<Option<Vec<Receiver>>>,
    /// Where others read what it sends; set when it enters.
    slots: OnceLock<Arc<Slots>>,
}

/// Meshes that some of their ranks have not entered yet, by the first of their ranks.
static OPEN: LazyLock<Mutex<HashMap<VrId, Arc<Mesh>>>> = LazyLock::new(Mutex::default);

impl Mesh {
    fn enter(first: VrId, members: &[u32]) -> Arc<Self> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let endpoint = || Endpoint {
            // Awake until it waits for the first time.
            asleep: AtomicU64::new(0),
            count: AtomicUsize::new(0),
            fresh: Mutex::new(Some(Vec::new())),
            slots: OnceLock::new(),
        };
        let new = || {
            let ranks = members.last().map_or(0, |&last| last + 1);
            let endpoints = (0..ranks)
                .map(|rank| members.binary_search(&rank).is_ok().then(|| CachePadded::new(endpoint())));
            Arc::new(Self { endpoints: endpoints.collect(), entered: Mutex::new(0) })
        };
        let mesh = open.entry(first).or_insert_with(new).clone();
        let all_are_here = {
            let mut entered = mesh.entered.lock().unwrap_or_else(PoisonError::into_inner);
            *entered += 1;
            *entered == members.len()
        };
        if all_are_here {
            open.remove(&first);
        }
        mesh
    }

    fn endpoint(&self, rank: u32) -> Option<&Endpoint> {
        Some(self.endpoints.get(rank as usize)?.as_ref()?)
    }
}

/// A rank's queues to and from the other ranks of its process.
#[derive(Debug)]
pub(super) struct Local {
    mesh: Arc<Mesh>,
    me: u32,
    senders: RefCell<Vec<Option<Sender>>>,
    receivers: RefCell<Vec<Receiver>>,
    /// Lines of the rings to them.
    lines: u16,
    /// Whether all ranks of this machine can run at the same time.
    at_once: bool,
}

impl Local {
    /// Creates the transport of rank `me`, which shows others what it sends in these slots. Returns `None` if no other rank
    /// shares the process.
    pub(super) fn new(
        ranks: &[VrId],
        me: u32,
        places: &[Place],
        at_once: bool,
        slots: &Arc<Slots>,
    ) -> Option<Self> {
        let host = places.get(me as usize)?.host;
        let members: Vec<u32> =
            (0..).zip(places).filter(|(_, place)| place.host == host).map(|(rank, _)| rank).collect();
        if members.len() < 2 {
            return None;
        }
        let mesh = Mesh::enter(*ranks.get(members[0] as usize)?, &members);
        // Otherwise, others read what this rank sends as if it were in another process.
        let _ = mesh.endpoint(me)?.slots.set(slots.clone());
        Some(Self {
            mesh,
            me,
            senders: RefCell::new(places.iter().map(|_| None).collect()),
            receivers: RefCell::default(),
            lines: lines_for(members.len() - 1, at_once),
            at_once,
        })
    }

    /// Sends to a rank of this process. Returns `None` if that rank is gone, and otherwise whether it has to be woken.
    fn push(&self, to: u32, send: impl FnOnce(&mut Sender)) -> Option<bool> {
        let mut senders = self.senders.borrow_mut();
        let (sender, endpoint) = (senders.get_mut(to as usize)?, self.mesh.endpoint(to)?);
        if sender.is_none() {
            let mut fresh = endpoint.fresh.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = fresh.as_mut()?;
            let (new, receiver) = queue(self.lines.into());
            fresh.push(receiver);
            endpoint.count.fetch_add(1, Ordering::Release);
            *sender = Some(if self.at_once { new.waiting(Wait::Looking) } else { new });
        }
        let sender = sender.as_mut().filter(|sender| !sender.is_abandoned())?;
        send(sender);
        Some(sleep::has_to_wake(&endpoint.asleep, sleep::ASLEEP))
    }

    /// Takes the next message from queue `from` or a later one. Returns the number of its queue, and the result.
    pub(super) fn take<R>(
        &self,
        from: usize,
        mut take: impl FnMut(Arrived<'_, Payload>) -> R,
    ) -> Option<(usize, R)> {
        let mut receivers = self.receivers.borrow_mut();
        if let Some(endpoint) = self.mesh.endpoint(self.me)
            && endpoint.count.load(Ordering::Acquire) > receivers.len()
        {
            let mut fresh = endpoint.fresh.lock().unwrap_or_else(PoisonError::into_inner);
            receivers.extend(fresh.iter_mut().flat_map(|fresh| fresh.drain(..)));
        }
        let mut rest = receivers.iter_mut().enumerate().skip(from);
        rest.find_map(|(number, receiver)| Some((number, receiver.take(&mut take)?)))
    }

    /// Publishes whether this rank has to be woken.
    pub(super) fn set_asleep(&self, asleep: bool) {
        if let Some(endpoint) = self.mesh.endpoint(self.me) {
            sleep::set(&endpoint.asleep, asleep);
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if let Some(endpoint) = self.mesh.endpoint(self.me) {
            endpoint.fresh.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }
}

/// Copies a message into the ring, if it is short and there is room for it.
fn push(sender: &mut Sender, header: [u8; HEADER], data: &[u8]) -> bool {
    data.len() <= EAGER_SHM && sender.push(bytemuck::cast::<_, [u64; HEADER / 8]>(header), data)
}

impl Incoming for Record<'_> {
    fn len(&self) -> usize {
        self.len()
    }

    fn head(&self) -> [u8; HEADER] {
        bytemuck::cast(self.words::<{ HEADER / 8 }>())
    }

    fn copy_data(&self, out: &mut [u8]) -> bool {
        self.copy_to(HEADER / 8, out);
        true
    }

    fn kept(&self, engine: &Engine<'_>) -> Payload {
        engine.pool.filled(self.len(), |bytes| self.copy_to(0, bytes)).into()
    }
}

impl Engine<'_> {
    /// Returns the local transport, if messages to a rank go through it.
    pub(super) fn local(&self, to: u32) -> Option<&Local> {
        self.local.as_ref().filter(|_| to != self.me && self.is_local[to as usize])
    }

    /// Returns the slots in which a rank of this process shows what it sends.
    pub(super) fn slots_of(&self, rank: u32) -> Option<&Slots> {
        self.local(rank)?.mesh.endpoint(rank)?.slots.get().map(Arc::as_ref)
    }

    /// Sends a header and data that lies in the caller's memory to a rank of this process. Returns `false` if the message has
    /// to take another path.
    #[inline]
    pub(super) fn pass_slice(&self, to: u32, header: &[u8; HEADER], data: &[u8]) -> bool {
        let Some(local) = self.local(to) else { return false };
        let pushed = local.push(to, |sender| {
            if !push(sender, *header, data) {
                sender.push_thing(self.pool.join(header, data).into());
            }
        });
        self.wake_after(to, pushed)
    }

    /// Sends a payload to a rank of this process. Returns it if it has to take another path.
    pub(super) fn pass(&self, to: u32, payload: Payload) -> Result<(), Payload> {
        let Some(local) = self.local(to) else { return Err(payload) };
        let mut payload = Some(payload);
        let pushed = local.push(to, |sender| {
            let in_ring = payload.as_ref().is_some_and(|payload| {
                payload.head().len() == payload.len()
                    && payload
                        .head()
                        .split_first_chunk()
                        .is_some_and(|(head, data)| push(sender, *head, data))
            });
            if let Some(payload) = payload.take().filter(|_| !in_ring) {
                sender.push_thing(payload);
            }
        });
        self.wake_after(to, pushed);
        payload.map_or(Ok(()), Err)
    }

    /// Wakes a rank after a push, if it has to be woken. Returns `false` if the rank is gone.
    fn wake_after(&self, to: u32, pushed: Option<bool>) -> bool {
        if pushed == Some(true) {
            self.wake(to);
        }
        pushed.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lend::Lender;

    fn enter(ranks: &[VrId], me: u32, places: &[Place]) -> Option<Local> {
        Local::new(ranks, me, places, true, Lender::new().slots())
    }

    fn places(hosts: &[u32]) -> Vec<Place> {
        hosts.iter().map(|&host| Place { host, machine: 0 }).collect()
    }

    fn push(local: &Local, to: u32, byte: u8) -> Option<bool> {
        local.push(to, |sender| assert!(super::push(sender, [byte; HEADER], &[])))
    }

    fn take(local: &Local) -> Option<u8> {
        let first = |arrived: Arrived<'_, Payload>| match arrived {
            Arrived::Record(record) => record.head()[0],
            Arrived::Thing(_) => 0,
        };
        Some(local.take(0, first)?.1)
    }

    #[test]
    fn what_was_sent_before_the_other_came_is_there_and_who_left_gets_nothing() {
        let (ranks, places) = ([0; 3].map(|_| VrId::fresh()), places(&[0, 1, 0]));
        let first = enter(&ranks, 0, &places).unwrap();
        assert!(enter(&ranks, 1, &places).is_none());
        assert_eq!(push(&first, 2, 7), Some(false));
        let other = enter(&ranks, 2, &places).unwrap();
        assert!(!OPEN.lock().unwrap().contains_key(&ranks[0]));
        assert_eq!(take(&other), Some(7));
        assert_eq!(take(&other), None);
        assert_eq!(push(&first, 2, 8), Some(false));
        drop(first);
        assert_eq!(take(&other), Some(8), "what it had sent is there");
        assert_eq!(push(&other, 0, 9), None);
        assert_eq!(push(&other, 1, 9), None);
    }

    #[test]
    fn who_sleeps_is_woken_once() {
        let (ranks, places) = ([0; 2].map(|_| VrId::fresh()), places(&[3, 3]));
        let (one, two) = (enter(&ranks, 0, &places).unwrap(), enter(&ranks, 1, &places).unwrap());
        two.set_asleep(true);
        assert_eq!(push(&one, 1, 1), Some(true));
        assert_eq!(push(&one, 1, 2), Some(false));
        two.set_asleep(false);
        assert_eq!(push(&one, 1, 3), Some(false));
        assert_eq!([take(&two), take(&two), take(&two), take(&two)], [Some(1), Some(2), Some(3), None]);
    }
}
