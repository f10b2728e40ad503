//! A driver that is told things by others than its workers.

use super::*;
use crate::builder::Job;
use crate::input::Input;
use crate::job::{MapContext, ReduceContext, Values, job};

#[test]
fn what_workers_of_another_cluster_still_say_is_not_taken_for_an_answer() {
    let identity = job(
        |n: u64, out: &mut MapContext<'_, u64, ()>| out.emit(n, ()),
        |n: u64, _: &mut Values<'_, ()>, out: &mut ReduceContext<'_, u64, ()>| out.emit(n, ()),
    );
    // All that a worker says of an attempt, with nothing in it.
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
            let outcome = Job::new(identity, Input::generate(100)).reducers(1).run(&cluster)?;
            assert_eq!(outcome.collect()?, (0..100).map(|n| (n, ())).collect::<Vec<_>>());
            Ok(())
        })
        .unwrap();
    }
}
