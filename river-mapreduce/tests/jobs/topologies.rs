//! The same jobs on every topology of VMs.

use river_core::testing::for_each_topology;
use river_mapreduce::{Cluster, Input, Job};

use super::{Identity, WordCount, counted, lines, with_cluster};

#[test]
fn jobs_run_on_every_topology() {
    for_each_topology(|topology, make_vms| {
        let program = |vr: &river_core::Vr| {
            let cluster = Cluster::on(vr, &make_vms(vr, 3)?)?;
            for combines in [true, false] {
                let job =
                    Job::new(WordCount { combines }, Input::items(lines(5000))).sorted().split_size(10_000);
                // Chained jobs use the same workers.
                let outcome = job.run(&cluster)?;
                assert_eq!(outcome.collect()?, counted(&lines(5000)), "{topology}");
                assert_eq!(outcome.counters().get("lines"), 5000);
                let compressed = job.compress(true);
                assert_eq!(compressed.run(&cluster)?.collect()?, counted(&lines(5000)), "{topology}");
                let job = compressed.compress(false);
                let small = job.memory(3 * 40_000).run(&cluster)?;
                assert_eq!(small.collect()?, counted(&lines(5000)), "{topology}");
                assert!(combines || small.report().spilled_bytes > 0, "{}", small.report());
            }
            Ok(())
        };
        river_core::try_run(program).unwrap();
    });
}

#[test]
fn the_output_does_not_depend_on_the_number_of_vms_or_the_memory() {
    let records: Vec<(Vec<u8>, Vec<u8>)> =
        (0..20_000u32).map(|i| (vec![(i % 97) as u8], i.to_be_bytes().to_vec())).collect();
    let job = || Job::new(Identity { ordered: false }, Input::items(records.clone())).reducers(3);
    let expected = job().run_serial().unwrap().collect().unwrap();
    for vms in [1, 2, 4] {
        for memory in [None, Some(vms as u64 * 100_000)] {
            let mut job = job();
            if let Some(memory) = memory {
                job = job.memory(memory);
            }
            let output = with_cluster(vms, |cluster| Ok(job.run(cluster)?.collect()?));
            assert!(output == expected, "{vms} VMs, memory {memory:?}");
        }
    }
}

#[test]
fn a_vm_may_have_several_slots() {
    let program = |vr: &river_core::Vr| {
        let cluster = Cluster::with_slots(vr, &vr.start_local(2)?, 3)?;
        let job = Job::new(WordCount { combines: true }, Input::items(lines(5000))).reducers(1);
        Ok(job.run(&cluster)?.collect()?)
    };
    assert_eq!(river_core::try_run(program).unwrap(), counted(&lines(5000)));
}

#[test]
fn what_the_workers_of_a_vm_spill_is_counted_once() {
    let program = |vr: &river_core::Vr| {
        let cluster = Cluster::with_slots(vr, &vr.start_local(1)?, 4)?;
        let job = Job::new(WordCount { combines: false }, Input::items(lines(20_000)));
        // Nothing is kept in memory.
        Ok(job.memory(1).run(&cluster)?.report().clone())
    };
    let report = river_core::try_run(program).unwrap();
    assert!(report.shuffled_bytes > 0);
    assert_eq!(report.spilled_bytes, report.shuffled_bytes, "{report}");
}
