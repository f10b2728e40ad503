//! The link between two processes of one machine: a ring in shared memory for each direction that is used.
//!
//! It begins as a TCP connection like any other, over which both sides have proved that they hold the key. The dialler
//! makes a ring and says in its hello where it is; if the listener can open it (both must be processes of one user in
//! one process namespace) all frames pass through the ring. The connection stays: its end is how one learns of the
//! other's death, and a byte on it is how a writer wakes a reader that sleeps.
//!
//! Nobody is woken while somebody looks: the VRs that wait look into the rings themselves ([`Rings`]).

mod bell;
mod memory;
mod ring;
mod rings;

use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::envelope::Envelope;
use crate::frame::{self, Kind};
use crate::protocol::MemoryName;

use bell::Bell;
use super::Traffic;
use ring::RingWriter;

pub(crate) use rings::{Rings, TICK, Watch};

/// A writer that finds the ring full yields for this long, then sleeps between looks.
const YIELD: Duration = Duration::from_micros(200);
const NAP: Duration = Duration::from_micros(200);

/// A ring that is offered to a peer.
pub(crate) struct Offer(RingWriter);

impl Offer {
    pub(crate) fn new() -> io::Result<Self> {
        RingWriter::create().map(Self)
    }

    /// What the peer needs to open it.
    pub(crate) fn name(&self) -> MemoryName {
        self.0.name()
    }

    /// The link, once the peer has taken the ring. `bell` is the peer's.
    pub(crate) fn accepted(self, doorbell: TcpStream, bell: &MemoryName) -> io::Result<ShmLink> {
        let bell = Bell::open(bell)?;
        let (failed, traffic) = Default::default();
        Ok(ShmLink { ring: Mutex::new(self.0), bell, doorbell, failed, traffic })
    }
}

/// The writing end of the link.
#[derive(Debug)]
pub(crate) struct ShmLink {
    ring: Mutex<RingWriter>,
    bell: Bell,
    doorbell: TcpStream,
    failed: OnceLock<String>,
    pub(super) traffic: Traffic,
}

impl ShmLink {
    /// Writes a frame. Blocks while the ring is full. `Err`: why the link has ended.
    pub(crate) fn send(&self, kind: Kind, envelope: &Envelope) -> Result<(), String> {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        self.write(&mut ring, &frame::encode_header(kind, envelope))?;
        for part in envelope.payload.parts() {
            self.write(&mut ring, part)?;
        }
        ring.publish();
        self.traffic.count(kind, envelope);
        self.ring_if_needed()
    }

    fn write(&self, ring: &mut RingWriter, bytes: &[u8]) -> Result<(), String> {
        let mut done = ring.write(bytes);
        let mut full_since = None;
        while done < bytes.len() {
            if let Some(error) = self.failed.get() {
                return Err(error.clone());
            }
            self.ring_if_needed()?;
            if full_since.get_or_insert_with(Instant::now).elapsed() < YIELD {
                thread::yield_now();
            } else {
                thread::sleep(NAP);
            }
            let n = ring.write(&bytes[done..]);
            done += n;
            if n > 0 {
                full_since = None;
            }
        }
        Ok(())
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

    /// Ends the link: a blocked writer returns, further sends fail with that text.
    pub(crate) fn close(&self, error: &str) {
        let _ = self.failed.set(error.to_owned());
        let _ = self.doorbell.shutdown(Shutdown::Both);
    }
}
