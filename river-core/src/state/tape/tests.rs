//! A recording that is written in pieces is read back complete, or as far as it goes if it was cut short.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::envelope::{Channel, Envelope};
use crate::id::{ProgramId, VrId};
use crate::inbox::{Event, Inbox};
use crate::mailbox::Selector;
use crate::state::line::Call;
use crate::state::record::Said;
use crate::state::recorder::Recorder;

const CHANNEL: Channel = Channel::named("test");

fn id(n: u128) -> VrId {
    VrId::from_uuid(uuid::Uuid::from_u128(n))
}

fn recorder() -> std::sync::Arc<Recorder> {
    let origin =
        Origin { id: id(1), parent: None, code: None, name: "x".into(), program: ProgramId::fresh() };
    Recorder::taped(origin, Record::new(base(0)), false, "vm")
}

fn base(state: u8) -> Base {
    Base::new(id(1), Bytes::copy_from_slice(&[state]))
}

/// Runs a VR. Steps: 0 a receive, 1 a safepoint, 2 a flush, 3 an arrival while it still waits.
fn live(recorder: &Recorder, steps: &[u8]) -> (Vec<u8>, Vec<Vec<u64>>) {
    let inbox = Inbox::default();
    let (mut file, mut told) = (Vec::new(), vec![Vec::new()]);
    for (number, step) in steps.iter().enumerate() {
        let seq = number as u64;
        match step {
            0 | 3 => {
                let payload = vec![0; 5].into();
                let envelope = Envelope { src: id(2), dst: id(1), seq, channel: CHANNEL, lane: 0, payload };
                inbox.push(Event::Envelope(envelope)).unwrap();
                if *step == 0 {
                    recorder.call(Call::Receive(Selector::on(CHANNEL))).unwrap();
                }
                recorder.arrivals(&mut Vec::new(), &inbox);
                told.last_mut().unwrap().push(seq);
            }
            1 => {
                // A safepoint with nothing after the last one does not count.
                if told.len() == 1 || !told.last().unwrap().is_empty() {
                    told.push(Vec::new());
                }
                recorder.restart(base(*step)).unwrap();
            }
            _ => file.extend(recorder.flush().unwrap().encode()),
        }
    }
    (file, told)
}

fn arrived(content: &Content) -> Vec<Vec<u64>> {
    let of = |stretch: &Stretch| {
        let arrived = stretch.record.said().filter_map(|said| match said {
            Said::Arrived(events) => Some(events.to_vec()),
            _ => None,
        });
        let envelopes = arrived.flatten().filter_map(|event| match event {
            Event::Envelope(envelope) => Some(envelope.seq),
            _ => None,
        });
        envelopes.collect()
    };
    content.stretches.iter().map(of).collect()
}

proptest! {
    #[test]
    fn what_was_told_comes_back_however_it_was_written(
        mut steps in prop::collection::vec(0..4u8, 0..30), cut in any::<prop::sample::Index>(),
    ) {
        steps.push(2);
        let recorder = recorder();
        let (file, told) = live(&recorder, &steps);
        prop_assert_eq!(arrived(&read(&file).unwrap()), told.clone());
        // Cut short, it holds the beginning.
        let cut = cut.index(file.len());
        if let Ok(content) = read(&file[..cut]) {
            let (part, all) = (arrived(&content).concat(), told.concat());
            prop_assert!(all.starts_with(&part));
        }
    }
}

#[test]
fn the_end_is_written_once_and_what_is_altered_is_left_out() {
    let recorder = recorder();
    let (mut file, _) = live(&recorder, &[0, 2, 0]);
    recorder.finish(Why::Finished);
    file.extend(recorder.flush().unwrap().encode());
    assert!(recorder.flush().unwrap().encode().is_empty());
    let content = read(&file).unwrap();
    assert_eq!(content.end.map(|(why, _)| why), Some(Why::Finished));
    assert_eq!((content.vm.as_str(), content.origin.id), ("vm", id(1)));
    let last = file.len() - 1;
    file[last] ^= 1;
    let content = read(&file).unwrap();
    assert!(content.end.is_none() && arrived(&content) == [[0]]);
}
