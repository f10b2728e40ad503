//! The reader thread of a process: if no VR polls, it is woken by any peer that has sent something.
//!
//! The thread stays awake for a while after it has found something, since waking it costs more than the message it is woken
//! for. Meanwhile it yields, so as not to delay threads that have work.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token, Waker};

use super::connection;
use super::inlets::{Inlets, TICK, Watch};
use super::shm::Rings;
use crate::frame::Frame;
use crate::id::HostId;
use crate::noise::Session;
use crate::pool::Pool;

/// How long the thread polls for more before it sleeps.
const AWAKE: Duration = Duration::from_micros(50);
/// Polls between two checks of the other things that the thread waits for.
const LOOK_ROUND: u32 = 8;
/// Memory for payloads is returned to the system when nothing has arrived for this long.
const KEEP: Duration = Duration::from_secs(5);
const WAKE: Token = Token(usize::MAX);
/// Data has arrived on some connection.
const DATA: Token = Token(usize::MAX - 1);

/// Receives what peers send. Must neither block nor send: waiting VRs call it, too, while they hold locks of the links.
pub(crate) trait Sink: Send + Sync + 'static {
    /// A frame has arrived.
    fn frame(&self, from: HostId, frame: Frame);
    /// Whether the origin of envelopes need not be checked, as no process is known to be dead.
    fn trusts_all(&self) -> bool {
        false
    }
    /// A peer has connected. Used by simulations only: a real connection is accepted by the node itself.
    #[cfg(test)]
    fn opened(&self, _from: HostId) {}
    /// The connection is over, and every frame that arrived on it has been handed out.
    fn closed(&self, from: HostId, why: String);
}

/// A handle to the reader thread, which ends when the handle is dropped.
#[derive(Debug)]
pub(crate) struct Reader {
    pool: Arc<Pool>,
    doorbells: Arc<Doorbells>,
    inlets: Arc<Inlets>,
}

/// Connections used only for ringing, which the thread has yet to take over; `None` tells it to end.
type Doorbells = Mutex<Option<Vec<(HostId, TcpStream)>>>;

/// How a peer sends its frames.
#[derive(Debug)]
pub(crate) enum By {
    /// On the connection; sealed if there are keys.
    Connection(Option<Session>),
    /// Through a ring; the connection only carries rings of the bell, and its end.
    Ring,
}

impl Reader {
    pub(crate) fn start(sink: Arc<dyn Sink>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let pool = Arc::new(Pool::default());
        let registry = poll.registry().try_clone()?;
        let inlets = Arc::new(Inlets::new((registry, DATA), waker, sink.clone(), pool.clone())?);
        let doorbells = Arc::new(Mutex::new(Some(Vec::new())));
        let mut thread = ReaderThread {
            poll,
            new: doorbells.clone(),
            doorbells: HashMap::new(),
            next: 0,
            inlets: inlets.clone(),
            watch: Watch::default(),
            last_look: Instant::now(),
            pool: pool.clone(),
            sink,
        };
        thread::Builder::new().name("river-io".into()).spawn(move || thread.run())?;
        Ok(Self { pool, doorbells, inlets })
    }

    /// Reads from an authenticated peer until its connection ends: frames on the connection; or, if it has a ring in
    /// [`rings`](Self::rings), frames in the ring, and rings of the bell on the connection.
    pub(crate) fn add(&self, host: HostId, stream: TcpStream, by: By) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        if let By::Connection(session) = by {
            return self.inlets.sockets.add(host, stream, session, self.pool.clone());
        }
        if let Some(new) = self.doorbells.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            new.push((host, stream));
        }
        self.inlets.wake();
        Ok(())
    }

    /// Returns the ways into this process, which waiting VRs poll.
    pub(crate) fn inlets(&self) -> &Arc<Inlets> {
        &self.inlets
    }

    /// Returns the rings of this process.
    pub(crate) fn rings(&self) -> &Rings {
        &self.inlets.rings
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.doorbells.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.inlets.wake();
    }
}

/// A connection used only for ringing.
struct Doorbell {
    host: HostId,
    stream: mio::net::TcpStream,
}

struct ReaderThread {
    poll: Poll,
    new: Arc<Doorbells>,
    doorbells: HashMap<Token, Doorbell>,
    next: usize,
    inlets: Arc<Inlets>,
    watch: Watch,
    /// When something was last there, or the thread had another reason to poll.
    last_look: Instant,
    pool: Arc<Pool>,
    sink: Arc<dyn Sink>,
}

impl ReaderThread {
    fn run(&mut self) {
        let mut events = Events::with_capacity(256);
        let (mut looks, mut last_discard) = (0_u32, self.last_look);
        loop {
            looks = looks.wrapping_add(1);
            if !self.inlets.is_looking() || looks.is_multiple_of(LOOK_ROUND) {
                let timeout = self.timeout();
                if let Err(error) = self.poll.poll(&mut events, timeout)
                    && error.kind() != io::ErrorKind::Interrupted
                {
                    tracing::error!(%error, "cannot wait for TCP connections any more");
                    return;
                }
                let now = Instant::now();
                if timeout == Some(KEEP) && events.is_empty() {
                    self.pool.clear();
                }
                let segments = self.inlets.rings.segments();
                if !segments.is_idle() && now - last_discard >= KEEP {
                    segments.discard(KEEP);
                    last_discard = now;
                }
                if timeout == Some(TICK) && events.is_empty() {
                    self.watch.tick(&self.inlets);
                    self.last_look = now;
                }
                for event in &events {
                    match event.token() {
                        WAKE if !self.woken() => return,
                        WAKE => {}
                        DATA => {
                            self.watch.called(&self.inlets);
                            self.last_look = now;
                        }
                        doorbell => self.answer(doorbell),
                    }
                }
            }
            if self.watch.look(&self.inlets) {
                self.last_look = Instant::now();
            } else if self.inlets.is_looking() {
                if self.last_look.elapsed() >= AWAKE {
                    self.watch.rest(&self.inlets);
                    self.last_look = Instant::now();
                }
                thread::yield_now();
            }
            for (host, why) in self.inlets.sockets.ended() {
                self.sink.closed(host, why);
            }
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let is_idle = self.pool.is_idle() && self.inlets.rings.segments().is_idle();
        self.watch.timeout(&self.inlets).or_else(|| (!is_idle).then_some(KEEP))
    }

    /// Something may have arrived, so poll.
    fn rung(&mut self) {
        self.watch.rung(&self.inlets);
        self.last_look = Instant::now();
    }

    /// Handles the requests of other threads. Returns `false` if this thread must end.
    fn woken(&mut self) -> bool {
        let new = match self.new.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(new) => std::mem::take(new),
            None => return false,
        };
        self.watch.woken(&self.inlets);
        self.last_look = Instant::now();
        for host in self.inlets.rings.broken() {
            let doorbell = self.doorbells.values().find(|doorbell| doorbell.host == host);
            let _ = doorbell.map(|doorbell| doorbell.stream.shutdown(Shutdown::Both));
        }
        for (host, stream) in new {
            let mut stream = mio::net::TcpStream::from_std(stream);
            let token = Token(self.next);
            self.next += 1;
            if let Err(error) = self.poll.registry().register(&mut stream, token, Interest::READABLE) {
                let why = self.inlets.rings.detach(host).unwrap_or_else(|| error.to_string());
                self.sink.closed(host, why);
            } else {
                self.doorbells.insert(token, Doorbell { host, stream });
            }
            // A peer that has rung and ended at the same moment leaves the bell rung, which keeps all others from ringing: so
            // each new peer is polled for once without being asked.
            self.rung();
        }
        true
    }

    /// Handles a peer that has rung, or is gone.
    fn answer(&mut self, token: Token) {
        let Some(Doorbell { host, stream }) = self.doorbells.get(&token) else { return };
        let host = *host;
        let end = loop {
            match connection::read(stream, &mut [0; 64]) {
                Ok(Some(_)) => {}
                Ok(None) => break None,
                Err(why) => break Some(why),
            }
        };
        if let Some(why) = end {
            let why = self.inlets.rings.detach(host).unwrap_or(why);
            self.doorbells.remove(&token);
            self.sink.closed(host, why);
        }
        // A peer that is gone may have rung just before, so that the others have not.
        self.rung();
    }
}
