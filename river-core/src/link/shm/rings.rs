//! The reading ends of all rings of a process. See [`inlets`](crate::link::inlets) for who polls them, and when.

use std::io;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use mio::Waker;

use super::bell::Bell;
use bytemuck::Zeroable;

use super::ring::{Record, RingReader, Title};
use super::route::{ROUTE, Route, Routes};
use super::segments::{Segments, Shared};
use super::{HALF, NAMED, PLACED, SEGMENT, SEQ, SPELLED, STREAM, gap_behind};
use crate::arriving::{Arriving, Intake, Source};
use crate::frame::{self, Decoder, Frame, Kind};
use crate::id::HostId;
use crate::inbox::{Inbox, Pump, Taker};
use crate::link::{Own, Sink};
use crate::pool::Pool;
use crate::protocol::MemoryName;

/// Records of one peer in a row before the others get their turn.
const TURN: usize = 64;
/// The number of polls that take about as long as a spin-loop hint.
const PER_PAUSE: u32 = 4;
/// A turn ends after payloads of this many bytes: the receiver may then be done with them, and their memory still be in a
/// cache, before the next ones need memory.
const BYTES: usize = 64 << 10;

/// All rings from which this process reads.
pub(crate) struct Rings {
    bell: Bell,
    peers: Mutex<Vec<Peer>>,
    count: AtomicUsize,
    waker: Arc<Waker>,
    sink: Arc<dyn Sink>,
    pool: Arc<Pool>,
    segments: Segments,
}

struct Peer {
    host: HostId,
    ring: RingReader,
    routes: Routes,
    decoder: Decoder,
    /// Memory for long payloads that come through the ring, and the segments in which others lie.
    pool: Arc<Pool>,
    shared: Arc<Shared>,
    /// The waker of the reader thread.
    waker: Arc<Waker>,
    /// What was wrong with the ring. The reader thread then ends the peer's connection.
    broken: Option<String>,
}

impl Rings {
    pub(crate) fn new(waker: Arc<Waker>, sink: Arc<dyn Sink>, pool: Arc<Pool>) -> io::Result<Self> {
        Ok(Self {
            bell: Bell::create()?,
            peers: Mutex::default(),
            count: AtomicUsize::new(0),
            waker,
            sink,
            pool,
            segments: Segments::default(),
        })
    }

    /// Returns the segments, in which large payloads lie.
    pub(crate) fn segments(&self) -> &Segments {
        &self.segments
    }

    /// Returns the name of the bell, by which a peer learns whether to ring.
    pub(crate) fn bell(&self) -> MemoryName {
        self.bell.name()
    }

    /// Accepts the ring that a peer offers.
    pub(crate) fn attach(&self, host: HostId, name: &MemoryName) -> io::Result<()> {
        let ring = RingReader::attach(name)?;
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let (decoder, pool) = (Decoder::new(self.pool.clone()), self.pool.clone());
        let (shared, waker) = (self.segments.enter(host), self.waker.clone());
        let routes = Routes::default();
        peers.push(Peer { host, ring, routes, decoder, pool, shared, waker, broken: None });
        self.count.store(peers.len(), SeqCst);
        Ok(())
    }

    /// Reads what a peer that is gone had written, and forgets the peer. Returns what was wrong with its ring, if that is
    /// why.
    pub(crate) fn detach(&self, host: HostId) -> Option<String> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let index = peers.iter().position(|peer| peer.host == host)?;
        let mut peer = peers.swap_remove(index);
        self.count.store(peers.len(), SeqCst);
        while peer.read(&*self.sink, &mut None) {}
        peer.shared.leave();
        peer.broken
    }

    /// Returns the peers whose rings are unusable.
    pub(crate) fn broken(&self) -> Vec<HostId> {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.iter().filter(|peer| peer.broken.is_some()).map(|peer| peer.host).collect()
    }

    /// Polls all rings, unless another thread does. Returns whether anything was there.
    pub(in crate::link) fn look(&self) -> bool {
        let Some(mut peers) = self.try_lock() else { return false };
        let mut some = false;
        for peer in peers.iter_mut() {
            some |= peer.read(&*self.sink, &mut None);
        }
        some
    }

    /// Like [`look`](Self::look), for a VR that waits, up to this many times in a row.
    pub(in crate::link) fn look_for(&self, looks: u32, inbox: &Inbox, taker: Option<&mut Taker<'_>>) {
        let Some(mut peers) = self.try_lock() else {
            return ().poll(looks, inbox, taker);
        };
        let mut own = taker.map(|taker| Own { inbox, taker });
        for _ in 0..looks * PER_PAUSE {
            for peer in peers.iter_mut() {
                peer.read(&*self.sink, &mut own);
                if own.as_ref().is_some_and(|own| own.taker.done) {
                    return;
                }
            }
            if inbox.is_ready() || own.as_ref().is_some_and(|own| own.taker.taken) {
                return;
            }
        }
    }

    /// Returns `None` if another thread polls. A thread that panicked over an envelope that it was shown has left everything
    /// in order.
    fn try_lock(&self) -> Option<MutexGuard<'_, Vec<Peer>>> {
        match self.peers.try_lock() {
            Ok(peers) => Some(peers),
            Err(TryLockError::Poisoned(peers)) => Some(peers.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Whether all of them are empty.
    pub(in crate::link) fn all_empty(&self) -> bool {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.iter().all(|peer| peer.ring.is_empty() || peer.broken.is_some())
    }

    pub(in crate::link) fn is_used(&self) -> bool {
        self.count.load(Relaxed) > 0
    }

    /// Whether writers need not ring.
    pub(in crate::link) fn is_awake(&self) -> bool {
        self.bell.is_awake()
    }

    /// Somebody polls from now on.
    pub(in crate::link) fn wake(&self) {
        if !self.bell.is_awake() {
            self.bell.wake();
        }
    }

    /// Writers must ring from now on. The caller must poll once more after this.
    pub(in crate::link) fn sleep(&self) {
        if self.bell.is_awake() {
            self.bell.sleep();
        }
    }
}

/// The payload of an envelope that is a single record.
struct InRing<'a> {
    ring: &'a RingReader,
    record: Record,
    /// The offset of the payload.
    start: usize,
}

impl Source for InRing<'_> {
    fn copy(&self, offset: usize, out: &mut [u8]) -> bool {
        self.ring.read(self.record, self.start + offset, out);
        true
    }
}

impl Peer {
    /// Reads a turn. Returns whether anything was there.
    fn read(&mut self, sink: &dyn Sink, own: &mut Option<Own<'_, '_>>) -> bool {
        if self.broken.is_some() {
            return false;
        }
        let mut bytes = 0;
        for turn in 0..TURN {
            let record = match self.ring.front() {
                Ok(Some(record)) => record,
                Ok(None) => return turn > 0,
                Err(error) => return self.fail(error),
            };
            let read = match record.title.kind {
                STREAM => self.read_stream(record, sink),
                SEGMENT => self.read_segment(record),
                PLACED => self.read_placed(record, sink),
                _ => self.read_whole(record, sink, own),
            };
            self.ring.pass(record);
            match read {
                Ok(payload) => bytes += payload,
                Err(error) => return self.fail(error),
            }
            if bytes >= BYTES || own.as_ref().is_some_and(|own| own.taker.done) {
                return true;
            }
        }
        true
    }

    /// Reads a record that is an envelope. Returns how many bytes of memory its payload needed.
    fn read_whole(
        &mut self,
        record: Record,
        sink: &dyn Sink,
        own: &mut Option<Own<'_, '_>>,
    ) -> Result<usize, String> {
        let Title { kind, mark, len } = record.title;
        let route = match kind & !HALF {
            NAMED => 0,
            SPELLED => ROUTE,
            other => return Err(format!("a record is of an unknown kind ({other})")),
        };
        let start = SEQ + route + if kind & HALF == 0 { 0 } else { gap_behind(route) };
        let len = len.checked_sub(start).ok_or("a record is too short")?;
        if route > 0 {
            let mut route = Route::zeroed();
            self.ring.read(record, SEQ, bytemuck::bytes_of_mut(&mut route));
            if !self.routes.learn(mark, route) {
                return Err("a route has a number out of range".into());
            }
        }
        let mut seq = [0; SEQ];
        self.ring.read(record, 0, &mut seq);
        let route = self.routes.get(mark).ok_or("a record names a route that nobody knows")?;
        let label = route.label(u64::from_le_bytes(seq));
        let payload = InRing { ring: &self.ring, record, start };
        if let Some(own) = own
            && own.offer(sink, &Arriving { label, len, here: len, payload: &payload }) != Intake::Left
        {
            return Ok(0);
        }
        let payload = frame::filled(len, &self.pool, |out| self.ring.read(record, start, out));
        sink.frame(self.host, Frame { kind: Kind::Envelope, envelope: label.with(payload.into()) });
        Ok(len)
    }

    /// Reads a record that announces a segment, which is not used unless it can be mapped.
    fn read_segment(&self, record: Record) -> Result<usize, String> {
        let mut said = vec![0; record.title.len];
        self.ring.read(record, 0, &mut said);
        let name = postcard::from_bytes(&said)
            .map_err(|error| format!("a segment is announced wrongly: {error}"))?;
        if let Err(error) = self.shared.map(&name) {
            tracing::debug!(host = %self.host, %error, "memory of a peer cannot be mapped");
        }
        Ok(0)
    }

    /// Reads a record that says where the payload of an envelope lies. Returns the payload's length.
    fn read_placed(&self, record: Record, sink: &dyn Sink) -> Result<usize, String> {
        const FIXED: usize = SEQ + ROUTE + size_of::<u64>();
        let said_len = record.title.len.checked_sub(FIXED).ok_or("a record is too short")?;
        let (mut seq, mut route, mut count) = ([0; SEQ], Route::zeroed(), [0; size_of::<u64>()]);
        self.ring.read(record, 0, &mut seq);
        self.ring.read(record, SEQ, bytemuck::bytes_of_mut(&mut route));
        self.ring.read(record, SEQ + ROUTE, &mut count);
        let mut said = vec![0; said_len];
        self.ring.read(record, FIXED, &mut said);
        let payload = self.shared.payload(u64::from_le_bytes(count), &said)?;
        let len = payload.len();
        let envelope = route.label(u64::from_le_bytes(seq)).with(payload);
        sink.frame(self.host, Frame { kind: Kind::Envelope, envelope });
        Ok(len)
    }

    /// Reads a record that is a part of a stream of frames. Returns how long the payloads of those were that are now complete.
    fn read_stream(&mut self, record: Record, sink: &dyn Sink) -> Result<usize, String> {
        let (mut done, mut bytes) = (0, 0);
        while done < record.title.len {
            let space = self.decoder.space();
            let n = space.len().min(record.title.len - done);
            self.ring.read(record, done, &mut space[..n]);
            self.decoder.advance(n);
            done += n;
            while let Some(frame) = self.decoder.next().map_err(|error| error.to_string())? {
                bytes += frame.envelope.payload.len();
                sink.frame(self.host, frame);
            }
        }
        Ok(bytes)
    }

    fn fail(&mut self, error: String) -> bool {
        tracing::error!(host = %self.host, error, "a peer wrote invalid data into its ring");
        self.broken = Some(format!("it wrote invalid data into its ring: {error}"));
        if let Err(error) = self.waker.wake() {
            tracing::warn!(%error, "the connection of that peer stays");
        }
        false
    }
}

impl std::fmt::Debug for Rings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rings").field("count", &self.count).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc::{Sender, channel};

    use std::time::Duration;

    use super::*;
    use crate::link::shm::ring::{RingWriter, SHORT};
    use crate::link::{By, Reader};

    struct Closed(Sender<(HostId, String)>);

    impl Sink for Closed {
        fn frame(&self, _from: HostId, _frame: Frame) {}

        fn closed(&self, from: HostId, why: String) {
            let _ = self.0.send((from, why));
        }
    }

    #[test]
    fn a_peer_that_writes_nonsense_is_told_as_gone_with_the_reason() {
        let (closed, ends) = channel();
        let (reader, host) = (Reader::start(Arc::new(Closed(closed))).unwrap(), HostId::fresh());
        let mut ring = RingWriter::create(SHORT).unwrap();
        reader.rings().attach(host, &ring.name()).unwrap();
        let title = Title { kind: 99, mark: 0, len: 8 };
        assert!(ring.write(title, &[&[0; 8]], std::iter::empty()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _doorbell = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        reader.add(host, listener.accept().unwrap().0, By::Ring).unwrap();
        let (who, why) = ends.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!(who, host);
        assert!(why.contains("invalid data") && why.contains("99"), "{why}");
    }
}
