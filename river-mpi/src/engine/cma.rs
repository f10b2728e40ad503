//! Single-copy transfer of medium-sized messages: a receiver on the same machine reads the sender's memory with
//! `process_vm_readv(2)`, which Open MPI and MPICH call CMA (cross-memory attach).
//!
//! An offer (a request to send) says where the data lies. Since the sender may have to leave its operation at any moment,
//! there is a word beside the data, the *seal*, which holds the offer's number for as long as the data is valid. The receiver
//! reads it after the data, in the same system call. If the seal still holds that number, the copy is the message. If not, or
//! if the kernel does not let one process read another, the receiver answers with a clear to send, and the data comes in
//! pieces.
//!
//! A send that borrows its slice until it is complete *lends* it: the engine cannot hold a reference to the slice, but it can
//! read it as any receiver does, when its own process has to send it in pieces or its request is dropped.
//!
//! Between ranks of one process the seal is a [slot](crate::lend::Slots), and while the sender waits, the receiver needs no
//! system call.

use std::hash::{BuildHasher, RandomState};
use std::io::IoSliceMut;
use std::sync::LazyLock;
use std::sync::atomic::Ordering::{Release, SeqCst};
use std::sync::atomic::{AtomicU64, fence};

use bytemuck::{Pod, Zeroable};
use bytes::Bytes;
use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use river_core::{Line, Payload, aliasing};
use smallvec::SmallVec;

use super::arrival::{Arrival, Message};
use super::detour;
use super::halves::{self, Outcome, Second};
use super::intake::Landing;
use super::{Engine, OpId, OpState, State};
use crate::header::{HEADER, Header, Kind};
use crate::lend::{HELPED, Kept, Lease, Shown};

/// Where the data of an offer lies; encoded in the byte order of the machine, as only processes of one machine use it.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Exposure {
    process: u64,
    data: u64,
    seal: u64,
    number: u64,
}

/// Vouches that data is where an [`Exposure`] says, until it is dropped.
#[derive(Debug)]
pub(super) enum Seal {
    Own(Box<Sealed>),
    Slot(Lease),
    Kept(Box<Kept>),
}

/// A seal in memory of its own.
#[derive(Debug)]
pub(super) struct Sealed {
    word: AtomicU64,
    data: u64,
    len: usize,
    number: u64,
}

impl Seal {
    pub(super) fn of(data: &[u8]) -> Self {
        let (len, at) = (data.len(), data.as_ptr().expose_provenance() as u64);
        let mut sealed = Box::new(Sealed { word: AtomicU64::new(0), data: at, len, number: 0 });
        // Never zero, and different from every other seal's.
        sealed.number = Lease::number_of(RandomState::new().hash_one(sealed.at()) | 1 << 63);
        sealed.word.store(sealed.number, SeqCst);
        Self::Own(sealed)
    }

    /// Returns the length of the data.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Own(sealed) => sealed.len,
            Self::Slot(lease) => lease.data().1,
            Self::Kept(kept) => kept.lease().data().1,
        }
    }

    /// Returns what an offer says about the data.
    pub(super) fn exposure(&self) -> Exposure {
        let process = (*PROCESS).into();
        let of = |lease: &Lease| Exposure {
            process,
            data: lease.data().0,
            seal: lease.word(),
            number: lease.number(),
        };
        match self {
            Self::Own(sealed) => {
                Exposure { process, data: sealed.data, seal: sealed.at(), number: sealed.number }
            }
            Self::Slot(lease) => of(lease),
            Self::Kept(kept) => of(kept.lease()),
        }
    }
}

impl Sealed {
    /// Returns the address of the word.
    fn at(&self) -> u64 {
        std::ptr::from_ref(&self.word).expose_provenance() as u64
    }
}

impl Drop for Sealed {
    fn drop(&mut self) {
        self.word.store(0, SeqCst);
        // No later write to the memory becomes visible before that.
        fence(Release);
    }
}

/// The id of this process, cached because asking for it is a system call.
pub(super) static PROCESS: LazyLock<u32> = LazyLock::new(std::process::id);

/// Whether this process can read its own memory with `process_vm_readv`. (A sandbox may forbid it.)
static READS_ITSELF: LazyLock<bool> = LazyLock::new(|| {
    let (data, mut out) = ([1; 8], [0; 8]);
    Seal::of(&data).exposure().read(0, &mut out).is_ok() && out == data
});

/// Whose memory a message is read to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Caller,
    Pool,
}

/// Why data was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unread {
    /// It is no longer there.
    Gone,
    /// The kernel does not let this process read that one.
    Refused,
}

/// The most bytes that one call reads: the kernel reads less than 2^31.
const READ: usize = 1 << 30;
/// A longer message that lands in no buffer of the caller is sent in pieces, so that memory is only allocated for data that
/// has arrived.
const KEPT: u64 = 1 << 20;

impl Exposure {
    /// Returns what an offer says about its data, if it says anything.
    fn told_by(offer: &Message) -> Option<Self> {
        let said = offer.payload.slice(HEADER, HEADER + size_of::<Self>())?;
        (offer.payload.len() == HEADER + said.len()).then(|| bytemuck::pod_read_unaligned(&said))
    }

    /// Copies all of the data to `out`. The sender may help if it is told so in `aside`, the line of a ring.
    fn read_helped(&self, out: &mut [u8], aside: &Line) -> Result<(), Unread> {
        let (first, second) = out.split_at_mut(halves::half(out.len()));
        let helped = Second::open(aside, self.number, self.process, second);
        let read = self.read(0, first);
        match helped.close() {
            Outcome::Left(second) => read.and_then(|()| self.read(first.len(), second)),
            Outcome::Written => read,
        }
    }

    /// Copies the data from byte `from` on to `out`.
    fn read(&self, from: usize, out: &mut [u8]) -> Result<(), Unread> {
        let start = (self.data as usize).wrapping_add(from);
        if !aliasing::aliases(start, out.as_ptr().addr()) {
            return self.read_straight(from, out);
        }
        let mut read = 0;
        for part in out.chunks_mut(detour::PART) {
            detour::with_room(start.wrapping_add(read), part.len(), |room| {
                self.read_straight(from + read, room).map(|()| aliasing::copy(room, part))
            })?;
            read += part.len();
        }
        Ok(())
    }

    /// [`read`](Self::read), all by the kernel.
    fn read_straight(&self, from: usize, out: &mut [u8]) -> Result<(), Unread> {
        let process = i32::try_from(self.process).map_err(|_| Unread::Gone)?;
        let (process, mut seal, mut done) = (Pid::from_raw(process), [0; 8], 0);
        let remote = |base: Option<u64>, len| {
            let base = base.and_then(|base| usize::try_from(base).ok());
            base.map(|base| RemoteIoVec { base, len }).ok_or(Unread::Gone)
        };
        loop {
            let part = READ.min(out.len() - done);
            let data = remote(self.data.checked_add((from + done) as u64), part)?;
            let word = remote(Some(self.seal), seal.len())?;
            let mut local =
                [IoSliceMut::new(&mut out[done..done + part]), IoSliceMut::new(seal.as_mut_slice())];
            match process_vm_readv(process, &mut local, &[data, word]) {
                Ok(read)
                    if read == part + seal.len()
                        && Lease::number_of(u64::from_ne_bytes(seal)) == self.number => {}
                Err(Errno::EPERM | Errno::ESRCH | Errno::ENOSYS) => return Err(Unread::Refused),
                _ => return Err(Unread::Gone),
            }
            done += part;
            if done == out.len() {
                return Ok(());
            }
        }
    }
}

/// A longer message to another process is no faster this way than in pieces, which two cores copy: the kernel looks up page
/// after page.
const EXPOSED: usize = 4 << 20;

impl Engine<'_> {
    /// Whether the offer of a message of this length says where the data is.
    pub(super) fn exposes(&self, to: u32, len: usize) -> bool {
        (len <= EXPOSED || self.local(to).is_some()) && self.shares_memory(to)
    }

    /// Creates the seal of data that is offered to a rank. With `owned`, which is the same data, a rank of this process can
    /// read it at any time.
    pub(super) fn seal(&self, to: u32, data: &[u8], owned: Option<&Bytes>) -> Seal {
        let seal = match owned {
            Some(owned) if self.local(to).is_some() => {
                self.lender.keep(owned.clone()).map(|kept| Seal::Kept(kept.into()))
            }
            _ => self.lender.lease(data).map(Seal::Slot),
        };
        seal.unwrap_or_else(|| Seal::of(data))
    }

    /// While `body` runs, lets the receivers of these operations copy the slices themselves, if they are in this process, and
    /// helps the others to copy long slices.
    pub(crate) fn show<'d, R>(
        &self,
        slices: impl IntoIterator<Item = (OpId, &'d [u8])>,
        body: impl FnOnce() -> R,
    ) -> R {
        let shown: SmallVec<[Shown<'_>; 4]> = {
            let state = self.state.borrow();
            let number = |op: OpId| match state.ops.get(op.key())?.seal.as_ref()? {
                Seal::Slot(lease) => Some(lease.number()),
                _ => None,
            };
            slices.into_iter().filter_map(|(op, data)| Some(Shown { number: number(op)?, data })).collect()
        };
        if shown.is_empty() { body() } else { self.lender.show(&shown, body) }
    }

    /// Whether the receiver can read a message of this length from where it lies, without the sender's help.
    pub(crate) fn lends(&self, to: u32, len: usize) -> bool {
        // A rank whose memory this one cannot read most likely cannot read this rank's memory either.
        self.borrows(to, len) && self.exposes(to, len) && !self.state.borrow().closed.contains(&to)
    }

    /// Whether a message of this length, if it stays where it is until its request is complete, is not copied before it is
    /// wanted.
    pub(crate) fn borrows(&self, to: u32, len: usize) -> bool {
        len > self.eager(to)
            && to != self.me
            // A replay could not reproduce what was read when.
            && !self.vr.is_recoverable()
            && *READS_ITSELF
    }

    /// Returns a copy of data that was lent, or `None` if it is no longer there because its request was leaked.
    pub(super) fn copy_of_lent(&self, seal: &Seal) -> Option<Bytes> {
        let mut whole = false;
        let copy = self.pool.filled(seal.len(), |out| whole = seal.exposure().read(0, out).is_ok());
        whole.then_some(copy)
    }

    /// Whether this rank can read the data of an offer itself.
    pub(super) fn can_read(&self, state: &State, offer: &Message) -> bool {
        let from = offer.header.from;
        (self.local(from).is_some() || !state.closed.contains(&from)) && Exposure::told_by(offer).is_some()
    }

    /// Reads the data of an offer straight to `out`, which must be as long and is the caller's memory or that of the pool.
    /// Returns `false` if the sender has to send it.
    pub(super) fn read_offered(
        &self,
        state: &mut State,
        offer: &Message,
        out: &mut [u8],
        owner: Owner,
    ) -> bool {
        let Some(exposure) = Exposure::told_by(offer) else { return false };
        if self.slots_of(offer.header.from).is_some_and(|slots| slots.copy_to(exposure.number, out)) {
            self.confirm(state, &offer.header);
            return true;
        }
        if state.closed.contains(&offer.header.from) {
            return false;
        }
        // What was in the pool's memory was just read here, so this core writes there faster than the sender's.
        let asks = owner == Owner::Caller && out.len() >= HELPED && !self.lender.has_leases();
        let helped = self.shm.as_ref().filter(|_| asks);
        let helped =
            helped.and_then(|shm| shm.aside(offer.header.from, |aside| exposure.read_helped(out, aside)));
        match helped.unwrap_or_else(|| exposure.read(0, out)) {
            Ok(()) => {
                self.shm.iter().for_each(|shm| shm.note_read(offer.header.from));
                self.confirm(state, &offer.header);
            }
            Err(Unread::Gone) => return false,
            Err(Unread::Refused) => {
                state.closed.insert(offer.header.from);
                return false;
            }
        }
        true
    }

    /// Tells a sender that its message was matched or, if it was offered, that its data was read.
    pub(super) fn confirm(&self, state: &mut State, message: &Header) {
        let header = Header { kind: Kind::Ack, from: self.me, ..*message };
        // If the sender is dead, it need not know.
        let _ = self.tell(state, message.from, &header);
    }

    /// Reads the data of matched offers: into the buffers that `landing` has for it or, if it is not too long, into new
    /// memory. Otherwise asks the sender for the data. Returns `true` if there were any offers.
    pub(super) fn read_due(&self, mut landing: Option<&mut dyn Landing>) -> bool {
        let state = &mut *self.state.borrow_mut();
        let due = std::mem::take(&mut state.due);
        for &op in &due {
            let Some(receive) = state.ops.get_mut(op.key()) else { continue };
            let OpState::Due(offer) = std::mem::replace(&mut receive.state, OpState::Cancelled) else {
                continue;
            };
            let (header, seat) = (offer.header, receive.seat);
            let len = header.len();
            let mut arrival = Arrival::coming(header);
            let memory = landing.as_deref_mut().and_then(|landing| landing.memory(op, seat));
            let whole = match memory.and_then(|memory| memory.get_mut(..len)) {
                Some(memory) => {
                    arrival.landed = len;
                    self.read_offered(state, &offer, memory, Owner::Caller)
                }
                None if header.length <= KEPT => {
                    let mut whole = false;
                    let payload = self.pool.filled(HEADER + len, |bytes| {
                        whole = self.read_offered(state, &offer, &mut bytes[HEADER..], Owner::Pool);
                    });
                    arrival.pieces.push(Payload::from(payload));
                    whole
                }
                None => false,
            };
            let new = if whole {
                arrival.here = len;
                OpState::Arrived(arrival)
            } else {
                self.go(state, &header, op.0);
                OpState::Arriving(Arrival::coming(header))
            };
            if let Some(receive) = state.ops.get_mut(op.key()) {
                receive.state = new;
            }
        }
        !due.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_read_while_its_seal_is_whole_and_never_after() {
        let data: Vec<u8> = (0..100_000).map(|i| (i % 251) as u8).collect();
        let mut out = vec![0; data.len()];
        let seal = Seal::of(&data);
        let exposure = seal.exposure();
        assert_eq!(exposure.read(0, &mut out), Ok(()));
        assert!(out == data);
        drop(seal);
        assert_eq!(exposure.read(0, &mut out), Err(Unread::Gone));
    }

    #[test]
    fn data_is_read_wherever_it_lies_and_belongs() {
        let data: Vec<u8> = (0..2 * detour::PART + 100).map(|at| (at % 251) as u8).collect();
        let mut out = vec![0; data.len() + 2 * 4096];
        let seal = Seal::of(&data);
        for (skipped, behind) in
            [0, 1, 5000].into_iter().flat_map(|skipped| (0..64).map(move |by| (skipped, by)))
        {
            let from = &data[skipped..];
            let start = (from.as_ptr().addr() + behind).wrapping_sub(out.as_ptr().addr()) % 4096;
            let place = &mut out[start..start + from.len()];
            place.fill(0);
            assert_eq!(seal.exposure().read(skipped, place), Ok(()));
            assert!(place == from, "from {skipped} on, {behind} behind");
        }
    }

    #[test]
    fn what_is_not_there_is_not_read() {
        let data = [1_u8; 64];
        let seal = Seal::of(&data);
        let exposure = seal.exposure();
        let mut out = [0; 64];
        for wrong in [
            Exposure { data: 8, ..exposure },
            Exposure { data: u64::MAX, ..exposure },
            Exposure { seal: 8, ..exposure },
            Exposure { number: exposure.number ^ 8, ..exposure },
            Exposure { process: u64::from(u32::MAX), ..exposure },
        ] {
            assert_eq!(wrong.read(0, &mut out), Err(Unread::Gone), "{wrong:?}");
        }
        // There is no such process.
        let nobody = Exposure { process: u64::from(i32::MAX.unsigned_abs()), ..exposure };
        assert_eq!(nobody.read(0, &mut out), Err(Unread::Refused));
        assert_eq!(exposure.read(0, &mut out), Ok(()));
    }
}
