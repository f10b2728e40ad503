//! A record that the VR's thread and the control plane's use at the same time.

use std::thread;

use bytes::Bytes;

use super::*;
use crate::id::{ProgramId, VrId};
use crate::state::{Saved, Twin};

const TWINS: usize = 20_000;

/// Where the record of a twin ends: how many safepoints there were, and how many lines since.
fn end_of_twin(copy: Saved, shipment: Option<Shipment>) -> (u64, usize) {
    let mut twin = Twin::new(copy);
    if let Some(Shipment { number, bytes, .. }) = shipment {
        twin.log(number, &bytes).unwrap();
    }
    // Nothing was sent, so nothing from before the last safepoint is needed.
    twin.trim(|_| false);
    end_of(&twin.take_over([].into_iter().collect(), |_| false).unwrap().0.record)
}

fn end_of(record: &Record) -> (u64, usize) {
    (record.base().safepoints, record.len())
}

/// Whenever a VR is frozen, its record and its log agree. Otherwise a twin that is made between the two would be sent lines
/// from before the safepoint at which its copy begins.
#[test]
fn a_safepoint_is_in_the_record_and_in_the_log_at_the_same_time() {
    let (id, twin, program) = (VrId::fresh(), HostId::fresh(), ProgramId::fresh());
    let origin = Origin { id, parent: None, code: None, name: "x".into(), program };
    let base = Base::new(id, Bytes::new());
    let recorder = Recorder::new(origin.clone(), Record::new(base.clone()), false);
    let (of_vr, running) = (recorder.clone(), Arc::new(AtomicBool::new(true)));
    let runs = running.clone();
    let vr = thread::spawn(move || {
        while runs.load(SeqCst) {
            for _ in 0..4 {
                of_vr.call(Call::Now).unwrap();
            }
            of_vr.restart(base.clone()).unwrap();
        }
    });
    let ends = (0..TWINS).map(|_| {
        recorder.freeze();
        let record = recorder.give(|_, _| Ok::<_, ()>(())).unwrap();
        recorder.lead(twin);
        recorder.thaw();
        recorder.freeze();
        let copy = Saved { origin: origin.clone(), record, pending: Vec::new() };
        let ends = (end_of_twin(copy, recorder.due()), recorder.look(|record, _| end_of(record)));
        recorder.thaw();
        ends
    });
    let differ = ends.into_iter().find(|(twin, vr)| twin != vr);
    running.store(false, SeqCst);
    vr.join().unwrap();
    assert_eq!(differ, None, "(safepoints, lines since) of the twin and of the VR");
}
