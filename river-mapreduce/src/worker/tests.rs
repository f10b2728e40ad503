//! Tests a worker; the test acts as its master and as a depot.

use river_core::{Channel, QueueLimit, WhenFull};

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

#[test]
fn a_depot_that_cannot_be_asked_is_told_of_and_the_worker_can_be_called_off() {
    river_core::try_run(|vr| {
        let (settings, code) = (settings(), identity());
        let master = vr.id();
        const OTHER: Channel = Channel::named("other");
        // It takes nothing more, and lives until it is told to end.
        let deaf = vr.spawn("depot", move |vr| {
            vr.send_bytes(vr.id(), OTHER, 0, Bytes::new())?;
            vr.limit_queue(Some(QueueLimit { messages: 1, bytes: usize::MAX, when_full: WhenFull::Refuse }));
            vr.send_bytes(master, OTHER, 0, Bytes::new())?;
            vr.watch(master);
            let _ = vr.receive(Selector::on(CHANNEL));
            Ok(())
        })?;
        vr.receive(Selector::on(OTHER))?;
        let worker = vr.spawn("worker", move |vr| serve(vr, master, VrId::fresh()))?;
        let tell = |message: &ToWorker| {
            vr.send_bytes(worker, CHANNEL, 0, encode(message, Bytes::new()).unwrap()).unwrap();
        };
        let packed = code.pack().unwrap();
        tell(&ToWorker::Job { job: 1, spec: JobSpec { code: packed.code, state: packed.state, settings } });
        let space = RunSpace::new(MEMORY, std::env::temp_dir());
        let (split, settings) = (Split::Range(0, 9), self::settings());
        let (mapped, _) =
            task::map(&code, &settings.map_task(&split, &space, 0), &mut None, &mut |_| Ok(())).unwrap();
        let part = mapped.runs[0].parts()[0];
        let reduce = |attempt: u64, depot: VrId| {
            let segments = vec![Segment { map: 0, run: 0, part, depot, pack: false, attempt: 1 }];
            tell(&ToWorker::Reduce { job: 1, attempt, reducer: 0, segments });
        };
        reduce(5, deaf);
        let (ToMaster::Blocked { attempt: 5, depot, unreached: Some(why) }, _) = heard(vr) else {
            panic!("it is not told")
        };
        assert!(depot == deaf && why.contains("mailbox is full"), "{why}");
        tell(&ToWorker::Cancel { attempt: 5 });
        reduce(6, master);
        let envelope = vr.receive(Selector::on(CHANNEL))?;
        let asked = decode(&envelope.payload);
        assert!(matches!(asked, Some((ToDepot::Read { ticket, .. }, _)) if ticket.attempt == 6));
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_worker_whose_master_is_out_of_reach_fails_so_that_the_master_hears_of_it() {
    river_core::try_run(|vr| {
        let master = VrId::fresh();
        let lost = Why::LostLink { vm: "lab".into(), error: "no connection can be made from here".into() };
        for (why, is_well) in [(lost, false), (Why::Finished, true), (Why::Failed("a panic".into()), true)] {
            let mut running = Running::new(vr, master, VrId::fresh());
            assert!(running.lose_master::<()>(Down { who: master, why }).is_err());
            // Whatever is found out later: this is how it ends.
            assert!(running.finish::<()>(Ok(())).is_err());
            assert_eq!(running.end.map(|end| end.is_ok()), Some(is_well));
        }
        Ok(())
    })
    .unwrap();
}
