//! Ends without River between two threads: baselines for the links.
//!
//! All of them wait in the way that is best for a thread that has a core to itself, by polling, with `yield` in the
//! loop so that they terminate where there are fewer cores than threads; only [`blocking`] sleeps.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, TryRecvError};

use crate::exchange::{End, Plan, Result};

/// The number of polls between two yields.
const SPINS: u32 = 100;

/// Runs a plan between two threads, and returns how long it took.
///
/// # Errors
/// Any error of the ends.
pub fn measure<E: End + Send>(plan: Plan, (mut one, mut other): (E, E)) -> Result<Duration> {
    let data = Bytes::from(vec![7; plan.size]);
    thread::scope(|scope| {
        let follower = scope.spawn(|| plan.follow(&mut other, &data));
        let time = plan.lead(&mut one, &data);
        follower.join().map_err(|_| "the other end panicked")??;
        time
    })
}

/// Polls until `look` finds something.
pub fn wait<T>(mut look: impl FnMut() -> Option<T>) -> T {
    loop {
        for _ in 0..SPINS {
            if let Some(found) = look() {
                return found;
            }
            std::hint::spin_loop();
        }
        thread::yield_now();
    }
}

/// Hands memory over without copying it.
#[derive(Debug)]
pub struct Channels(Sender<Bytes>, Receiver<Bytes>);

/// The hand-off within a process: two unbounded channels.
#[must_use]
pub fn channels() -> (Channels, Channels) {
    let ((to, from), (back, answers)) = (crossbeam_channel::unbounded(), crossbeam_channel::unbounded());
    (Channels(to, answers), Channels(back, from))
}

impl End for Channels {
    fn send(&mut self, data: &Bytes) -> Result {
        Ok(self.0.send(data.clone())?)
    }

    fn receive(&mut self, _: usize) -> Result {
        let received = wait(|| match self.1.try_recv() {
            Err(TryRecvError::Empty) => None,
            other => Some(other),
        });
        received?;
        Ok(())
    }
}

/// The number of pieces of a ring, and the bytes in each: 256 KiB together, in pieces that stay in a core's own cache.
const PIECES: usize = 8;
const PIECE: usize = 32 << 10;
/// Messages of up to this many words are stored in atomics, which cost less than a lock.
const WORDS: usize = 8;
const LINES: usize = 256;

/// A value in a cache line of its own, including the line that is prefetched with it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line<T>(T);

/// One direction of a ring as processes share it: bytes are copied in and copied out. The counters only grow. The
/// messages that pass through a ring are either all small or all large.
#[derive(Debug)]
struct Ring {
    head: Line<AtomicU64>,
    tail: Line<AtomicU64>,
    small: Vec<[AtomicU64; WORDS]>,
    /// Never contended: one side has a piece at a time. A lock is how safe Rust can express that.
    large: Vec<Mutex<Box<[u8]>>>,
}

/// An end of two rings.
#[derive(Debug)]
pub struct Rings {
    write: Arc<Ring>,
    read: Arc<Ring>,
    head: u64,
    seen_tail: u64,
    tail: u64,
    seen_head: u64,
    received: Vec<u8>,
}

/// The ring between processes: one writer, one reader, no system call.
#[must_use]
pub fn rings() -> (Rings, Rings) {
    let ring = || {
        Arc::new(Ring {
            head: Line::default(),
            tail: Line::default(),
            small: (0..LINES).map(|_| Default::default()).collect(),
            large: (0..PIECES).map(|_| Mutex::new(vec![0; PIECE].into())).collect(),
        })
    };
    let (there, back) = (ring(), ring());
    let end = |write, read| Rings {
        write,
        read,
        head: 0,
        seen_tail: 0,
        tail: 0,
        seen_head: 0,
        received: Vec::new(),
    };
    (end(there.clone(), back.clone()), end(back, there))
}

impl Rings {
    /// Waits for a free slot among `places`, fills it and publishes it.
    fn put(&mut self, places: usize, fill: impl FnOnce(&Ring, usize)) {
        if self.head - self.seen_tail >= places as u64 {
            let (ring, head) = (&self.write, self.head);
            self.seen_tail =
                wait(|| Some(ring.tail.0.load(Acquire)).filter(|tail| head - tail < places as u64));
        }
        fill(&self.write, self.head as usize % places);
        self.head += 1;
        self.write.head.0.store(self.head, Release);
    }

    /// Waits for a full slot among `places`, empties it and gives it back.
    fn take(&mut self, places: usize, empty: impl FnOnce(&Ring, usize, &mut [u8])) {
        if self.seen_head == self.tail {
            let (ring, tail) = (&self.read, self.tail);
            self.seen_head = wait(|| Some(ring.head.0.load(Acquire)).filter(|head| *head != tail));
        }
        empty(&self.read, self.tail as usize % places, &mut self.received);
        self.tail += 1;
        self.read.tail.0.store(self.tail, Release);
    }
}

impl End for Rings {
    fn send(&mut self, data: &Bytes) -> Result {
        if data.len() <= WORDS * 8 {
            self.put(LINES, |ring, place| {
                for (bytes, word) in data.chunks(8).zip(&ring.small[place]) {
                    let mut value = [0; 8];
                    value[..bytes.len()].copy_from_slice(bytes);
                    word.store(u64::from_ne_bytes(value), Relaxed);
                }
            });
            return Ok(());
        }
        for piece in data.chunks(PIECE) {
            self.put(PIECES, |ring, place| {
                let mut target = ring.large[place].lock().unwrap_or_else(PoisonError::into_inner);
                target[..piece.len()].copy_from_slice(piece);
            });
        }
        Ok(())
    }

    fn receive(&mut self, len: usize) -> Result {
        self.received.resize(len, 0);
        if len <= WORDS * 8 {
            self.take(LINES, |ring, place, received| {
                for (bytes, word) in received.chunks_mut(8).zip(&ring.small[place]) {
                    bytes.copy_from_slice(&word.load(Relaxed).to_ne_bytes()[..bytes.len()]);
                }
            });
            return Ok(());
        }
        for at in (0..len).step_by(PIECE) {
            self.take(PIECES, |ring, place, received| {
                let target = &mut received[at..len.min(at + PIECE)];
                let source = ring.large[place].lock().unwrap_or_else(PoisonError::into_inner);
                target.copy_from_slice(&source[..target.len()]);
            });
        }
        Ok(())
    }
}

/// An end of a TCP connection.
#[derive(Debug)]
pub struct Tcp {
    stream: TcpStream,
    received: Vec<u8>,
}

/// Makes a connection on loopback that sleeps until data arrives.
///
/// # Errors
/// If no connection can be made.
pub fn blocking() -> io::Result<(Tcp, Tcp)> {
    connection(false)
}

/// Makes a connection on loopback that polls.
///
/// # Errors
/// If no connection can be made.
pub fn polling() -> io::Result<(Tcp, Tcp)> {
    connection(true)
}

fn connection(nonblocking: bool) -> io::Result<(Tcp, Tcp)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let one = TcpStream::connect(listener.local_addr()?)?;
    let (other, _) = listener.accept()?;
    let end = |stream: TcpStream| -> io::Result<Tcp> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(nonblocking)?;
        Ok(Tcp { stream, received: Vec::new() })
    };
    Ok((end(one)?, end(other)?))
}

impl End for Tcp {
    fn send(&mut self, data: &Bytes) -> Result {
        // An empty message is sent as one byte, as a stream cannot carry it otherwise.
        let mut rest = if data.is_empty() { &[0][..] } else { &data[..] };
        while !rest.is_empty() {
            let n = again(|| (&self.stream).write(rest))?;
            rest = &rest[n..];
        }
        Ok(())
    }

    fn receive(&mut self, len: usize) -> Result {
        self.received.resize(len.max(1), 0);
        let mut done = 0;
        while done < self.received.len() {
            let into = &mut self.received[done..];
            match again(|| (&self.stream).read(into))? {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                n => done += n,
            }
        }
        Ok(())
    }
}

/// Repeats the call until it no longer would block. System calls are slow enough to yield after each.
fn again(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::yield_now(),
            other => return other,
        }
    }
}
