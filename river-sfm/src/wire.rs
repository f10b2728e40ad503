//! The layout of a message in a payload, and how to walk over it without allocating.
//!
//! ```text
//! head    count u32, length of the head u64, then per attribute:
//!         length of the name u16, of the type u32, kind u8, length of the body u64, name, body, type
//! blobs   each at the next offset that is a multiple of 64
//! ```
//! A blob's body is not in the head, all others are. Integers are little-endian. Nothing here trusts a length.

use bytes::Bytes;
use river_core::Payload;

use crate::value::Kind;

/// The number of bytes before the first attribute.
pub(crate) const PREFIX: usize = 12;
/// The number of bytes of an attribute before its name.
const FIXED: usize = 15;
/// Payloads start at multiples of this, so blobs do too.
pub(crate) const ALIGN: u64 = 64;

/// The next offset at which a blob may start.
pub(crate) fn align(offset: u64) -> Option<u64> {
    offset.checked_next_multiple_of(ALIGN)
}

/// Writes the part of an attribute before its body, to be completed by [`end_attribute`]. Returns `false` if the name
/// is too long.
pub(crate) fn begin_attribute(head: &mut Vec<u8>, name: &str) -> bool {
    let Ok(length) = u16::try_from(name.len()) else {
        return false;
    };
    // Room for a scalar too.
    head.reserve(FIXED + name.len() + 16);
    let mut fixed = [0; FIXED];
    fixed[..2].copy_from_slice(&length.to_le_bytes());
    head.extend_from_slice(&fixed);
    head.extend_from_slice(name.as_bytes());
    true
}

/// Writes the fields that depend on the body. `start` is where the attribute starts.
pub(crate) fn end_attribute(
    head: &mut Vec<u8>,
    start: usize,
    name: &str,
    kind: Kind,
    ty: &str,
    blob: Option<usize>,
) {
    let body = blob.unwrap_or_else(|| head.len() - start - FIXED - name.len()) as u64;
    if !ty.is_empty() {
        head.extend_from_slice(ty.as_bytes());
    }
    let fixed = &mut head[start + 2..start + FIXED];
    fixed[..4].copy_from_slice(&(ty.len() as u32).to_le_bytes());
    fixed[4] = kind.code();
    fixed[5..].copy_from_slice(&body.to_le_bytes());
}

/// A head whose structure has been checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'a> {
    attributes: &'a [u8],
    blobs: Blobs<'a>,
}

/// Where the memory of blobs is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Blobs<'a> {
    /// In a message that is being written: one part for each.
    Parts(&'a [Bytes]),
    /// In a payload, the first of them at the given offset.
    Payload(&'a Payload, u64),
}

/// The length of the head at the start of these bytes, if there is one.
pub(crate) fn head_len(bytes: &[u8]) -> Option<u64> {
    let length = u64::from_le_bytes(*bytes.get(4..)?.first_chunk()?);
    (length >= PREFIX as u64).then_some(length)
}

impl<'a> Head<'a> {
    /// The head of a message that this process writes.
    pub(crate) fn own(head: &'a [u8], blobs: &'a [Bytes]) -> Self {
        Self { attributes: &head[PREFIX..], blobs: Blobs::Parts(blobs) }
    }

    /// The head of a message whose structure has already been checked.
    pub(crate) fn checked(head: &'a [u8], payload: &'a Payload) -> Self {
        let base = align(head.len() as u64).unwrap_or(u64::MAX);
        Self { attributes: head.get(PREFIX..).unwrap_or_default(), blobs: Blobs::Payload(payload, base) }
    }

    /// Checks the head of a received message; `None` if the bytes are not a message. All lengths are valid when this
    /// returns a head.
    pub(crate) fn check(head: &'a [u8], payload: &'a Payload) -> Option<Self> {
        let count = u32::from_le_bytes(*head.first_chunk()?);
        let new = Self::checked(head, payload);
        let mut walk = new.walk();
        for _ in 0..count {
            let step = walk.step()?;
            if !is_text(step.name) || !is_text(step.ty) {
                return None;
            }
        }
        let end = match walk.index {
            0 => head.len() as u64,
            // A blob may be empty: the padding before it is still present.
            _ => align(head.len() as u64)?.checked_add(walk.blob_end)?,
        };
        (walk.rest.is_empty() && end == payload.len() as u64).then_some(new)
    }

    pub(crate) fn walk(&self) -> Walk<'a> {
        Walk { rest: self.attributes, blobs: self.blobs, index: 0, blob_end: 0 }
    }

    #[inline]
    pub(crate) fn find(&self, name: &str) -> Option<Attr<'a>> {
        let mut walk = self.walk();
        loop {
            let step = walk.step()?;
            if is_same(step.name, name.as_bytes()) {
                return Some(walk.attr(step));
            }
        }
    }
}

/// Names are short, so a loop is faster than a function call.
#[inline(always)]
fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a == b)
}

/// Names are short and mostly ASCII, for which the loop is faster than a call.
#[inline(always)]
fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().all(u8::is_ascii) || std::str::from_utf8(bytes).is_ok()
}

/// Iterates over the attributes in order, and ends early where the bytes are damaged.
pub(crate) struct Walk<'a> {
    rest: &'a [u8],
    blobs: Blobs<'a>,
    index: usize,
    /// Where the last blob ends, counted from where the first one starts.
    blob_end: u64,
}

/// The parts of an attribute that must be read to skip it.
struct Step<'a> {
    name: &'a [u8],
    kind: Kind,
    ty: &'a [u8],
    body: &'a [u8],
    /// The place of a blob's memory.
    place: BlobPlace,
}

impl<'a> Walk<'a> {
    #[inline(always)]
    fn step(&mut self) -> Option<Step<'a>> {
        let (fixed, rest) = self.rest.split_first_chunk::<FIXED>()?;
        let [n0, n1, t0, t1, t2, t3, kind, length @ ..] = *fixed;
        let kind = Kind::from_code(kind)?;
        let length = u64::from_le_bytes(length);
        let (name, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([n0, n1])))?;
        let inline = if kind == Kind::Blob { 0 } else { usize::try_from(length).ok()? };
        let (body, rest) = rest.split_at_checked(inline)?;
        let (ty, rest) = rest.split_at_checked(u32::from_le_bytes([t0, t1, t2, t3]) as usize)?;
        self.rest = rest;
        let mut place = BlobPlace { index: self.index, start: 0, length };
        if kind == Kind::Blob {
            place.start = align(self.blob_end)?;
            self.blob_end = place.start.checked_add(length)?;
            self.index += 1;
        }
        Some(Step { name, kind, ty, body, place })
    }

    fn attr(&self, Step { name, kind, ty, body, place }: Step<'a>) -> Attr<'a> {
        let blob = (kind == Kind::Blob).then_some(place);
        Attr { name, kind, ty, body, blobs: self.blobs, blob }
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Attr<'a>;

    fn next(&mut self) -> Option<Attr<'a>> {
        let step = self.step()?;
        Some(self.attr(step))
    }
}

/// An attribute of a message, as a [`Constraint`](crate::Constraint) sees it: still encoded.
#[derive(Clone, Copy, Debug)]
pub struct Attr<'a> {
    /// UTF-8 text, as is `ty`; converted to `str` only where people read it.
    name: &'a [u8],
    pub(crate) kind: Kind,
    ty: &'a [u8],
    pub(crate) body: &'a [u8],
    blobs: Blobs<'a>,
    blob: Option<BlobPlace>,
}

#[derive(Clone, Copy, Debug)]
struct BlobPlace {
    index: usize,
    start: u64,
    length: u64,
}

impl<'a> Attr<'a> {
    /// An attribute that is not part of a message.
    pub(crate) fn lone(name: &'a str, kind: Kind, ty: &'a str, body: &'a [u8]) -> Self {
        let (name, ty) = (name.as_bytes(), ty.as_bytes());
        Self { name, kind, ty, body, blobs: Blobs::Parts(&[]), blob: None }
    }

    /// The attribute's name.
    #[must_use]
    pub fn name(&self) -> &'a str {
        std::str::from_utf8(self.name).unwrap_or_default()
    }

    /// The name of the type, or of a blob's elements; empty for kinds that have none.
    pub(crate) fn ty(&self) -> &'a str {
        std::str::from_utf8(self.ty).unwrap_or_default()
    }

    /// Whether `ty` is the name of the type.
    pub(crate) fn is_of(&self, ty: &str) -> bool {
        // Most kinds have no name. Calling `memcmp` for nothing took 60 % of the time of a failed receive, probably
        // because of the dangling address of an empty slice; without it that took 53 ns instead of 152.
        self.ty.len() == ty.len() && (ty.is_empty() || self.ty == ty.as_bytes())
    }

    /// The memory of a blob, shared with the message if the message holds it in one piece.
    pub(crate) fn memory(&self) -> Option<Bytes> {
        let place = self.blob?;
        match self.blobs {
            Blobs::Parts(parts) => parts.get(place.index).cloned(),
            Blobs::Payload(payload, base) => {
                let start = base.checked_add(place.start)?;
                let end = start.checked_add(place.length)?;
                payload.slice(usize::try_from(start).ok()?, usize::try_from(end).ok()?)
            }
        }
    }

    /// The length of a blob in bytes.
    pub(crate) fn memory_len(&self) -> u64 {
        self.blob.map_or(0, |place| place.length)
    }
}
