//! Large payloads are not passed through the ring: they lie in memory that both processes have mapped, their *segments*,
//! and the ring says where. The sender copies a payload in, and the receiver uses it where it lies; one that is sent back
//! to where it came from, or on to where it lies already, is not copied at all.
//!
//! A segment is announced before it is used: the payload that would have needed it goes through the ring, and the next
//! one finds it mapped. So nothing that a process has sent is lost when the process ends, as the memory of what was sent
//! is the receiver's as well.
//!
//! Who looks at a segment is counted in the segment ([`View`]). The process that made it, and only that one, writes to it,
//! and only when nobody looks.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytemuck::{Pod, Zeroable};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::memory::{FIRST, Memory, View};
use crate::envelope::Payload;
use crate::frame;
use crate::protocol::MemoryName;

/// Shorter payloads are as fast through the ring.
pub(super) const LARGE: usize = if cfg!(test) { 256 << 10 } else { 1 << 20 };
/// Shorter parts of a large payload are in the record.
const PART: usize = 64 << 10;
/// So many bytes of a payload, and so many parts, a record has at most.
const INLINE: usize = 16 << 10;
const PARTS: usize = 64;
/// A longer part would not be in a cache any more when it is read.
const HUGE: usize = if cfg!(test) { 512 << 10 } else { 4 << 20 };
/// Parts begin at multiples of this, so that they can be viewed as numbers of any type.
const ALIGN: usize = 64;

/// A process has so many segments for another, of so many bytes together, at most. Address space: memory follows as it is
/// written to.
const SEGMENTS: usize = 16;
const BYTES: usize = if cfg!(test) { 4 << 20 } else { 512 << 20 };
/// Where a segment says that the other process has mapped it.
const MAPPED: usize = 128;

/// Where a part of a payload is, as a record says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
struct Part {
    place: u32,
    segment: u32,
    offset: u64,
    len: u64,
}

/// In the record itself, behind those before it.
const HERE: u32 = 0;
/// In a segment of the process that writes the record, or of the one that reads it.
const MINE: u32 = 1;
const YOURS: u32 = 2;

/// How a peer finds a new segment.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Announcement {
    segment: u32,
    name: MemoryName,
}

type Slots = [Option<Arc<Memory>>; SEGMENTS];

/// The segments of this process and one other.
#[derive(Debug)]
pub(super) struct Shared {
    process: u32,
    /// Made by this process, which alone writes to them.
    ours: Mutex<Slots>,
    /// Made by the other.
    theirs: Mutex<Slots>,
    used: Arc<AtomicBool>,
}

/// The segments of a process, by the other that it has them with.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    by_process: Mutex<HashMap<u32, Weak<Shared>>>,
    /// Some have been written to since they were discarded.
    used: Arc<AtomicBool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many bytes of payload a segment has room for.
fn room(segment: &Memory) -> usize {
    segment.len() - FIRST
}

fn is_mapped(segment: &Memory) -> bool {
    segment.u32_at(MAPPED).load(Acquire) != 0
}

impl Segments {
    /// Those with that process. They exist for as long as somebody has them.
    pub(super) fn with(&self, process: u32) -> Arc<Shared> {
        let mut all = lock(&self.by_process);
        if let Some(shared) = all.get(&process).and_then(Weak::upgrade) {
            return shared;
        }
        all.retain(|_, shared| shared.strong_count() > 0);
        let (ours, theirs) = Default::default();
        let shared = Arc::new(Shared { process, ours, theirs, used: self.used.clone() });
        all.insert(process, Arc::downgrade(&shared));
        shared
    }

    /// Whether there is no memory to give back, now or later.
    pub(crate) fn is_idle(&self) -> bool {
        !self.used.load(Relaxed)
    }

    /// Gives the memory of those that nobody looks at back to the system.
    pub(crate) fn discard(&self) {
        self.used.store(false, Relaxed);
        for shared in lock(&self.by_process).values().filter_map(Weak::upgrade) {
            for segment in lock(&shared.ours).iter().flatten() {
                if !segment.is_free() {
                    self.used.store(true, Relaxed);
                } else if let Err(error) = segment.discard() {
                    tracing::debug!(%error, "memory for large messages is kept");
                }
            }
        }
    }
}

/// A payload whose large parts lie in segments, counted as looked at until the peer has taken them over.
#[derive(Debug, Default)]
pub(super) struct Placed {
    table: Vec<Part>,
    here: Vec<u8>,
    counted: Vec<Arc<Memory>>,
}

impl Placed {
    /// What the record says, after how many parts there are.
    pub(super) fn parts(&self) -> [&[u8]; 2] {
        [bytemuck::cast_slice(&self.table), &self.here]
    }

    pub(super) fn count(&self) -> u64 {
        self.table.len() as u64
    }

    /// The record is written: the peer counts down.
    pub(super) fn sent(mut self) {
        self.counted.clear();
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        self.counted.iter().for_each(|segment| segment.uncount());
    }
}

impl Shared {
    /// Has the large parts of a payload in segments: those that do not lie in one are copied into one that is free. `None`: there
    /// is none.
    pub(super) fn place<'a>(&self, parts: impl Iterator<Item = &'a [u8]>) -> Option<Placed> {
        let mut placed = Placed::default();
        let (mut copies, mut room) = (Vec::new(), 0);
        for part in parts.filter(|part| !part.is_empty()) {
            let mut entry = Part { len: part.len() as u64, ..Part::zeroed() };
            if part.len() < PART {
                placed.here.extend_from_slice(part);
            } else if let Some((place, segment, offset, memory)) = self.find(part) {
                memory.count();
                placed.counted.push(memory);
                entry = Part { place, segment, offset: offset as u64, ..entry };
            } else {
                copies.push((placed.table.len(), part));
                room += part.len().next_multiple_of(ALIGN);
            }
            placed.table.push(entry);
            if placed.table.len() > PARTS || placed.here.len() > INLINE {
                return None;
            }
        }
        if copies.is_empty() {
            return Some(placed);
        }
        let (segment, memory) = self.take(room, copies.len(), &mut placed.counted)?;
        let mut offset = FIRST;
        for (index, part) in copies {
            if part.len() < HUGE {
                memory.write(offset, part);
            } else {
                memory.write_past_caches(offset, part);
            }
            let entry = &mut placed.table[index];
            (entry.place, entry.segment, entry.offset) = (MINE, segment, offset as u64);
            offset += part.len().next_multiple_of(ALIGN);
        }
        Some(placed)
    }

    /// The segment in which those bytes lie, which somebody looks at.
    fn find(&self, bytes: &[u8]) -> Option<(u32, u32, usize, Arc<Memory>)> {
        [(MINE, &self.ours), (YOURS, &self.theirs)].into_iter().find_map(|(place, slots)| {
            (0..).zip(lock(slots).iter()).find_map(|(number, segment)| {
                let segment = segment.as_ref()?;
                Some((place, number, segment.offset_of(bytes)?, segment.clone()))
            })
        })
    }

    /// A free segment with so much room, which so many will look at.
    fn take(&self, size: usize, views: usize, counted: &mut Vec<Arc<Memory>>) -> Option<(u32, Arc<Memory>)> {
        let ours = lock(&self.ours);
        let fit = (0..).zip(ours.iter()).filter_map(|(number, segment)| Some((number, segment.as_ref()?)));
        let fit = fit.filter(|(_, segment)| room(segment) >= size && is_mapped(segment) && segment.is_free());
        let (number, segment) = fit.min_by_key(|(_, segment)| segment.len())?;
        for _ in 0..views {
            segment.count();
            counted.push(segment.clone());
        }
        self.used.store(true, Relaxed);
        Some((number, segment.clone()))
    }

    /// Makes a segment for a payload of that length, to be announced to the other process. `None`: one has been announced, or
    /// those that there are are all in use.
    pub(super) fn announce(&self, len: usize) -> Option<Announcement> {
        let size =
            len.next_multiple_of(ALIGN).checked_next_power_of_two().filter(|size| *size <= BYTES / 2)?;
        let mut ours = lock(&self.ours);
        if ours.iter().flatten().any(|segment| room(segment) >= size && !is_mapped(segment)) {
            return None;
        }
        let total = |ours: &Slots| ours.iter().flatten().map(|segment| room(segment)).sum::<usize>();
        let is_full = |ours: &Slots| ours.iter().all(Option::is_some) || total(ours) + size > BYTES;
        // Smaller ones are of less use.
        while is_full(&ours) {
            let free = ours.iter_mut().filter(|slot| {
                slot.as_ref().is_some_and(|old| room(old) < size && is_mapped(old) && old.is_free())
            });
            let smallest = free.min_by_key(|slot| slot.as_ref().map(|old| old.len()))?;
            // The other process has it mapped until another takes its place.
            smallest.take()?.discard().ok()?;
        }
        let memory = match Memory::create(FIRST + size) {
            Ok(memory) => Arc::new(memory),
            Err(error) => {
                tracing::debug!(%error, "no memory for large messages");
                return None;
            }
        };
        let (slot, empty) = (0..).zip(ours.iter_mut()).find(|(_, slot)| slot.is_none())?;
        let name = memory.name();
        *empty = Some(memory);
        Some(Announcement { segment: slot, name })
    }

    /// Maps a segment that the other process has announced.
    pub(super) fn map(&self, announcement: &Announcement) -> io::Result<()> {
        let Announcement { segment, name } = announcement;
        let len = usize::try_from(name.length).unwrap_or(usize::MAX);
        let mut theirs = lock(&self.theirs);
        let slot = theirs.get_mut(*segment as usize).filter(|_| name.process == self.process);
        let Some(slot) = slot.filter(|_| (FIRST..=FIRST + BYTES).contains(&len)) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a segment that cannot be"));
        };
        let memory = Memory::open(name, len)?;
        memory.u32_at(MAPPED).store(1, Release);
        *slot = Some(Arc::new(memory));
        Ok(())
    }

    /// The payload of which a record says where its `count` parts are.
    pub(super) fn payload(&self, count: u64, said: &[u8]) -> Result<Payload, String> {
        let table = usize::try_from(count).ok().filter(|count| *count <= PARTS);
        let table = table.and_then(|count| said.split_at_checked(count * size_of::<Part>()));
        let (table, mut here) = table.ok_or("a record says of more parts than there are")?;
        let mut payload = Payload::default();
        for part in table.chunks_exact(size_of::<Part>()).map(bytemuck::pod_read_unaligned::<Part>) {
            payload.push(match part.place {
                HERE => {
                    let split = usize::try_from(part.len).ok().and_then(|len| here.split_at_checked(len));
                    let (bytes, rest) = split.ok_or("a part of a payload is missing")?;
                    here = rest;
                    frame::aligned_copy(bytes)
                }
                MINE => Self::view(&self.theirs, part)?,
                YOURS => Self::view(&self.ours, part)?,
                other => return Err(format!("a part of a payload is at an unknown place ({other})")),
            });
        }
        Ok(payload)
    }

    fn view(slots: &Mutex<Slots>, part: Part) -> Result<Bytes, String> {
        let segment = lock(slots).get(part.segment as usize).cloned().flatten();
        let range = || {
            let start = usize::try_from(part.offset).ok()?;
            Some(start..start.checked_add(usize::try_from(part.len).ok()?)?)
        };
        let view = segment.zip(range()).and_then(|(segment, range)| View::counted(segment, range));
        view.map(Bytes::from_owner).ok_or_else(|| "a part of a payload is where nothing is".into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Both ends, which are two processes otherwise.
    fn ends() -> (Segments, Arc<Shared>, Arc<Shared>) {
        let (one, other) = (Segments::default(), Segments::default());
        let process = std::process::id();
        let ends = (one.with(process), other.with(process));
        (one, ends.0, ends.1)
    }

    /// As the link does it. `None`: it would have to go through the ring.
    fn send(from: &Shared, to: &Shared, payload: &Payload) -> Option<Payload> {
        let Some(placed) = from.place(payload.parts().map(|part| &part[..])) else {
            if let Some(announcement) = from.announce(payload.len()) {
                to.map(&announcement).unwrap();
            }
            return None;
        };
        let got = to.payload(placed.count(), &placed.parts().concat()).unwrap();
        placed.sent();
        Some(got)
    }

    fn payload(parts: &[(usize, u8)]) -> Payload {
        let mut payload = Payload::default();
        for &(len, seed) in parts {
            payload.push(Bytes::from(vec![seed; len]));
        }
        payload
    }

    #[test]
    fn the_second_payload_is_in_memory_and_its_way_back_is_none() {
        let (segments, one, other) = ends();
        let sent = payload(&[(100, 1), (LARGE, 2), (0, 0), (PART + 1, 3)]);
        assert!(send(&one, &other, &sent).is_none());
        assert!(segments.is_idle());
        let got = send(&one, &other, &sent).unwrap();
        assert!(got.to_bytes() == sent.to_bytes());
        assert!(!segments.is_idle());
        let large = got.parts().nth(1).unwrap();
        assert_eq!(large.as_ptr().align_offset(ALIGN), 0);
        let back = send(&other, &one, &Payload::from(large.clone())).unwrap();
        assert!(back.to_bytes() == sent.parts().nth(1).unwrap());
        assert!(lock(&other.ours).iter().all(Option::is_none), "what comes back needs no memory");
        let again = send(&one, &other, &back).unwrap();
        assert_eq!(again.head().as_ptr(), large.as_ptr(), "and what is sent again is where it was");
    }

    #[test]
    fn memory_is_used_again_and_given_back_once_nobody_looks() {
        let (segments, one, other) = ends();
        let sent = payload(&[(LARGE, 1)]);
        send(&one, &other, &sent);
        let got = send(&one, &other, &sent).unwrap();
        assert!(send(&one, &other, &sent).is_none(), "in use");
        segments.discard();
        assert!(!segments.is_idle(), "still in use");
        drop(got);
        let got = send(&one, &other, &payload(&[(LARGE, 9)])).unwrap();
        assert!(got.to_bytes() == payload(&[(LARGE, 9)]).to_bytes());
        drop(got);
        segments.discard();
        assert!(segments.is_idle());
        assert!(send(&one, &other, &sent).unwrap().to_bytes() == sent.to_bytes());
    }

    #[test]
    fn a_payload_that_was_not_sent_leaves_its_memory_free() {
        let (_segments, one, other) = ends();
        let sent = payload(&[(LARGE, 1)]);
        send(&one, &other, &sent);
        drop(one.place(sent.parts().map(|part| &part[..])).unwrap());
        assert!(send(&one, &other, &sent).is_some());
    }

    #[test]
    fn a_peer_that_lies_is_an_error_not_a_fault() {
        let (_segments, one, other) = ends();
        send(&one, &other, &payload(&[(LARGE, 1)]));
        let good = Part { place: MINE, segment: 0, offset: FIRST as u64, len: LARGE as u64 };
        let read = |part: Part| {
            lock(&other.theirs)[0].iter().for_each(|segment| segment.count());
            other.payload(1, bytemuck::bytes_of(&part)).map(|payload| payload.len())
        };
        assert_eq!(read(good), Ok(LARGE));
        for lie in [
            Part { place: 3, ..good },
            Part { place: YOURS, ..good },
            Part { place: HERE, ..good },
            Part { segment: 1, ..good },
            Part { offset: 0, ..good },
            Part { offset: u64::MAX, ..good },
            Part { len: good.len + 1, ..good },
            Part { len: u64::MAX, ..good },
        ] {
            assert!(read(lie).is_err(), "{lie:?}");
        }
        assert!(other.payload(2, bytemuck::bytes_of(&good)).is_err());
        assert!(other.payload(u64::MAX, &[]).is_err());
        let announcement = |segment, length| {
            let name = MemoryName { length, ..lock(&one.ours)[0].as_ref().unwrap().name() };
            other.map(&Announcement { segment, name })
        };
        let length = (FIRST + LARGE) as u64;
        assert!(announcement(0, length).is_ok());
        assert!(announcement(SEGMENTS as u32, length).is_err());
        assert!(announcement(0, length + 1).is_err());
        assert!(announcement(0, u64::MAX).is_err());
        assert!(announcement(0, 0).is_err());
    }

    #[derive(Clone, Debug)]
    enum Step {
        /// One end sends, so many bytes; or the last payload that it has got.
        Send(bool, usize),
        Forward(bool),
        /// The payload of that number is dropped.
        Drop(usize),
        Discard,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (any::<bool>(), LARGE..6 * LARGE).prop_map(|(end, len)| Step::Send(end, len)),
            2 => any::<bool>().prop_map(Step::Forward),
            4 => (0..20_usize).prop_map(Step::Drop),
            1 => Just(Step::Discard),
        ];
        prop::collection::vec(step, 1..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Whatever was sent and is still held has the bytes that were sent, and the memory has its bound.
        #[test]
        fn what_is_held_does_not_change(steps in steps()) {
            let (segments, one, other) = ends();
            // Who holds it, and what it should be.
            let mut held: Vec<(bool, Payload, u8, usize)> = Vec::new();
            for (seed, step) in (0_u8..).zip(steps) {
                let way = |end: bool| if end { (&*one, &*other) } else { (&*other, &*one) };
                match step {
                    Step::Send(end, len) => {
                        let (from, to) = way(end);
                        if let Some(got) = send(from, to, &payload(&[(len, seed)])) {
                            held.push((!end, got, seed, len));
                        }
                    }
                    Step::Forward(end) => {
                        let last = held.iter().rfind(|(holder, ..)| *holder == end);
                        let Some((_, got, seed, len)) = last.cloned() else { continue };
                        let (from, to) = way(end);
                        let got = send(from, to, &got);
                        prop_assert!(got.is_some());
                        held.extend(got.map(|got| (!end, got, seed, len)));
                    }
                    Step::Drop(number) if number < held.len() => drop(held.swap_remove(number)),
                    Step::Drop(_) => {}
                    Step::Discard => segments.discard(),
                }
                for (_, got, seed, len) in &held {
                    prop_assert!(got.to_bytes() == payload(&[(*len, *seed)]).to_bytes());
                }
                for end in [&one, &other] {
                    let ours = lock(&end.ours);
                    prop_assert!(ours.iter().flatten().map(|segment| room(segment)).sum::<usize>() <= BYTES);
                }
            }
        }
    }
}
