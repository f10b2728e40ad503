//! The link between two processes of one machine: a ring in shared memory for each direction that is used.
//!
//! It begins as a TCP connection like any other, over which both sides have proved that they hold the key. The dialler
//! creates a ring and puts its name into its hello. If the listener can open it (both must be processes of one user in one
//! process namespace), all frames pass through the ring. The connection stays: its end tells each side of the other's death,
//! and a byte on it wakes a reader that sleeps.
//!
//! Nobody is woken while somebody polls: waiting VRs poll the rings themselves ([`Rings`]). Large payloads do not pass
//! through a ring, which only says where they lie ([`Segments`]).

mod bell;
mod budget;
mod fence;
mod lines;
mod memory;
mod ring;
mod rings;
mod route;
mod segments;

use std::io::{self, Write};
use std::iter;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use spin::mutex::{SpinMutex, SpinMutexGuard};

use crate::envelope::Label;
use crate::frame::{self, Kind};
use crate::id::HostId;
use crate::protocol::MemoryName;

use super::Traffic;
use bell::Bell;
use ring::{LONGEST, RingWriter, Title};
use route::{ROUTE, Route, Routes};
use segments::{Placed, Placing, Shared};

pub use lines::{Line, SharedLines, SharedName};
pub(crate) use rings::Rings;
pub(crate) use segments::Segments;

/// A thread that finds the ring full or locked first polls this often, then yields for this long, then sleeps between polls.
const SPINS: u32 = 100;
const YIELD: Duration = Duration::from_micros(200);
const NAP: Duration = Duration::from_micros(200);

/// Kinds of records. Bytes of frames, as on a connection.
const STREAM: u8 = 1;
/// A complete envelope: sequence number, route, payload. Its route gets the number that is the record's mark.
const SPELLED: u8 = 2;
/// A complete envelope whose route has this number: sequence number, payload.
const NAMED: u8 = 3;
/// Announces a segment for later payloads: its name.
const SEGMENT: u8 = 4;
/// A complete envelope whose payload is in segments: sequence number, route, number of parts, places of the parts.
const PLACED: u8 = 5;
/// Added to a kind: the payload begins in the middle of a line, see [`LONG`].
const HALF: u8 = 0x10;
const SEQ: usize = size_of::<u64>();
/// Payloads of at least this many bytes begin in the middle of a line. If the layer above has a header of half a line, as it
/// should, its data then begins at a line, where it is copied fastest.
const LONG: usize = 256;
/// Data that is longer than a record is sent in several of this length: the reader copies one out while the writer copies the
/// next one in, and both stay in the cache.
const PIECE: usize = 32 << 10;

/// The number of zeros before such a payload, behind the record's word, the sequence number and this many bytes of a route.
const fn gap_behind(route: usize) -> usize {
    (64 + 32 - (2 * SEQ + route) % 64) % 64
}

/// A ring that is offered to a peer.
pub(crate) struct Offer(RingWriter);

impl Offer {
    /// A process that has enough long rings, or little memory for them, offers short ones.
    pub(crate) fn new(segments: &Segments) -> io::Result<Self> {
        let ring = match segments.lease_ring(ring::LONG) {
            Some(lease) => RingWriter::create(ring::LONG)?.with(lease),
            None => RingWriter::create(ring::SHORT)?,
        };
        Ok(Self(ring))
    }

    /// Returns the name by which the peer can open it.
    pub(crate) fn name(&self) -> MemoryName {
        self.0.name()
    }

    /// Offers it to a peer with this bell. Must be done before the peer accepts the ring: permission to open the other's
    /// memory may exist in one direction only, and a ring without a bell is of no use.
    pub(crate) fn to(self, bell: &MemoryName) -> io::Result<Proposal> {
        Ok(Proposal { ring: self.0, bell: Bell::open(bell)? })
    }
}

/// A ring that the peer only has to accept.
pub(crate) struct Proposal {
    ring: RingWriter,
    bell: Bell,
}

impl Proposal {
    /// Returns the link, once the peer has accepted the ring.
    pub(crate) fn accepted(self, doorbell: TcpStream, peer: HostId, segments: &Segments) -> ShmLink {
        let shared = segments.enter(peer);
        let out = SpinMutex::new(Out { ring: self.ring, routes: Routes::default() });
        let (failed, traffic) = Default::default();
        ShmLink { out, bell: self.bell, doorbell, shared, failed, traffic }
    }
}

/// The writing end of the link.
#[derive(Debug)]
pub(crate) struct ShmLink {
    /// Released by a plain store; releasing a mutex that wakes others would wait until the record has reached the reader.
    out: SpinMutex<Out>,
    bell: Bell,
    doorbell: TcpStream,
    shared: Arc<Shared>,
    failed: OnceLock<String>,
    pub(super) traffic: Traffic,
}

#[derive(Debug)]
struct Out {
    ring: RingWriter,
    routes: Routes,
}

impl ShmLink {
    /// The longest payload of an envelope that fits into one record.
    pub(crate) const WHOLE: usize = LONGEST - SEQ - ROUTE - gap_behind(ROUTE);

    /// Writes a frame whose payload has this length and consists of the parts. Blocks while the ring is full. Fails with the
    /// reason if the link has ended.
    pub(crate) fn send<'a>(
        &self,
        kind: Kind,
        label: &Label,
        len: usize,
        parts: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Result<(), String> {
        let large = kind == Kind::Envelope && len >= segments::LARGE;
        let placing = if large { self.shared.place(parts.clone()) } else { Placing::Unfit };
        let mut out = self.turn()?;
        let Out { ring, routes } = &mut *out;
        if let Placing::Placed(placed) = placing {
            self.write_placed(ring, label, placed)?;
        } else if kind != Kind::Envelope || len > Self::WHOLE {
            if let Placing::Needs(room) = placing
                && let Some(name) = self.shared.announce(room)
            {
                let said = postcard::to_stdvec(&name).map_err(|error| error.to_string())?;
                self.write(ring, Title { kind: SEGMENT, mark: 0, len: said.len() }, &[&said], iter::empty())?;
            }
            self.stream(ring, &frame::encode_header(kind, label, len), parts)?;
        } else {
            let route = Route::of(label);
            let (mark, known) = routes.number(&route);
            let (kind, route) = match known {
                true => (NAMED, &[][..]),
                false => (SPELLED, bytemuck::bytes_of(&route)),
            };
            let (kind, gap) = if len < LONG { (kind, 0) } else { (kind | HALF, gap_behind(route.len())) };
            let title = Title { kind, mark, len: SEQ + route.len() + gap + len };
            let seq = label.seq.to_le_bytes();
            self.write(ring, title, &[&seq, route, &[0; 64][..gap]], parts)?;
        }
        self.traffic.count(kind, len);
        drop(out);
        self.ring_if_needed()
    }

    fn write_placed(&self, ring: &mut RingWriter, label: &Label, placed: Placed) -> Result<(), String> {
        let (seq, route) = (label.seq.to_le_bytes(), Route::of(label));
        let (count, [table, here]) = (placed.count().to_le_bytes(), placed.parts());
        let head = [&seq[..], bytemuck::bytes_of(&route), &count, table, here];
        let title = Title { kind: PLACED, mark: 0, len: head.iter().map(|part| part.len()).sum() };
        self.write(ring, title, &head, iter::empty())?;
        placed.sent();
        Ok(())
    }

    fn stream<'a>(
        &self,
        ring: &mut RingWriter,
        header: &[u8],
        parts: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), String> {
        let mut write = |piece: &[u8]| {
            let title = Title { kind: STREAM, mark: 0, len: piece.len() };
            self.write(ring, title, &[piece], iter::empty())
        };
        write(header)?;
        parts.flat_map(|part| part.chunks(PIECE)).try_for_each(write)
    }

    /// Writes a record as soon as there is room for it.
    fn write<'a>(
        &self,
        ring: &mut RingWriter,
        title: Title,
        head: &[&[u8]],
        parts: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Result<(), String> {
        let mut patience = Patience::default();
        while !ring.write(title, head, parts.clone()) {
            self.ring_if_needed()?;
            patience.wait();
        }
        Ok(())
    }

    fn turn(&self) -> Result<SpinMutexGuard<'_, Out>, String> {
        let mut patience = Patience::default();
        loop {
            if let Some(error) = self.failed.get() {
                return Err(error.clone());
            }
            if let Some(out) = self.out.try_lock() {
                return Ok(out);
            }
            patience.wait();
        }
    }

    fn ring_if_needed(&self) -> Result<(), String> {
        if let Some(error) = self.failed.get() {
            return Err(error.clone());
        }
        if self.bell.must_ring() {
            (&self.doorbell).write_all(&[0]).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Ends the link: a blocked writer returns, and further sends fail with this text.
    pub(crate) fn close(&self, error: &str) {
        if self.failed.set(error.to_owned()).is_ok() {
            self.shared.leave();
        }
        let _ = self.doorbell.shutdown(Shutdown::Both);
    }
}

impl Drop for ShmLink {
    fn drop(&mut self) {
        self.close("it is not used any more");
    }
}

/// A backoff for waits that are most likely short.
#[derive(Debug, Default)]
struct Patience {
    spins: u32,
    since: Option<Instant>,
}

impl Patience {
    fn wait(&mut self) {
        if self.spins < SPINS {
            self.spins += 1;
            std::hint::spin_loop();
        } else if self.since.get_or_insert_with(Instant::now).elapsed() < YIELD {
            thread::yield_now();
        } else {
            thread::sleep(NAP);
        }
    }
}
