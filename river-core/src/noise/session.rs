//! Encryption of a connection, with the keys from its handshake (`noise`).

use std::fmt;
use std::sync::Arc;

use snow::{HandshakeState, StatelessTransportState};

/// The longest piece that [`Sealer::seal`] accepts.
pub(crate) const MAX_CHUNK: usize = 65_535 - TAG_LEN;
/// How much longer a sealed piece is than the plain one.
pub(crate) const TAG_LEN: usize = 16;

/// The keys of a connection after its handshake. Connections that stay inside the machine drop them and continue unencrypted;
/// anybody able to listen there can also read the memory of the two processes.
#[derive(Debug)]
pub(crate) struct Session {
    /// Encrypts what this side sends.
    pub sealer: Sealer,
    /// Decrypts what this side receives.
    pub opener: Opener,
}

impl Session {
    /// Extracts the keys from a finished handshake.
    pub(crate) fn new(state: HandshakeState) -> Result<Self, snow::Error> {
        let keys = state.into_stateless_transport_mode()?;
        let keys = Arc::new(keys);
        Ok(Self { sealer: Sealer { keys: keys.clone(), nonce: 0 }, opener: Opener { keys, nonce: 0 } })
    }
}

/// Why a piece could not be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SealError {
    /// The piece or the buffer for the result has an impossible length.
    #[error("a piece has at most {MAX_CHUNK} bytes, and {TAG_LEN} more when sealed, all of which need room")]
    Length,
    /// The bytes were changed on their way, or pieces were lost or swapped.
    #[error("received bytes that the other side did not send: close the connection and dial again")]
    Forged,
}

/// Encrypts pieces, which it numbers consecutively: 9 GB/s where the processor has AES.
///
/// The key is never changed: a 64-bit counter does not repeat, and AES-GCM is good for a petabyte under one key.
pub(crate) struct Sealer {
    keys: Arc<StatelessTransportState>,
    nonce: u64,
}

/// Decrypts pieces, in the order in which they were sealed.
pub(crate) struct Opener {
    keys: Arc<StatelessTransportState>,
    nonce: u64,
}

impl Sealer {
    /// Seals a piece into the beginning of `out` and returns its sealed length, [`TAG_LEN`] more than the piece's.
    ///
    /// # Errors
    ///
    /// When the piece is longer than [`MAX_CHUNK`] or `out` is too short.
    pub(crate) fn seal(&mut self, piece: &[u8], out: &mut [u8]) -> Result<usize, SealError> {
        let next = self.nonce.checked_add(1).ok_or(SealError::Length)?;
        let length = self.keys.write_message(self.nonce, piece, out).map_err(|_| SealError::Length)?;
        self.nonce = next;
        Ok(length)
    }
}

impl Opener {
    /// Opens a sealed piece into the beginning of `out` and returns its length, [`TAG_LEN`] less.
    ///
    /// After an error the connection is unusable.
    ///
    /// # Errors
    ///
    /// When the piece is not the next one that the other side sealed, or `out` is too short.
    pub(crate) fn open(&mut self, sealed: &[u8], out: &mut [u8]) -> Result<usize, SealError> {
        let length = sealed.len().checked_sub(TAG_LEN).ok_or(SealError::Length)?;
        if length > MAX_CHUNK || length > out.len() {
            return Err(SealError::Length);
        }
        let next = self.nonce.checked_add(1).ok_or(SealError::Length)?;
        let length = self.keys.read_message(self.nonce, sealed, out).map_err(|_| SealError::Forged)?;
        self.nonce = next;
        Ok(length)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("nonce", &self.nonce).finish_non_exhaustive()
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("nonce", &self.nonce).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns two sides that have shaken hands, without a pre-shared key, which makes no difference here.
    pub(crate) fn pair() -> (Session, Session) {
        let builder = || snow::Builder::new("Noise_NN_25519_AESGCM_SHA256".parse().unwrap());
        let mut dialer = builder().build_initiator().unwrap();
        let mut listener = builder().build_responder().unwrap();
        let (mut wire, mut payload) = ([0; 100], [0; 100]);
        let length = dialer.write_message(&[], &mut wire).unwrap();
        listener.read_message(&wire[..length], &mut payload).unwrap();
        let length = listener.write_message(&[], &mut wire).unwrap();
        dialer.read_message(&wire[..length], &mut payload).unwrap();
        (Session::new(dialer).unwrap(), Session::new(listener).unwrap())
    }

    fn seal(from: &mut Session, piece: &[u8]) -> Vec<u8> {
        let mut sealed = vec![0; piece.len() + TAG_LEN];
        assert_eq!(from.sealer.seal(piece, &mut sealed), Ok(sealed.len()));
        sealed
    }

    #[test]
    fn pieces_of_all_lengths_pass_both_ways() {
        let (mut dialer, mut listener) = pair();
        for length in [0, 1, 15, 16, 17, 4096, MAX_CHUNK] {
            let piece = vec![length as u8; length];
            let mut opened = vec![0; length];
            let sealed = seal(&mut dialer, &piece);
            assert_eq!(listener.opener.open(&sealed, &mut opened), Ok(length));
            assert_eq!(opened, piece);
            let sealed = seal(&mut listener, &piece);
            assert_eq!(dialer.opener.open(&sealed, &mut opened), Ok(length));
        }
    }

    #[test]
    fn the_two_directions_can_be_used_by_two_threads() {
        let (dialer, mut listener) = pair();
        let Session { mut sealer, mut opener } = dialer;
        let sealed = seal(&mut listener, b"text");
        std::thread::scope(|scope| {
            scope.spawn(move || assert_eq!(sealer.seal(b"text", &mut [0; 100]), Ok(4 + TAG_LEN)));
            scope.spawn(move || assert_eq!(opener.open(&sealed, &mut [0; 4]), Ok(4)));
        });
    }

    #[test]
    fn pieces_cannot_be_changed_repeated_or_swapped() {
        let (mut dialer, mut listener) = pair();
        let (one, two) = (seal(&mut dialer, b"one"), seal(&mut dialer, b"two"));
        let mut out = [0; 3];
        assert_eq!(listener.opener.open(&two, &mut out), Err(SealError::Forged));
        assert_eq!(listener.opener.open(&one, &mut out), Ok(3));
        assert_eq!(listener.opener.open(&one, &mut out), Err(SealError::Forged));
        assert_eq!(dialer.opener.open(&two, &mut out), Err(SealError::Forged), "reflected");
        assert_eq!(listener.opener.open(&two[..10], &mut out), Err(SealError::Length));
        assert_eq!(listener.opener.open(&two, &mut out[..2]), Err(SealError::Length));
        assert_eq!(dialer.sealer.seal(&[0; MAX_CHUNK + 1], &mut [0; 70_000]), Err(SealError::Length));
        assert_eq!(dialer.sealer.seal(b"one", &mut [0; 3]), Err(SealError::Length));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn garbage_is_no_piece(bytes in proptest::collection::vec(any::<u8>(), 0..100), room in 0..100_usize) {
            let (_, mut listener) = pair();
            prop_assert!(listener.opener.open(&bytes, &mut vec![0; room]).is_err());
        }
    }
}
