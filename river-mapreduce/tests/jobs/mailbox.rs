//! A program that limits its mailbox.

use river_core::{QueueLimit, WhenFull};
use river_mapreduce::{Cluster, Input, Job, MapContext, ReduceContext, Values, job};

#[test]
fn workers_wait_for_room_in_the_mailbox_of_the_program() {
    let records = 20_000;
    let long = job(
        |n: u64, out: &mut MapContext<'_, u64, ()>| out.emit(n, ()),
        |n: u64, _: &mut Values<'_, ()>, out: &mut ReduceContext<'_, u64, String>| {
            out.emit(n, &"x".repeat(500));
        },
    );
    river_core::try_run(|vr| {
        let cluster = Cluster::on(vr, &vr.start_local(2)?)?;
        // A message that arrives while another one waits is refused.
        let limit = QueueLimit { messages: 1, bytes: usize::MAX, when_full: WhenFull::Refuse };
        vr.limit_queue(Some(limit));
        let outcome = Job::new(long, Input::generate(records)).split_size(1000).run(&cluster)?;
        assert_eq!(outcome.collect()?.len() as u64, records);
        Ok(())
    })
    .unwrap();
}
