//! The reading ends of all rings of a process, and who looks into them.
//!
//! A VR that waits looks into all rings itself, so that what it waits for comes straight from the writer's processor
//! to its own. Before the last such VR parks, it puts the bell to sleep: from then on writers ring, which wakes the
//! reader thread. When a VR has got what it waited for, it leaves the bell awake, since it will most likely wait again
//! at once; the reader thread sees to it within [`TICK`] that nothing lies in a ring while everybody is busy.

use std::io;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mio::Waker;

use super::bell::Bell;
use super::ring::RingReader;
use crate::frame::Decoder;
use crate::id::HostId;
use crate::inbox::Pump;
use crate::link::Sink;
use crate::pool::Pool;
use crate::protocol::MemoryName;

/// How long something may lie in a ring into which nobody looks although the bell is awake.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// Reads from one peer in a row before the others have their turn.
const TURN: usize = 8;
/// After a payload of so many bytes a turn ends: who waits may be done with it, and its memory still be in a cache,
/// before the next one needs some.
const LARGE: usize = 256 << 10;

/// All rings from which this process reads.
pub(crate) struct Rings {
    bell: Bell,
    peers: Mutex<Vec<Peer>>,
    count: AtomicUsize,
    /// VRs that are waiting and look into the rings.
    pollers: AtomicUsize,
    /// Somebody has looked since the last tick.
    touched: AtomicBool,
    /// The reader thread ticks.
    watched: AtomicBool,
    waker: Arc<Waker>,
    sink: Arc<dyn Sink>,
    pool: Arc<Pool>,
}

struct Peer {
    host: HostId,
    ring: RingReader,
    decoder: Decoder,
    /// What was wrong with it; its connection ends then.
    broken: Option<String>,
}

impl Rings {
    pub(crate) fn new(waker: Arc<Waker>, sink: Arc<dyn Sink>, pool: Arc<Pool>) -> io::Result<Self> {
        Ok(Self {
            bell: Bell::create()?,
            peers: Mutex::default(),
            count: AtomicUsize::new(0),
            pollers: AtomicUsize::new(0),
            touched: AtomicBool::new(false),
            watched: AtomicBool::new(false),
            waker,
            sink,
            pool,
        })
    }

    /// What a peer needs to know whether to ring.
    pub(crate) fn bell(&self) -> MemoryName {
        self.bell.name()
    }

    /// Takes the ring that a peer offers.
    pub(crate) fn attach(&self, host: HostId, name: &MemoryName) -> io::Result<()> {
        let ring = RingReader::attach(name)?;
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.push(Peer { host, ring, decoder: Decoder::new(self.pool.clone()), broken: None });
        self.count.store(peers.len(), SeqCst);
        Ok(())
    }

    /// Reads what a peer that is gone had written, and forgets it.
    pub(crate) fn detach(&self, host: HostId) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = peers.iter().position(|peer| peer.host == host) {
            let mut peer = peers.swap_remove(index);
            self.count.store(peers.len(), SeqCst);
            while peer.read(&*self.sink) {}
        }
    }

    /// Looks into all rings, unless another thread does. True: something was there.
    pub(super) fn look(&self) -> bool {
        let Ok(mut peers) = self.peers.try_lock() else { return false };
        let mut some = false;
        for peer in peers.iter_mut() {
            some |= peer.read(&*self.sink);
        }
        some
    }

    fn all_empty(&self) -> bool {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.iter().all(|peer| peer.ring.is_empty() || peer.broken.is_some())
    }

    fn is_used(&self) -> bool {
        self.count.load(Relaxed) > 0
    }

    /// Puts the bell to sleep if nobody waits and nothing is there. False: somebody has to go on looking.
    fn try_sleep(&self) -> bool {
        self.bell.sleep();
        if self.pollers.load(SeqCst) > 0 || !self.all_empty() {
            self.bell.wake();
            return false;
        }
        true
    }
}

impl Pump for Rings {
    fn begin(&self) {
        self.pollers.fetch_add(1, SeqCst);
    }

    fn poll(&self) {
        if !self.is_used() {
            return;
        }
        if !self.bell.is_awake() {
            self.bell.wake();
        }
        if !self.touched.load(Relaxed) {
            self.touched.store(true, Relaxed);
            if !self.watched.swap(true, SeqCst) {
                let _ = self.waker.wake();
            }
        }
        self.look();
    }

    fn end(&self) {
        self.pollers.fetch_sub(1, SeqCst);
    }

    fn may_park(&self) -> bool {
        if self.pollers.fetch_sub(1, SeqCst) > 1 || !self.is_used() || self.try_sleep() {
            return true;
        }
        self.pollers.fetch_add(1, SeqCst);
        false
    }
}

/// Without rings there is nothing to look into.
impl Pump for Option<&Rings> {
    fn begin(&self) {
        self.iter().for_each(|rings| rings.begin());
    }

    fn poll(&self) {
        self.iter().for_each(|rings| rings.poll());
    }

    fn end(&self) {
        self.iter().for_each(|rings| rings.end());
    }

    fn may_park(&self) -> bool {
        self.is_none_or(Rings::may_park)
    }
}

impl Peer {
    /// Reads a turn. True: something was there.
    fn read(&mut self, sink: &dyn Sink) -> bool {
        if self.broken.is_some() {
            return false;
        }
        for turn in 0..TURN {
            match self.ring.read(self.decoder.space()) {
                Ok(0) => return turn > 0,
                Ok(n) => self.decoder.advance(n),
                Err(error) => return self.fail(error),
            }
            let mut large = false;
            loop {
                match self.decoder.next() {
                    Ok(Some(frame)) => {
                        large |= frame.envelope.payload.len() >= LARGE;
                        sink.frame(self.host, frame);
                    }
                    Ok(None) if large => return true,
                    Ok(None) => break,
                    Err(error) => return self.fail(error.to_string()),
                }
            }
        }
        true
    }

    fn fail(&mut self, error: String) -> bool {
        tracing::error!(host = %self.host, error, "a peer wrote nonsense into its ring");
        self.broken = Some(error);
        false
    }
}

impl std::fmt::Debug for Rings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rings")
            .field("count", &self.count)
            .field("pollers", &self.pollers)
            .finish_non_exhaustive()
    }
}

/// The reader thread's part.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    idle_ticks: u32,
    /// The thread looks itself, since a writer has rung or somebody left something behind.
    looking: bool,
}

/// After so many ticks without anybody looking the reader thread stops ticking.
const IDLE_TICKS: u32 = 100;

impl Watch {
    /// A peer has rung.
    pub(crate) fn rung(&mut self, rings: &Rings) {
        if rings.is_used() {
            rings.bell.wake();
            self.looking = true;
        }
    }

    /// How long the thread may sleep: not at all, a tick, or for ever.
    pub(crate) fn timeout(&self, rings: &Rings) -> Option<Duration> {
        if self.looking {
            Some(Duration::ZERO)
        } else if rings.watched.load(SeqCst) {
            Some(TICK)
        } else {
            None
        }
    }

    /// Looks, if it is this thread's turn. True: something was there.
    pub(crate) fn look(&self, rings: &Rings) -> bool {
        self.looking && rings.look()
    }

    /// Nothing was there for a while.
    pub(crate) fn rest(&mut self, rings: &Rings) {
        self.looking = !rings.try_sleep() && rings.pollers.load(SeqCst) == 0;
    }

    pub(crate) fn is_looking(&self) -> bool {
        self.looking
    }

    /// A tick has passed.
    pub(crate) fn tick(&mut self, rings: &Rings) {
        if self.looking || !rings.watched.load(SeqCst) {
            return;
        }
        if rings.touched.swap(false, SeqCst) {
            self.idle_ticks = 0;
            return;
        }
        self.idle_ticks += 1;
        if rings.bell.is_awake() && rings.pollers.load(SeqCst) == 0 {
            self.looking = !rings.try_sleep();
        }
        if self.idle_ticks > IDLE_TICKS && !rings.bell.is_awake() {
            rings.watched.store(false, SeqCst);
            self.idle_ticks = 0;
        }
    }
}
