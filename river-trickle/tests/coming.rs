//! VMs that others start and stop while a program uses them, and what of them it gives back. Their hosts are real processes.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fs::File;
use std::process::Command;
use std::time::{Duration, Instant};

use river_core::{HostLimits, Query, Result, Vm, VmConfig, Vr};
use river_trickle::{TrickleError, current};

/// Against hanging only.
const LIMIT: Duration = Duration::from_secs(60);
/// Says that this process is a test's own, with a discovery port that nobody else uses.
const ALONE: &str = "RIVER_COMING_ALONE";

/// Runs a test in a process of its own, which is this executable with the name of the test.
fn alone(name: &str, test: impl FnOnce(&Vr) -> Result<()>) {
    if std::env::var_os(ALONE).is_some() {
        return river_core::try_run(test).unwrap();
    }
    let other: u32 = name.bytes().fold(0, |sum, byte| (31 * sum + u32::from(byte)) % 61);
    let port = 48_000 + (std::process::id() % 100) * 61 + other;
    let status = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(ALONE, "1")
        .env("RIVER_PORT", port.to_string())
        .status()
        .unwrap();
    assert!(status.success());
}

fn vm(name: &str) -> Vm {
    Vm::start(VmConfig::default().name(name)).unwrap()
}

/// How many VMs there are for everybody.
fn idle(vr: &Vr) -> Result<usize> {
    Ok(vr.discover(Query { idle_only: true, ..Query::default() })?.len())
}

#[test]
fn a_vm_that_died_is_replaced_if_so_many_are_wanted() {
    alone("a_vm_that_died_is_replaced_if_so_many_are_wanted", |vr| {
        let first = vm("first");
        let mut vms = river_trickle::connect(vr, 1)?;
        vms.grow(Some(1))?;
        let mut farm = vms.forkgen(|x: u64| x, 0..1000, 1);
        let mut results = vec![farm.next().unwrap()?];
        first.stop();
        let _second = vm("second");
        for result in farm {
            results.push(result?);
        }
        results.sort_unstable();
        assert_eq!(results, (0..1000).collect::<Vec<u64>>());
        vms.update();
        assert_eq!(vms.names(), ["second"]);
        Ok(())
    });
}

#[test]
fn a_farm_that_grows_only_after_it_has_begun_waits_for_others_too() {
    alone("a_farm_that_grows_only_after_it_has_begun_waits_for_others_too", |vr| {
        let first = vm("first");
        let vms = river_trickle::connect(vr, 1)?;
        let mut farm = vms.forkgen(|x: u64| x, 0..1000, 1);
        let mut results = vec![farm.next().unwrap()?];
        vms.grow(None)?;
        first.stop();
        let _second = vm("second");
        for result in farm {
            results.push(result?);
        }
        assert_eq!(results.len(), 1000);
        Ok(())
    });
}

#[test]
fn a_vm_whose_host_died_can_be_used_again() {
    alone("a_vm_whose_host_died_can_be_used_again", |vr| {
        let _vm = vm("only");
        let marker = std::env::temp_dir().join(format!("river-trickle-again-{}", std::process::id()));
        let _ = std::fs::remove_file(&marker);
        let mut vms = river_trickle::connect(vr, 1)?;
        vms.grow(Some(1))?;
        let once = |(x, marker): (u64, std::path::PathBuf)| {
            if x == 5 && File::create_new(&marker).is_ok() {
                std::process::exit(3);
            }
            x
        };
        let results = vms.forkwork(once, (0..20).map(|x| (x, marker.clone())), 1)?;
        assert_eq!(results, (0..20).collect::<Vec<u64>>());
        std::fs::remove_file(marker)?;
        // Not only a farm hears of it.
        vms.update();
        let die = || -> () { std::process::exit(3) };
        assert!(vms[0].call(die, ()).unwrap_err().is_disconnected());
        assert_eq!(vms.forkwork(|x: u64| x, 0..3, 1)?, [0, 1, 2]);
        Ok(())
    });
}

#[test]
fn vms_that_are_released_can_be_had_again() {
    alone("vms_that_are_released_can_be_had_again", |vr| {
        let machines = [vm("first"), vm("second")];
        for _phase in 0..2 {
            let vms = river_trickle::connect(vr, 1)?;
            vms.grow(None)?;
            // Until the other one has joined.
            let (width, start) = (Cell::new(0), Instant::now());
            let work = (0..).take_while(|_| width.get() < 2 && start.elapsed() < LIMIT);
            let farm = vms.forkgen(|x: u64| x, work, 1).on_progress(|progress| width.set(progress.vms));
            for result in farm {
                result?;
            }
            assert_eq!(width.get(), 2);
            vms.clone().release()?;
            assert_eq!(idle(vr)?, 2);
            assert!(vms[0].call(|x: u64| x, (1,)).unwrap_err().is_disconnected());
            assert!(matches!(vms.forkwork(|x: u64| x, 0..3, 1), Err(TrickleError::NoVmLeft { .. })));
        }
        drop(machines);
        Ok(())
    });
}

#[test]
fn a_vm_that_cannot_be_used_is_not_kept() {
    alone("a_vm_that_cannot_be_used_is_not_kept", |vr| {
        // Its hosts cannot even start a thread.
        let limits = HostLimits { memory: Some(1), ..HostLimits::default() };
        let _vm = Vm::start(VmConfig::default().name("only").limits(limits)).unwrap();
        let error = river_trickle::connect(vr, 1).unwrap_err();
        assert!(error.to_string().contains("only"), "{error}");
        assert_eq!(idle(vr)?, 1);
        Ok(())
    });
}

/// What is found under two names, and where.
fn look(_: u64) -> (u32, Option<String>, Option<i64>) {
    let word = current::with_named("word", |word: &mut String| word.clone());
    let number = current::with_named("number", |number: &mut i64| *number);
    (std::process::id(), word, number)
}

#[test]
fn vms_that_join_get_what_was_injected_before_they_get_work() {
    alone("vms_that_join_get_what_was_injected_before_they_get_work", |vr| {
        let _first = vm("first");
        let mut vms = river_trickle::connect(vr, 1)?;
        vms.inject("word", "old".to_string())?;
        vms.inject("word", "new".to_string())?;
        vms.inject_fn("negate", |x: i64| -x)?;
        vms.grow(None)?;
        let _second = vm("second");
        let from_both = || -> Result<Vec<(Option<String>, Option<i64>)>> {
            let (places, start) = (RefCell::new(HashSet::new()), Instant::now());
            let work = (0..).take_while(|_| places.borrow().len() < 2 && start.elapsed() < LIMIT);
            let look = vms.forkgen(look, work, 1).map(|found| {
                let (place, word, number) = found?;
                places.borrow_mut().insert(place);
                Ok((word, number))
            });
            let found = look.collect();
            assert_eq!(places.borrow().len(), 2);
            found
        };
        assert!(from_both()?.iter().all(|found| *found == (Some("new".into()), None)));
        // The handles have not seen the other one yet, but it is there.
        assert_eq!(vms.inject_object("number", || 7_i64, ())?.len(), 1);
        assert!(from_both()?.iter().all(|found| *found == (Some("new".into()), Some(7))));
        vms.update();
        assert_eq!(vms.names(), ["first", "second"]);
        assert_eq!(vms[1].call_named::<i64, _>("negate", (3_i64,))?, -3);
        Ok(())
    });
}
