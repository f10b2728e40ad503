//! Sealed streams: a stream of bytes as chunks, each a length (u16, little-endian) and that many sealed bytes.
//!
//! Neither half knows of sockets: one fills a buffer to be written, the other is given what was read. Chunk boundaries mean
//! nothing; the contents are a stream again.

use std::io::{self, Write};

use crate::noise::session::{MAX_CHUNK, Opener, SealError, Sealer, TAG_LEN};

const LENGTH: usize = 2;
const LONGEST: usize = LENGTH + MAX_CHUNK + TAG_LEN;
/// When the buffer is this full it is written before more is sealed, so that it stays in the cache.
const FULL: usize = 2 * LONGEST;

/// Seals what is to be sent, into a buffer that is reused.
#[derive(Debug)]
pub(crate) struct Sealing {
    sealer: Sealer,
    buffer: Vec<u8>,
    filled: usize,
}

impl Sealing {
    pub(crate) fn new(sealer: Sealer) -> Self {
        Self { sealer, buffer: Vec::new(), filled: 0 }
    }

    /// Seals the beginning of `bytes` behind what is already [`sealed`](Self::sealed), and returns how much that was: less
    /// than all if the buffer is full and must be written first.
    ///
    /// # Errors
    /// When the connection has carried more bytes than its key allows, which does not happen in practice.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<usize, SealError> {
        let mut done = 0;
        for chunk in bytes.chunks(MAX_CHUNK) {
            let end = self.filled + LENGTH + chunk.len() + TAG_LEN;
            if end > FULL {
                break;
            }
            if self.buffer.len() < end {
                self.buffer.resize(end.next_power_of_two().min(FULL), 0);
            }
            let (length, out) = self.buffer[self.filled..end].split_at_mut(LENGTH);
            let sealed = self.sealer.seal(chunk, out)?;
            // At most 65,535, hence the limit on chunks.
            length.copy_from_slice(&(sealed as u16).to_le_bytes());
            self.filled = end;
            done += chunk.len();
        }
        Ok(done)
    }

    /// Returns what must be written.
    pub(crate) fn sealed(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }

    /// Clears the buffer after it has been written.
    pub(crate) fn clear(&mut self) {
        self.filled = 0;
    }

    /// Seals and writes pieces, as if they were one.
    ///
    /// # Errors
    /// When the writer fails.
    pub(crate) fn write_all(&mut self, pieces: &[&[u8]], mut to: impl Write) -> io::Result<()> {
        for piece in pieces {
            let mut rest = *piece;
            while !rest.is_empty() {
                let done = self.push(rest).map_err(io::Error::other)?;
                rest = &rest[done..];
                if !rest.is_empty() {
                    to.write_all(self.sealed())?;
                    self.clear();
                }
            }
        }
        to.write_all(self.sealed())?;
        self.clear();
        Ok(())
    }
}

/// Opens what was received: read into [`space`](Self::space), report the number of bytes to [`advance`](Self::advance), and
/// take the contents by [`open`](Self::open) until there are none.
#[derive(Debug)]
pub(crate) struct Unsealer {
    opener: Opener,
    staging: Box<[u8]>,
    start: usize,
    end: usize,
    /// The part of an opened chunk that did not fit into its destination.
    rest: Vec<u8>,
    taken: usize,
}

impl Unsealer {
    pub(crate) fn new(opener: Opener) -> Self {
        let staging = vec![0; FULL].into_boxed_slice();
        Self { opener, staging, start: 0, end: 0, rest: Vec::new(), taken: 0 }
    }

    /// Returns where to read the next bytes of the connection. Never empty after [`open`](Self::open) has found nothing.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.staging.len() - self.start < LONGEST {
            self.staging.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.staging[self.end..]
    }

    /// Reports that the first `n` bytes of `space` have been written.
    pub(crate) fn advance(&mut self, n: usize) {
        self.end = self.staging.len().min(self.end + n);
    }

    /// Copies the next bytes that the other side sent to the beginning of `out`, and returns their number: zero if more must
    /// be received first, or `out` is empty.
    ///
    /// # Errors
    /// When the bytes are not those that the other side sealed. The connection is then unusable.
    pub(crate) fn open(&mut self, out: &mut [u8]) -> Result<usize, SealError> {
        if self.taken == self.rest.len() {
            let staged = &self.staging[self.start..self.end];
            let Some((length, behind)) = staged.split_first_chunk::<LENGTH>() else { return Ok(0) };
            let sealed = usize::from(u16::from_le_bytes(*length));
            // Nobody seals an empty chunk, and returning no bytes for one would look as if there were no more.
            let length = sealed.checked_sub(TAG_LEN).filter(|length| *length > 0).ok_or(SealError::Length)?;
            let Some(chunk) = behind.get(..sealed) else { return Ok(0) };
            self.start += LENGTH + sealed;
            if length <= out.len() {
                return self.opener.open(chunk, &mut out[..length]);
            }
            self.rest.resize(length, 0);
            self.taken = 0;
            self.opener.open(chunk, &mut self.rest)?;
        }
        let n = out.len().min(self.rest.len() - self.taken);
        out[..n].copy_from_slice(&self.rest[self.taken..self.taken + n]);
        self.taken += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::noise::session::tests::pair;

    fn halves() -> (Sealing, Unsealer) {
        let (ours, theirs) = pair();
        (Sealing::new(ours.sealer), Unsealer::new(theirs.opener))
    }

    /// Receives `wire` in pieces of at most `read` bytes, opening into pieces of at most `out`.
    fn receive(
        unsealer: &mut Unsealer,
        mut wire: &[u8],
        read: usize,
        out: usize,
    ) -> Result<Vec<u8>, SealError> {
        let mut got = Vec::new();
        let mut buffer = vec![0; out];
        loop {
            match unsealer.open(&mut buffer)? {
                0 if wire.is_empty() => return Ok(got),
                0 => {
                    let space = unsealer.space();
                    assert!(!space.is_empty());
                    let n = space.len().min(wire.len()).min(read);
                    space[..n].copy_from_slice(&wire[..n]);
                    unsealer.advance(n);
                    wire = &wire[n..];
                }
                n => got.extend(&buffer[..n]),
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_split_of_the_stream_gives_the_same_bytes(
            sizes in prop::collection::vec(prop_oneof![0..100_usize, 60_000..200_000_usize], 0..6),
            read in prop_oneof![1..50_usize, 1000..200_000_usize],
            out in prop_oneof![1..50_usize, 1000..200_000_usize],
        ) {
            let (mut sealing, mut unsealer) = halves();
            let piece = |(i, len): (usize, &usize)| (0..*len).map(|at| (at * 7 + i) as u8).collect();
            let pieces: Vec<Vec<u8>> = sizes.iter().enumerate().map(piece).collect();
            let borrowed: Vec<&[u8]> = pieces.iter().map(|piece| &piece[..]).collect();
            let mut wire = Vec::new();
            sealing.write_all(&borrowed, &mut wire).unwrap();
            sealing.write_all(&borrowed, &mut wire).unwrap();
            let got = receive(&mut unsealer, &wire, read, out).unwrap();
            prop_assert!(got == [pieces.concat(), pieces.concat()].concat());
        }

        #[test]
        fn garbage_is_refused_or_waits(
            bytes in prop::collection::vec(any::<u8>(), 0..3000), out in 1..100_usize,
        ) {
            let (_, mut unsealer) = halves();
            prop_assert!(receive(&mut unsealer, &bytes, 1000, out).map_or(true, |got| got.is_empty()));
        }

        #[test]
        fn a_changed_bit_is_refused(len in 1..1000_usize, at in any::<prop::sample::Index>(), bit in 0..8) {
            let (mut sealing, mut unsealer) = halves();
            sealing.push(&vec![1; len]).unwrap();
            let mut wire = sealing.sealed().to_vec();
            let at = at.index(wire.len());
            wire[at] ^= 1_u8 << bit;
            // With a longer length it waits for the rest, and then the length does not match the contents.
            wire.extend([0; LONGEST]);
            prop_assert!(receive(&mut unsealer, &wire, 1000, 1000).is_err());
        }
    }
}
