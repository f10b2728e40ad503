use proptest::prelude::*;

use super::*;

fn envelope(len: usize, seed: u8) -> Envelope {
    let payload: Vec<u8> = (0..len).map(|i| seed.wrapping_add(i as u8)).collect();
    let (src, dst) = (VrId::fresh(), VrId::fresh());
    let channel = Channel::named("test");
    Envelope { src, dst, seq: u64::from(seed), channel, lane: 7, payload: payload.into() }
}

fn decoder() -> Decoder {
    Decoder::new(Arc::default())
}

fn stream(envelopes: &[Envelope]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for envelope in envelopes {
        bytes.extend(encode_header(Kind::Envelope, &envelope.label(), envelope.payload.len()));
        bytes.extend(&envelope.payload.to_bytes()[..]);
    }
    bytes
}

fn feed(decoder: &mut Decoder, mut bytes: &[u8]) -> Result<Vec<Frame>, FrameError> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let space = decoder.space();
        assert!(!space.is_empty());
        let n = space.len().min(bytes.len());
        space[..n].copy_from_slice(&bytes[..n]);
        decoder.advance(n);
        bytes = &bytes[n..];
        while let Some(frame) = decoder.next()? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

proptest! {
    #[test]
    fn any_split_of_the_stream_gives_the_same_frames(
        sizes in prop::collection::vec(prop_oneof![0usize..200, Just(SMALL), Just(SMALL + 1), 16_000..300_000usize], 1..6),
        cuts in prop::collection::vec(1usize..70_000, 1..40),
    ) {
        let sent: Vec<_> = sizes.iter().enumerate().map(|(i, &len)| envelope(len, i as u8)).collect();
        let bytes = stream(&sent);
        let (mut decoder, mut rest, mut got) = (decoder(), &bytes[..], Vec::new());
        for cut in cuts {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            got.extend(feed(&mut decoder, now).unwrap());
            rest = later;
        }
        got.extend(feed(&mut decoder, rest).unwrap());
        prop_assert_eq!(got.len(), sent.len());
        for (got, sent) in got.iter().zip(&sent) {
            let got = &got.envelope;
            prop_assert_eq!((got.src, got.dst, got.seq, got.lane), (sent.src, sent.dst, sent.seq, sent.lane));
            prop_assert!(got.payload.to_bytes() == sent.payload.to_bytes());
            if got.payload.len() >= ALIGN {
                prop_assert_eq!(got.payload.head().as_ptr().align_offset(ALIGN), 0);
            }
        }
    }

    /// Frames may be taken while they are at the front, with the end of their payload read past the decoder, completely or in
    /// part.
    #[test]
    fn what_is_taken_in_front_is_not_handed_out(
        sizes in prop::collection::vec((prop_oneof![0usize..200, Just(SMALL), 16_000..100_000usize], 0..3u8, 0..100_000usize), 1..8),
        step in 1usize..40_000,
    ) {
        let sent: Vec<_> = sizes.iter().enumerate().map(|(i, &(len, ..))| envelope(len, i as u8)).collect();
        let bytes = stream(&sent);
        let (mut decoder, mut rest, mut got) = (decoder(), &bytes[..], Vec::new());
        loop {
            if let Some(Front { label, len, here, .. }) = decoder.front().unwrap() {
                let (payload, here) = (sent[label.seq as usize].payload.to_bytes(), here.len());
                prop_assert_eq!(len, payload.len());
                prop_assert_eq!(decoder.front().unwrap().unwrap().here, &payload[..here]);
                match sizes[label.seq as usize] {
                    (_, 0, _) => {
                        decoder.pass(here, len);
                        rest = &rest[len - here..];
                        got.push(label.seq);
                        continue;
                    }
                    (_, 1, part) if here < len => {
                        let part = part.min(len - here - 1);
                        decoder.go_on_with(&rest[..part]).unwrap();
                        rest = &rest[part..];
                    }
                    _ => {}
                }
            }
            while let Some(frame) = decoder.next().unwrap() {
                let Envelope { seq, payload, .. } = frame.envelope;
                prop_assert!(payload.to_bytes() == sent[seq as usize].payload.to_bytes());
                got.push(seq);
                if decoder.front().unwrap().is_some() {
                    break;
                }
            }
            if decoder.front().unwrap().is_some_and(|front| front.here.len() == front.len) {
                continue;
            }
            if rest.is_empty() {
                break;
            }
            let space = decoder.space();
            let n = space.len().min(rest.len()).min(step);
            space[..n].copy_from_slice(&rest[..n]);
            decoder.advance(n);
            rest = &rest[n..];
        }
        prop_assert_eq!(got, (0..sent.len() as u64).collect::<Vec<_>>());
    }

    #[test]
    fn garbage_is_refused_or_waits_but_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
        let _ = feed(&mut decoder(), &bytes);
    }
}

#[test]
fn a_payload_larger_than_the_eager_limit_arrives_whole() {
    let mut decoder = decoder();
    let sent = envelope(EAGER + 12_345, 3);
    let got = feed(&mut decoder, &stream(std::slice::from_ref(&sent))).unwrap();
    assert!(got[0].envelope.payload.to_bytes() == sent.payload.to_bytes());
}

#[test]
fn a_claimed_length_beyond_the_limit_is_refused() {
    let mut header = encode_header(Kind::Envelope, &envelope(0, 0).label(), 0);
    header[8..16].copy_from_slice(&(MAX_PAYLOAD + 1).to_le_bytes());
    assert_eq!(feed(&mut decoder(), &header).unwrap_err(), FrameError::Length(MAX_PAYLOAD + 1));
}
