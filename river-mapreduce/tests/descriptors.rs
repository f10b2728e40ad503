//! A process that may open only a few files.

use std::fs;

use river_mapreduce::{Input, Job, MapContext, ReduceContext, Values, job};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The maximum number of open files of the process.
const FILES: u64 = 64;

#[test]
fn runs_that_are_spilled_cost_one_file_together() {
    let now = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(FILES), ..now }).unwrap();
    let sort = job(
        |n: u64, out: &mut MapContext<'_, u64, u64>| out.emit(n.wrapping_mul(0x9e37_79b9_7f4a_7c15), n),
        |key: u64, values: &mut Values<'_, u64>, out: &mut ReduceContext<'_, u64, u64>| {
            values.for_each(|n| out.emit(key, n));
        },
    );
    let records = 20_000;
    let outcome = Job::new(sort, Input::generate(records)).reducers(1).memory(4000).run_serial().unwrap();
    let output = outcome.collect().unwrap();
    assert!(output.len() as u64 == records && output.is_sorted());
    assert!(outcome.report().spilled_bytes > records * 16 / 2, "{}", outcome.report());
    assert!(fs::read_dir("/proc/self/fd").unwrap().count() < FILES as usize / 2);
}
