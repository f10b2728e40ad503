//! VMs that others start and stop while a program uses them, and which of them it gives back. Their hosts are real
//! processes.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use river_core::{
    Channel, HostLimits, Query, QueueLimit, RecvError, Result, Selector, Vm, VmConfig, VmInfo, Vr, WhenFull,
};
use river_rai::{Rai, RaiServer};
use river_trickle::{TrickleError, current};

/// Only guards against hanging.
const LIMIT: Duration = Duration::from_secs(60);
/// Tells this process that it belongs to one test, with a discovery port and a key that nothing else uses.
const ALONE: &str = "RIVER_COMING_ALONE";

/// Runs a test in a process of its own, which is this executable with the name of the test.
fn alone(name: &str, test: impl FnOnce(&Vr) -> Result<()>) {
    if std::env::var_os(ALONE).is_some() {
        return river_core::try_run(test).unwrap();
    }
    let other: u32 = name.bytes().fold(0, |sum, byte| (31 * sum + u32::from(byte)) % 61);
    // Below the range from which the system assigns ports.
    let port = 10_000 + (std::process::id() % 340) * 61 + other;
    let scratch = tempfile::tempdir().unwrap();
    let status = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(ALONE, "1")
        .env("RIVER_PORT", port.to_string())
        .env("RIVER_KEY_FILE", scratch.path().join("key"))
        .env("RIVER_CACHE", scratch.path().join("cache"))
        .env_remove("RIVER_NETWORK")
        .env_remove("RIVER_HOSTS")
        .env_remove("RIVER_VMS")
        .status()
        .unwrap();
    assert!(status.success());
}

fn vm(name: &str) -> Vm {
    Vm::start(VmConfig::default().name(name)).unwrap()
}

/// Searches until this many VMs are idle: a single search misses one that is slow to answer.
fn wait_for_idle(vr: &Vr, count: usize) -> Result<()> {
    let start = Instant::now();
    while vr.discover(Query { idle_only: true, ..Query::default() })?.len() != count {
        assert!(start.elapsed() < LIMIT, "not {count} VMs are idle");
    }
    Ok(())
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
        let once = |(x, marker): (u64, PathBuf)| {
            if x == 5 && File::create_new(&marker).is_ok() {
                std::process::exit(3);
            }
            x
        };
        let results = vms.forkwork(once, (0..20).map(|x| (x, marker.clone())), 1)?;
        assert_eq!(results, (0..20).collect::<Vec<u64>>());
        std::fs::remove_file(marker)?;
        // It is noticed without a farm, too.
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
            wait_for_idle(vr, 2)?;
            assert!(vms[0].call(|x: u64| x, (1,)).unwrap_err().is_disconnected());
            assert!(matches!(vms.forkwork(|x: u64| x, 0..3, 1), Err(TrickleError::NoVmLeft { .. })));
        }
        drop(machines);
        Ok(())
    });
}

#[test]
fn that_what_was_given_back_has_ended_is_no_news() {
    alone("that_what_was_given_back_has_ended_is_no_news", |vr| {
        let machines = [vm("first"), vm("second"), vm("third")];
        let vms = river_trickle::connect(vr, machines.len())?;
        assert_eq!(vms.forkwork(|x: u64| x, 0..3, 1)?, [0, 1, 2]);
        vms.drain(&vms[1]);
        vms.release()?;
        wait_for_idle(vr, machines.len())?;
        let soon = Instant::now() + Duration::from_millis(100);
        let news = vr.receive_until(Selector::on(Channel::named("never")), Some(soon), |_| true).unwrap_err();
        assert!(matches!(news, RecvError::Timeout { .. }), "{news}");
        Ok(())
    });
}

/// VMs that are just being taken are not forgotten, whenever the search ends.
#[test]
fn vms_that_are_about_to_join_are_given_back_too() {
    alone("vms_that_are_about_to_join_are_given_back_too", |vr| {
        let machines = [vm("first"), vm("second")];
        let infos: Vec<VmInfo> = machines.iter().map(Vm::info).collect();
        for phase in 0..10 {
            let vms = river_trickle::connect(vr, 1)?;
            let start = Instant::now();
            vms.grow(None)?;
            // Its search takes a quarter of a second.
            while start.elapsed() < Duration::from_millis(230 + 15 * phase) {
                std::thread::yield_now();
            }
            vms.release()?;
            let all = vr.allocate_within(infos.clone(), 2, Duration::ZERO)?;
            vr.release(&all)?;
        }
        Ok(())
    });
}

#[test]
fn vms_join_who_has_no_room_for_messages() {
    alone("vms_join_who_has_no_room_for_messages", |vr| {
        let _first = vm("first");
        let mut vms = river_trickle::connect(vr, 1)?;
        vr.send_bytes(vr.id(), Channel::named("other"), 0, Vec::new())?;
        let limit = QueueLimit { messages: 1, bytes: usize::MAX, when_full: WhenFull::Wait };
        vr.limit_queue(Some(limit));
        vms.grow(None)?;
        let _second = vm("second");
        let start = Instant::now();
        while vms.names() != ["first", "second"] {
            assert!(start.elapsed() < LIMIT);
            vms.update();
        }
        vms.release()?;
        wait_for_idle(vr, 2)
    });
}

#[test]
fn a_server_that_ends_takes_nothing_else_on_its_vm_along() {
    alone("a_server_that_ends_takes_nothing_else_on_its_vm_along", |vr| {
        let machine = vm("only");
        let vms = river_trickle::connect(vr, 1)?;
        let other = vr.deploy(&[machine.info()], |_| RaiServer::unrestricted())?[0];
        vms[0].rai().stop()?;
        assert!(vms[0].call(|| (), ()).unwrap_err().is_disconnected());
        assert_eq!(Rai::connect(vr, other).call(|x: u64| x + 1, (1,)), Ok(2));
        vms.release()?;
        wait_for_idle(vr, 1)
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
        wait_for_idle(vr, 1)
    });
}

/// Returns what is found under two names, and in which process.
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
        // The slice does not contain the other one yet, but it has joined.
        assert_eq!(vms.inject_object("number", || 7_i64, ())?.len(), 1);
        assert!(from_both()?.iter().all(|found| *found == (Some("new".into()), Some(7))));
        vms.update();
        assert_eq!(vms.names(), ["first", "second"]);
        assert_eq!(vms[1].call_named::<i64, _>("negate", (3_i64,))?, -3);
        Ok(())
    });
}

#[test]
fn a_vm_that_cannot_have_what_was_injected_is_tried_once() {
    alone("a_vm_that_cannot_have_what_was_injected_is_tried_once", |vr| {
        let scratch = tempfile::tempdir()?;
        let log = scratch.path().join("log");
        let tries = || std::fs::read_to_string(&log).map(|log| log.matches("second").count());
        let _first = vm("first");
        let mut vms = river_trickle::connect(vr, 1)?;
        let make = |log: PathBuf| {
            let name = current::with_vr(|vr| vr.vm().to_owned()).unwrap();
            writeln!(File::options().create(true).append(true).open(log).unwrap(), "{name}").unwrap();
            assert_ne!(name, "second");
        };
        vms.inject_object("object", make, (log.clone(),))?;
        vms.grow(None)?;
        let _second = vm("second");
        let start = Instant::now();
        while tries()? == 0 {
            assert!(start.elapsed() < LIMIT);
            vms.update();
        }
        // It is idle for others, as it was given back, and another one is found.
        wait_for_idle(vr, 1)?;
        let _third = vm("third");
        while vms.names() != ["first", "third"] {
            assert!(start.elapsed() < LIMIT);
            vms.update();
        }
        assert_eq!(tries()?, 1);
        Ok(())
    });
}
