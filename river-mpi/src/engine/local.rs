//! Messages between ranks that are threads of one process: instead of the mailbox, one single-producer queue per pair, which
//! a waiting rank polls itself. A short message costs the transfer of one cache line, and no allocation.
//!
//! Before a rank sleeps, or waits for anything but these queues, it raises a flag; a sender that finds the flag raised wakes
//! it with an empty envelope in its mailbox. So everything about sleep, failures and deadlocks stays with the mailbox.
//!
//! Not used by recoverable VRs, whose record must contain everything that they receive, nor by traced ones.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, compiler_fence};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;
use river_core::{Intake, Payload, RecvError, VrId};

use super::handle::header_of;
use super::intake::{Hook, Incoming, Landing};
use super::ops::reborrow;
use super::shm::Shm;
use super::{EAGER_SHM, Engine, LANE, MESSAGES};
use crate::header::{HEADER, Kind};
use crate::job::Place;
use crate::lend::{Lender, Slots};
use crate::matching::Key;
use crate::queue::{Arrived, Record, Wait, queue};

type Sender = crate::queue::Sender<Payload>;
type Receiver = crate::queue::Receiver<Payload>;

/// Lines of a queue's ring.
const LINES: usize = 1024;
/// So many times in a row a rank finds something before it looks at the link, too.
const DEAF: u32 = 16;
/// Messages of one rank in a row before the others have their turn.
const TURN: usize = 64;

/// How long a rank looks for a message before it sleeps.
const PATIENCE: Duration = Duration::from_micros(50);
/// Looks before it gives its core to others: they take about a microsecond.
const SPINS: usize = 100;
/// Looks between two pauses, which take long on some processors, and between two yields.
const LOOKS: usize = 4;

/// The ranks of a job that share a process.
#[derive(Debug)]
struct Mesh {
    /// By rank; none for those of other processes.
    endpoints: Box<[Option<CachePadded<Endpoint>>]>,
    entered: Mutex<usize>,
}

/// What others know of a rank.
#[derive(Debug)]
struct Endpoint {
    /// It has to be woken.
    asleep: AtomicBool,
    /// How many queues there are for it.
    count: AtomicUsize,
    /// Those that it has not seen; `None`: it is gone.
    fresh: Mutex<Option<Vec<Receiver>>>,
    /// Where others see what it sends; made when it comes.
    slots: OnceLock<Arc<Slots>>,
}

/// Halls that not all have entered yet, by the first of their ranks.
static OPEN: LazyLock<Mutex<HashMap<VrId, Arc<Mesh>>>> = LazyLock::new(Mutex::default);

impl Mesh {
    fn enter(first: VrId, members: &[u32]) -> Arc<Self> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        let seat = || Endpoint {
            // Until it waits for the first time.
            asleep: AtomicBool::new(false),
            count: AtomicUsize::new(0),
            fresh: Mutex::new(Some(Vec::new())),
            slots: OnceLock::new(),
        };
        let new = || {
            let ranks = members.last().map_or(0, |&last| last + 1);
            let endpoints =
                (0..ranks).map(|rank| members.binary_search(&rank).is_ok().then(|| CachePadded::new(seat())));
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

    fn seat(&self, rank: u32) -> Option<&Endpoint> {
        Some(self.endpoints.get(rank as usize)?.as_ref()?)
    }
}

/// A rank's queues to and from those that share its process.
#[derive(Debug)]
pub(super) struct Local {
    mesh: Arc<Mesh>,
    me: u32,
    lender: Rc<Lender>,
    senders: RefCell<Vec<Option<Sender>>>,
    receivers: RefCell<Vec<Receiver>>,
    /// Whether all ranks of this machine can run at the same time.
    at_once: bool,
}

impl Local {
    /// `None` if there are no others.
    pub(super) fn new(ranks: &[VrId], me: u32, places: &[Place], at_once: bool) -> Option<Self> {
        let host = places.get(me as usize)?.host;
        let members: Vec<u32> =
            (0..).zip(places).filter(|(_, place)| place.host == host).map(|(rank, _)| rank).collect();
        if members.len() < 2 {
            return None;
        }
        let mesh = Mesh::enter(*ranks.get(members[0] as usize)?, &members);
        let lender = Rc::new(Lender::new());
        // Without, others read what this rank sends as they would in another process.
        let _ = mesh.seat(me)?.slots.set(lender.slots().clone());
        Some(Self {
            lender,
            mesh,
            me,
            senders: RefCell::new(places.iter().map(|_| None).collect()),
            receivers: RefCell::default(),
            at_once,
        })
    }

    /// What this rank lends to others.
    pub(super) fn lender(&self) -> &Rc<Lender> {
        &self.lender
    }

    /// Sends to one of them. `None`: it is gone; true: it has to be woken.
    fn push(&self, to: u32, send: impl FnOnce(&mut Sender)) -> Option<bool> {
        let mut senders = self.senders.borrow_mut();
        let (sender, seat) = (senders.get_mut(to as usize)?, self.mesh.seat(to)?);
        if sender.is_none() {
            let mut fresh = seat.fresh.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = fresh.as_mut()?;
            let (new, receiver) = queue(LINES);
            fresh.push(receiver);
            seat.count.fetch_add(1, Ordering::Release);
            *sender = Some(if self.at_once { new.waiting(Wait::Looking) } else { new });
        }
        let sender = sender.as_mut().filter(|sender| !sender.is_abandoned())?;
        send(sender);
        // Who falls asleep at this very moment looks again a little later: a fence of the processor would cost as much as the
        // message.
        compiler_fence(Ordering::SeqCst);
        Some(seat.asleep.load(Ordering::Relaxed) && seat.asleep.swap(false, Ordering::SeqCst))
    }

    /// Takes the next message of any of them, from the queue of that number on: the result and the number of its queue.
    fn take<R>(&self, from: usize, mut take: impl FnMut(Arrived<'_, Payload>) -> R) -> Option<(usize, R)> {
        let mut receivers = self.receivers.borrow_mut();
        if let Some(seat) = self.mesh.seat(self.me)
            && seat.count.load(Ordering::Acquire) > receivers.len()
        {
            let mut fresh = seat.fresh.lock().unwrap_or_else(PoisonError::into_inner);
            receivers.extend(fresh.iter_mut().flat_map(|fresh| fresh.drain(..)));
        }
        let mut rest = receivers.iter_mut().enumerate().skip(from);
        rest.find_map(|(number, receiver)| Some((number, receiver.take(&mut take)?)))
    }

    /// Says whether this rank has to be woken.
    fn set_asleep(&self, asleep: bool) {
        if let Some(seat) = self.mesh.seat(self.me) {
            seat.asleep.store(asleep, Ordering::SeqCst);
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if let Some(seat) = self.mesh.seat(self.me) {
            seat.fresh.lock().unwrap_or_else(PoisonError::into_inner).take();
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

/// A message in memory of its own, in one part.
impl Incoming for Payload {
    fn len(&self) -> usize {
        self.len()
    }

    fn head(&self) -> [u8; HEADER] {
        let mut head = [0; HEADER];
        head.copy_from_slice(&self.head()[..HEADER]);
        head
    }

    fn copy_data(&self, out: &mut [u8]) -> bool {
        out.copy_from_slice(&self.head()[HEADER..HEADER + out.len()]);
        true
    }

    fn kept(&self, _: &Engine<'_>) -> Payload {
        self.clone()
    }
}

impl Engine<'_> {
    /// The way to a rank, if messages to it go by a queue.
    pub(super) fn local(&self, to: u32) -> Option<&Local> {
        self.local.as_ref().filter(|_| to != self.me && self.is_local[to as usize])
    }

    /// Where a rank of this process shows what it sends.
    pub(super) fn slots_of(&self, rank: u32) -> Option<&Slots> {
        self.local(rank)?.mesh.seat(rank)?.slots.get().map(Arc::as_ref)
    }

    /// Sends a header and data that lies in the caller's memory to a rank of this process. False: that has to go by mailbox.
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

    /// The same of a payload, which comes back if it has to go by mailbox.
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

    /// False: the rank is gone.
    fn wake_after(&self, to: u32, pushed: Option<bool>) -> bool {
        if pushed == Some(true) {
            self.wake(to);
        }
        pushed.is_some()
    }

    /// Wakes a rank that sleeps although something lies where it looks.
    #[cold]
    pub(super) fn wake(&self, to: u32) {
        let header = self.header(Kind::Wake, Key { context: 0, source: 0, tag: 0 }, 0, 0);
        // That it is gone is told to who waits for it.
        let _ = self.vr.send_bytes(self.id_of(to), MESSAGES, LANE, header.with(&[]));
    }

    /// Takes what has come from ranks of this process and by rings, a turn at most or until somebody has what he waits for. True:
    /// there was something.
    pub(super) fn poll_local(
        &self,
        hook: &mut Option<&mut Hook<'_>>,
        landing: &mut Option<&mut dyn Landing>,
    ) -> bool {
        let shm = self.poll_shm(None, hook, landing);
        let mut some = shm.is_some();
        let Some(local) = self.local.as_ref().filter(|_| shm != Some(Intake::Done)) else { return some };
        let (mut queue, mut turns) = (0, 0);
        let mut take = |arrived: Arrived<'_, Payload>| {
            self.take_arrived(arrived, hook.as_deref_mut(), reborrow(landing))
        };
        while let Some((number, intake)) = local.take(queue, &mut take) {
            some = true;
            if intake == Intake::Done {
                return true;
            }
            turns = if number == queue { turns + 1 } else { 1 };
            queue = number + turns / TURN;
            turns %= TURN;
        }
        some
    }

    fn take_arrived(
        &self,
        arrived: Arrived<'_, Payload>,
        mut hook: Option<&mut Hook<'_>>,
        landing: Option<&mut dyn Landing>,
    ) -> Intake {
        let (intake, payload) = match arrived {
            Arrived::Record(ref record) => return self.take_record(record, hook, landing),
            Arrived::Thing(payload) if payload.head().len() == payload.len() => {
                (self.take_in(&payload, hook.as_deref_mut(), landing), payload)
            }
            Arrived::Thing(payload) => (Intake::Left, payload),
        };
        if intake == Intake::Left { self.take_left(payload, hook) } else { intake }
    }

    /// Takes a message that lies in a ring.
    pub(super) fn take_record(
        &self,
        record: &impl Incoming,
        mut hook: Option<&mut Hook<'_>>,
        landing: Option<&mut dyn Landing>,
    ) -> Intake {
        match self.take_in(record, hook.as_deref_mut(), landing) {
            Intake::Left => self.take_left(record.kept(self), hook),
            taken => taken,
        }
    }

    /// Takes a message that has to be kept.
    fn take_left(&self, payload: Payload, mut hook: Option<&mut Hook<'_>>) -> Intake {
        if let Some(header) = header_of(&payload) {
            self.handle_message(header, payload, hook.as_deref_mut());
        }
        if hook.is_some_and(|hook| hook.got.is_some()) { Intake::Done } else { Intake::Taken }
    }

    /// Looks for messages of ranks of this process and in rings for a while, `awake` at least, and for others now and then, or as
    /// often if they are waited for, too. True: something was there.
    pub(super) fn spin(
        &self,
        (patience, awake): (Duration, Duration),
        for_others: bool,
        hook: &mut Option<&mut Hook<'_>>,
        landing: &mut Option<&mut dyn Landing>,
    ) -> Result<bool, RecvError> {
        if self.local.is_none() && self.shm.is_none() {
            // How often it looks is nothing that a replay could know.
            return Ok(false);
        }
        // Who sends on and on must not keep others from being heard.
        if self.deaf.replace(self.deaf.get() + 1) >= DEAF && self.poll_link(hook, landing)? {
            return Ok(true);
        }
        // If not all run at once, who is waited for may be waiting for this core.
        for look in 1..=if self.at_once { SPINS } else { 1 } {
            self.help_readers();
            if self.poll_local(hook, landing) {
                return Ok(true);
            }
            if look.is_multiple_of(LOOKS) {
                if for_others && self.poll_link(hook, landing)? {
                    return Ok(true);
                }
                std::hint::spin_loop();
            }
        }
        let start = Instant::now();
        while start.elapsed() < patience.min(PATIENCE.max(awake)) {
            self.vr.yield_core();
            for _ in 0..LOOKS {
                self.help_readers();
                if self.poll_local(hook, landing) {
                    return Ok(true);
                }
            }
            if self.poll_link(hook, landing)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Copies what a receiver is copying from this rank, which is as good as if it had been matched.
    #[inline]
    fn help_readers(&self) {
        if self.local.as_ref().is_some_and(|local| local.lender.help()) {
            self.state.borrow_mut().matched += 1;
        }
    }

    /// Says that from now on this rank has to be woken. False: something has come before it did.
    pub(super) fn fall_asleep(
        &self,
        hook: &mut Option<&mut Hook<'_>>,
        landing: &mut Option<&mut dyn Landing>,
    ) -> bool {
        if self.is_alone() {
            return true;
        }
        self.set_asleep(true);
        let some = self.poll_local(hook, landing);
        if some {
            self.set_asleep(false);
        }
        !some
    }

    /// Whether nobody sends to this rank but by the link.
    pub(super) fn is_alone(&self) -> bool {
        self.local.is_none() && self.shm.as_ref().is_none_or(Shm::is_unused)
    }

    pub(super) fn set_asleep(&self, asleep: bool) {
        self.local.iter().for_each(|local| local.set_asleep(asleep));
        self.shm.iter().for_each(|shm| shm.set_asleep(asleep));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let first = Local::new(&ranks, 0, &places, true).unwrap();
        assert!(Local::new(&ranks, 1, &places, true).is_none());
        assert_eq!(push(&first, 2, 7), Some(false));
        let other = Local::new(&ranks, 2, &places, true).unwrap();
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
    fn who_sleeps_is_rung_once() {
        let (ranks, places) = ([0; 2].map(|_| VrId::fresh()), places(&[3, 3]));
        let (one, two) =
            (Local::new(&ranks, 0, &places, true).unwrap(), Local::new(&ranks, 1, &places, true).unwrap());
        two.set_asleep(true);
        assert_eq!(push(&one, 1, 1), Some(true));
        assert_eq!(push(&one, 1, 2), Some(false));
        two.set_asleep(false);
        assert_eq!(push(&one, 1, 3), Some(false));
        assert_eq!([take(&two), take(&two), take(&two), take(&two)], [Some(1), Some(2), Some(3), None]);
    }
}
