//! Control connections: authenticated, carrying enums both ways.
//!
//! A message is its length (u32, little-endian) and its postcard encoding. Memory is allocated as the bytes arrive, not as
//! the length claims. Between machines all messages are sealed.

mod gate;

use std::convert::TryFrom;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use gate::Gate;

use crate::key::ClusterKey;
use crate::noise::{
    self, CONFIRM_LEN, Dialed, Dialer, FIRST_LEN, HandshakeError, REPLY_LEN, Sealing, Session, Unsealer,
};
use crate::protocol::{Hello, Welcome};
use crate::rt::{self, ReadExt as _, WriteExt as _};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const PIECE: usize = 64 << 10;
/// How many connections of a process may be in their handshake at once, if it may open four times as many files.
const HANDSHAKES: u64 = 256;
/// How often, at most, a failure to accept connections is logged.
const QUIET: Duration = Duration::from_secs(60);

/// The connections in their handshake: one gate for all listeners, which share the process's limit on open files.
static GATE: LazyLock<Mutex<Gate<rt::TcpStream>>> = LazyLock::new(|| {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = files.map_or(HANDSHAKES, |files| (files / 4).clamp(1, HANDSHAKES));
    Mutex::new(Gate::new(limit as usize))
});
/// Bytes that another machine has not acknowledged for this long are given up; the system would try for a quarter of an hour.
/// A little longer than it takes to declare a silent peer dead.
const UNREACHABLE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the peer sent an invalid message: {0}")]
    Nonsense(#[from] postcard::Error),
}

/// An authenticated connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: rt::TcpStream,
    /// The keys for what follows; `None` if that is not sealed.
    session: Option<Session>,
}

impl Connection {
    /// Returns the address of the other side.
    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// Returns the address of this side, at which the other side can reach it.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }
}

/// Binds the same port on all of these addresses: the given one, or any free one if it is 0.
pub(crate) fn bind(addresses: &[IpAddr], port: u16) -> io::Result<Vec<std::net::TcpListener>> {
    const ATTEMPTS: u32 = 20;
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut listeners: Vec<std::net::TcpListener> = Vec::new();
        let mut same = port;
        let bound = addresses.iter().try_for_each(|address| -> io::Result<()> {
            let listener = std::net::TcpListener::bind((*address, same))?;
            same = listener.local_addr()?.port();
            listeners.push(listener);
            Ok(())
        });
        match bound {
            Ok(()) => return Ok(listeners),
            // The port was free on one address, but is taken on the next.
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && port == 0
                    && !listeners.is_empty()
                    && attempt < ATTEMPTS => {}
            Err(error) => return Err(error),
        }
    }
}

/// Makes a connection to another machine fail soon after that machine has vanished.
pub(crate) fn give_up_early(stream: &impl AsFd) -> io::Result<()> {
    let socket = socket2::SockRef::from(stream);
    let (second, probes) = (Duration::from_secs(1), 3);
    let keepalive =
        socket2::TcpKeepalive::new().with_time(UNREACHABLE / 2).with_interval(second).with_retries(probes);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(UNREACHABLE))
}

/// Whether a connection must be sealed; if so, it is also made to notice when the other machine vanishes.
fn prepare(stream: &rt::TcpStream) -> io::Result<bool> {
    stream.set_nodelay(true)?;
    let sealed = noise::must_be_sealed(stream.peer_addr()?.ip());
    if sealed {
        give_up_early(stream)?;
    }
    Ok(sealed)
}

/// Connects to a listener and says for what purpose.
pub(crate) async fn dial(
    address: SocketAddr,
    key: &ClusterKey,
    hello: &Hello,
) -> Result<(Welcome, Connection), ControlError> {
    let hello = postcard::to_stdvec(hello)?;
    let handshake = async {
        let mut stream = rt::TcpStream::connect(address).await?;
        let sealed = prepare(&stream)?;
        let (dialer, first) = Dialer::new(key, &hello, sealed)?;
        stream.write_all(&first).await?;
        let mut reply = [0; REPLY_LEN];
        stream.read_exact(&mut reply).await?;
        let Dialed { payload, confirm, session } = dialer.finish(&reply)?;
        stream.write_all(&confirm).await?;
        Ok((postcard::from_bytes(&payload)?, Connection { stream, session }))
    };
    rt::timeout(HANDSHAKE_TIMEOUT, handshake).await.unwrap_or(Err(ControlError::Timeout(HANDSHAKE_TIMEOUT)))
}

/// The listener's side of the handshake. When this returns, the dialler's purpose is known and may be acted on.
async fn accept(
    mut stream: rt::TcpStream,
    key: &ClusterKey,
    welcome: &[u8],
    recognized: impl FnOnce(),
) -> Result<(Hello, Connection), ControlError> {
    let sealed = prepare(&stream)?;
    let mut first = [0; FIRST_LEN];
    stream.read_exact(&mut first).await?;
    let (payload, listener) = match noise::Listener::accept(key, &first) {
        Ok(accepted) => accepted,
        Err(refusal) => {
            if let Some(answer) = refusal.answer {
                let _ = stream.write_all(&answer[..]).await;
            }
            return Err(refusal.error.into());
        }
    };
    recognized();
    let (reply, unconfirmed) = listener.reply(welcome, sealed)?;
    stream.write_all(&reply).await?;
    let mut confirm = [0; CONFIRM_LEN];
    stream.read_exact(&mut confirm).await?;
    let session = unconfirmed.confirm(&confirm)?;
    Ok((postcard::from_bytes(&payload)?, Connection { stream, session }))
}

/// Accepts connections for as long as the listener lives, and runs `serve` for each authenticated one in a task of its own.
pub(crate) async fn listen<F: Future<Output = ()> + Send + 'static>(
    listener: rt::TcpListener,
    key: ClusterKey,
    welcome: Welcome,
    serve: impl Fn(Hello, Connection) -> F + Send + Sync + 'static,
) {
    let Ok(welcome) = postcard::to_stdvec(&welcome) else { return };
    let shared = Arc::new((key, welcome, serve));
    let mut warned = None;
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Strangers must not hold all files; the remaining connections continue, and some may close.
                if is_shortage(&error)
                    && let Some(evicted) = lock(&GATE).evict(Instant::now())
                {
                    let _ = evicted.shutdown(std::net::Shutdown::Both);
                }
                if warned.is_none_or(|at: Instant| at.elapsed() > QUIET) {
                    warned = Some(Instant::now());
                    tracing::warn!(%error, "cannot accept a connection");
                }
                rt::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (number, evicted) = lock(&GATE).enter(stream.clone(), Instant::now());
        if let Some(evicted) = evicted {
            // Its task finds the connection closed, and ends.
            let _ = evicted.shutdown(std::net::Shutdown::Both);
        }
        let shared = shared.clone();
        rt::spawn(async move {
            let (key, welcome, serve) = &*shared;
            let handshake = accept(stream, key, welcome, || lock(&GATE).recognize(number));
            let accepted = rt::timeout(HANDSHAKE_TIMEOUT, handshake).await;
            let admitted = lock(&GATE).leave(number);
            match accepted {
                Ok(Ok((hello, connection))) if admitted => serve(hello, connection).await,
                Ok(Ok(_)) => tracing::debug!("a connection had to go before its handshake was over"),
                Ok(Err(error)) => tracing::debug!(%error, "refused a connection"),
                Err(_) => tracing::debug!("a connection did not finish its handshake"),
            }
        });
    }
}

/// Whether the process or the machine has run out of files, or of memory for them.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

fn lock<T>(gate: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    gate.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Splits a connection. A task writes what is put into the sender, until all senders are gone; arriving messages come out of
/// the incoming half.
pub(crate) fn split<Out, In>(connection: Connection) -> (rt::Sender<Out>, Incoming<In>)
where
    Out: Serialize + Send + Sync + 'static,
    In: DeserializeOwned,
{
    let (sender, outgoing) = rt::unbounded::<Out>();
    let Connection { stream, session } = connection;
    let (mut sealing, unsealer) =
        session.map(|Session { sealer, opener }| (Sealing::new(sealer), Unsealer::new(opener))).unzip();
    let mut writer = stream.clone();
    rt::spawn(async move {
        let mut buffer = Vec::new();
        while let Ok(message) = outgoing.recv().await {
            buffer.clear();
            buffer.extend_from_slice(&[0; 4]);
            let Ok(mut encoded) = postcard::to_extend(&message, std::mem::take(&mut buffer)) else { break };
            let Ok(length) = u32::try_from(encoded.len() - 4) else {
                tracing::error!(
                    bytes = encoded.len(),
                    "a message of more than 4 GiB cannot be sent: the connection ends"
                );
                break;
            };
            encoded[..4].copy_from_slice(&length.to_le_bytes());
            if write_all(&mut writer, sealing.as_mut(), &encoded).await.is_err() {
                break;
            }
            buffer = encoded;
            buffer.shrink_to(PIECE);
        }
        let _ = writer.shutdown(std::net::Shutdown::Write);
    });
    (sender, Incoming { stream, unsealer, kind: PhantomData })
}

async fn write_all(
    stream: &mut rt::TcpStream,
    sealing: Option<&mut Sealing>,
    mut bytes: &[u8],
) -> io::Result<()> {
    let Some(sealing) = sealing else { return stream.write_all(bytes).await };
    while !bytes.is_empty() {
        let done = sealing.push(bytes).map_err(io::Error::other)?;
        bytes = &bytes[done..];
        stream.write_all(sealing.sealed()).await?;
        sealing.clear();
    }
    Ok(())
}

pub(crate) struct Incoming<In> {
    stream: rt::TcpStream,
    unsealer: Option<Unsealer>,
    kind: PhantomData<fn() -> In>,
}

impl<In: DeserializeOwned> Incoming<In> {
    /// Returns the next message; `None` when the peer has closed the connection.
    pub(crate) async fn next(&mut self) -> Result<Option<In>, ControlError> {
        let mut length = [0; 4];
        match self.read_exact(&mut length).await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let length = u32::from_le_bytes(length) as usize;
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let start = bytes.len();
            bytes.resize(length.min(start + (start + PIECE)), 0);
            self.read_exact(&mut bytes[start..]).await?;
        }
        Ok(Some(postcard::from_bytes(&bytes)?))
    }

    async fn read_exact(&mut self, mut out: &mut [u8]) -> io::Result<()> {
        let Some(unsealer) = &mut self.unsealer else { return self.stream.read_exact(out).await };
        while !out.is_empty() {
            match unsealer.open(out).map_err(io::Error::other)? {
                0 => match self.stream.read(unsealer.space()).await? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    n => unsealer.advance(n),
                },
                n => out = &mut out[n..],
            }
        }
        Ok(())
    }
}

impl<In> Drop for Incoming<In> {
    /// A receiver that stops listening closes the connection, so that the peer notices.
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Read);
    }
}

/// Returns the blocking stream inside, and its keys, for a connection that leaves the control plane.
pub(crate) fn into_std(connection: Connection) -> io::Result<(std::net::TcpStream, Option<Session>)> {
    Ok((std::net::TcpStream::try_from(connection.stream)?, connection.session))
}
