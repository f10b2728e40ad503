//! The secure handshake at the beginning of every connection: proof that both sides hold the cluster key, and
//! fresh keys to encrypt what follows.
//!
//! ```text
//! dialer                                  listener
//!   | FIRST_LEN bytes: its payload          |
//!   |-------------------------------------->|  before this is verified, nothing else is parsed
//!   |         REPLY_LEN bytes: its payload  |
//!   |<--------------------------------------|  or a refusal of the same length
//!   | CONFIRM_LEN bytes                     |
//!   |-------------------------------------->|  only now the dialer is known to be alive
//! ```
//!
//! The messages are those of `Noise_NNpsk0_25519_AESGCM_SHA256`, with a pre-shared key derived from the cluster key, behind a
//! plain header of eight bytes: magic, protocol version, kind. The lengths and the header are the same in every protocol
//! version, so that two versions can always detect that they differ. A payload says what the connection is for; it is
//! encrypted and padded to a fixed size.
//!
//! With its payload each side says whether it wants the rest of the connection to be sealed ([`must_be_sealed`]); it is
//! sealed if either does. The two may disagree when something forwards the connection, and nobody in between can change what
//! they say.
//!
//! Anybody who has recorded a first message can replay it, and a listener cannot tell. Hence the third message, which only a
//! party that can read the reply can make. [`Listener::accept`] hands out the dialer's payload early, since the reply may
//! depend on it, but a listener acts on it only after [`Unconfirmed::confirm`].
//!
//! The types here do no input or output; [`dial`] runs them on a blocking stream.

mod session;
mod stream;

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use snow::HandshakeState;

use crate::key::ClusterKey;
use crate::noise::session::TAG_LEN;

pub(crate) use session::Session;
#[cfg(test)]
pub(crate) use session::tests::pair as session_pair;
pub(crate) use stream::{Sealing, Unsealer};

/// The version of the protocol that this build speaks, on connections and in discovery.
pub const PROTOCOL: u16 = 6;
/// The length of the dialer's first message.
pub(crate) const FIRST_LEN: usize = HEADER_LEN + EPHEMERAL_LEN + BLOCK_LEN + TAG_LEN;
/// The length of the listener's reply, whether an answer or a refusal.
pub(crate) const REPLY_LEN: usize = FIRST_LEN;
/// The length of the dialer's confirmation.
pub(crate) const CONFIRM_LEN: usize = TAG_LEN;
/// The longest payload of a first message or a reply.
pub(crate) const MAX_PAYLOAD: usize = BLOCK_LEN - BLOCK_HEADER_LEN;

const MAGIC: [u8; 4] = *b"RIVR";
const HEADER_LEN: usize = 8;
const EPHEMERAL_LEN: usize = 32;
/// The length of a block: a payload with its length and a flag in front, and zeros behind.
const BLOCK_LEN: usize = 256;
/// The length of the payload (u16), and whether this side wants the connection sealed (0 or 1).
const BLOCK_HEADER_LEN: usize = 3;
const PATTERN: &str = "Noise_NNpsk0_25519_AESGCM_SHA256";

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum HandshakeError {
    /// The first bytes are those of another protocol.
    #[error("the other side does not speak River's protocol: check host and port")]
    NotRiver,
    /// The two sides speak different versions.
    #[error(
        "the other side speaks protocol {theirs}, this side speaks protocol {ours}: install the same version of \
         River on both"
    )]
    Version {
        /// The protocol of the other side.
        theirs: u16,
        /// The protocol of this side.
        ours: u16,
    },
    /// The two sides hold different cluster keys (or the bytes were changed on their way, which looks the same).
    #[error(
        "the cluster keys of the two sides differ: copy the key file ({}) from one machine to the other",
        where_is(.key_file.as_deref())
    )]
    Key {
        /// The file of this side's key, if it is in a file.
        key_file: Option<PathBuf>,
    },
    /// The third message was wrong, so the first was a recording.
    #[error(
        "the other side could not confirm its first message, which may be a replay of another connection's"
    )]
    Replay,
    /// The payload is longer than [`MAX_PAYLOAD`].
    #[error("a handshake payload of {0} bytes is too long: at most {MAX_PAYLOAD} bytes fit")]
    TooLong(usize),
    /// The other side closed the connection.
    #[error("the other side closed the connection during the handshake: its log says why")]
    Closed,
    /// The time-out of the connection passed.
    #[error(
        "the other side did not continue the handshake in time: check that it is River and not overloaded"
    )]
    Timeout,
    /// The connection failed.
    #[error("the connection failed during the handshake")]
    Io(#[source] io::Error),
    /// The cryptographic library refused to work, for example because the system has no random numbers.
    #[error("cryptography failed during the handshake: {0}")]
    Crypto(String),
}

fn where_is(file: Option<&Path>) -> String {
    file.map_or_else(|| "RIVER_KEY_FILE".to_owned(), |path| path.display().to_string())
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                Self::Closed
            }
            // Depending on the system, a socket's time-out is reported as either of these.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Io(error),
        }
    }
}

impl HandshakeError {
    fn key(key_file: Option<&Path>) -> Self {
        Self::Key { key_file: key_file.map(Path::to_owned) }
    }

    fn crypto(error: &snow::Error) -> Self {
        Self::Crypto(error.to_string())
    }
}

/// Why a listener turned a dialer away, and what to tell the dialer before closing the connection.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub(crate) struct Refusal {
    /// What was wrong with the first message.
    pub error: HandshakeError,
    /// The answer to send back; `None` to a peer that does not speak the protocol at all.
    pub answer: Option<Box<[u8; REPLY_LEN]>>,
}

impl From<Refusal> for HandshakeError {
    fn from(refusal: Refusal) -> Self {
        refusal.error
    }
}

/// The kind of message that follows the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    First = 0,
    Reply = 1,
    /// The listener speaks the version that this header names.
    RefusedVersion = 2,
    /// The listener could not read the first message.
    RefusedKey = 3,
}

fn header(version: u16, kind: Kind) -> [u8; HEADER_LEN] {
    let [m0, m1, m2, m3] = MAGIC;
    let [v0, v1] = version.to_le_bytes();
    [m0, m1, m2, m3, v0, v1, kind as u8, 0]
}

/// Returns the version in a header that begins with our magic.
fn version_of(message: &[u8; FIRST_LEN]) -> Result<u16, HandshakeError> {
    if message[..4] != MAGIC {
        return Err(HandshakeError::NotRiver);
    }
    Ok(u16::from_le_bytes([message[4], message[5]]))
}

/// Whether a connection with this peer must be encrypted after its handshake: yes, unless it stays inside the machine, where
/// anybody able to listen can also read the memory of the two processes. `RIVER_LINKS=sealed` encrypts there, too.
pub(crate) fn must_be_sealed(peer: IpAddr) -> bool {
    static ALWAYS: OnceLock<bool> = OnceLock::new();
    let always = || std::env::var_os("RIVER_LINKS").is_some_and(|links| links == "sealed");
    !peer.to_canonical().is_loopback() || *ALWAYS.get_or_init(always)
}

fn block(payload: &[u8], sealed: bool) -> Result<[u8; BLOCK_LEN], HandshakeError> {
    let too_long = || HandshakeError::TooLong(payload.len());
    let mut block = [0; BLOCK_LEN];
    let length = u16::try_from(payload.len()).map_err(|_| too_long())?;
    block[..2].copy_from_slice(&length.to_le_bytes());
    block[2] = u8::from(sealed);
    let place = BLOCK_HEADER_LEN..BLOCK_HEADER_LEN + payload.len();
    block.get_mut(place).ok_or_else(too_long)?.copy_from_slice(payload);
    Ok(block)
}

/// Returns the payload in a block, and whether the other side wants the connection sealed. A peer that seals a block with a
/// wrong length knows the key, but not the protocol.
fn unblock(block: &[u8; BLOCK_LEN]) -> Result<(Vec<u8>, bool), HandshakeError> {
    let length = usize::from(u16::from_le_bytes([block[0], block[1]]));
    let payload = block.get(BLOCK_HEADER_LEN..BLOCK_HEADER_LEN + length).ok_or(HandshakeError::NotRiver)?;
    Ok((payload.to_vec(), block[2] != 0))
}

/// The noise state machine of one side. The first header is its prologue, so it is authenticated as well.
fn noise(key: &ClusterKey, version: u16, dialer: bool) -> Result<HandshakeState, HandshakeError> {
    let build = || {
        let psk = key.derive("river noise psk v1");
        let prologue = header(version, Kind::First);
        let builder = snow::Builder::new(PATTERN.parse()?).prologue(&prologue)?.psk(0, &psk)?;
        if dialer { builder.build_initiator() } else { builder.build_responder() }
    };
    build().map_err(|error| HandshakeError::crypto(&error))
}

/// Writes the header, the payload and everything that noise adds to them.
fn write(
    state: &mut HandshakeState,
    header: [u8; HEADER_LEN],
    payload: &[u8],
    sealed: bool,
) -> Result<[u8; FIRST_LEN], HandshakeError> {
    let block = block(payload, sealed)?;
    let mut message = [0; FIRST_LEN];
    message[..HEADER_LEN].copy_from_slice(&header);
    state
        .write_message(&block, &mut message[HEADER_LEN..])
        .map_err(|error| HandshakeError::crypto(&error))?;
    Ok(message)
}

fn read(state: &mut HandshakeState, message: &[u8; FIRST_LEN]) -> Option<[u8; BLOCK_LEN]> {
    let mut block = [0; BLOCK_LEN];
    let length = state.read_message(&message[HEADER_LEN..], &mut block).ok()?;
    (length == BLOCK_LEN).then_some(block)
}

/// The side that opened the connection, between its first message and the reply.
#[must_use = "the handshake goes on with `finish`"]
pub(crate) struct Dialer {
    state: HandshakeState,
    version: u16,
    sealed: bool,
    key_file: Option<PathBuf>,
}

impl Dialer {
    /// Begins a handshake, and returns the bytes to send. `sealed` says that this side wants the rest encrypted.
    ///
    /// # Errors
    ///
    /// When the payload is longer than [`MAX_PAYLOAD`].
    pub(crate) fn new(
        key: &ClusterKey,
        payload: &[u8],
        sealed: bool,
    ) -> Result<(Self, [u8; FIRST_LEN]), HandshakeError> {
        Self::with_version(PROTOCOL, key, payload, sealed)
    }

    fn with_version(
        version: u16,
        key: &ClusterKey,
        payload: &[u8],
        sealed: bool,
    ) -> Result<(Self, [u8; FIRST_LEN]), HandshakeError> {
        let mut state = noise(key, version, true)?;
        let first = write(&mut state, header(version, Kind::First), payload, sealed)?;
        Ok((Self { state, version, sealed, key_file: key.origin().map(Path::to_owned) }, first))
    }

    /// Reads the listener's reply. The confirmation must be sent before anything else.
    ///
    /// # Errors
    ///
    /// When the listener refused, speaks another version, or does not have the same cluster key.
    pub(crate) fn finish(mut self, reply: &[u8; REPLY_LEN]) -> Result<Dialed, HandshakeError> {
        let theirs = version_of(reply)?;
        if theirs != self.version {
            return Err(HandshakeError::Version { theirs, ours: self.version });
        }
        let key_error = HandshakeError::key(self.key_file.as_deref());
        let said = &reply[..HEADER_LEN];
        if said == header(self.version, Kind::RefusedKey) {
            return Err(key_error);
        }
        if said != header(self.version, Kind::Reply) {
            return Err(HandshakeError::NotRiver);
        }
        let block = read(&mut self.state, reply).ok_or(key_error)?;
        let (payload, sealed) = unblock(&block)?;
        let mut session = Session::new(self.state).map_err(|error| HandshakeError::crypto(&error))?;
        let mut confirm = [0; CONFIRM_LEN];
        session.sealer.seal(&[], &mut confirm).map_err(|error| HandshakeError::Crypto(error.to_string()))?;
        let session = (sealed || self.sealed).then_some(session);
        Ok(Dialed { payload, confirm, session })
    }
}

/// The dialer's result of a complete handshake.
#[derive(Debug)]
pub(crate) struct Dialed {
    /// The listener's payload.
    pub payload: Vec<u8>,
    /// The third message, to be sent before anything else.
    pub confirm: [u8; CONFIRM_LEN],
    /// The keys for the rest of the connection; `None` if it is not encrypted.
    pub session: Option<Session>,
}

/// The side that accepted the connection, between the first message and its reply.
#[must_use = "the handshake goes on with `reply`"]
pub(crate) struct Listener {
    state: HandshakeState,
    version: u16,
    /// Whether the dialer wants the rest encrypted.
    sealed: bool,
}

impl Listener {
    /// Reads a first message. The dialer's payload that comes with it may be a recording: answer it, but do
    /// nothing else before [`Unconfirmed::confirm`].
    ///
    /// # Errors
    ///
    /// A [`Refusal`], which may hold an answer to be sent before the connection is closed.
    pub(crate) fn accept(key: &ClusterKey, first: &[u8; FIRST_LEN]) -> Result<(Vec<u8>, Self), Refusal> {
        Self::accept_with_version(PROTOCOL, key, first)
    }

    fn accept_with_version(
        version: u16,
        key: &ClusterKey,
        first: &[u8; FIRST_LEN],
    ) -> Result<(Vec<u8>, Self), Refusal> {
        let silent = |error| Refusal { error, answer: None };
        let refuse = |error, kind| {
            let mut answer = Box::new([0; REPLY_LEN]);
            answer[..HEADER_LEN].copy_from_slice(&header(version, kind));
            Refusal { error, answer: Some(answer) }
        };
        let theirs = version_of(first).map_err(silent)?;
        if theirs != version {
            let error = HandshakeError::Version { theirs, ours: version };
            return Err(refuse(error, Kind::RefusedVersion));
        }
        if first[..HEADER_LEN] != header(version, Kind::First) {
            return Err(silent(HandshakeError::NotRiver));
        }
        let mut state = noise(key, version, false).map_err(silent)?;
        // Telling a stranger that its key is wrong tells it nothing: silence would say the same.
        let Some(block) = read(&mut state, first) else {
            return Err(refuse(HandshakeError::key(key.origin()), Kind::RefusedKey));
        };
        let (payload, sealed) = unblock(&block).map_err(silent)?;
        Ok((payload, Self { state, version, sealed }))
    }

    /// Makes the reply, which must be sent. `sealed` says that this side wants the rest encrypted.
    ///
    /// # Errors
    ///
    /// When the payload is longer than [`MAX_PAYLOAD`].
    pub(crate) fn reply(
        mut self,
        payload: &[u8],
        sealed: bool,
    ) -> Result<([u8; REPLY_LEN], Unconfirmed), HandshakeError> {
        let reply = write(&mut self.state, header(self.version, Kind::Reply), payload, sealed)?;
        let session = Session::new(self.state).map_err(|error| HandshakeError::crypto(&error))?;
        Ok((reply, Unconfirmed { session, sealed: sealed || self.sealed }))
    }
}

/// The listener, while it waits for the proof that the dialer is alive.
#[must_use = "the handshake ends with `confirm`"]
#[derive(Debug)]
pub(crate) struct Unconfirmed {
    session: Session,
    sealed: bool,
}

impl Unconfirmed {
    /// Reads the dialer's confirmation, after which the connection is authenticated. Returns the keys for the rest of it;
    /// `None` if that is not encrypted.
    ///
    /// # Errors
    ///
    /// When it was not made for this connection.
    pub(crate) fn confirm(mut self, confirm: &[u8; CONFIRM_LEN]) -> Result<Option<Session>, HandshakeError> {
        self.session.opener.open(confirm, &mut []).map_err(|_| HandshakeError::Replay)?;
        Ok(self.sealed.then_some(self.session))
    }
}

/// Performs the dialer's handshake on a blocking stream, up to its last message: sends `payload`, returns the listener's
/// payload, and the confirmation, to be sent if the dialer accepts it. Until that arrives, the listener does nothing.
///
/// Blocks as long as the stream does, so give it time-outs.
///
/// # Errors
///
/// See [`HandshakeError`].
pub(crate) fn dial<S: Read + Write>(
    mut stream: S,
    key: &ClusterKey,
    payload: &[u8],
    sealed: bool,
) -> Result<Dialed, HandshakeError> {
    let (dialer, first) = Dialer::new(key, payload, sealed)?;
    stream.write_all(&first)?;
    stream.flush()?;
    let mut reply = [0; REPLY_LEN];
    stream.read_exact(&mut reply)?;
    dialer.finish(&reply)
}

#[cfg(test)]
mod tests;
