//! Farms over VMs on this machine whose hosts are real processes, and their real deaths.

use std::fs::File;
use std::path::PathBuf;

use river_core::{Result, Vr};
use river_rai::RaiServer;
use river_trickle::{TrickleError, Vms};

fn with_vms<R>(count: usize, body: impl FnOnce(&Vms<'_>) -> Result<R>) -> R {
    let program = |vr: &Vr| {
        let vms = vr.start_local(count)?;
        let servers = vr.deploy(&vms, |_| RaiServer::unrestricted())?;
        body(&Vms::attach(vr, vms.iter().map(|vm| vm.name.clone()).zip(servers.iter())))
    };
    river_core::try_run(program).unwrap()
}

/// The process that is the first to get here ends.
fn die_once(marker: &PathBuf) {
    if File::create_new(marker).is_ok() {
        std::process::exit(3);
    }
}

fn marker(test: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("river-trickle-{test}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

#[test]
fn functions_run_in_other_processes() {
    let processes = with_vms(2, |vms| Ok(river_trickle::join(vms.fork(std::process::id, ())?)?));
    assert!(processes[0] != processes[1] && !processes.contains(&std::process::id()));
}

#[test]
fn forkwork_survives_the_death_of_a_process() {
    let path = marker("work");
    let work = (0..200_u64).map(|x| (x, path.clone()));
    let square = |(x, path): (u64, PathBuf)| {
        if x == 50 {
            die_once(&path);
        }
        x * x
    };
    let results = with_vms(3, |vms| Ok(vms.forkwork(square, work, 5)?));
    assert_eq!(results, (0..200).map(|x| x * x).collect::<Vec<u64>>());
    std::fs::remove_file(path).unwrap();
}

#[test]
fn forkfold_survives_the_death_of_a_process() {
    let path = marker("fold");
    let work = (0..200_u64).map(|x| (x, path.clone()));
    let step = |sum: &mut u64, items: Vec<(u64, PathBuf)>| {
        for (x, path) in items {
            if x == 150 {
                die_once(&path);
            }
            *sum += x;
        }
    };
    let sum = with_vms(3, |vms| Ok(vms.forkfold(step, |a, b| *a += b, work, 5).run()?));
    assert_eq!(sum, (0..200).sum::<u64>());
    std::fs::remove_file(path).unwrap();
}

#[test]
fn work_that_kills_every_vm_is_given_up() {
    let deadly = |x: u64| if x == 7 { std::process::exit(3) } else { x };
    let error = with_vms(4, |vms| Ok(vms.forkwork(deadly, 0..20, 1).unwrap_err()));
    let TrickleError::Deadly { items, deaths } = &error else { panic!("{error}") };
    assert_eq!((items.0.clone(), deaths.len()), (7..8, 3));
    assert!(error.to_string().contains("exit code 3"), "{error}");
}

#[test]
fn when_all_vms_are_dead_the_error_says_how() {
    let deadly = |_: u64| -> u64 { std::process::exit(4) };
    let error = with_vms(2, |vms| Ok(vms.forkwork(deadly, 0..20, 1).unwrap_err()));
    let TrickleError::NoVmLeft { deaths } = &error else { panic!("{error}") };
    assert_eq!(deaths.len(), 2);
    assert!(deaths.iter().all(|death| death.why.contains("exit code 4")), "{error}");
}
