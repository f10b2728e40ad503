//! Messages to a driver that its workers send late, or that others send.

use super::*;
use crate::input::Framing;
use crate::job::{Closures, MapContext, ReduceContext, Values, job};
use crate::output::Format;
use crate::spec::Settings;
use crate::travel::Travel;

fn identity() -> impl Travel<Input = u64, OutKey = u64, OutValue = ()> + Copy {
    let map = |n: u64, out: &mut MapContext<'_, u64, ()>| out.emit(n, ());
    let reduce = |n: u64, _: &mut Values<'_, ()>, out: &mut ReduceContext<'_, u64, ()>| out.emit(n, ());
    let identity: Closures<u64, u64, (), u64, (), _, _> = job(map, reduce);
    identity
}

fn job_on(splits: &[Split]) -> Run<'_> {
    let packed = identity().pack().unwrap();
    let settings = Settings {
        framing: Framing::Lines,
        reducers: 1,
        bounds: None,
        map_memory: 1 << 20,
        store_memory: 1 << 20,
        merge_memory: 1 << 20,
        format: Format::Records,
        directory: None,
        skippable: 0,
        sample: None,
    };
    Run {
        spec: JobSpec { code: packed.code, state: packed.state, settings },
        splits,
        directory: None,
        speculate: false,
        compress: None,
        bar: Bar::new(false),
    }
}

#[test]
fn what_workers_of_another_cluster_still_say_is_not_taken_for_an_answer() {
    // Answers of a worker, with nothing in them.
    let late = |attempt: u64| {
        let why = "late".to_owned();
        let (totals, counters) = (MapTotals::default(), Counters::default());
        [
            ToMaster::Failed { attempt, failure: Failure::Panicked(why) },
            ToMaster::Mapped { attempt, runs: Vec::new(), totals, counters, spilled: 0 },
        ]
    };
    for said in 0..2 {
        river_core::try_run(|vr| {
            let cluster = Cluster::on(vr, &vr.start_local(1)?)?;
            for attempt in 1..4 {
                let late = &late(attempt)[said];
                vr.send_bytes(vr.id(), CHANNEL, 0, encode(late, Bytes::new())?)?;
            }
            let done = run(&cluster, job_on(&[Split::Range(0, 100)]))?;
            assert_eq!((done.maps[0].totals.records, done.reduces[0].totals.records), (100, 100));
            Ok(())
        })
        .unwrap();
    }
}

#[test]
fn how_far_a_map_task_is_that_runs_again_is_not_what_it_had_done() {
    river_core::try_run(|vr| {
        let cluster = Cluster::on(vr, &vr.start_local(2)?)?;
        let mut driver = Driver::new(&cluster, job_on(&[Split::Range(0, 100)]));
        // Two VMs run the same map task, one after the other: the output of the first was lost.
        let mapping = |driver: &mut Driver<'_, '_>| {
            let Some(Action::Start { worker, attempt, task: TaskId::Map(0) }) =
                driver.master.poll(Duration::ZERO)
            else {
                panic!("a map task was to be started")
            };
            (cluster.workers[worker.0], attempt.0)
        };
        let (worker, attempt) = mapping(&mut driver);
        let totals = MapTotals { records: 100, ..MapTotals::default() };
        let (runs, counters) = (Vec::new(), Counters::default());
        driver.handle(
            worker.id,
            ToMaster::Mapped { attempt, runs, totals, counters, spilled: 0 },
            Bytes::new(),
        )?;
        driver.down(worker.place, "lost".to_owned());
        let (worker, attempt) = mapping(&mut driver);
        driver.handle(worker.id, ToMaster::Mapping { attempt, records: 7 }, Bytes::new())?;
        assert_eq!((driver.maps[0].totals.records, driver.read[0]), (100, 7));
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_vm_whose_depot_cannot_answer_is_lost_if_who_asks_lives() {
    river_core::try_run(|vr| {
        let cluster = Cluster::on(vr, &vr.start_local(3)?)?;
        let mut driver = Driver::new(&cluster, job_on(&[]));
        driver.down(0, "lost".to_owned());
        for (asked_by, lost) in [(0, 1), (2, 2)] {
            let message =
                ToMaster::Unanswered { worker: cluster.workers[asked_by].id, why: "no way".to_owned() };
            driver.handle(cluster.places[1].depot, message, Bytes::new())?;
            assert_eq!(driver.lost.len(), lost);
        }
        assert_eq!(driver.lost[1], Death { vm: cluster.places[1].name.clone(), why: "no way".to_owned() });
        Ok(())
    })
    .unwrap();
}

/// The reader of a depot that has died may say so before the master hears of the death itself.
#[test]
fn a_death_that_a_worker_hears_of_first_fails_no_task_and_loses_no_other_vm() {
    river_core::try_run(|vr| {
        let cluster = Cluster::on(vr, &vr.start_local(2)?)?;
        let mut driver = Driver::new(&cluster, job_on(&[Split::Range(0, 100)]));
        let (attempt, depot) = (1, cluster.places[1].depot);
        driver.master.poll(Duration::ZERO);
        let worker = cluster.workers[0].id;
        driver.handle(worker, ToMaster::Blocked { attempt, depot, unreached: None }, Bytes::new())?;
        assert!(driver.failure.is_none() && driver.lost.is_empty());
        assert!(driver.master.task_of(AttemptId(attempt)).is_some(), "it goes on");
        Ok(())
    })
    .unwrap();
}
