//! Control connections: authenticated, carrying enums both ways.
//!
//! A message is its length (u32, little-endian) and its postcard encoding. Memory is taken as the bytes arrive, not
//! as the length claims.

use std::convert::TryFrom;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::key::ClusterKey;
use crate::noise::{self, CONFIRM_LEN, Dialed, Dialer, FIRST_LEN, HandshakeError, REPLY_LEN};
use crate::protocol::{Hello, Welcome};
use crate::rt::{self, ReadExt as _, WriteExt as _};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const PIECE: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Handshake(#[from] HandshakeError),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the peer sent something that makes no sense: {0}")]
    Nonsense(#[from] postcard::Error),
}

/// Connects to a listener and says what for.
pub(crate) async fn dial(
    address: SocketAddr,
    key: &ClusterKey,
    hello: &Hello,
) -> Result<(Welcome, rt::TcpStream), ControlError> {
    let hello = postcard::to_stdvec(hello)?;
    let handshake = async {
        let mut stream = rt::TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (dialer, first) = Dialer::new(key, &hello)?;
        stream.write_all(&first).await?;
        let mut reply = [0; REPLY_LEN];
        stream.read_exact(&mut reply).await?;
        let Dialed { payload, confirm, .. } = dialer.finish(&reply)?;
        stream.write_all(&confirm).await?;
        Ok((postcard::from_bytes(&payload)?, stream))
    };
    rt::timeout(HANDSHAKE_TIMEOUT, handshake).await.unwrap_or(Err(ControlError::Timeout(HANDSHAKE_TIMEOUT)))
}

/// The listener's side of the handshake. What the dialler wants is known, and may be acted on, when this returns.
async fn accept(
    mut stream: rt::TcpStream,
    key: &ClusterKey,
    welcome: &[u8],
) -> Result<(Hello, rt::TcpStream), ControlError> {
    stream.set_nodelay(true)?;
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
    let (reply, unconfirmed) = listener.reply(welcome)?;
    stream.write_all(&reply).await?;
    let mut confirm = [0; CONFIRM_LEN];
    stream.read_exact(&mut confirm).await?;
    unconfirmed.confirm(&confirm)?;
    Ok((postcard::from_bytes(&payload)?, stream))
}

/// Accepts connections for as long as the listener lives, and hands each authenticated one to `serve` in a task of
/// its own.
pub(crate) async fn listen<F: Future<Output = ()> + Send + 'static>(
    listener: rt::TcpListener,
    key: ClusterKey,
    welcome: Welcome,
    serve: impl Fn(Hello, rt::TcpStream) -> F + Send + Sync + 'static,
) {
    let Ok(welcome) = postcard::to_stdvec(&welcome) else { return };
    let shared = Arc::new((key, welcome, serve));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: the others go on, and some may close.
                tracing::warn!(%error, "cannot accept a connection");
                rt::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let shared = shared.clone();
        rt::spawn(async move {
            let (key, welcome, serve) = &*shared;
            match rt::timeout(HANDSHAKE_TIMEOUT, accept(stream, key, welcome)).await {
                Ok(Ok((hello, stream))) => serve(hello, stream).await,
                Ok(Err(error)) => tracing::debug!(%error, "refused a connection"),
                Err(_) => tracing::debug!("a connection did not finish its handshake"),
            }
        });
    }
}

/// Splits a connection: what is put into the sender is written by a task, until all senders are gone; what arrives
/// comes out of the incoming half.
pub(crate) fn split<Out, In>(stream: rt::TcpStream) -> (rt::Sender<Out>, Incoming<In>)
where
    Out: Serialize + Send + Sync + 'static,
    In: DeserializeOwned,
{
    let (sender, outgoing) = rt::unbounded::<Out>();
    let mut writer = stream.clone();
    rt::spawn(async move {
        let mut buffer = Vec::new();
        while let Ok(message) = outgoing.recv().await {
            buffer.clear();
            buffer.extend_from_slice(&[0; 4]);
            let Ok(mut encoded) = postcard::to_extend(&message, std::mem::take(&mut buffer)) else { break };
            let Ok(length) = u32::try_from(encoded.len() - 4) else { break };
            encoded[..4].copy_from_slice(&length.to_le_bytes());
            if writer.write_all(&encoded).await.is_err() {
                break;
            }
            buffer = encoded;
            buffer.shrink_to(PIECE);
        }
        let _ = writer.shutdown(std::net::Shutdown::Write);
    });
    (sender, Incoming { stream, kind: PhantomData })
}

pub(crate) struct Incoming<In> {
    stream: rt::TcpStream,
    kind: PhantomData<fn() -> In>,
}

impl<In: DeserializeOwned> Incoming<In> {
    /// The next message; `None` when the peer has closed the connection.
    pub(crate) async fn next(&mut self) -> Result<Option<In>, ControlError> {
        let mut length = [0; 4];
        match self.stream.read_exact(&mut length).await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let length = u32::from_le_bytes(length) as usize;
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let start = bytes.len();
            bytes.resize(length.min(start + (start + PIECE)), 0);
            self.stream.read_exact(&mut bytes[start..]).await?;
        }
        Ok(Some(postcard::from_bytes(&bytes)?))
    }
}

impl<In> Drop for Incoming<In> {
    /// Whoever no longer listens ends the conversation, so that the peer notices.
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Read);
    }
}

/// The blocking stream inside, when a connection leaves the control plane.
pub(crate) fn into_std(stream: rt::TcpStream) -> io::Result<std::net::TcpStream> {
    std::net::TcpStream::try_from(stream)
}
