//! Tests a worker; the test acts as its master and as a depot.

use super::*;
use crate::input::Framing;
use crate::job::{Closures, MapContext, ReduceContext, Values, job};
use crate::output::Format;
use crate::sort::RunSpace;
use crate::spec::Settings;
use crate::task;
use crate::travel::Travel;

const MEMORY: usize = 1 << 20;

fn settings() -> Settings {
    Settings {
        framing: Framing::Lines,
        reducers: 1,
        bounds: None,
        map_memory: MEMORY,
        store_memory: MEMORY,
        // The smallest possible size of a request.
        merge_memory: 1,
        format: Format::Records,
        directory: None,
        skippable: 0,
        sample: None,
    }
}

fn identity() -> impl Travel<Input = u64> + Copy {
    let map = |n: u64, out: &mut MapContext<'_, u64, u64>| out.emit(n, n);
    let reduce = |n: u64, values: &mut Values<'_, u64>, out: &mut ReduceContext<'_, u64, u64>| {
        out.emit(n, values.sum());
    };
    let identity: Closures<u64, u64, u64, u64, u64, _, _> = job(map, reduce);
    identity
}

/// Returns the next message of the worker.
fn heard(vr: &Vr) -> (ToMaster, Bytes) {
    loop {
        let envelope = vr.receive(Selector::on(CHANNEL)).unwrap();
        match decode(&envelope.payload).unwrap() {
            (ToMaster::Mapping { .. }, _) => {}
            other => return other,
        }
    }
}

#[test]
fn what_a_reducer_has_put_aside_during_a_map_task_comes_before_what_is_new() {
    river_core::try_run(|vr| {
        let (settings, code) = (settings(), identity());
        let space = RunSpace::new(MEMORY, std::env::temp_dir());
        let runs = [(0, 100), (100, 400)].map(|(from, to)| {
            let split = Split::Range(from, to);
            let task = settings.map_task(&split, &space, 0);
            let (mapped, _) = task::map(&code, &task, &mut None, &mut |_| Ok(())).unwrap();
            mapped.runs
        });
        let (master, depot) = (vr.id(), VrId::fresh());
        let worker = vr.spawn("worker", move |vr| serve(vr, master, depot))?;
        let tell = |message: &ToWorker, body: Bytes| {
            vr.send_bytes(worker, CHANNEL, 0, encode(message, body).unwrap()).unwrap();
        };

        let packed = code.pack().unwrap();
        let spec = JobSpec { code: packed.code, state: packed.state, settings };
        tell(&ToWorker::Job { job: 1, spec }, Bytes::new());
        let segment = |map: usize| {
            let part = runs[map][0].parts()[0];
            Segment { map: map as u32, run: 0, part, depot: master, pack: false, attempt: 1 }
        };
        let segments = vec![segment(0), segment(1)];
        tell(&ToWorker::Reduce { job: 1, attempt: 5, reducer: 0, segments }, Bytes::new());
        let chunks: Vec<(ToWorker, Bytes)> = (0..3)
            .map(|_| {
                let envelope = vr.receive(Selector::on(CHANNEL)).unwrap();
                let (ToDepot::Read { offset, len, ticket, .. }, _) = decode(&envelope.payload).unwrap();
                let bytes = runs[ticket.stream as usize][0].read(0, offset, len as usize).unwrap();
                (ToWorker::Chunk { ticket, unpacked: None }, bytes)
            })
            .collect();

        // An endless map task: everything sent before it is cancelled is deferred, and what comes after is new.
        tell(&ToWorker::Map { job: 1, attempt: 6, split: Split::Range(0, u64::MAX) }, Bytes::new());
        tell(&chunks[0].0, chunks[0].1.clone());
        tell(&chunks[1].0, chunks[1].1.clone());
        tell(&ToWorker::Cancel { attempt: 6 }, Bytes::new());
        tell(&chunks[2].0, chunks[2].1.clone());

        let mut output = Vec::new();
        loop {
            match heard(vr) {
                (ToMaster::Output { attempt: 5 }, bytes) => output.extend_from_slice(&bytes),
                (ToMaster::Reduced { attempt: 5, .. }, _) => break,
                other => panic!("{other:?}"),
            }
        }
        let expected: Vec<u8> = (0..400u64).flat_map(|n| [n, n]).flat_map(u64::to_be_bytes).collect();
        assert!(output == expected, "{} bytes", output.len());
        Ok(())
    })
    .unwrap();
}
