//! The format of a data connection: frames of a 64-byte little-endian header and a payload.
//!
//! ```text
//!  0  kind u8 | version u8 | 0 u16 | channel u32
//!  8  payload length u64
//! 16  sequence number u64
//! 24  lane u64
//! 32  destination VR
//! 48  source VR
//! 64  payload
//! ```
//!
//! Encoder and decoder know nothing of sockets. The decoder trusts nothing: an invalid header is an error that ends the
//! connection, and at most [`EAGER`] bytes, or twice as many as have arrived, are allocated.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use bytes::{Buf, Bytes};
use uuid::Uuid;

use crate::envelope::{Channel, Envelope, Label, Payload};
use crate::id::VrId;
use crate::pool::Pool;

pub(crate) const HEADER: usize = 64;
const VERSION: u8 = 1;
/// Payloads up to this size are copied out of the read buffer; larger ones are read straight into their own memory.
const SMALL: usize = 16 << 10;
/// How much address space a header may claim before its payload has arrived; memory is allocated as it does.
const EAGER: usize = if cfg!(test) { 1 << 20 } else { 1 << 30 };
/// The length of the longest payload.
pub(crate) const MAX_PAYLOAD: u64 = 1 << 40;
const STAGING: usize = 128 << 10;
/// Another large payload is likely to follow a large one, so only this much is then read into the staging buffer.
const PEEK: usize = 4 << 10;
/// Payload memory starts at a multiple of this, so that it can be viewed as numbers of any type.
const ALIGN: usize = 64;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Envelope = 1,
    /// `src` asks to be told when `dst` is gone.
    Watch = 2,
    /// Tells `dst` that `src` is gone; the payload is the encoded reason.
    Down = 3,
    /// The mailbox of `src` is full, or has room again: the payload is one of [`gate`]'s bytes. For the whole process.
    Gate = 4,
    /// An envelope to a mirrored VR, sent to its process and to its twin's, perhaps twice.
    Copy = 5,
    /// Messages between the processes of a mirrored VR, of its twin and of those that it sends to; the lane is the kind of
    /// message.
    Mirror = 6,
}

/// The payload of a [`Kind::Gate`] frame.
pub(crate) mod gate {
    use crate::limit::WhenFull;

    pub(crate) fn encode(full: Option<WhenFull>) -> u8 {
        match full {
            None => 0,
            Some(WhenFull::Refuse) => 1,
            Some(WhenFull::Wait) => 2,
        }
    }

    pub(crate) fn decode(payload: &[u8]) -> Option<Option<WhenFull>> {
        match payload {
            [0] => Some(None),
            [1] => Some(Some(WhenFull::Refuse)),
            [2] => Some(Some(WhenFull::Wait)),
            _ => None,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) envelope: Envelope,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the frame's kind ({0}) is not known")]
    Kind(u8),
    #[error("the frame's version is {0}, this program speaks {VERSION}")]
    Version(u8),
    #[error("the frame claims a payload of {0} bytes")]
    Length(u64),
}

/// A header in its encoded form; the numbers are little-endian.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Header {
    kind: u8,
    version: u8,
    zero: [u8; 2],
    channel: u32,
    len: u64,
    seq: u64,
    lane: u64,
    dst: [u8; 16],
    src: [u8; 16],
}

/// Encodes the header of a frame whose payload has this many bytes.
pub(crate) fn encode_header(kind: Kind, label: &Label, len: usize) -> [u8; HEADER] {
    bytemuck::cast(Header {
        kind: kind as u8,
        version: VERSION,
        zero: [0; 2],
        channel: label.channel.to_wire().to_le(),
        len: (len as u64).to_le(),
        seq: label.seq.to_le(),
        lane: label.lane.to_le(),
        dst: label.dst.as_uuid().into_bytes(),
        src: label.src.as_uuid().into_bytes(),
    })
}

/// Returns the header's fields (an envelope without its payload) and the length of the payload.
fn decode_header(header: [u8; HEADER]) -> Result<(Kind, Envelope, u64), FrameError> {
    let header: Header = bytemuck::cast(header);
    let kind = match header.kind {
        1 => Kind::Envelope,
        2 => Kind::Watch,
        3 => Kind::Down,
        4 => Kind::Gate,
        5 => Kind::Copy,
        6 => Kind::Mirror,
        other => return Err(FrameError::Kind(other)),
    };
    if header.version != VERSION {
        return Err(FrameError::Version(header.version));
    }
    let len = u64::from_le(header.len);
    if len > MAX_PAYLOAD {
        return Err(FrameError::Length(len));
    }
    let envelope = Envelope {
        src: VrId::from_uuid(Uuid::from_bytes(header.src)),
        dst: VrId::from_uuid(Uuid::from_bytes(header.dst)),
        seq: u64::from_le(header.seq),
        channel: Channel::from_wire(u32::from_le(header.channel)),
        lane: u64::from_le(header.lane),
        payload: Payload::default(),
    };
    Ok((kind, envelope, len))
}

/// Reassembles frames from a stream of bytes: read into [`space`](Self::space), report the number of bytes to
/// [`advance`](Self::advance), and take frames by [`next`](Self::next) until there is none.
#[derive(Debug)]
pub(crate) struct Decoder {
    staging: Box<[u8]>,
    start: usize,
    end: usize,
    large: Option<Large>,
    /// Whether the last payload was large.
    was_large: bool,
    /// Memory for large payloads.
    pool: Arc<Pool>,
}

/// A large payload that is being read into memory of its own.
#[derive(Debug)]
struct Large {
    kind: Kind,
    envelope: Envelope,
    memory: Vec<u8>,
    /// The offset of the payload in `memory`, which aligns it.
    offset: usize,
    filled: usize,
    len: usize,
}

/// The frame at the front of a decoder, of which nothing has been moved yet.
#[derive(Debug)]
pub(crate) struct Front<'a> {
    pub(crate) kind: Kind,
    pub(crate) label: Label,
    /// The length of its payload.
    pub(crate) len: usize,
    /// The part of its payload that has arrived.
    pub(crate) here: &'a [u8],
}

impl Decoder {
    /// Creates a decoder that takes memory for large payloads from this pool.
    pub(crate) fn new(pool: Arc<Pool>) -> Self {
        Self {
            staging: vec![0; STAGING].into_boxed_slice(),
            start: 0,
            end: 0,
            large: None,
            was_large: false,
            pool,
        }
    }

    /// Returns where to read the next bytes of the stream. Never empty.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        match &mut self.large {
            Some(large) => large.space(),
            None => {
                if self.start == self.end {
                    (self.start, self.end) = (0, 0);
                } else if self.end == self.staging.len() {
                    self.staging.copy_within(self.start..self.end, 0);
                    (self.start, self.end) = (0, self.end - self.start);
                }
                let room = if self.was_large { PEEK } else { STAGING };
                let end = self.staging.len().min(self.end + room);
                &mut self.staging[self.end..end]
            }
        }
    }

    /// Whether a large payload has arrived only in part.
    pub(crate) fn is_amid(&self) -> bool {
        self.large.is_some()
    }

    /// Reports that the first `n` bytes of `space` have been written.
    pub(crate) fn advance(&mut self, n: usize) {
        match &mut self.large {
            Some(large) => large.filled += n,
            None => self.end += n,
        }
    }

    /// Returns the next frame, if its header has arrived and its payload is not being read into memory of its own.
    pub(crate) fn front(&self) -> Result<Option<Front<'_>>, FrameError> {
        if self.large.is_some() {
            return Ok(None);
        }
        let staged = &self.staging[self.start..self.end];
        let Some(header) = staged.first_chunk::<HEADER>() else { return Ok(None) };
        let (kind, envelope, len) = decode_header(*header)?;
        let len = usize::try_from(len).map_err(|_| FrameError::Length(len))?;
        let here = &staged[HEADER..];
        Ok(Some(Front { kind, label: envelope.label(), len, here: &here[..here.len().min(len)] }))
    }

    /// Skips the front frame, of whose payload `here` bytes are in the buffer and the others were read elsewhere.
    pub(crate) fn pass(&mut self, here: usize, len: usize) {
        self.start += HEADER + here;
        self.was_large = len > SMALL;
    }

    /// Appends the bytes of the front frame's payload that were read elsewhere, but which do not complete it.
    pub(crate) fn go_on_with(&mut self, part: &[u8]) -> Result<(), FrameError> {
        let whole = self.next()?;
        debug_assert!(whole.is_none());
        let mut done = 0;
        while done < part.len() {
            let space = self.space();
            let n = space.len().min(part.len() - done);
            space[..n].copy_from_slice(&part[done..done + n]);
            self.advance(n);
            done += n;
        }
        Ok(())
    }

    /// Returns the next complete frame.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        if let Some(large) = self.large.take() {
            if large.filled < large.len {
                self.large = Some(large);
                return Ok(None);
            }
            return Ok(Some(large.finish(&self.pool)));
        }
        let Some(Front { kind, label, len, here }) = self.front()? else { return Ok(None) };
        let have = here.len();
        if len <= SMALL {
            if have < len {
                return Ok(None);
            }
            let envelope = label.with(aligned_copy(here).into());
            self.pass(len, len);
            return Ok(Some(Frame { kind, envelope }));
        }
        let mut large = Large::new(kind, label.with(Payload::default()), len, &self.pool);
        let (mut copied, start) = (0, self.start + HEADER);
        while copied < have {
            let space = large.space();
            let n = space.len().min(have - copied);
            space[..n].copy_from_slice(&self.staging[start + copied..start + copied + n]);
            large.filled += n;
            copied += n;
        }
        self.pass(have, len);
        self.large = Some(large);
        if have == len { self.next() } else { Ok(None) }
    }
}

impl Large {
    fn new(kind: Kind, envelope: Envelope, len: usize, pool: &Pool) -> Self {
        let memory = pool.take(len.min(EAGER) + ALIGN);
        let offset = aligned_offset(&memory);
        Self { kind, envelope, memory, offset, filled: 0, len }
    }

    fn space(&mut self) -> &mut [u8] {
        let room = self.memory.len() - ALIGN;
        if self.filled == room && room < self.len {
            // Memory of this size is grown by remapping pages, not by copying.
            self.memory.resize((room * 2).min(self.len) + ALIGN, 0);
            let offset = aligned_offset(&self.memory);
            if offset != self.offset {
                self.memory.copy_within(self.offset..self.offset + self.filled, offset);
                self.offset = offset;
            }
        }
        let room = (self.memory.len() - ALIGN).min(self.len);
        &mut self.memory[self.offset + self.filled..self.offset + room]
    }

    fn finish(self, pool: &Arc<Pool>) -> Frame {
        let Large { kind, mut envelope, memory, offset, len, .. } = self;
        envelope.payload = pool.lend(memory, offset..offset + len).into();
        Frame { kind, envelope }
    }
}

fn aligned_offset(memory: &[u8]) -> usize {
    memory.as_ptr().align_offset(ALIGN).min(ALIGN)
}

/// Copies a small payload, aligned unless it is too short to hold aligned parts.
pub(crate) fn aligned_copy(body: &[u8]) -> Bytes {
    if body.len() < ALIGN {
        return Bytes::copy_from_slice(body);
    }
    let mut memory = Vec::with_capacity(body.len() + ALIGN);
    let offset = aligned_offset(&memory);
    memory.resize(offset, 0);
    memory.extend_from_slice(body);
    let mut bytes = Bytes::from(memory);
    bytes.advance(offset);
    bytes
}

/// Creates an aligned payload of this length, whose bytes `fill` writes.
pub(crate) fn filled(len: usize, pool: &Arc<Pool>, fill: impl FnOnce(&mut [u8])) -> Bytes {
    if len > SMALL {
        let mut memory = pool.take(len + ALIGN);
        let offset = aligned_offset(&memory);
        fill(&mut memory[offset..offset + len]);
        return pool.lend(memory, offset..offset + len);
    }
    let mut memory = vec![0; if len < ALIGN { len } else { len + ALIGN }];
    let offset = if len < ALIGN { 0 } else { aligned_offset(&memory) };
    fill(&mut memory[offset..offset + len]);
    let mut bytes = Bytes::from(memory);
    bytes.advance(offset);
    bytes.truncate(len);
    bytes
}

#[cfg(test)]
mod tests;
