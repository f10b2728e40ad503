//! The reading ends of all TCP links of a process: one thread, woken by whichever peer has something to say.
//!
//! The thread stays awake for a while after it has read something, since waking it costs more than the message it
//! is woken for; it yields meanwhile, so that nobody who has work is kept from it.

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token, Waker};

use crate::frame::{Decoder, Frame};
use crate::id::HostId;
use crate::link::shm::{Rings, TICK, Watch};
use crate::noise::{Session, Unsealer};
use crate::pool::Pool;

/// How long the thread looks for more before it sleeps.
const AWAKE: Duration = Duration::from_micros(50);
/// Reads from one peer in a row before the others have their turn.
const TURN: usize = 16;
/// Passes over the hot peers between two looks at all the others.
const LOOK_ROUND: u32 = 8;
/// Memory for payloads is given back to the system when nothing has come for so long.
const KEEP: Duration = Duration::from_secs(5);
const WAKE: Token = Token(usize::MAX);

/// What the reader tells about its peers. Called on the reader's thread: must not block.
pub(crate) trait Sink: Send + Sync + 'static {
    /// A frame has arrived.
    fn frame(&self, from: HostId, frame: Frame);
    /// Whether nobody has to look where an envelope comes from: no process is known to be dead.
    fn trusts_all(&self) -> bool {
        false
    }
    /// A peer has connected. Of use to simulations only: a real connection is taken over by the node itself.
    #[cfg(test)]
    fn opened(&self, _from: HostId) {}
    /// The connection is over; every frame that arrived on it has been handed out.
    fn closed(&self, from: HostId, why: String);
}

/// Handle of the reader thread, which ends when the handle is dropped.
#[derive(Debug)]
pub(crate) struct Reader {
    /// Shared with the thread, by the rings: closed with the handle, it would take the last wake-up with it.
    waker: Arc<Waker>,
    inlet: Arc<Inlet>,
    rings: Arc<Rings>,
}

/// Connections that the thread has yet to take over; `None` tells it to end.
type Inlet = Mutex<Option<Vec<New>>>;

#[derive(Debug)]
struct New {
    host: HostId,
    stream: TcpStream,
    by: By,
}

/// How a peer's frames come.
#[derive(Debug)]
pub(crate) enum By {
    /// On the connection; sealed if there are keys.
    Connection(Option<Session>),
    /// Through a ring; the connection only rings the bell, and ends.
    Ring,
}

struct Peer {
    host: HostId,
    stream: mio::net::TcpStream,
    /// None for a connection that only rings.
    decoder: Option<Decoder>,
    /// For a sealed connection.
    unsealer: Option<Unsealer>,
}

impl Reader {
    pub(crate) fn start(sink: Arc<dyn Sink>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let inlet = Arc::new(Mutex::new(Some(Vec::new())));
        let pool = Arc::new(Pool::default());
        let rings = Arc::new(Rings::new(waker.clone(), sink.clone(), pool.clone())?);
        let (outlet, looked_into) = (inlet.clone(), rings.clone());
        thread::Builder::new()
            .name("river-io".into())
            .spawn(move || run(poll, &outlet, &looked_into, &pool, &*sink))?;
        Ok(Self { waker, inlet, rings })
    }

    /// Reads what comes from an authenticated peer until its connection ends: frames on the connection, or, if it has
    /// a ring in [`rings`](Self::rings), frames in the ring and rings of the bell on the connection.
    pub(crate) fn add(&self, host: HostId, stream: TcpStream, by: By) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        if let Some(new) = self.inlet.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            new.push(New { host, stream, by });
        }
        self.waker.wake()
    }

    /// The rings of this process, into which waiting VRs look.
    pub(crate) fn rings(&self) -> &Rings {
        &self.rings
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.inlet.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = self.waker.wake();
    }
}

fn run(mut poll: Poll, inlet: &Inlet, rings: &Rings, pool: &Arc<Pool>, sink: &dyn Sink) {
    let mut peers: HashMap<Token, Peer> = HashMap::new();
    let mut events = Events::with_capacity(256);
    // Readiness is edge-triggered: a peer stays hot until reads of it have found nothing for a while.
    let mut hot: Vec<(Token, Instant)> = Vec::new();
    let mut watch = Watch::default();
    let mut last_look = Instant::now();
    let mut last_discard = last_look;
    let (mut next, mut passes) = (0, 0_u32);
    loop {
        // Hot peers are polled by reading alone: one system call a message instead of two.
        passes = passes.wrapping_add(1);
        let busy = !hot.is_empty() || watch.is_looking();
        if !busy || passes.is_multiple_of(LOOK_ROUND) {
            let timeout = if hot.is_empty() { watch.timeout(rings) } else { Some(Duration::ZERO) };
            let timeout =
                timeout.or_else(|| (!pool.is_idle() || !rings.segments().is_idle()).then_some(KEEP));
            if let Err(error) = poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "cannot wait for the network any more");
                return;
            }
            let now = Instant::now();
            if timeout == Some(KEEP) && events.is_empty() {
                pool.clear();
            }
            if !rings.segments().is_idle() && now - last_discard >= KEEP {
                rings.segments().discard(KEEP);
                last_discard = now;
            }
            if timeout == Some(TICK) && events.is_empty() {
                watch.tick(rings);
                last_look = now;
            }
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
                for host in rings.broken() {
                    let doorbell = peers.values().find(|peer| peer.host == host && peer.decoder.is_none());
                    let _ = doorbell.map(|peer| peer.stream.shutdown(Shutdown::Both));
                }
                for New { host, stream, by } in new.drain(..) {
                    let mut stream = mio::net::TcpStream::from_std(stream);
                    let token = Token(next);
                    next += 1;
                    if let Err(error) = poll.registry().register(&mut stream, token, Interest::READABLE) {
                        sink.closed(host, error.to_string());
                        continue;
                    }
                    let (decoder, session) = match by {
                        By::Connection(session) => (Some(Decoder::new(pool.clone())), session),
                        By::Ring => (None, None),
                    };
                    if decoder.is_none() {
                        // Whoever has rung and ended in the same moment has left the bell rung, which keeps all others from
                        // it: who comes anew is looked after once without.
                        watch.rung(rings);
                        last_look = now;
                    }
                    let unsealer = session.map(|session| Unsealer::new(session.opener));
                    peers.insert(token, Peer { host, stream, decoder, unsealer });
                    hot.push((token, now));
                }
            }
        }
        let mut idle = true;
        hot.retain_mut(|(token, last)| {
            let Some(peer) = peers.get_mut(token) else { return false };
            let read = match &mut peer.decoder {
                Some(decoder) => {
                    read_frames(&mut peer.stream, peer.unsealer.as_mut(), decoder, peer.host, sink)
                }
                None => read_rings(&mut peer.stream),
            };
            match read {
                Ok(true) if peer.decoder.is_none() => {
                    watch.rung(rings);
                    last_look = Instant::now();
                    false
                }
                Ok(true) => {
                    idle = false;
                    *last = Instant::now();
                    true
                }
                Ok(false) => peer.decoder.is_some() && last.elapsed() < AWAKE,
                Err(mut why) => {
                    let host = peer.host;
                    if peer.decoder.is_none() {
                        why = rings.detach(host).unwrap_or(why);
                        // It may have rung just before, and then the others have not.
                        watch.rung(rings);
                        last_look = Instant::now();
                    }
                    peers.remove(token);
                    sink.closed(host, why);
                    false
                }
            }
        });
        if watch.look(rings) {
            idle = false;
            last_look = Instant::now();
        } else if watch.is_looking() && last_look.elapsed() >= AWAKE {
            watch.rest(rings);
            last_look = Instant::now();
        }
        if idle && (!hot.is_empty() || watch.is_looking()) {
            thread::yield_now();
        }
    }
}

/// Reads frames that are there, a turn at most. `Ok(false)`: nothing was. `Err`: the connection is over, and why.
fn read_frames(
    stream: &mut mio::net::TcpStream,
    mut unsealer: Option<&mut Unsealer>,
    decoder: &mut Decoder,
    host: HostId,
    sink: &dyn Sink,
) -> Result<bool, String> {
    for turn in 0..TURN {
        let Some(unsealer) = &mut unsealer else {
            match read(stream, decoder.space())? {
                None => return Ok(turn > 0),
                Some(n) => decoder.advance(n),
            }
            hand_out(decoder, host, sink)?;
            continue;
        };
        match read(stream, unsealer.space())? {
            None => return Ok(turn > 0),
            Some(n) => unsealer.advance(n),
        }
        loop {
            match unsealer.open(decoder.space()).map_err(|error| error.to_string())? {
                0 => break,
                n => decoder.advance(n),
            }
            hand_out(decoder, host, sink)?;
        }
    }
    Ok(true)
}

fn hand_out(decoder: &mut Decoder, host: HostId, sink: &dyn Sink) -> Result<(), String> {
    while let Some(frame) = decoder.next().map_err(|error| error.to_string())? {
        sink.frame(host, frame);
    }
    Ok(())
}

/// Reads all that was rung. `Ok(false)`: nothing was. `Err`: the connection is over, and why.
fn read_rings(stream: &mut mio::net::TcpStream) -> Result<bool, String> {
    let mut some = false;
    while read(stream, &mut [0; 64])?.is_some() {
        some = true;
    }
    Ok(some)
}

fn read(stream: &mut mio::net::TcpStream, space: &mut [u8]) -> Result<Option<usize>, String> {
    loop {
        match stream.read(space) {
            Ok(0) => return Err("the peer closed the connection".into()),
            Ok(n) => return Ok(Some(n)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}
