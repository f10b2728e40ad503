//! The file format of traces: pieces in any order, each behind its length.
//!
//! The contents come from other processes, and are trusted only as far as they make sense.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::clock::Sample;
use super::event::{Event, Reason, What};
use crate::id::{HostId, VrId};

/// The magic number of a trace.
const MAGIC: &[u8; 16] = b"river trace 1\n\0\0";
/// The most events in a piece.
pub(crate) const PIECE: usize = 4096;
/// The maximum length of a piece in bytes.
const LONGEST: u32 = 16 << 20;

/// A piece of a trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Piece {
    /// The program, and its initiator's process.
    Program { name: String, host: HostId },
    /// A process: its VM, and the boot of the kernel whose clock it reads.
    Host { host: HostId, vm: String, boot: String },
    /// How a process's clock compares with the initiator's.
    Clock { host: HostId, samples: Vec<Sample> },
    /// A process died with those VRs, at that time of the initiator's clock, and what it had recorded is lost.
    Lost { host: HostId, vm: String, at: u64, why: String, vrs: Vec<VrId> },
    /// A VR.
    Vr(VrRecord),
    /// Events of a VR, in order.
    Events { vr: VrId, peers: Vec<VrId>, events: Vec<Packed> },
    /// This many VRs, about which nothing else is known.
    Forgotten(u64),
    /// The trace is complete.
    End { at: u64 },
}

/// What is known about a VR besides its events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct VrRecord {
    pub(crate) vr: VrId,
    pub(crate) parent: Option<VrId>,
    pub(crate) name: String,
    pub(crate) began: u64,
    pub(crate) end: Option<Ending>,
    /// How many of the oldest events were dropped for lack of memory.
    pub(crate) dropped: u64,
    pub(crate) labels: Vec<String>,
}

/// How a VR ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ending {
    pub(crate) at: u64,
    pub(crate) normal: bool,
    pub(crate) why: String,
}

/// An event that refers to its peer by an index into a list, and to its time by the difference from the event before.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Packed {
    since: i64,
    label: u32,
    what: PackedWhat,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum PackedWhat {
    Send { to: u32, seq: u64, bytes: u64 },
    Receive { from: u32, seq: u64, bytes: u64 },
    Wait { reason: Reason, on: Option<u32>, nanos: u64 },
    Deploy { child: u32 },
    Down { who: u32 },
    Span { nanos: u64 },
}

impl Piece {
    pub(crate) fn events(vr: VrId, events: &[Event]) -> Self {
        let (mut peers, mut known) = (Vec::new(), HashMap::new());
        let mut number = |vr: VrId| {
            *known.entry(vr).or_insert_with(|| {
                peers.push(vr);
                peers.len() as u32 - 1
            })
        };
        let mut last = 0;
        let pack = |event: &Event| {
            let since = event.at.wrapping_sub(last) as i64;
            last = event.at;
            let what = match event.what {
                What::Send { to, seq, bytes } => PackedWhat::Send { to: number(to), seq, bytes },
                What::Receive { from, seq, bytes } => PackedWhat::Receive { from: number(from), seq, bytes },
                What::Wait { reason, on, nanos } => {
                    PackedWhat::Wait { reason, on: on.map(&mut number), nanos }
                }
                What::Deploy { child } => PackedWhat::Deploy { child: number(child) },
                What::Down { who } => PackedWhat::Down { who: number(who) },
                What::Span { nanos } => PackedWhat::Span { nanos },
            };
            Packed { since, label: event.label, what }
        };
        let events = events.iter().map(pack).collect();
        Self::Events { vr, peers, events }
    }
}

/// Unpacks events; those whose peer is not in the list are left out.
pub(super) fn unpack(peers: &[VrId], packed: &[Packed]) -> Vec<Event> {
    let mut at: u64 = 0;
    let unpack = |packed: &Packed| {
        at = at.wrapping_add(packed.since as u64);
        let peer = |number: u32| peers.get(number as usize).copied();
        let what = match packed.what {
            PackedWhat::Send { to, seq, bytes } => What::Send { to: peer(to)?, seq, bytes },
            PackedWhat::Receive { from, seq, bytes } => What::Receive { from: peer(from)?, seq, bytes },
            PackedWhat::Wait { reason, on, nanos } => What::Wait { reason, on: on.and_then(peer), nanos },
            PackedWhat::Deploy { child } => What::Deploy { child: peer(child)? },
            PackedWhat::Down { who } => What::Down { who: peer(who)? },
            PackedWhat::Span { nanos } => What::Span { nanos },
        };
        Some(Event { at, what, label: packed.label })
    };
    packed.iter().filter_map(unpack).collect()
}

/// Writes a trace.
#[derive(Debug)]
pub(crate) struct Writer<W: Write>(W);

impl Writer<BufWriter<File>> {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        Self::new(BufWriter::new(File::create(path)?))
    }
}

impl<W: Write> Writer<W> {
    fn new(mut out: W) -> io::Result<Self> {
        out.write_all(MAGIC)?;
        Ok(Self(out))
    }

    pub(crate) fn piece(&mut self, host: HostId, piece: &Piece) -> io::Result<()> {
        let bytes = encode(piece).map_err(io::Error::other)?;
        self.encoded(host, &bytes)
    }

    /// Writes a piece that a host has encoded itself.
    pub(crate) fn encoded(&mut self, host: HostId, piece: &[u8]) -> io::Result<()> {
        let length = u32::try_from(piece.len()).ok().filter(|length| *length <= LONGEST);
        let length = length.ok_or_else(|| io::Error::other("a piece of a trace is too long"))?;
        self.0.write_all(&length.to_le_bytes())?;
        self.0.write_all(host.as_uuid().as_bytes())?;
        self.0.write_all(piece)
    }

    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.0.flush()?;
        Ok(self.0)
    }
}

pub(crate) fn encode(piece: &Piece) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_stdvec(piece)
}

/// Reads a trace, piece by piece.
pub(crate) struct Reader<R: Read>(R);

impl Reader<BufReader<File>> {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Self::new(BufReader::new(File::open(path)?))
    }
}

impl<R: Read> Reader<R> {
    pub(crate) fn new(mut from: R) -> io::Result<Self> {
        let mut magic = [0; MAGIC.len()];
        let read = from.read_exact(&mut magic);
        if read.is_err() || magic != *MAGIC {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it is not a trace of this version of River",
            ));
        }
        Ok(Self(from))
    }

    /// The next piece, and the process that it came from. Returns `None` at the end, or if the rest is invalid, as when the
    /// writer was killed.
    pub(crate) fn next(&mut self) -> Option<(HostId, Piece)> {
        let (mut length, mut host) = ([0; 4], [0; 16]);
        self.0.read_exact(&mut length).ok()?;
        self.0.read_exact(&mut host).ok()?;
        let length = u32::from_le_bytes(length);
        if length > LONGEST {
            return None;
        }
        let mut bytes = Vec::new();
        self.0.by_ref().take(length.into()).read_to_end(&mut bytes).ok()?;
        let piece = postcard::from_bytes(&bytes).ok()?;
        Some((HostId::from_uuid(uuid::Uuid::from_bytes(host)), piece))
    }
}

/// A trace of one piece that has these bytes, for fuzzers.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn framed(piece: &[u8]) -> Vec<u8> {
    [MAGIC, &(piece.len() as u32).to_le_bytes()[..], &[0; 16], piece].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::trace::event::tests::event;

    proptest! {
        #[test]
        fn events_survive_the_file(events in prop::collection::vec(event(), 0..50), garbage: Vec<u8>) {
            let (vr, host) = (VrId::fresh(), HostId::fresh());
            let mut writer = Writer::new(Vec::new()).unwrap();
            writer.piece(host, &Piece::events(vr, &events)).unwrap();
            let mut file = writer.finish().unwrap();
            file.extend(garbage);
            let mut reader = Reader::new(&file[..]).unwrap();
            match reader.next() {
                Some((of, Piece::Events { vr: whose, peers, events: packed })) => {
                    prop_assert_eq!((of, whose), (host, vr));
                    prop_assert_eq!(unpack(&peers, &packed), events);
                }
                other => prop_assert!(false, "{:?}", other),
            }
            while reader.next().is_some() {}
        }
    }

    #[test]
    fn another_file_is_refused() {
        let error = Reader::new(&b"<!DOCTYPE html>"[..]).err().unwrap();
        assert!(error.to_string().contains("not a trace"), "{error}");
    }
}
