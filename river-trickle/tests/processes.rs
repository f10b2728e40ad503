//! Farms over VMs on this machine whose hosts are real processes that really die.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use river_core::{Result, Vm, VmConfig, VmInfo, Vr};
use river_rai::RaiServer;
use river_trickle::{TrickleError, Vms, join};

/// Only guards against hanging.
const LIMIT: Duration = Duration::from_secs(60);

fn with_vms<R>(count: usize, body: impl FnOnce(&Vms<'_>) -> Result<R>) -> R {
    let program = |vr: &Vr| {
        let vms = vr.start_local(count)?;
        let servers = vr.deploy(&vms, |_| RaiServer::unrestricted())?;
        body(&Vms::attach(vr, vms.iter().map(|vm| vm.name.clone()).zip(servers.iter())))
    };
    river_core::try_run(program).unwrap()
}

/// Ends the first process that calls this.
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
    let processes = with_vms(2, |vms| Ok(join(vms.fork(std::process::id, ())?)?));
    assert!(processes[0] != processes[1] && !processes.contains(&std::process::id()));
}

/// Runs a helper of this executable, which is a test that does nothing unless `RIVER_TEST_HELPER` names it.
fn run_helper(name: &str, environment: &[(&str, &str)]) -> String {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("RIVER_TEST_HELPER", name)
        .env_remove("RUST_LIB_BACKTRACE")
        .env_remove("RIVER_NETWORK")
        .env_remove("RIVER_HOSTS")
        .env_remove("RIVER_VMS")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn is_helper(name: &str) -> bool {
    std::env::var_os("RIVER_TEST_HELPER").is_some_and(|asked| asked == *name)
}

#[test]
fn a_vm_that_is_drained_goes_when_its_forks_are_joined() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    // Below the range from which the system assigns ports.
    let port = (10_000 + std::process::id() % 20_000).to_string();
    let (key, cache) = (at("key"), at("cache"));
    run_helper(
        "helper_that_drains",
        &[("RIVER_PORT", &port), ("RIVER_KEY_FILE", &key), ("RIVER_CACHE", &cache)],
    );
}

/// Not a real test: has a discovery port and a key that nothing else uses.
#[test]
fn helper_that_drains() {
    if !is_helper("helper_that_drains") {
        return;
    }
    let machines = Vm::start_many(&VmConfig::default(), 2).unwrap();
    let infos: Vec<VmInfo> = machines.iter().map(Vm::info).collect();
    let path = marker("drain");
    let until = |path: PathBuf| {
        while !path.exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        7
    };
    river_core::try_run(|vr| {
        let vms = river_trickle::connect(vr, 2)?;
        let at = |info: &VmInfo| vms.iter().find(|vm| vm.name() == info.name).unwrap();
        let (drained, other) = (at(&infos[0]), at(&infos[1]));
        let first = drained.fork(until, (path.clone(),))?;
        let second = drained.fork(|x: i64| x + 1, (7,))?;
        river_core::drain(&infos[0])?;
        let start = Instant::now();
        while vr.leaving().is_empty() {
            assert!(start.elapsed() < LIMIT, "it is told");
            std::thread::yield_now();
        }
        // Others come and go; its own work is not lost.
        assert_eq!(join(other.fork(|x: i64| x + 10, (1,))?)?, 11);
        File::create(&path)?;
        assert_eq!(join((first, second))?, (7, 8));
        // It was given back, so it ends; if it does not, the failure is reported.
        let (ended, end) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let machine = &machines[0];
            scope.spawn(move || {
                machine.wait();
                let _ = ended.send(());
            });
            let end = end.recv_timeout(LIMIT);
            if end.is_err() {
                let _ = river_core::stop(&infos[0]);
            }
            end
        })?;
        assert_eq!(join(other.fork(|x: i64| x + 10, (2,))?)?, 12);
        Ok(())
    })
    .unwrap();
    std::fs::remove_file(path).unwrap();
}

#[inline(never)]
fn deeply_broken(x: i64) -> i64 {
    assert!(x < 0, "{x} is broken");
    x
}

/// Not a real test: the process that the next one runs.
#[test]
fn helper_that_prints_errors() {
    if !is_helper("helper_that_prints_errors") {
        return;
    }
    let broken = |x: i64| std::hint::black_box(deeply_broken(x));
    let errors = with_vms(1, |vms| {
        let (call, item) =
            (vms[0].call(broken, (5,)).unwrap_err(), vms.forkwork(broken, [6], 1).unwrap_err());
        let fold =
            vms.forkfold(|sum: &mut i64, x: Vec<i64>| *sum += deeply_broken(x[0]), |_, _| {}, [7], 1).run();
        Ok([call, item, fold.unwrap_err()])
    });
    for error in errors {
        println!("[short] {error}");
        println!("[long] {error:?}");
        println!("[report] {:?}", river_core::VrError::from(error));
    }
}

#[test]
fn the_way_to_a_panic_travels_if_it_is_wanted() {
    let run = |backtrace| run_helper("helper_that_prints_errors", &[("RUST_BACKTRACE", backtrace)]);
    let said = run("1");
    let parts: Vec<&str> = said.split("[short] ").skip(1).collect();
    assert_eq!(parts.len(), 3, "{said}");
    for part in parts {
        let (short, rest) = part.split_once("[long] ").unwrap();
        let (long, report) = rest.split_once("[report] ").unwrap();
        assert!(short.contains("is broken") && short.trim().lines().count() == 1, "{short}");
        for shown in [long, report] {
            assert!(shown.contains("deeply_broken") && shown.contains("processes.rs:"), "{shown}");
            assert!(!shown.contains("core::panicking"), "{shown}");
        }
    }
    assert!(!run("0").contains("deeply_broken"));
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
