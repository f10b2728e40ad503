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
                // The refusal is the result, whether or not the dialer is told of it.
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
    // Each of these takes a handshake, which is slow without optimisation, so only one bit of each byte is changed.
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

    // The recording gets a reply, which is useless to it.
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
        let Dialed { payload: answer, confirm, session } = dial(&near, &key(), b"hi", false).unwrap();
        (&near).write_all(&confirm).unwrap();
        let mut dialer = session.expect("the listener wants it sealed");
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
        // In two of three cases, send garbage that gets further than the magic.
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
