//! The limit on memory, compared with what the kernel counts: jobs whose data are several times as large.

use std::fs;

use river_core::Vr;
use river_mapreduce::{Cluster, Input, Job, MapContext, MapReduce, ReduceContext, Travel, Values, job};

const VMS: usize = 2;
/// For all VMs together.
const LIMIT: u64 = 80 << 20;
const LENGTH: usize = 1000;

/// What the kernel says about a process, without the unit.
fn status(process: u32, name: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The child processes of this one.
fn children() -> Vec<u32> {
    let own = u64::from(std::process::id());
    let names = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
    let processes = names.filter_map(|name| name.to_str()?.parse().ok());
    processes.filter(|process| status(*process, "PPid") == Some(own)).collect()
}

/// Runs a job of which this much is shuffled, and checks that it does not take more than a tenth beyond the limit.
fn check<M: MapReduce + Travel>(cluster: &Cluster<'_>, job: Job<M>, shuffled: u64) {
    let outcome = job.memory(LIMIT).reducers(4).run(cluster).unwrap();
    let report = outcome.report();
    assert!(report.shuffled_bytes > shuffled, "{report}");
    let vms = children();
    assert_eq!(vms.len(), VMS);
    let peaks: Vec<u64> = vms.iter().map(|vm| status(*vm, "VmHWM").unwrap() << 10).collect();
    assert!(peaks.iter().sum::<u64>() < LIMIT + LIMIT / 10, "{peaks:?}");
}

fn program(vr: &Vr) -> river_core::Result {
    let cluster = Cluster::on(vr, &vr.start_local(VMS)?)?;
    let sort = job(
        |n: u64, out: &mut MapContext<'_, u64, String>| {
            out.emit(n.wrapping_mul(0x9e37_79b9_7f4a_7c15), &"x".repeat(LENGTH));
        },
        |key: u64, texts: &mut Values<'_, String>, out: &mut ReduceContext<'_, u64, u64>| {
            while let Some(text) = texts.next_view() {
                out.emit(key, text.len() as u64);
            }
        },
    );
    let records = 3 * LIMIT / LENGTH as u64;
    check(&cluster, Job::new(sort, Input::generate(records)), 3 * LIMIT);
    // Each key has three values in each split.
    let combine = job(
        |n: u64, out: &mut MapContext<'_, u64, String>| {
            out.emit((n / 3).wrapping_mul(0x9e37_79b9_7f4a_7c15), &"x".repeat(LENGTH));
        },
        |key: u64, texts: &mut Values<'_, String>, out: &mut ReduceContext<'_, u64, u64>| {
            while let Some(text) = texts.next_view() {
                out.emit(key, text.len() as u64);
            }
        },
    )
    .combine(|all: &mut String, more: &str| all.push_str(more));
    check(&cluster, Job::new(combine, Input::generate(records)), 3 * LIMIT);
    Ok(())
}

#[test]
fn jobs_take_no_more_memory_than_they_may() {
    river_core::try_run(program).unwrap();
}
