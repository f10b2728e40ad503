//! The reading ends of the connections on which frames come.
//!
//! They are *hot* while data has come on any of them lately: a VR that waits then asks the system repeatedly which of them
//! are readable, and reads those. While only one connection is active, it is mostly read without asking, which saves a
//! system call per message. While VRs poll, incoming data does not wake the reader thread; before the last VR parks, or when
//! all connections have gone quiet, the sockets are *armed* again.

use std::collections::HashMap;
use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};

use super::connection::{Connection, Turn};
use super::{Own, Sink};
use crate::id::HostId;
use crate::inbox::{Inbox, Taker};
use crate::noise::Session;
use crate::pool::Pool;

/// After this many polls that have found nothing, all connections have gone quiet: more polls than a VR makes before it
/// parks.
const IDLE_LOOKS: u32 = if cfg!(test) { 8 } else { 4096 };
/// A connection that alone was active this often in a row is read without asking whether it is readable.
const ALONE: u32 = 2;
/// One of this many polls asks nevertheless, for the other connections.
const ASK: u32 = 16;
/// How often VRs that do not wait poll, all of them together.
const GLANCE: Duration = Duration::from_micros(20);

/// All connections on which frames come to this process.
#[derive(Debug)]
pub(crate) struct Sockets {
    peers: Mutex<Peers>,
    /// Whether data has come on any of them lately.
    hot: AtomicBool,
    /// Whether incoming data wakes the reader thread.
    armed: AtomicBool,
    /// Whether anybody has polled all of them lately.
    looked: AtomicBool,
    /// When a VR that does not wait last polled, in nanoseconds since the start.
    last_glance: AtomicU64,
    begun: Instant,
    /// Whether a connection has ended that has not been reported.
    any_ended: AtomicBool,
    /// The registry at which the reader thread waits, and the token that it finds there when data has arrived.
    thread: (Registry, Token),
}

#[derive(Debug)]
struct Peers {
    poll: Poll,
    events: Events,
    all: HashMap<Token, Peer>,
    next: usize,
    /// Connections reported as readable that have not been read to the end. Each is reported once.
    unread: Vec<Token>,
    /// Polls in a row that have found nothing.
    idle: u32,
    /// Polls by VRs.
    looks: u32,
    /// The connection that was active last, and how often in a row only it was when the system was asked.
    speaker: (Token, u32),
    ended: Vec<(HostId, String)>,
}

#[derive(Debug)]
struct Peer {
    connection: Connection,
    /// Whether it is in the list of unread ones.
    is_unread: bool,
}

/// The result of one poll.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Look {
    /// Whether anything was there.
    pub(super) some: bool,
    /// Whether a connection has ended, which the reader thread must report.
    pub(super) ended: bool,
}

impl Sockets {
    /// Creates sockets that wake the thread which waits at this registry, by this token.
    pub(super) fn new(registry: Registry, token: Token) -> io::Result<Self> {
        let poll = Poll::new()?;
        registry.register(&mut SourceFd(&poll.as_raw_fd()), token, Interest::READABLE)?;
        let peers = Peers {
            poll,
            events: Events::with_capacity(256),
            all: HashMap::new(),
            next: 0,
            unread: Vec::new(),
            idle: 0,
            looks: 0,
            speaker: (Token(0), 0),
            ended: Vec::new(),
        };
        Ok(Self {
            peers: Mutex::new(peers),
            hot: AtomicBool::new(false),
            armed: AtomicBool::new(true),
            looked: AtomicBool::new(false),
            last_glance: AtomicU64::new(0),
            begun: Instant::now(),
            any_ended: AtomicBool::new(false),
            thread: (registry, token),
        })
    }

    /// Reads frames from this connection from now on, decrypted by the session's keys if there are any.
    pub(super) fn add(
        &self,
        host: HostId,
        stream: TcpStream,
        session: Option<Session>,
        pool: Arc<Pool>,
    ) -> io::Result<()> {
        let mut stream = mio::net::TcpStream::from_std(stream);
        let mut peers = self.lock();
        let token = Token(peers.next);
        peers.poll.registry().register(&mut stream, token, Interest::READABLE)?;
        peers.next += 1;
        let connection = Connection::new(host, stream, session, pool);
        peers.all.insert(token, Peer { connection, is_unread: false });
        // Data is likely to come on it soon.
        peers.idle = 0;
        self.hot.store(true, SeqCst);
        Ok(())
    }

    /// Whether it is worthwhile for a waiting VR to poll.
    pub(super) fn is_hot(&self) -> bool {
        self.hot.load(SeqCst)
    }

    /// Data has come: makes waiting VRs poll.
    pub(super) fn heat(&self) {
        self.lock().idle = 0;
        self.hot.store(true, SeqCst);
    }

    /// For the reader thread, which was woken and leaves polling to others: reads what has woken it, as it is told only once.
    pub(super) fn leave(&self, sink: &dyn Sink) -> Look {
        if !self.is_hot() {
            return Look::default();
        }
        let mut peers = self.lock();
        self.disarm(&peers);
        self.pass(&mut peers, sink, None, &mut None)
    }

    /// Whether nobody has polled since the last call, and incoming data does not wake the reader thread either.
    pub(super) fn is_neglected(&self) -> bool {
        !self.looked.swap(false, SeqCst) && !self.is_armed()
    }

    /// Whether the last glance was some time ago: a VR that works on arrivals, and glances in between, gets more at a time.
    pub(super) fn is_glance_due(&self) -> bool {
        let now = self.begun.elapsed().as_nanos() as u64;
        let due = now.saturating_sub(self.last_glance.load(Relaxed)) >= GLANCE.as_nanos() as u64;
        if due {
            self.last_glance.store(now, Relaxed);
        }
        due
    }

    /// Reads a turn of each readable connection, unless another thread does.
    pub(super) fn look(&self, sink: &dyn Sink) -> Look {
        match self.try_lock() {
            Some(mut peers) => self.pass(&mut peers, sink, None, &mut None),
            None => Look::default(),
        }
    }

    /// Like [`look`](Self::look), for a VR, until there is something for it, which it may take. Incoming data does not wake
    /// the reader thread until the sockets are armed again.
    pub(super) fn look_for(&self, sink: &dyn Sink, inbox: &Inbox, taker: Option<&mut Taker<'_>>) -> Look {
        let Some(mut peers) = self.try_lock() else { return Look::default() };
        self.disarm(&peers);
        let mut own = taker.map(|taker| Own { inbox, taker });
        if peers.may_skip_asking() {
            // The other connections were not polled, so somebody else must do that.
            let some = peers.listen(sink, &mut own);
            return self.after(&mut peers, some);
        }
        self.pass(&mut peers, sink, Some(inbox), &mut own)
    }

    /// Reads what is there. If that is nothing, incoming data wakes the reader thread from now on.
    pub(super) fn look_and_arm(&self, sink: &dyn Sink) -> Look {
        if !self.is_hot() && self.is_armed() {
            return Look::default();
        }
        let mut peers = self.lock();
        let look = self.pass(&mut peers, sink, None, &mut None);
        if look.some {
            // There may be more, which the system does not report again.
            self.disarm(&peers);
        } else {
            self.arm(&peers);
        }
        look
    }

    /// Lets incoming data wake the reader thread, without polling. Returns `false` if that thread must poll first, as there
    /// may be something that the system does not report again.
    pub(super) fn arm_blindly(&self) -> bool {
        if self.is_armed() {
            return true;
        }
        let peers = self.lock();
        self.arm(&peers);
        peers.unread.is_empty()
    }

    /// Whether incoming data wakes the reader thread.
    pub(super) fn is_armed(&self) -> bool {
        self.armed.load(SeqCst)
    }

    /// Data that arrives unasked wakes the reader thread from now on.
    fn arm(&self, peers: &Peers) {
        if self.armed.load(Relaxed) {
            return;
        }
        let (registry, token) = &self.thread;
        let registered =
            registry.register(&mut SourceFd(&peers.poll.as_raw_fd()), *token, Interest::READABLE);
        match registered {
            Ok(()) => self.armed.store(true, SeqCst),
            Err(error) => {
                static SAID: Once = Once::new();
                SAID.call_once(|| tracing::error!(%error, "TCP connections have to be polled"));
            }
        }
    }

    fn disarm(&self, peers: &Peers) {
        if !self.armed.load(Relaxed) {
            return;
        }
        match self.thread.0.deregister(&mut SourceFd(&peers.poll.as_raw_fd())) {
            Ok(()) => self.armed.store(false, SeqCst),
            Err(error) => tracing::debug!(%error, "the reader thread is woken for nothing"),
        }
    }

    /// Returns the connections that have ended, and why. Everything that had come on them was handed out.
    pub(super) fn ended(&self) -> Vec<(HostId, String)> {
        if !self.any_ended.swap(false, SeqCst) {
            return Vec::new();
        }
        std::mem::take(&mut self.lock().ended)
    }

    fn pass(
        &self,
        peers: &mut Peers,
        sink: &dyn Sink,
        inbox: Option<&Inbox>,
        own: &mut Option<Own<'_, '_>>,
    ) -> Look {
        let some = peers.pass(sink, inbox, own);
        if !self.looked.load(Relaxed) {
            self.looked.store(true, SeqCst);
        }
        self.after(peers, some)
    }

    /// Follows a poll of one or all connections.
    fn after(&self, peers: &mut Peers, some: bool) -> Look {
        let hot = peers.idle < IDLE_LOOKS;
        if hot != self.is_hot() {
            self.hot.store(hot, SeqCst);
        }
        if !hot {
            // From now on nobody polls.
            self.arm(peers);
        }
        let ended = !peers.ended.is_empty() && !self.any_ended.swap(true, SeqCst);
        Look { some, ended }
    }

    /// Returns `None` if another thread polls. A thread that panicked over an envelope that it was shown has left everything
    /// in order, except perhaps the connection, which knows that it is torn.
    fn try_lock(&self) -> Option<MutexGuard<'_, Peers>> {
        match self.peers.try_lock() {
            Ok(peers) => Some(peers),
            Err(TryLockError::Poisoned(peers)) => Some(peers.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peers {
    /// Asks the system which connections have new data.
    fn ask(&mut self) {
        loop {
            match self.poll.poll(&mut self.events, Some(Duration::ZERO)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(%error, "cannot ask which connections are ready");
                    return;
                }
                Ok(()) => {}
            }
            let before = self.unread.len();
            for event in &self.events {
                let Some(peer) = self.all.get_mut(&event.token()) else { continue };
                if event.is_read_closed() || event.is_error() {
                    peer.connection.expect_end();
                }
                if !std::mem::replace(&mut peer.is_unread, true) {
                    self.unread.push(event.token());
                }
            }
            if self.unread.len() - before < self.events.capacity() {
                return;
            }
        }
    }

    /// Whether only one connection was active lately, and this is not one of the polls for the others.
    fn may_skip_asking(&mut self) -> bool {
        self.looks = self.looks.wrapping_add(1);
        self.speaker.1 > ALONE && !self.looks.is_multiple_of(ASK)
    }

    /// Reads a turn of the connection that was active last. Returns whether anything was there.
    fn listen(&mut self, sink: &dyn Sink, own: &mut Option<Own<'_, '_>>) -> bool {
        let (token, _) = self.speaker;
        let Some(peer) = self.all.get_mut(&token) else {
            self.speaker.1 = 0;
            return false;
        };
        // Set before reading: if a VR panics, other threads find out how the connection is.
        let was_unread = std::mem::replace(&mut peer.is_unread, true);
        if !was_unread {
            self.unread.push(token);
        }
        let some = match peer.connection.read(sink, own) {
            Ok(Turn { read, is_over }) => {
                if is_over && !was_unread {
                    peer.is_unread = false;
                    self.unread.pop();
                }
                read
            }
            Err(why) => {
                self.ended.push((peer.connection.host(), why));
                self.all.remove(&token);
                true
            }
        };
        self.idle = if some { 0 } else { self.idle.saturating_add(1) };
        some
    }

    /// Reads a turn of each readable connection, until there is something for the polling VR. Returns whether anything was
    /// there.
    fn pass(&mut self, sink: &dyn Sink, inbox: Option<&Inbox>, own: &mut Option<Own<'_, '_>>) -> bool {
        self.ask();
        let is_enough = |own: &Option<Own<'_, '_>>| {
            own.as_ref().is_some_and(|own| own.taker.taken) || inbox.is_some_and(Inbox::is_ready)
        };
        let Self { all, unread, ended, speaker, .. } = self;
        let (mut some, mut cut_short) = (false, None);
        unread.retain(|token| {
            if some && is_enough(own) {
                return true;
            }
            let Some(peer) = all.get_mut(token) else { return false };
            match peer.connection.read(sink, own) {
                Ok(Turn { read, is_over }) => {
                    if read {
                        let before = if speaker.0 == *token { speaker.1 } else { 0 };
                        *speaker = (*token, before.saturating_add(1));
                    }
                    some |= read;
                    cut_short = (!is_over).then_some(*token);
                    peer.is_unread = !is_over;
                    !is_over
                }
                Err(why) => {
                    ended.push((peer.connection.host(), why));
                    all.remove(token);
                    some = true;
                    false
                }
            }
        });
        // Next time, the others come first.
        if let Some(token) = cut_short
            && unread.len() > 1
        {
            unread.retain(|other| *other != token);
            unread.push(token);
        }
        self.idle = if some { 0 } else { self.idle.saturating_add(1) };
        some
    }
}
