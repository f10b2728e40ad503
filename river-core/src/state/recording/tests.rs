//! Recordings in directories: only what is asked for is read, and torn recordings are skipped.

use super::*;
use crate::envelope::Channel;
use crate::id::ProgramId;
use crate::inbox::Inbox;
use crate::mailbox::Selector;
use crate::state::base::{Base, Origin};
use crate::state::line::{Call, Sent};
use crate::state::record::Record;
use crate::state::recorder::Recorder;

const CHANNEL: Channel = Channel::named("test");

fn id(n: u128) -> VrId {
    VrId::from_uuid(uuid::Uuid::from_u128(n))
}

fn recorder(vr: VrId) -> Arc<Recorder> {
    let parent = (vr != id(1)).then_some(id(1));
    let origin = Origin { id: vr, parent, code: None, name: "x".into(), program: ProgramId::fresh() };
    Recorder::taped(origin, Record::new(Base::new(vr, bytes::Bytes::new())), false, "vm")
}

/// A recording in which VR 1 has sent an envelope to VR 2.
fn recorded() -> tempfile::TempDir {
    let scratch = tempfile::tempdir().unwrap();
    let ran = Ran {
        program: "pi".into(),
        image: ImageHash::from_bytes([0; 32]),
        began: std::time::UNIX_EPOCH,
        arguments: Vec::new(),
        environment: Vec::new(),
        directory: Vec::new(),
        initiator: id(1),
    };
    create(scratch.path(), &ran).unwrap();
    let (sender, receiver) = (recorder(id(1)), recorder(id(2)));
    let envelope =
        Envelope { src: id(1), dst: id(2), seq: 0, channel: CHANNEL, lane: 0, payload: vec![7].into() };
    sender.send(Sent::new(id(2), CHANNEL, 0, &envelope.payload)).unwrap();
    let inbox = Inbox::default();
    inbox.push(Event::Envelope(envelope)).unwrap();
    receiver.call(Call::Receive(Selector::on(CHANNEL))).unwrap();
    receiver.arrivals(&mut Vec::new(), &inbox);
    for (vr, recorder) in [(id(1), sender), (id(2), receiver)] {
        append(scratch.path(), vr, &recorder.flush().unwrap().encode()).unwrap();
    }
    scratch
}

/// What VR 1 has sent, as far as it was found.
fn sent(steps: &[RecordedStep]) -> Vec<Option<u8>> {
    let sent = |step: &RecordedStep| match &step.what {
        Happening::Sent(_, envelope) => Some(envelope.as_ref().map(|envelope| envelope.payload.head()[0])),
        _ => None,
    };
    steps.iter().filter_map(sent).collect()
}

#[test]
fn tapes_without_a_whole_beginning_are_passed_over_and_named() {
    let scratch = recorded();
    let tape = fs::read(path_of(scratch.path(), id(2))).unwrap();
    fs::write(path_of(scratch.path(), id(3)), []).unwrap();
    fs::write(path_of(scratch.path(), id(4)), &tape[..tape.len() / 2]).unwrap();
    let recording = Recording::open(scratch.path()).unwrap();
    let ids: Vec<VrId> = recording.vrs().iter().map(|vr| vr.id).collect();
    assert_eq!(ids, [id(1), id(2)]);
    let broken: Vec<String> = recording.broken().iter().map(ToString::to_string).collect();
    assert_eq!(broken.len(), 2);
    for (error, vr) in broken.iter().zip([id(3), id(4)]) {
        assert!(error.contains(&vr.to_string()) && error.contains("incomplete"), "{error}");
    }
    assert_eq!(recording.ids().len(), 4);
}

#[test]
fn only_the_tapes_that_are_needed_are_read_and_once() {
    let scratch = recorded();
    let recording = Recording::open(scratch.path()).unwrap();
    let receiver = path_of(scratch.path(), id(2));
    let tape = fs::read(&receiver).unwrap();
    fs::write(&receiver, []).unwrap();
    assert_eq!(recording.vr(id(1)).unwrap().parent, None);
    assert_eq!(sent(&recording.outline(id(1)).unwrap()), [None]);
    // Looking up what was sent needs the receiver's tape, but only the first time.
    fs::write(&receiver, &tape).unwrap();
    assert_eq!(sent(&recording.steps(id(1)).unwrap()), [Some(7)]);
    fs::write(&receiver, []).unwrap();
    assert_eq!(sent(&recording.steps(id(1)).unwrap()), [Some(7)]);
}
