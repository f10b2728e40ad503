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
//! The messages are those of `Noise_NNpsk0_25519_AESGCM_SHA256`, with a pre-shared key derived from the cluster
//! key, behind a plain header of eight bytes: magic, protocol version, kind. The lengths and the header are the
//! same in every protocol version, so that two versions can always tell each other that they differ. A payload
//! says what the connection is for; it travels encrypted and padded to a fixed size.
//!
//! With its payload each side says whether it wants what follows to be sealed ([`must_be_sealed`]); one that does is
//! enough. The two may see it differently when something forwards the connection, and nobody in between can change
//! what they say.
//!
//! Whoever recorded a first message can send it again, and a listener cannot tell. Hence the third message: it
//! can only be made by who can read the reply. [`Listener::accept`] hands out the dialer's payload early, since
//! the reply may depend on it, but a listener acts on it only after [`Unconfirmed::confirm`].
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
pub(crate) const PROTOCOL: u16 = 1;
/// How many bytes the dialer's first message has.
pub(crate) const FIRST_LEN: usize = HEADER_LEN + EPHEMERAL_LEN + BLOCK_LEN + TAG_LEN;
/// How many bytes the listener's reply has, be it an answer or a refusal.
pub(crate) const REPLY_LEN: usize = FIRST_LEN;
/// How many bytes the dialer's confirmation has.
pub(crate) const CONFIRM_LEN: usize = TAG_LEN;
/// The longest payload of a first message or a reply.
pub(crate) const MAX_PAYLOAD: usize = BLOCK_LEN - BLOCK_HEADER_LEN;

const MAGIC: [u8; 4] = *b"RIVR";
const HEADER_LEN: usize = 8;
const EPHEMERAL_LEN: usize = 32;
/// A payload with its length and a wish in front and zeros behind.
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
    /// The two sides are of different versions.
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
    /// The two sides hold different cluster keys (or somebody changed the bytes on their way, which looks alike).
    #[error(
        "the cluster keys of the two sides differ: copy the key file ({}) from one machine to the other",
        where_is(.key_file.as_deref())
    )]
    Key {
        /// The file of this side's key, if it is in a file.
        key_file: Option<PathBuf>,
    },
    /// The third message was wrong: the first was a recording.
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
        "the other side did not go on with the handshake in time: check that it is River and not overloaded"
    )]
    Timeout,
    /// The connection failed.
    #[error("the connection failed during the handshake")]
    Io(#[source] io::Error),
    /// The cryptographic library refused to work, for example because the system has no random numbers.
    #[error("cannot do the handshake's cryptography: {0}")]
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
            // A socket's time-out is reported as the one or the other, depending on the system.
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
    /// What to send back. Who does not speak the protocol at all gets no answer.
    pub answer: Option<Box<[u8; REPLY_LEN]>>,
}

impl From<Refusal> for HandshakeError {
    fn from(refusal: Refusal) -> Self {
        refusal.error
    }
}

/// What kind of message follows the header.
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

/// The version in a header that begins with our magic.
fn version_of(message: &[u8; FIRST_LEN]) -> Result<u16, HandshakeError> {
    if message[..4] != MAGIC {
        return Err(HandshakeError::NotRiver);
    }
    Ok(u16::from_le_bytes([message[4], message[5]]))
}

/// Whether a connection with that peer is to be encrypted after its handshake: unless it stays inside the machine, where
/// who else wants to listen can also read the memory of the two processes. `RIVER_LINKS=sealed` encrypts there, too.
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

/// The payload in a block, and whether the other side wants the connection sealed. Who sealed a block with a wrong
/// length knows the key, but not the protocol.
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

/// Writes header, payload and all that noise adds to them.
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
    /// Begins a handshake; the bytes are to be sent. `sealed`: this side wants the rest encrypted.
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

    /// Reads the listener's reply. The confirmation is to be sent before anything else.
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

/// What the dialer has when the handshake is complete.
#[derive(Debug)]
pub(crate) struct Dialed {
    /// What the listener said.
    pub payload: Vec<u8>,
    /// The third message, to be sent before anything else.
    pub confirm: [u8; CONFIRM_LEN],
    /// The keys for the rest of the connection; none if it goes on in plain.
    pub session: Option<Session>,
}

/// The side that accepted the connection, between the first message and its reply.
#[must_use = "the handshake goes on with `reply`"]
pub(crate) struct Listener {
    state: HandshakeState,
    version: u16,
    /// The dialer wants the rest encrypted.
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

    /// Makes the reply, which is to be sent. `sealed`: this side wants the rest encrypted.
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
    /// Reads the dialer's confirmation, after which the connection is authenticated. Returns the keys for the rest of
    /// it; none if it goes on in plain.
    ///
    /// # Errors
    ///
    /// When it was not made for this connection.
    pub(crate) fn confirm(mut self, confirm: &[u8; CONFIRM_LEN]) -> Result<Option<Session>, HandshakeError> {
        self.session.opener.open(confirm, &mut []).map_err(|_| HandshakeError::Replay)?;
        Ok(self.sealed.then_some(self.session))
    }
}

/// The dialer's handshake on a blocking stream: sends `payload`, returns what the listener said, and the keys unless
/// the rest goes on in plain.
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
) -> Result<(Vec<u8>, Option<Session>), HandshakeError> {
    let (dialer, first) = Dialer::new(key, payload, sealed)?;
    stream.write_all(&first)?;
    stream.flush()?;
    let mut reply = [0; REPLY_LEN];
    stream.read_exact(&mut reply)?;
    let Dialed { payload, confirm, session } = dialer.finish(&reply)?;
    stream.write_all(&confirm)?;
    stream.flush()?;
    Ok((payload, session))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// The listener's handshake on a blocking stream.
    fn accept<S: Read + Write>(
        mut stream: S,
        key: &ClusterKey,
        answer: impl FnOnce(&[u8]) -> Vec<u8>,
    ) -> Result<(Vec<u8>, Session), HandshakeError> {
        let mut first = [0; FIRST_LEN];
        stream.read_exact(&mut first)?;
        let (payload, listener) = match Listener::accept(key, &first) {
            Ok(accepted) => accepted,
            Err(refusal) => {
                if let Some(answer) = refusal.answer {
                    // A courtesy: the refusal is our result, whether or not the dialer hears of it.
                    let _ = stream.write_all(&answer[..]).and_then(|()| stream.flush());
                }
                return Err(refusal.error);
            }
        };
        let (reply, unconfirmed) = listener.reply(&answer(&payload), true)?;
        stream.write_all(&reply)?;
        stream.flush()?;
        let mut confirm = [0; CONFIRM_LEN];
        stream.read_exact(&mut confirm)?;
        Ok((payload, unconfirmed.confirm(&confirm)?.unwrap()))
    }

    fn key() -> ClusterKey {
        ClusterKey::from_bytes([7; 32])
    }

    /// A whole handshake with payloads "hi" and "ho"; `tamper` may change each of the three messages.
    fn shake(tamper: impl Fn(usize, &mut [u8])) -> Result<(Session, Session), HandshakeError> {
        let (dialer, mut first) = Dialer::new(&key(), b"hi", true)?;
        tamper(0, &mut first);
        let (hi, listener) = Listener::accept(&key(), &first)?;
        assert_eq!(hi, b"hi");
        let (mut reply, unconfirmed) = listener.reply(b"ho", true)?;
        tamper(1, &mut reply);
        let mut dialed = dialer.finish(&reply)?;
        assert_eq!(dialed.payload, b"ho");
        tamper(2, &mut dialed.confirm);
        Ok((dialed.session.unwrap(), unconfirmed.confirm(&dialed.confirm)?.unwrap()))
    }

    fn pass(from: &mut Session, to: &mut Session, piece: &[u8]) {
        let mut sealed = vec![0; piece.len() + TAG_LEN];
        let mut opened = vec![0; piece.len()];
        assert_eq!(from.sealer.seal(piece, &mut sealed), Ok(sealed.len()));
        assert_eq!(to.opener.open(&sealed, &mut opened), Ok(piece.len()));
        assert_eq!(opened, piece);
    }

    #[test]
    fn two_sides_with_the_same_key_can_talk() {
        let (mut dialer, mut listener) = shake(|_, _| ()).unwrap();
        for length in [0, 1, 1000] {
            pass(&mut dialer, &mut listener, &vec![1; length]);
            pass(&mut listener, &mut dialer, &vec![2; length]);
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_refused() {
        let (_, first) = Dialer::new(&key(), b"hi", true).unwrap();
        for bit in 0..FIRST_LEN * 8 {
            let mut first = first;
            first[bit / 8] ^= 1 << (bit % 8);
            assert!(Listener::accept(&key(), &first).is_err(), "bit {bit} of the first message");
        }
        // Each of these takes a handshake, which is slow without optimisation: one bit of each byte.
        for (message, length) in [(1, REPLY_LEN), (2, CONFIRM_LEN)] {
            for byte in 0..length {
                let flip = |at: usize, bytes: &mut [u8]| {
                    if at == message {
                        bytes[byte] ^= 1 << (byte % 8);
                    }
                };
                assert!(shake(flip).is_err(), "byte {byte} of message {message}");
            }
        }
    }

    #[test]
    fn one_side_that_wants_it_sealed_is_enough() {
        for (ours, theirs) in [(false, false), (false, true), (true, false), (true, true)] {
            let (dialer, first) = Dialer::new(&key(), b"hi", ours).unwrap();
            let (_, listener) = Listener::accept(&key(), &first).unwrap();
            let (reply, unconfirmed) = listener.reply(b"ho", theirs).unwrap();
            let dialed = dialer.finish(&reply).unwrap();
            let listening = unconfirmed.confirm(&dialed.confirm).unwrap();
            assert_eq!((dialed.session.is_some(), listening.is_some()), (ours || theirs, ours || theirs));
        }
    }

    #[test]
    fn only_what_stays_inside_the_machine_goes_on_in_plain() {
        for plain in ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"] {
            assert!(!must_be_sealed(plain.parse().unwrap()), "{plain}");
        }
        for sealed in ["10.0.0.1", "192.168.1.1", "128.0.0.1", "0.0.0.0", "fe80::1", "::ffff:10.0.0.1"] {
            assert!(must_be_sealed(sealed.parse().unwrap()), "{sealed}");
        }
    }

    #[test]
    fn a_wrong_key_is_told_to_both_sides() {
        let stranger = ClusterKey::from_bytes([8; 32]);
        let (dialer, first) = Dialer::new(&stranger, b"hi", true).unwrap();
        let refusal = Listener::accept(&key(), &first).map(drop).unwrap_err();
        assert!(matches!(refusal.error, HandshakeError::Key { .. }));
        let error = dialer.finish(&refusal.answer.unwrap()).unwrap_err();
        assert!(matches!(error, HandshakeError::Key { .. }));
        assert!(error.to_string().contains("cluster keys of the two sides differ"), "{error}");
    }

    #[test]
    fn the_error_about_the_key_names_its_file() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("key");
        let ours = ClusterKey::load_or_create_at(&path).unwrap();
        let (_, first) = Dialer::new(&key(), b"hi", true).unwrap();
        let refusal = Listener::accept(&ours, &first).map(drop).unwrap_err();
        assert!(refusal.to_string().contains(&path.display().to_string()), "{refusal}");
    }

    #[test]
    fn another_version_is_named_on_both_sides() {
        let (dialer, first) = Dialer::with_version(1, &key(), b"hi", true).unwrap();
        let refusal = Listener::accept_with_version(2, &key(), &first).map(drop).unwrap_err();
        assert!(matches!(refusal.error, HandshakeError::Version { theirs: 1, ours: 2 }));
        let error = dialer.finish(&refusal.answer.unwrap()).unwrap_err();
        assert!(matches!(error, HandshakeError::Version { theirs: 2, ours: 1 }));
        let text = error.to_string();
        assert!(text.contains("speaks protocol 2, this side speaks protocol 1"), "{text}");
    }

    #[test]
    fn a_replayed_first_message_ends_at_the_confirmation() {
        let (dialer, first) = Dialer::new(&key(), b"hi", true).unwrap();
        let (_, listener) = Listener::accept(&key(), &first).unwrap();
        let (reply, unconfirmed) = listener.reply(b"ho", true).unwrap();
        let recorded = dialer.finish(&reply).unwrap().confirm;
        unconfirmed.confirm(&recorded).unwrap();

        // The recording gets a reply, with which it cannot do anything.
        let (_, listener) = Listener::accept(&key(), &first).unwrap();
        let (_, unconfirmed) = listener.reply(b"ho", true).unwrap();
        assert!(matches!(unconfirmed.confirm(&recorded), Err(HandshakeError::Replay)));
    }

    #[test]
    fn a_replayed_reply_is_refused() {
        let (_, first) = Dialer::new(&key(), b"hi", true).unwrap();
        let (reply, _unconfirmed) = Listener::accept(&key(), &first).unwrap().1.reply(b"ho", true).unwrap();
        let (other, _) = Dialer::new(&key(), b"hi", true).unwrap();
        assert!(matches!(other.finish(&reply), Err(HandshakeError::Key { .. })));
    }

    #[test]
    fn a_message_does_not_pass_for_another() {
        let (dialer, first) = Dialer::new(&key(), b"hi", true).unwrap();
        assert!(dialer.finish(&first).is_err(), "the own first message as a reply");
        let (_, listener) = Listener::accept(&key(), &first).unwrap();
        let (reply, unconfirmed) = listener.reply(b"ho", true).unwrap();
        assert!(Listener::accept(&key(), &reply).is_err());
        assert!(unconfirmed.confirm(&[0; CONFIRM_LEN]).is_err());
    }

    #[test]
    fn who_does_not_speak_river_gets_no_answer() {
        let mut first = [0; FIRST_LEN];
        first[..16].copy_from_slice(b"GET / HTTP/1.1\r\n");
        let refusal = Listener::accept(&key(), &first).map(drop).unwrap_err();
        assert!(matches!(refusal.error, HandshakeError::NotRiver));
        assert!(refusal.answer.is_none());
    }

    #[test]
    fn payloads_up_to_the_limit_pass() {
        for length in [0, 1, MAX_PAYLOAD] {
            let (_, first) = Dialer::new(&key(), &vec![9; length], true).unwrap();
            assert_eq!(Listener::accept(&key(), &first).unwrap().0, vec![9; length]);
        }
        for length in [MAX_PAYLOAD + 1, 65_536, 100_000] {
            let error = Dialer::new(&key(), &vec![9; length], true).map(drop).unwrap_err();
            assert!(matches!(error, HandshakeError::TooLong(l) if l == length), "{error}");
        }
    }

    #[test]
    fn the_blocking_shells_meet() {
        let (near, far) = UnixStream::pair().unwrap();
        for stream in [&near, &far] {
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        }
        std::thread::scope(|scope| {
            let listening = scope.spawn(|| accept(&far, &key(), |hi| [hi, b"!"].concat()).unwrap());
            let (answer, dialer) = dial(&near, &key(), b"hi", false).unwrap();
            let mut dialer = dialer.expect("the listener wants it sealed");
            let (hi, mut listener) = listening.join().unwrap();
            assert_eq!((&answer[..], &hi[..]), (&b"hi!"[..], &b"hi"[..]));
            pass(&mut dialer, &mut listener, b"text");
        });
    }

    #[test]
    fn a_listener_that_goes_away_is_no_mystery() {
        let (near, far) = UnixStream::pair().unwrap();
        drop(far);
        assert!(matches!(dial(&near, &key(), b"hi", true), Err(HandshakeError::Closed)));
    }

    #[test]
    fn a_listener_that_is_silent_is_not_waited_for() {
        let (near, _far) = UnixStream::pair().unwrap();
        near.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        assert!(matches!(dial(&near, &key(), b"hi", true), Err(HandshakeError::Timeout)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn garbage_is_refused(body in proptest::collection::vec(any::<u8>(), FIRST_LEN), head in 0..3) {
            let mut bytes = [0; FIRST_LEN];
            bytes.copy_from_slice(&body);
            // Two of three times garbage that gets further than the magic.
            match head {
                0 => bytes[..HEADER_LEN].copy_from_slice(&header(PROTOCOL, Kind::First)),
                1 => bytes[..HEADER_LEN].copy_from_slice(&header(PROTOCOL, Kind::Reply)),
                _ => (),
            }
            prop_assert!(Listener::accept(&key(), &bytes).is_err());
            let (dialer, first) = Dialer::new(&key(), b"hi", true).unwrap();
            prop_assert!(dialer.finish(&bytes).is_err());
            let (_, unconfirmed) = Listener::accept(&key(), &first).unwrap().1.reply(b"ho", true).unwrap();
            let mut confirm = [0; CONFIRM_LEN];
            confirm.copy_from_slice(&body[..CONFIRM_LEN]);
            prop_assert!(unconfirmed.confirm(&confirm).is_err());
        }

        #[test]
        fn any_block_has_a_payload_or_none(body in proptest::collection::vec(any::<u8>(), BLOCK_LEN)) {
            let mut bytes = [0; BLOCK_LEN];
            bytes.copy_from_slice(&body);
            let _ = unblock(&bytes);
        }
    }
}
