//! VMs that others can lease: a cluster takes them, and gives them back. In a process of its own, as the port that they
//! listen on is set by its environment.

use std::process::Command;
use std::time::{Duration, Instant};

use river_core::{Channel, Query, RecvError, Selector, VirtualResource, Vm, VmConfig, Vr, VrId};
use river_mapreduce::{Cluster, Input, Job, JobError, MapContext, ReduceContext, Values, job};
use serde::{Deserialize, Serialize};

#[test]
fn vms_are_given_back() {
    let scratch = tempfile::tempdir().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "helper_process", "--nocapture"])
        .env("RIVER_TEST_PART", "program")
        .env("RIVER_PORT", (24_000 + std::process::id() % 8000).to_string())
        .env("RIVER_KEY_FILE", scratch.path().join("key"))
        .env("RIVER_CACHE", scratch.path().join("cache"))
        .env_remove("RIVER_NETWORK")
        .env_remove("RIVER_HOSTS")
        .env_remove("RIVER_VMS")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && text.contains("[all seen]"), "{text}");
}

/// Ends at once.
#[derive(Serialize, Deserialize)]
struct Brief;

impl VirtualResource for Brief {
    fn main(&mut self, _: &Vr) -> river_core::Result {
        Ok(())
    }
}

fn program(vr: &Vr) -> river_core::Result {
    let count = job(
        |n: u64, out: &mut MapContext<'_, u64, u64>| out.emit(n % 10, 1),
        |n: u64, counts: &mut Values<'_, u64>, out: &mut ReduceContext<'_, u64, u64>| {
            out.emit(n, counts.sum());
        },
    );
    let own = vr.start_local(1)?;
    let brief = || -> river_core::Result<VrId> {
        let brief = vr.deploy(&own, |_| Brief)?[0];
        vr.watch(brief);
        Ok(brief)
    };
    for before_the_job in [true, false] {
        let cluster = Cluster::connect(vr, 2)?;
        let first = before_the_job.then(brief).transpose()?;
        assert_eq!(Job::new(count, Input::generate(1000)).run(&cluster)?.collect()?.len(), 10);
        let error = Cluster::connect(vr, 1).unwrap_err();
        assert!(matches!(error, JobError::Deploy(_)), "{error}");
        let brief = first.map_or_else(brief, Ok)?;
        cluster.release()?;
        // Ends of VRs outside the cluster are still reported.
        let heard = vr.receive(Selector::on(Channel::named("other")));
        assert!(matches!(&heard, Err(RecvError::Down(down)) if down.who == brief), "{heard:?}");
    }
    // Ends of VRs that ended with the cluster are not reported.
    let heard = vr.try_receive_where(Selector::on(Channel::named("other")), |_| true);
    assert!(matches!(heard, Ok(None)), "{heard:?}");
    Ok(())
}

/// Searches until both VMs are idle: a single search misses one that is slow to answer.
fn wait_for_idle(vr: &Vr) -> river_core::Result {
    let start = Instant::now();
    while vr.discover(Query { idle_only: true, ..Query::default() })?.len() != 2 {
        assert!(start.elapsed() < Duration::from_secs(60), "the VMs are not idle");
    }
    Ok(())
}

/// VMs are given back if no cluster can be made.
fn recoverable(vr: &Vr) -> river_core::Result {
    wait_for_idle(vr)?;
    assert!(matches!(Cluster::connect(vr, 2), Err(JobError::Recoverable)));
    wait_for_idle(vr)?;
    println!("[all seen]");
    Ok(())
}

/// Not a real test: the process that `vms_are_given_back` runs.
#[test]
fn helper_process() {
    if std::env::var_os("RIVER_TEST_PART").is_some() {
        let _vms = ["a", "b"].map(|name| Vm::start(VmConfig::default().name(name)).unwrap());
        river_core::try_run(program).unwrap();
        river_core::try_run_recoverable(recoverable).unwrap();
    }
}
