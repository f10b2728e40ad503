//! The writing end of a TCP link.

use std::io::{self, IoSlice, Write};
use std::mem;
use std::net::{Shutdown, TcpStream};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::envelope::Envelope;
use crate::frame::{self, Kind};

/// Parts up to this size are copied behind their header, so that they leave in the same piece.
const COPY: usize = 16 << 10;
/// Senders wait when more than this many bytes wait to be written.
const LIMIT: usize = 8 << 20;
/// The kernel's limit on the pieces of one write is 1024.
const PIECES: usize = 1000;

/// A connection on which this process only sends.
///
/// Whoever finds nobody writing writes, and goes on with what others have queued meanwhile: under contention many
/// frames leave in one system call, and without it nobody else's thread is involved.
#[derive(Debug)]
pub(crate) struct TcpLink {
    stream: TcpStream,
    out: Mutex<Out>,
    room: Condvar,
}

#[derive(Debug, Default)]
struct Out {
    queued: Batch,
    spare: Batch,
    writing: bool,
    failed: Option<String>,
}

/// Frames in the order of their sending: `bytes`, with `large[i].1` inserted before `bytes[large[i].0]`.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    large: Vec<(usize, Bytes)>,
    large_len: usize,
}

impl Batch {
    fn push(&mut self, kind: Kind, envelope: &Envelope) {
        self.bytes.extend_from_slice(&frame::encode_header(kind, envelope));
        for part in envelope.payload.parts() {
            if part.len() <= COPY {
                self.bytes.extend_from_slice(part);
            } else {
                self.large.push((self.bytes.len(), part.clone()));
                self.large_len += part.len();
            }
        }
    }

    fn len(&self) -> usize {
        self.bytes.len() + self.large_len
    }

    fn write_to(&self, mut stream: &TcpStream) -> io::Result<()> {
        let mut pieces = Vec::with_capacity(2 * self.large.len() + 1);
        let mut done = 0;
        for (at, part) in &self.large {
            pieces.push(&self.bytes[done..*at]);
            pieces.push(&part[..]);
            done = *at;
        }
        pieces.push(&self.bytes[done..]);
        pieces.retain(|piece| !piece.is_empty());
        if let [piece] = pieces[..] {
            return stream.write_all(piece);
        }
        for group in pieces.chunks(PIECES) {
            let mut slices: Vec<_> = group.iter().map(|piece| IoSlice::new(piece)).collect();
            let mut rest = &mut slices[..];
            while !rest.is_empty() {
                match stream.write_vectored(rest) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(n) => IoSlice::advance_slices(&mut rest, n),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(LIMIT);
        self.large.clear();
        self.large_len = 0;
    }
}

impl TcpLink {
    /// The link over an authenticated connection in blocking mode.
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, out: Mutex::default(), room: Condvar::new() })
    }

    /// Writes a frame, or leaves it to the thread that is writing. `Err`: the text of the connection's failure.
    pub(crate) fn send(&self, kind: Kind, envelope: &Envelope) -> Result<(), String> {
        let mut out = self.lock();
        while out.writing && out.queued.len() > LIMIT && out.failed.is_none() {
            out = self.room.wait(out).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(error) = &out.failed {
            return Err(error.clone());
        }
        out.queued.push(kind, envelope);
        if out.writing {
            return Ok(());
        }
        out.writing = true;
        loop {
            let spare = mem::take(&mut out.spare);
            let batch = mem::replace(&mut out.queued, spare);
            drop(out);
            let written = batch.write_to(&self.stream);
            out = self.lock();
            out.spare = batch;
            out.spare.clear();
            self.room.notify_all();
            if let Err(error) = written {
                let text = error.to_string();
                out.failed.get_or_insert(text.clone());
                out.writing = false;
                return Err(text);
            }
            if out.queued.len() == 0 {
                out.writing = false;
                return Ok(());
            }
        }
    }

    /// Ends the link: a blocked writer returns, further sends fail with that text.
    pub(crate) fn close(&self, error: &str) {
        self.lock().failed.get_or_insert_with(|| error.to_owned());
        self.room.notify_all();
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn lock(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
