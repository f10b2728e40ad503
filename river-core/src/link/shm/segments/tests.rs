use proptest::prelude::*;

use super::*;

/// Returns both ends, which otherwise are two processes.
fn ends() -> (Segments, Arc<Shared>, Arc<Shared>) {
    let (one, other) = (Segments::default(), Segments::default());
    let ends = (one.enter(HostId::fresh()), other.enter(HostId::fresh()));
    (one, ends.0, ends.1)
}

/// Sends a payload as the link does. `None` if it would have to go through the ring.
fn send(from: &Shared, to: &Shared, payload: &Payload) -> Option<Payload> {
    let placed = match from.place(payload.parts().map(|part| &part[..])) {
        Placing::Placed(placed) => placed,
        Placing::Needs(room) => {
            let _ = from.announce(room).map(|name| to.map(&name));
            return None;
        }
        Placing::Unfit => return None,
    };
    let got = to.payload(placed.count(), &placed.parts().concat()).unwrap();
    placed.sent();
    Some(got)
}

fn payload(parts: &[(usize, u8)]) -> Payload {
    let mut payload = Payload::default();
    for &(len, seed) in parts {
        payload.push(Bytes::from(vec![seed; len]));
    }
    payload
}

#[test]
fn the_second_payload_is_in_memory_and_its_way_back_is_none() {
    let (segments, one, other) = ends();
    let sent = payload(&[(100, 1), (LARGE, 2), (0, 0), (PART + 1, 3)]);
    assert!(send(&one, &other, &sent).is_none());
    assert!(segments.is_idle());
    let got = send(&one, &other, &sent).unwrap();
    assert!(got.to_bytes() == sent.to_bytes());
    assert!(!segments.is_idle());
    let large = got.parts().nth(1).unwrap();
    assert_eq!(large.as_ptr().align_offset(ALIGN), 0);
    let back = send(&other, &one, &Payload::from(large.clone())).unwrap();
    assert!(back.to_bytes() == sent.parts().nth(1).unwrap());
    assert!(lock(&other.ours).is_empty(), "what comes back needs no memory");
    let again = send(&one, &other, &back).unwrap();
    assert_eq!(again.head().as_ptr(), large.as_ptr(), "and what is sent again is where it was");
}

#[test]
fn memory_is_used_again_and_given_back_once_nobody_looks() {
    let (segments, one, other) = ends();
    let sent = payload(&[(LARGE, 1)]);
    send(&one, &other, &sent);
    let got = send(&one, &other, &sent).unwrap();
    assert!(send(&one, &other, &sent).is_none(), "in use");
    segments.discard(Duration::ZERO);
    assert!(!segments.is_idle(), "still in use");
    drop(got);
    let got = send(&one, &other, &payload(&[(LARGE, 9)])).unwrap();
    assert!(got.to_bytes() == payload(&[(LARGE, 9)]).to_bytes());
    drop(got);
    segments.discard(Duration::ZERO);
    assert!(segments.is_idle());
    assert!(send(&one, &other, &sent).unwrap().to_bytes() == sent.to_bytes());
}

#[test]
fn a_segment_that_was_forgotten_is_mapped_again_though_there_is_no_room() {
    let (_segments, one, other) = ends();
    let sent = payload(&[(LARGE, 1)]);
    send(&one, &other, &sent);
    lock(&other.theirs).clear();
    let mut leases = Vec::new();
    let mut bytes = 1 << 40;
    while bytes > 0 {
        match other.all.mapped.lease(bytes) {
            Some(lease) => leases.push(lease),
            None => bytes /= 2,
        }
    }
    assert!(send(&one, &other, &sent).unwrap().to_bytes() == sent.to_bytes());
    assert!(other.map(&one.announce(2 * LARGE).unwrap()).is_err(), "what is new has to wait");
}

#[test]
fn a_payload_that_was_not_sent_leaves_its_memory_free() {
    let (_segments, one, other) = ends();
    let sent = payload(&[(LARGE, 1)]);
    send(&one, &other, &sent);
    assert!(matches!(one.place(sent.parts().map(|part| &part[..])), Placing::Placed(_)));
    assert!(send(&one, &other, &sent).is_some());
}

#[test]
fn a_peer_that_lies_is_an_error_not_a_fault() {
    let (_segments, one, other) = ends();
    send(&one, &other, &payload(&[(LARGE, 1)]));
    let name = lock(&one.ours)[0].memory.name();
    let good = Part::in_segment(MINE, &name, FIRST, LARGE);
    let read = |part: Part| {
        lock(&other.theirs)[0].count();
        other.payload(1, bytemuck::bytes_of(&part)).map(|payload| payload.len())
    };
    assert_eq!(read(good), Ok(LARGE));
    for lie in [
        Part { place: 3, ..good },
        Part { place: YOURS, ..good },
        Part { place: HERE, ..good },
        Part { token: [0; 16], ..good },
        Part { descriptor: 1 << 20, ..good },
        Part { length: good.length + 1, ..good },
        Part { length: u64::MAX, ..good },
        Part { length: 0, ..good },
        Part { offset: 0, ..good },
        Part { offset: u64::MAX, ..good },
        Part { len: good.len + 1, ..good },
        Part { len: u64::MAX, ..good },
    ] {
        assert!(read(lie).is_err(), "{lie:?}");
    }
    assert!(other.payload(2, bytemuck::bytes_of(&good)).is_err());
    assert!(other.payload(u64::MAX, &[]).is_err());
}

#[test]
fn peers_in_one_process_have_segments_of_their_own() {
    let (server, clients) = (Segments::default(), [Segments::default(), Segments::default()]);
    let pairs =
        clients.each_ref().map(|client| (client.enter(HostId::fresh()), server.enter(HostId::fresh())));
    let texts = [payload(&[(LARGE, 1)]), payload(&[(LARGE, 2)])];
    for (client, server) in &pairs {
        assert!(send(client, server, &texts[0]).is_none());
    }
    for _ in 0..2 {
        let got =
            pairs.iter().zip(&texts).map(|((client, server), text)| send(client, server, text).unwrap());
        let got: Vec<Payload> = got.collect();
        assert!(got.iter().zip(&texts).all(|(got, text)| got.to_bytes() == text.to_bytes()));
    }
}

#[test]
fn what_came_before_the_end_can_be_used_after_it_and_leaves_nothing_behind() {
    let (segments, one, other) = ends();
    let sent = payload(&[(LARGE, 1)]);
    send(&one, &other, &sent);
    let got = send(&one, &other, &sent).unwrap();
    let peer = HostId::fresh();
    let (link, ring) = (segments.enter(peer), segments.enter(peer));
    assert!(Arc::ptr_eq(&link, &ring));
    link.leave();
    assert!(Arc::ptr_eq(&ring, &segments.enter(peer)), "what it has written is still read");
    (0..2).for_each(|_| ring.leave());
    assert!(!Arc::ptr_eq(&ring, &segments.enter(peer)), "who comes anew finds nothing");
    [&one, &other].into_iter().for_each(|end| end.leave());
    assert!(lock(&one.ours).is_empty() && lock(&other.theirs).is_empty());
    assert!(got.to_bytes() == sent.to_bytes());
}

#[test]
fn a_payload_that_no_segment_would_help_gets_none() {
    let (_segments, one, _other) = ends();
    let many = vec![(PART - 1, 1); 8];
    assert!(matches!(one.place(payload(&many).parts().map(|part| &part[..])), Placing::Unfit));
    let odd = payload(&[(LARGE - 1, 1), (LARGE + 1, 2)]);
    let Placing::Needs(room) = one.place(odd.parts().map(|part| &part[..])) else { panic!() };
    assert!(room > odd.len(), "parts are aligned");
}

#[derive(Clone, Debug)]
enum Step {
    /// One end sends this many bytes, or the last payload that it has received.
    Send(bool, usize),
    Forward(bool),
    /// The payload with this number is dropped.
    Drop(usize),
    Discard,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (any::<bool>(), LARGE..6 * LARGE).prop_map(|(end, len)| Step::Send(end, len)),
        2 => any::<bool>().prop_map(Step::Forward),
        4 => (0..20_usize).prop_map(Step::Drop),
        1 => Just(Step::Discard),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Every payload that was sent and is still held has the bytes that were sent, and the memory stays within its bound.
    #[test]
    fn what_is_held_does_not_change(steps in steps()) {
        let (segments, one, other) = ends();
        // Which end holds a payload, the payload, and its expected bytes and length.
        let mut held: Vec<(bool, Payload, u8, usize)> = Vec::new();
        for (seed, step) in (0_u8..).zip(steps) {
            let way = |end: bool| if end { (&*one, &*other) } else { (&*other, &*one) };
            match step {
                Step::Send(end, len) => {
                    let (from, to) = way(end);
                    if let Some(got) = send(from, to, &payload(&[(len, seed)])) {
                        held.push((!end, got, seed, len));
                    }
                }
                Step::Forward(end) => {
                    let last = held.iter().rfind(|(holder, ..)| *holder == end);
                    let Some((_, got, seed, len)) = last.cloned() else { continue };
                    let (from, to) = way(end);
                    let got = send(from, to, &got);
                    prop_assert!(got.is_some());
                    held.extend(got.map(|got| (!end, got, seed, len)));
                }
                Step::Drop(number) if number < held.len() => drop(held.swap_remove(number)),
                Step::Drop(_) => {}
                Step::Discard => segments.discard(Duration::ZERO),
            }
            for (_, got, seed, len) in &held {
                prop_assert!(got.to_bytes() == payload(&[(*len, *seed)]).to_bytes());
            }
            for end in [&one, &other] {
                prop_assert!(lock(&end.ours).len() <= SEGMENTS);
            }
        }
    }
}
