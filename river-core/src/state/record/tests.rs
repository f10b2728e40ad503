use proptest::prelude::*;

use super::*;
use crate::down::{Down, Why};
use crate::envelope::{Channel, Envelope, Payload};
use crate::mailbox::Selector;

const CHANNEL: Channel = Channel::named("test");

/// What a VR does next, and what the world would answer.
#[derive(Clone, Debug)]
enum Step {
    Receive { arrive: u8, patience: bool },
    Try { arrive: u8 },
    Send { to: u8, value: u8, refused: bool },
    Ask { answer: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3u8, any::<bool>()).prop_map(|(arrive, patience)| Step::Receive { arrive, patience }),
        (0..3u8).prop_map(|arrive| Step::Try { arrive }),
        (0..3u8, any::<u8>(), prop::bool::weighted(0.2)).prop_map(|(to, value, refused)| Step::Send {
            to,
            value,
            refused
        }),
        any::<u8>().prop_map(|answer| Step::Ask { answer }),
    ]
}

fn id(n: u8) -> VrId {
    VrId::from_uuid(uuid::Uuid::from_u128(u128::from(n) + 1))
}

fn fresh() -> Record {
    Record::new(Base::new(id(9), Bytes::new()))
}

fn down(to: u8) -> Refusal {
    Refusal::Down(Box::new(Down { who: id(to), why: Why::Finished }))
}

/// Takes a step, and returns what the VR is told. `seq` counts arrivals.
fn run(record: &mut Record, step: &Step, seq: &mut u64) -> Result<String, Divergence> {
    let selector = Selector::on(CHANNEL);
    let arrive = |count: u8, seq: &mut u64, record: &mut Record| {
        let mut events = Vec::new();
        let next = &mut *seq;
        record.arrivals(&mut events, |events| {
            events.extend((0..count).map(|i| {
                let seq = *next + u64::from(i);
                let payload = vec![seq as u8].into();
                Event::Envelope(Envelope { src: id(0), dst: id(9), seq, channel: CHANNEL, lane: 0, payload })
            }));
            (count > 0).then(Moment::now)
        });
        *seq += events.len() as u64;
        format!("{:?}", events.iter().map(seq_of).collect::<Vec<_>>())
    };
    match step {
        Step::Receive { arrive: count, patience } => {
            record.call(Call::Receive(selector))?;
            let got = arrive(*count, seq, record);
            if got != "[]" || *patience {
                return Ok(got);
            }
            match record.blocked()? {
                Blocked::TimedOut(waited) => Ok(format!("{waited:?}")),
                Blocked::Again => unreachable!("there are no handlers"),
                Blocked::Live => {
                    record.timed_out(Duration::from_secs(1));
                    Ok(format!("{:?}", Duration::from_secs(1)))
                }
            }
        }
        Step::Try { arrive: count } => {
            record.call(Call::TryReceive(selector))?;
            Ok(arrive(*count, seq, record))
        }
        Step::Send { to, value, refused } => {
            let sent = Sent::new(id(*to), CHANNEL, 0, &vec![*value].into());
            let result = match record.send(sent)? {
                Sending::Made(result) => result,
                Sending::Due(_) if *refused => {
                    record.refused(down(*to));
                    Err(down(*to))
                }
                Sending::Due(_) | Sending::Again(_) => Ok(()),
            };
            Ok(format!("{result:?}"))
        }
        Step::Ask { answer } => {
            record.call(Call::Now)?;
            if let Some(answer) = record.recorded_answer()? {
                return Ok(format!("{answer:?}"));
            }
            record.answer(Bytes::copy_from_slice(&[*answer]));
            Ok(format!("{:?}", Bytes::copy_from_slice(&[*answer])))
        }
    }
}

fn seq_of(event: &Event) -> u64 {
    match event {
        Event::Envelope(envelope) => envelope.seq,
        _ => u64::MAX,
    }
}

/// The record after it was written and read again.
fn restored(record: &Record) -> Record {
    postcard::from_bytes(&postcard::to_stdvec(record).unwrap()).unwrap()
}

proptest! {
    #[test]
    fn a_second_run_is_told_the_same_and_goes_on_where_the_first_had_got_to(
        steps in prop::collection::vec(step(), 1..40), cut in 0..40usize,
    ) {
        let cut = cut.min(steps.len());
        let (mut record, mut seq) = (fresh(), 0);
        let told: Vec<String> =
            steps[..cut].iter().map(|step| run(&mut record, step, &mut seq).unwrap()).collect();
        let mut again = restored(&record);
        prop_assert_eq!(again.is_live(), record.is_live() && record.lines.is_empty());
        // The world has changed by now; what it would answer must not matter.
        let mut other = 0;
        for (step, told) in steps[..cut].iter().zip(&told) {
            let changed = match step.clone() {
                Step::Receive { arrive: 0, patience } => Step::Receive { arrive: 0, patience },
                Step::Receive { patience, .. } => Step::Receive { arrive: 2, patience },
                Step::Try { .. } => Step::Try { arrive: 1 },
                Step::Send { to, value, .. } => Step::Send { to, value, refused: false },
                Step::Ask { .. } => Step::Ask { answer: 77 },
            };
            // The last call of a record may find more than it did, since nothing has followed from what it found.
            let last = again.line + 1 >= again.lines.len();
            if last { break }
            prop_assert_eq!(&run(&mut again, &changed, &mut other).unwrap(), told);
        }
        prop_assert_eq!(again.sent(), record.sent());
        prop_assert_eq!(again.received(), record.received());
    }

    #[test]
    fn a_run_that_does_something_else_is_told_where(
        steps in prop::collection::vec(step(), 2..30), at in 0..30usize,
    ) {
        let (mut record, mut seq) = (fresh(), 0);
        for step in &steps {
            run(&mut record, step, &mut seq).unwrap();
        }
        let at = at.min(steps.len() - 1);
        let (mut again, mut seq) = (restored(&record), 0);
        for step in &steps[..at] {
            run(&mut again, step, &mut seq).unwrap();
        }
        let line = again.line;
        let error = again.call(Call::Release).unwrap_err();
        prop_assert_eq!(error.line, line as u64 + 1);
        prop_assert_eq!(&error.done, "a release of VMs");
        prop_assert_eq!(error.recorded, again.lines[line].to_string());
    }
}

#[test]
fn a_send_of_other_bytes_is_a_divergence() {
    let mut record = fresh();
    let sent = |value: u8| Sent::new(id(1), CHANNEL, 3, &vec![value].into());
    assert_eq!(record.send(sent(1)), Ok(Sending::Due(0)));
    assert_eq!(record.send(sent(2)), Ok(Sending::Due(1)));
    let mut again = restored(&record);
    assert_eq!(again.send(sent(1)), Ok(Sending::Made(Ok(()))));
    let error = again.send(sent(3)).unwrap_err();
    assert_eq!((error.line, error.done.ends_with("with other bytes")), (2, true), "{error}");
    // The end of `main` is a divergence as well if there is more in the record.
    assert!(again.finish().unwrap_err().to_string().contains("the end of `main`"));
}

#[test]
fn a_safepoint_forgets_and_keeps_the_numbers() {
    let mut record = fresh();
    let sent = Sent::new(id(1), CHANNEL, 0, &vec![1].into());
    record.send(sent).unwrap();
    record.restart(Base::new(id(9), Bytes::from_static(b"state"))).unwrap();
    assert!(record.lines.is_empty());
    assert_eq!((record.base().safepoints, &record.base().state[..]), (1, &b"state"[..]));
    assert_eq!(record.send(sent), Ok(Sending::Due(1)));
    // The run that starts from it comes to it again.
    let mut again = restored(&record);
    assert!(again.restart(Base::new(id(9), Bytes::new())).unwrap().is_none());
    assert_eq!(again.send(sent), Ok(Sending::Made(Ok(()))));
    assert!(again.is_live());
}

#[test]
fn who_was_taken_over_and_moves_then_still_knows_what_may_have_arrived() {
    let mut record = fresh();
    let sent = Sent::new(id(1), CHANNEL, 0, &vec![1].into());
    record.resend(IdMap::default(), [(id(1), 3)].into_iter().collect());
    assert_eq!(record.send(sent), Ok(Sending::Again(0)));
    record.restart(Base::new(id(9), Bytes::new())).unwrap();
    let mut moved = restored(&record);
    assert!(!moved.has_taken_over());
    moved.restart(Base::new(id(9), Bytes::new())).unwrap();
    assert_eq!(moved.send(sent), Ok(Sending::Again(1)));
    moved.restart(Base::new(id(9), Bytes::new())).unwrap();
    assert_eq!(moved.send(sent), Ok(Sending::Again(2)));
    assert_eq!(moved.send(sent), Ok(Sending::Due(3)));
}

#[test]
fn a_checkpoint_at_the_end_of_a_loop_need_not_be_passed_again() {
    let mut record = fresh();
    record.restart(Base::new(id(9), Bytes::new())).unwrap();
    record.restart(Base::new(id(9), Bytes::new())).unwrap();
    assert_eq!(record.call(Call::Now), Ok(true));
    record.answer(Bytes::new());
    record.restart(Base::new(id(9), Bytes::new())).unwrap();
    assert_eq!(record.call(Call::Checkpoint), Ok(true));
    assert_eq!(restored(&record).call(Call::Checkpoint), Ok(false));
    assert_eq!(restored(&record).call(Call::Now), Ok(true));
}

/// A recording is replayed from one safepoint to the next, and must come to each with the same state.
#[test]
fn a_chain_is_replayed_through_its_safepoints() {
    let base = |state: u8| Base::new(id(9), Bytes::copy_from_slice(&[state]));
    let stretches = || {
        let (mut first, mut second) = (Record::new(base(0)), Record::new(Base { safepoints: 1, ..base(1) }));
        first.call(Call::Now).unwrap();
        first.answer(Bytes::from_static(b"a"));
        second.call(Call::Effect).unwrap();
        second.answer(Bytes::from_static(b"b"));
        [restored(&first), restored(&second)]
    };
    let mut record = Record::chain(stretches()).unwrap();
    assert!(!record.call(Call::Now).unwrap());
    assert_eq!(record.recorded_answer().unwrap().unwrap(), "a");
    assert!(!record.is_live());
    // Neither another call nor another state is accepted.
    let early = record.clone().call(Call::Effect).unwrap_err().to_string();
    assert!(early.contains("says a safepoint, but now comes an effect"), "{early}");
    let other = record.clone().restart(base(2)).unwrap_err().to_string();
    assert!(other.contains("a safepoint with another state"), "{other}");
    // A twin that takes over may have decoded a hash map in another order.
    let mut heir = record.clone();
    heir.resend(IdMap::default(), IdMap::default());
    heir.restart(base(2)).unwrap();
    record.restart(base(1)).unwrap();
    assert!(!record.call(Call::Effect).unwrap());
    assert_eq!(record.recorded_answer().unwrap().unwrap(), "b");
    assert!(record.is_live());
}

#[test]
fn a_large_send_of_other_bytes_is_a_divergence_however_it_is_cut() {
    let bytes: Vec<u8> = (0..100_000_u32).map(|i| (i % 251) as u8).collect();
    let hash = |parts: &[&[u8]]| {
        let mut payload = Payload::default();
        parts.iter().for_each(|part| payload.push(Bytes::copy_from_slice(part)));
        Sent::new(id(1), CHANNEL, 0, &payload)
    };
    let whole = hash(&[&bytes]);
    assert_eq!(hash(&[&bytes[..77], &bytes[77..50_000], &bytes[50_000..]]), whole);
    for changed in [0, bytes.len() - 1] {
        let mut other = bytes.clone();
        other[changed] ^= 1;
        assert_ne!(hash(&[&other]), whole);
    }
    assert_ne!(hash(&[&bytes[1..]]), whole);
}
