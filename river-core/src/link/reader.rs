//! The reading ends of all TCP links of a process: one thread, woken by whichever peer has something to say.
//!
//! The thread stays awake for a while after it has read something, since waking it costs more than the message it
//! is woken for; it yields meanwhile, so that nobody who has work is kept from it.

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token, Waker};

use crate::frame::{Decoder, Frame};
use crate::id::HostId;

/// How long the thread looks for more before it sleeps.
const AWAKE: Duration = Duration::from_micros(50);
/// Reads from one peer in a row before the others have their turn.
const TURN: usize = 16;
/// Passes over the hot peers between two looks at all the others.
const LOOK_ROUND: u32 = 8;
const WAKE: Token = Token(usize::MAX);

/// What the reader tells about its peers. Called on the reader's thread: must not block.
pub(crate) trait Sink: Send + Sync + 'static {
    /// A frame has arrived.
    fn frame(&self, from: HostId, frame: Frame);
    /// The connection is over; every frame that arrived on it has been handed out.
    fn closed(&self, from: HostId, why: String);
}

/// Handle of the reader thread, which ends when the handle is dropped.
#[derive(Debug)]
pub(crate) struct Reader {
    /// Shared with the thread: closed with the handle, it would take the last wake-up with it.
    waker: Arc<Waker>,
    inlet: Arc<Inlet>,
}

/// Connections that the thread has yet to take over; `None` tells it to end.
type Inlet = Mutex<Option<Vec<(HostId, TcpStream)>>>;

struct Peer {
    host: HostId,
    stream: mio::net::TcpStream,
    decoder: Decoder,
}

impl Reader {
    pub(crate) fn start(sink: Arc<dyn Sink>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let inlet = Arc::new(Mutex::new(Some(Vec::new())));
        let (outlet, alive) = (inlet.clone(), waker.clone());
        thread::Builder::new().name("river-io".into()).spawn(move || {
            run(poll, &outlet, &*sink);
            drop(alive);
        })?;
        Ok(Self { waker, inlet })
    }

    /// Reads frames from an authenticated connection until it ends.
    pub(crate) fn add(&self, host: HostId, stream: TcpStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        if let Some(new) = self.inlet.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            new.push((host, stream));
        }
        self.waker.wake()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.inlet.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = self.waker.wake();
    }
}

fn run(mut poll: Poll, inlet: &Inlet, sink: &dyn Sink) {
    let mut peers: HashMap<Token, Peer> = HashMap::new();
    let mut events = Events::with_capacity(256);
    // Readiness is edge-triggered: a peer stays hot until reads of it have found nothing for a while.
    let mut hot: Vec<(Token, Instant)> = Vec::new();
    let (mut next, mut passes) = (0, 0_u32);
    loop {
        // Hot peers are polled by reading alone: one system call a message instead of two.
        passes = passes.wrapping_add(1);
        if hot.is_empty() || passes.is_multiple_of(LOOK_ROUND) {
            let timeout = if hot.is_empty() { None } else { Some(Duration::ZERO) };
            if let Err(error) = poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "cannot wait for the network any more");
                return;
            }
            let now = Instant::now();
            for event in &events {
                let token = event.token();
                if token != WAKE {
                    if !hot.iter().any(|(hot, _)| *hot == token) {
                        hot.push((token, now));
                    }
                    continue;
                }
                let mut inlet = inlet.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(new) = inlet.as_mut() else { return };
                for (host, stream) in new.drain(..) {
                    let mut stream = mio::net::TcpStream::from_std(stream);
                    let token = Token(next);
                    next += 1;
                    if let Err(error) = poll.registry().register(&mut stream, token, Interest::READABLE) {
                        sink.closed(host, error.to_string());
                        continue;
                    }
                    peers.insert(token, Peer { host, stream, decoder: Decoder::default() });
                    hot.push((token, now));
                }
            }
        }
        let mut idle = true;
        hot.retain_mut(|(token, last)| {
            let Some(peer) = peers.get_mut(token) else { return false };
            match peer.read(sink) {
                Ok(true) => {
                    idle = false;
                    *last = Instant::now();
                    true
                }
                Ok(false) => last.elapsed() < AWAKE,
                Err(why) => {
                    let host = peer.host;
                    peers.remove(token);
                    sink.closed(host, why);
                    false
                }
            }
        });
        if idle && !hot.is_empty() {
            thread::yield_now();
        }
    }
}

impl Peer {
    /// Reads what is there, a turn at most. `Ok(false)`: nothing was. `Err`: the connection is over, and why.
    fn read(&mut self, sink: &dyn Sink) -> Result<bool, String> {
        for turn in 0..TURN {
            match self.stream.read(self.decoder.space()) {
                Ok(0) => return Err("the peer closed the connection".into()),
                Ok(n) => self.decoder.advance(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(turn > 0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
            while let Some(frame) = self.decoder.next().map_err(|error| error.to_string())? {
                sink.frame(self.host, frame);
            }
        }
        Ok(true)
    }
}
