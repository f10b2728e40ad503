//! Large payloads are not passed through the ring: they lie in memory that both processes have mapped, their *segments*, and
//! the ring says where. The sender copies a payload in, and the receiver uses it in place. A payload that is sent back to its
//! sender, or on to a peer in whose segment it already lies, is not copied at all.
//!
//! A segment is announced before it is used: the payload that would have needed it goes through the ring, and the next one
//! finds it mapped. So what a process has sent survives it, since the receiver has mapped the memory, too.
//!
//! A segment counts its current readers ([`View`]). Only the process that has created a segment writes payloads into it, and
//! only while it has no readers.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytemuck::{Pod, Zeroable};
use bytes::Bytes;

use super::budget::{Budget, Lease};
use super::memory::{FIRST, Memory, View};
use crate::envelope::Payload;
use crate::frame;
use crate::id::HostId;
use crate::protocol::MemoryName;

/// Shorter payloads are as fast through the ring.
pub(super) const LARGE: usize = if cfg!(test) { 256 << 10 } else { 1 << 20 };
/// Shorter parts of a large payload are put into the record.
const PART: usize = 64 << 10;
/// The most bytes of a payload, and the most parts, that a record may have.
const INLINE: usize = 16 << 10;
const PARTS: usize = 64;
/// A longer part would no longer be cached when it is read.
const HUGE: usize = if cfg!(test) { 512 << 10 } else { 4 << 20 };
/// Parts begin at multiples of this, so that they can be viewed as numbers of any type.
const ALIGN: usize = 64;

/// The most bytes that the long rings of a process have.
const RINGS: usize = 16 << 20;
/// The most segments that a process creates for one peer.
const SEGMENTS: usize = 8;
/// The offset at which the peer sets a flag once it has mapped the segment.
const MAPPED: usize = 128;

/// The place of a part of a payload, as stored in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
struct Part {
    place: u32,
    process: u32,
    descriptor: i32,
    zero: u32,
    /// The length of the segment.
    length: u64,
    token: [u8; 16],
    offset: u64,
    len: u64,
}

/// In the record itself, behind the earlier parts.
const HERE: u32 = 0;
/// In a segment of the process that writes the record, or of the process that reads it.
const MINE: u32 = 1;
const YOURS: u32 = 2;

impl Part {
    fn here(len: usize) -> Self {
        Self { len: len as u64, ..Self::zeroed() }
    }

    fn in_segment(place: u32, name: &MemoryName, offset: usize, len: usize) -> Self {
        let MemoryName { process, descriptor, length, token } = *name;
        let (offset, len) = (offset as u64, len as u64);
        Self { place, process, descriptor, zero: 0, length, token, offset, len }
    }

    fn name(&self) -> MemoryName {
        let Self { process, descriptor, length, token, .. } = *self;
        MemoryName { process, descriptor, length, token }
    }
}

/// A segment that this process has created.
#[derive(Debug)]
struct Own {
    memory: Arc<Memory>,
    /// When it was last written to, unless its memory was returned to the system since.
    written: Option<Instant>,
}

impl Own {
    /// Returns how many bytes of payload fit.
    fn room(&self) -> usize {
        self.memory.len() - FIRST
    }

    fn is_mapped(&self) -> bool {
        self.memory.u32_at(MAPPED).load(Acquire) != 0
    }

    /// Whether the peer has mapped it and nobody views it.
    fn is_free(&self) -> bool {
        self.is_mapped() && self.memory.is_free()
    }
}

/// The segments that this process and a peer share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Created by this process.
    ours: Mutex<Vec<Own>>,
    /// Created by the peer, in order of their last use.
    theirs: Mutex<Vec<Arc<Memory>>>,
    /// The number of links to the peer, and of its rings that are read.
    users: AtomicUsize,
    all: Arc<All>,
}

/// State shared by all segments of a process.
#[derive(Debug)]
struct All {
    /// For the segments that it creates, and for those that it maps.
    made: Arc<Budget>,
    mapped: Arc<Budget>,
    /// For long rings.
    rings: Arc<Budget>,
    /// Whether any have memory that can be returned to the system, now or later.
    used: AtomicBool,
}

impl Default for All {
    fn default() -> Self {
        let (made, mapped, used) = Default::default();
        Self { made, mapped, rings: Budget::of(RINGS).into(), used }
    }
}

/// The segments of a process.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    by_peer: Mutex<HashMap<HostId, Arc<Shared>>>,
    all: Arc<All>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Segments {
    /// Returns the segments shared with this peer, until the caller [leaves](Shared::leave) them.
    pub(super) fn enter(&self, peer: HostId) -> Arc<Shared> {
        let mut by_peer = lock(&self.by_peer);
        by_peer.retain(|_, shared| !shared.is_over());
        let new = || {
            let (ours, theirs, users) = Default::default();
            Arc::new(Shared { ours, theirs, users, all: self.all.clone() })
        };
        let shared = by_peer.entry(peer).or_insert_with(new);
        shared.users.fetch_add(1, SeqCst);
        shared.clone()
    }

    /// Reserves this many bytes for a long ring, if there is enough left.
    pub(super) fn lease_ring(&self, bytes: usize) -> Option<Lease> {
        self.all.rings.lease(bytes)
    }

    /// Whether there is no memory to return to the system, now or later.
    pub(crate) fn is_idle(&self) -> bool {
        !self.all.used.load(Relaxed)
    }

    /// Returns the memory of segments that nobody views, and that were not written to for this long, to the system.
    pub(crate) fn discard(&self, age: Duration) {
        self.all.used.store(false, Relaxed);
        let mut by_peer = lock(&self.by_peer);
        by_peer.retain(|_, shared| !shared.is_over());
        for shared in by_peer.values() {
            for own in lock(&shared.ours).iter_mut() {
                let Some(written) = own.written else { continue };
                if written.elapsed() < age || !own.is_free() {
                    self.all.used.store(true, Relaxed);
                    continue;
                }
                own.written = None;
                if let Err(error) = own.memory.discard() {
                    tracing::debug!(%error, "memory for large messages is kept");
                }
            }
        }
    }
}

/// A payload whose large parts lie in segments. Their views are counted until the peer has taken them over.
#[derive(Debug, Default)]
pub(super) struct Placed {
    table: Vec<Part>,
    here: Vec<u8>,
    counted: Vec<Arc<Memory>>,
}

impl Placed {
    /// Returns what the record contains after the number of parts.
    pub(super) fn parts(&self) -> [&[u8]; 2] {
        [bytemuck::cast_slice(&self.table), &self.here]
    }

    pub(super) fn count(&self) -> u64 {
        self.table.len() as u64
    }

    /// The record is written, so the peer will release the views.
    pub(super) fn sent(mut self) {
        self.counted.clear();
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        self.counted.iter().for_each(|segment| segment.uncount());
    }
}

/// The result of placing a payload.
#[derive(Debug)]
pub(super) enum Placing {
    Placed(Placed),
    /// It needs a free segment with this much room.
    Needs(usize),
    /// It is better sent through the ring.
    Unfit,
}

impl Shared {
    /// Places the large parts of a payload in segments: parts that do not lie in one are copied into one that is free.
    pub(super) fn place<'a>(&self, parts: impl Iterator<Item = &'a [u8]>) -> Placing {
        let mut placed = Placed::default();
        let (mut copies, mut room) = (Vec::new(), 0);
        for part in parts.filter(|part| !part.is_empty()) {
            let mut entry = Part::here(part.len());
            if part.len() < PART {
                placed.here.extend_from_slice(part);
            } else if let Some((place, offset, memory)) = self.find(part) {
                memory.count();
                entry = Part::in_segment(place, &memory.name(), offset, part.len());
                placed.counted.push(memory);
            } else {
                copies.push((placed.table.len(), part));
                room += part.len().next_multiple_of(ALIGN);
            }
            placed.table.push(entry);
            if placed.table.len() > PARTS || placed.here.len() > INLINE {
                return Placing::Unfit;
            }
        }
        if copies.is_empty() {
            return Placing::Placed(placed);
        }
        let Some(memory) = self.take(room, copies.len(), &mut placed.counted) else {
            return Placing::Needs(room);
        };
        let mut offset = FIRST;
        for (index, part) in copies {
            if part.len() < HUGE {
                memory.write(offset, part);
            } else {
                memory.write_past_caches(offset, part);
            }
            placed.table[index] = Part::in_segment(MINE, &memory.name(), offset, part.len());
            offset += part.len().next_multiple_of(ALIGN);
        }
        Placing::Placed(placed)
    }

    /// Returns the segment in which these bytes lie; the caller must hold a view of them.
    fn find(&self, bytes: &[u8]) -> Option<(u32, usize, Arc<Memory>)> {
        let within = |memory: &Arc<Memory>| Some((memory.offset_of(bytes)?, memory.clone()));
        let ours = lock(&self.ours).iter().find_map(|own| within(&own.memory));
        let found = ours.map(|(offset, memory)| (MINE, offset, memory));
        found.or_else(|| {
            let theirs = lock(&self.theirs).iter().find_map(within);
            theirs.map(|(offset, memory)| (YOURS, offset, memory))
        })
    }

    /// Returns a free segment with this much room, counting this many views.
    fn take(&self, size: usize, views: usize, counted: &mut Vec<Arc<Memory>>) -> Option<Arc<Memory>> {
        let mut ours = lock(&self.ours);
        let fit = ours.iter_mut().filter(|own| own.room() >= size && own.is_free());
        let own = fit.min_by_key(|own| own.room())?;
        for _ in 0..views {
            own.memory.count();
            counted.push(own.memory.clone());
        }
        own.written = Some(Instant::now());
        self.all.used.store(true, Relaxed);
        Some(own.memory.clone())
    }

    /// Creates a segment with this much room, to be announced to the peer. Returns `None` if one has already been announced,
    /// or there is no memory for more.
    pub(super) fn announce(&self, room: usize) -> Option<MemoryName> {
        let size = FIRST + room.checked_next_power_of_two()?;
        let mut ours = lock(&self.ours);
        if ours.iter().any(|own| own.room() >= room && !own.is_mapped()) {
            return None;
        }
        let lease = loop {
            let lease = (ours.len() < SEGMENTS).then(|| self.all.made.lease(size)).flatten();
            if let Some(lease) = lease {
                break lease;
            }
            // Smaller segments are less useful.
            let free = ours.iter().enumerate().filter(|(_, own)| own.room() < room && own.is_free());
            let (smallest, _) = free.min_by_key(|(_, own)| own.room())?;
            // The peer may keep it mapped for some time.
            ours.swap_remove(smallest).memory.discard().ok()?;
        };
        match Memory::create(size) {
            Ok(memory) => {
                let memory = Arc::new(memory.with(lease));
                ours.push(Own { memory: memory.clone(), written: None });
                Some(memory.name())
            }
            Err(error) => {
                tracing::debug!(%error, "no memory for large messages");
                None
            }
        }
    }

    /// Maps a segment that the peer has created, unless the budget is used up.
    pub(super) fn map(&self, name: &MemoryName) -> io::Result<Arc<Memory>> {
        self.mapped(name, true)
    }

    fn mapped(&self, name: &MemoryName, within_budget: bool) -> io::Result<Arc<Memory>> {
        let mut theirs = lock(&self.theirs);
        if let Some(known) = theirs.iter().position(|memory| memory.name() == *name) {
            let memory = theirs.remove(known);
            theirs.push(memory.clone());
            return Ok(memory);
        }
        let size = usize::try_from(name.length).ok().filter(|size| *size > FIRST);
        let size =
            size.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a segment that cannot be"))?;
        if theirs.len() >= 2 * SEGMENTS {
            // Most likely the peer has dropped it; if not, it is mapped again when needed.
            theirs.remove(0);
        }
        let lease = self.all.mapped.lease(size);
        if within_budget && lease.is_none() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let memory = Memory::open(name, size)?;
        let memory = Arc::new(match lease {
            Some(lease) => memory.with(lease),
            None => memory,
        });
        memory.u32_at(MAPPED).store(1, Release);
        theirs.push(memory.clone());
        Ok(memory)
    }

    /// Returns the payload whose `count` parts lie where a record says.
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
                // It was mapped before, and so announced as usable; the peer is not to blame if it has been forgotten.
                MINE => view(self.mapped(&part.name(), false).map_err(|error| error.to_string())?, part)?,
                YOURS => {
                    let ours = lock(&self.ours);
                    let own = ours.iter().find(|own| own.memory.name() == part.name());
                    view(own.ok_or("a part of a payload is in no segment")?.memory.clone(), part)?
                }
                other => return Err(format!("a part of a payload is at an unknown place ({other})")),
            });
        }
        Ok(payload)
    }

    /// Forgets all segments if nobody else uses them. Views keep their memory.
    pub(super) fn leave(&self) {
        if self.users.fetch_sub(1, SeqCst) == 1 {
            lock(&self.ours).clear();
            lock(&self.theirs).clear();
        }
    }

    fn is_over(&self) -> bool {
        self.users.load(SeqCst) == 0
    }
}

fn view(segment: Arc<Memory>, part: Part) -> Result<Bytes, String> {
    let start = usize::try_from(part.offset).ok();
    let end = start.zip(usize::try_from(part.len).ok()).and_then(|(start, len)| start.checked_add(len));
    let view = start.zip(end).and_then(|(start, end)| View::counted(segment, start..end));
    view.map(Bytes::from_owner).ok_or_else(|| "a part of a payload lies beyond its segment".into())
}

#[cfg(test)]
mod tests;
