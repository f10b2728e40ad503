//! Farms over servers that are threads of this process. A VM "dies" here when its server ends: work that it had not
//! begun is lost with it.

mod folds;
#[path = "../scene/mod.rs"]
mod scene;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use river_core::VrError;
use river_trickle::{Chunk, TrickleError, Vms, current, join, joinany};
use scene::with_vms;
use serde::{Deserialize, Deserializer, Serialize};

/// Has a VM die as soon as it has done what it was asked so far.
fn kill(vms: &Vms<'_>, vm: usize) {
    vms[vm].rai().stop().unwrap();
}

fn foo(x: i64) -> i64 {
    x + 10
}

fn bar(x: i64) -> i64 {
    x + 20
}

fn sum(numbers: Vec<i64>) -> i64 {
    numbers.into_iter().sum()
}

type Tally = BTreeMap<u64, u64>;

fn tally(tally: &mut Tally, numbers: Vec<u64>) {
    for n in numbers {
        *tally.entry(n % 10).or_default() += n;
    }
}

fn merge(into: &mut Tally, from: Tally) {
    for (key, n) in from {
        *into.entry(key).or_default() += n;
    }
}

fn expected(n: u64) -> Tally {
    let mut whole = Tally::new();
    tally(&mut whole, (0..n).collect());
    whole
}

fn picky(x: u64) -> u64 {
    assert!(x != 17, "{x} is not to my taste");
    x
}

// ---- the paper's examples ----

#[test]
fn example_1_a_call_on_each_vm() {
    with_vms(4, |vms| {
        let results: Vec<i64> = vms.iter().map(|vm| vm.call(foo, (10,))).collect::<Result<_, _>>().unwrap();
        assert_eq!(results, [20, 20, 20, 20]);
        assert_eq!(vms.names(), ["vm-0", "vm-1", "vm-2", "vm-3"]);
    });
}

#[test]
fn example_6_fork_and_join() {
    with_vms(4, |vms| {
        let h = vms[0].fork(foo, (1,)).unwrap();
        assert_eq!(h.vm().name(), "vm-0");
        assert_eq!(join(h), Ok(11));
        let hs = (vms[0].fork(foo, (1,)).unwrap(), vms[1].fork(bar, (2,)).unwrap());
        assert_eq!(join(hs), Ok((11, 22)));
        assert_eq!(join(vms.fork(foo, (10,)).unwrap()), Ok(vec![20; 4]));
        let hs = vms.fork_each(foo, (0..4).map(|i| (i,))).unwrap();
        assert_eq!(join(hs), Ok(vec![10, 11, 12, 13]));
        let error = vms.fork_each(foo, (0..5).map(|i| (i,))).unwrap_err();
        assert_eq!(error, TrickleError::TooManyArguments { vms: 4 });
    });
}

#[test]
fn joinany_returns_each_fork_once() {
    with_vms(3, |vms| {
        let mut hs = vms.fork_each(foo, (0..3).map(|i| (i,))).unwrap();
        let mut results = BTreeMap::new();
        while !hs.is_empty() {
            let (h, r) = joinany(&mut hs).unwrap();
            assert!(results.insert(h.vm().name().to_owned(), r).is_none());
        }
        assert_eq!(results.into_values().collect::<Vec<_>>(), [10, 11, 12]);
        assert_eq!(joinany(&mut hs).unwrap_err(), TrickleError::NothingToJoin);
    });
}

#[test]
fn joinany_gives_up_what_takes_too_long() {
    with_vms(2, |vms| {
        let endless = |x: i64| {
            while !current::is_cancelled() {
                std::thread::yield_now();
            }
            x
        };
        let limited = vms[1].timeout(Duration::from_millis(50));
        let mut hs = vec![vms[0].fork(endless, (0,)).unwrap(), limited.fork(endless, (1,)).unwrap()];
        let error = joinany(&mut hs).unwrap_err();
        let TrickleError::Call { vm, error } = &error else { panic!("{error}") };
        assert!(vm == "vm-1" && error.is_timeout(), "{error}");
        let [h] = <[_; 1]>::try_from(hs).unwrap();
        assert_eq!(h.vm().name(), "vm-0");
        h.cancel();
        // Both were cancelled.
        assert_eq!(join(vms.fork(foo, (1,)).unwrap()), Ok(vec![11, 11]));
    });
}

#[test]
fn a_failed_fork_names_its_vm() {
    with_vms(2, |vms| {
        let error = join(vms[1].fork(picky, (17,)).unwrap()).unwrap_err();
        assert!(error.to_string().starts_with("VM vm-1: "), "{error}");
        let mut hs = vec![vms[0].fork(picky, (17,)).unwrap()];
        let error = joinany(&mut hs).unwrap_err().to_string();
        assert!(error.contains("vm-0") && error.contains("17 is not to my taste"), "{error}");
        assert!(hs.is_empty());
    });
}

#[test]
fn errors_convert_with_a_question_mark() {
    fn program(vms: &Vms<'_>) -> river_core::Result<i64> {
        Ok(vms[0].call(foo, (1,))?)
    }
    with_vms(1, |vms| assert_eq!(program(vms).map_err(|error: VrError| error.to_string()), Ok(11)));
}

// ---- forkwork and forkgen ----

#[test]
fn forkwork_keeps_order_per_chunk_and_per_item() {
    with_vms(3, |vms| {
        let sums = vms.forkwork(sum, 0..100, 10).unwrap();
        assert_eq!(sums, (0..10).map(|c| (c * 10..c * 10 + 10).sum()).collect::<Vec<i64>>());
        let items: Vec<i64> = vms.forkwork(foo, 0..95, 10).unwrap();
        assert_eq!(items, (10..105).collect::<Vec<i64>>());
        let lengths: Vec<usize> = vms.forkwork(|s: String| s.len(), ["a".into(), "bcd".into()], 1).unwrap();
        assert_eq!(lengths, [1, 3]);
        assert_eq!(vms.forkwork(foo, [], 3), Ok(vec![]));
        assert_eq!(vms.forkwork(sum, 0..7, 1000), Ok(vec![21]));
    });
}

#[test]
fn a_chunk_of_nothing_is_an_error() {
    with_vms(1, |vms| {
        assert_eq!(vms.forkwork(foo, 0..3, 0), Err(TrickleError::ChunkZero));
        let mut results = vms.forkgen(foo, 0..3, Chunk::Fixed(0));
        assert_eq!(results.next(), Some(Err(TrickleError::ChunkZero)));
        assert_eq!(results.next(), None);
        let fold = vms.forkfold(tally, merge, 0..3, 0).run();
        assert_eq!(fold.unwrap_err(), TrickleError::ChunkZero);
    });
}

#[test]
fn forkgen_pulls_work_only_when_it_is_needed() {
    with_vms(2, |vms| {
        let pulled = Cell::new(0_u64);
        let work = (0_u64..).inspect(|_| pulled.set(pulled.get() + 1));
        let mut results = vms.forkgen(|x: u64| x * x, work, 5);
        assert_eq!(pulled.get(), 0);
        let first = results.next().unwrap().unwrap();
        assert!(first % 5 == 0);
        // Two VMs with two chunks each, and one issued for the one that was finished.
        assert!(pulled.get() <= 5 * 5, "{}", pulled.get());
        drop(results);
        assert!(pulled.get() <= 5 * 5);
        assert_eq!(vms[0].call(foo, (1,)), Ok(11));
    });
}

#[test]
fn forkgen_returns_every_result_once() {
    with_vms(4, |vms| {
        let results: Vec<u64> = vms.forkgen(|x: u64| x * x, 0..1000, 7).map(Result::unwrap).collect();
        assert_eq!(results.len(), 1000);
        assert_eq!(results.into_iter().collect::<HashSet<_>>(), (0..1000).map(|x| x * x).collect());
    });
}

#[test]
fn a_panic_is_the_result_of_its_item_only() {
    with_vms(2, |vms| {
        let (good, bad): (Vec<_>, Vec<_>) = vms.forkgen(picky, 0..40, 10).partition(Result::is_ok);
        assert_eq!(good.len(), 39);
        let [Err(TrickleError::Panicked { items, vm, text, .. })] = &bad[..] else { panic!("{bad:?}") };
        assert_eq!(items.0, 17..18);
        assert!(vm.starts_with("vm-") && text.starts_with("17 is not to my taste ("), "{vm} {text}");
        let error = vms.forkwork(picky, 0..40, 10).unwrap_err().to_string();
        assert!(error.starts_with("the function panicked on item 17 (VM vm-"), "{error}");
        assert_eq!(vms.forkwork(picky, 0..10, 3).unwrap().len(), 10);
    });
}

#[test]
fn a_panic_on_a_chunk_names_the_chunk() {
    with_vms(1, |vms| {
        let broken = |chunk: Vec<u64>| -> u64 { panic!("not {chunk:?}") };
        let error = vms.forkwork(broken, 0..6, 3).unwrap_err().to_string();
        assert!(error.contains("items 0..3") && error.contains("not [0, 1, 2]"), "{error}");
    });
}

#[test]
fn progress_is_told() {
    with_vms(2, |vms| {
        let told = RefCell::new(Vec::new());
        let results = vms.forkgen(foo, 0..50, 10).on_progress(|p| told.borrow_mut().push(p)).in_order();
        assert_eq!(results.unwrap().len(), 50);
        let told = told.into_inner();
        assert_eq!(told.iter().map(|p| p.done_items).collect::<Vec<_>>(), [10, 20, 30, 40, 50]);
        assert!(told.iter().all(|p| p.total_items == Some(50) && p.vms == 2));
    });
}

#[test]
fn forks_and_farms_do_not_disturb_each_other() {
    with_vms(2, |vms| {
        let before = vms.fork(foo, (1,)).unwrap();
        let mut outer = vms.forkgen(foo, 0..30, 1);
        let mut results = vec![outer.next().unwrap().unwrap()];
        assert_eq!(vms.forkwork(bar, 0..30, 4).unwrap().len(), 30);
        results.extend(outer.map(Result::unwrap));
        results.sort_unstable();
        assert_eq!(results, (10..40).collect::<Vec<i64>>());
        assert_eq!(join(before), Ok(vec![11, 11]));
    });
}

// ---- deaths ----

#[test]
fn work_of_a_dead_vm_is_done_by_the_others() {
    with_vms(3, |vms| {
        let mut results = Vec::new();
        for (n, result) in vms.forkgen(|x: u64| x, 0..500, 3).enumerate() {
            results.push(result.unwrap());
            match n {
                20 => kill(vms, 1),
                200 => kill(vms, 0),
                _ => {}
            }
        }
        results.sort_unstable();
        assert_eq!(results, (0..500).collect::<Vec<u64>>());
        assert_eq!(vms.forkwork(|x: u64| x, 0..10, 1).unwrap().len(), 10);
    });
}

#[test]
fn without_vms_the_error_says_how_each_died() {
    with_vms(2, |vms| {
        kill(vms, 0);
        kill(vms, 1);
        let error = vms.forkwork(foo, 0..10, 1).unwrap_err();
        assert!(error.is_disconnected());
        let TrickleError::NoVmLeft { deaths } = &error else { panic!("{error}") };
        let names: HashSet<&str> = deaths.iter().map(|death| death.vm.as_str()).collect();
        assert_eq!(names, HashSet::from(["vm-0", "vm-1"]));
        assert!(error.to_string().contains("vm-0: has finished"), "{error}");
        assert_eq!(vms.forkwork(foo, [], 1), Ok(vec![]));
        assert!(vms[0].call(foo, (1,)).unwrap_err().is_disconnected());
    });
}

#[test]
fn chunks_of_changing_size_lose_nothing() {
    with_vms(3, |vms| {
        for chunk in [Chunk::guided(), Chunk::Guided { least: 7 }, Chunk::auto(), Chunk::Fixed(1)] {
            let squares: Vec<u64> = (0..20_000).map(|x| x * x).collect();
            assert_eq!(vms.forkwork(|x: u64| x * x, 0..20_000, chunk), Ok(squares), "{chunk:?}");
            assert_eq!(vms.forkfold(tally, merge, 0..5000, chunk).run(), Ok(expected(5000)));
        }
    });
}

#[test]
fn an_item_that_fails_is_tried_again_as_often_as_wanted() {
    static TRIES: AtomicU32 = AtomicU32::new(0);
    let moody = |x: u64| {
        assert!(x != 7 || TRIES.fetch_add(1, Ordering::SeqCst) % 3 == 2, "not in the mood");
        x
    };
    with_vms(2, |vms| {
        let farm = || vms.forkgen(moody, 0..20, 4);
        assert_eq!(farm().retries(2).in_order(), Ok((0..20).collect()));
        assert_eq!(TRIES.load(Ordering::SeqCst), 3);
        let results: Vec<_> = farm().retries(1).collect();
        assert_eq!((results.len(), results.iter().filter(|result| result.is_err()).count()), (20, 1));
        assert_eq!(TRIES.load(Ordering::SeqCst), 5);
        let error = farm().in_order();
        assert_eq!(error, Ok((0..20).collect()));
    });
}

#[test]
fn items_are_decoded_once_for_each_time_that_they_are_done() {
    static DECODED: AtomicU32 = AtomicU32::new(0);
    /// Counts how often one is decoded, here or on a VM, which is a thread.
    #[derive(Serialize)]
    struct Item(u64);
    impl<'de> Deserialize<'de> for Item {
        fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
            DECODED.fetch_add(1, Ordering::SeqCst);
            u64::deserialize(source).map(Item)
        }
    }
    let broken = |item: Item| assert!(item.0 > 100, "{} is broken", item.0);
    with_vms(1, |vms| {
        let farm = || vms.forkgen(broken, (0..100).map(Item), 50).speculate(false);
        assert_eq!(farm().filter(Result::is_err).count(), 100);
        assert_eq!(DECODED.swap(0, Ordering::SeqCst), 100);
        // Each is done twice, and decoded once more to be taken out of its chunk.
        assert_eq!(farm().retries(1).filter(Result::is_err).count(), 100);
        assert_eq!(DECODED.load(Ordering::SeqCst), 300);
    });
}

#[test]
fn a_chunk_that_takes_too_long_fails_and_its_vm_works_on() {
    let endless = |x: u64| {
        while x == 5 && !current::is_cancelled() {
            std::thread::yield_now();
        }
        x
    };
    with_vms(2, |vms| {
        let limit = Duration::from_millis(100);
        let (good, bad): (Vec<_>, Vec<_>) =
            vms.forkgen(endless, 0..40, 1).deadline(limit).partition(Result::is_ok);
        assert_eq!(good.len(), 39);
        let [Err(TrickleError::TimedOut { items, limit: told, .. })] = &bad[..] else { panic!("{bad:?}") };
        assert_eq!((items.0.clone(), *told), (5..6, limit));
        assert_eq!(vms.iter().filter(|vm| vm.call(foo, (1,)) == Ok(11)).count(), 2);
    });
}

#[test]
fn a_straggler_is_overtaken_by_a_copy() {
    static BEGUN: AtomicU32 = AtomicU32::new(0);
    let sticky = |x: u64| {
        // Only who is first at it gets stuck.
        if x == 30 && BEGUN.fetch_add(1, Ordering::SeqCst) == 0 {
            while !current::is_cancelled() {
                std::thread::yield_now();
            }
        }
        x
    };
    with_vms(2, |vms| {
        assert_eq!(vms.forkwork(sticky, 0..40, 1), Ok((0..40).collect()));
        assert_eq!(BEGUN.load(Ordering::SeqCst), 2);
        // The loser was cancelled.
        assert_eq!(vms.iter().filter(|vm| vm.call(foo, (1,)) == Ok(11)).count(), 2);
    });
}

#[test]
fn a_vm_that_is_drained_finishes_what_it_has() {
    with_vms(3, |vms| {
        // There is work until the VM has gone.
        let (left, lost) = (Cell::new(3), Cell::new(0));
        let work = (0..).take_while(|_| left.get() == 3);
        let mut results = Vec::new();
        let farm = vms.forkgen(|x: u64| x, work, 3).on_progress(|p| {
            left.set(p.vms);
            lost.set(p.lost);
        });
        for (n, result) in farm.enumerate() {
            results.push(result.unwrap());
            if n == 50 {
                vms.drain(&vms[1]);
            }
        }
        results.sort_unstable();
        assert_eq!(results, (0..results.len() as u64).collect::<Vec<u64>>());
        assert!(results.len() > 50 && left.get() == 2);
        assert_eq!(lost.get(), 0, "what is given back is not lost");
        let fold = vms.forkfold(tally, merge, 0..1000, 10).on_progress(|p| {
            if p.done_items > 300 {
                vms.drain(&vms[2]);
            }
        });
        assert_eq!(fold.run(), Ok(expected(1000)));
        let mut left = vms.clone();
        left.update();
        assert_eq!(left.names(), ["vm-0"]);
        assert!(vms[1].call(foo, (1,)).is_err() && vms[2].call(foo, (1,)).is_err());
        // Without a farm it goes at once.
        vms.drain(&vms[0]);
        assert_eq!(vms.forkwork(foo, 0..3, 1), Err(TrickleError::NoVmLeft { deaths: vec![] }));
    });
}

#[test]
fn a_farm_that_is_dropped_leaves_its_vms_free() {
    static DONE: AtomicU32 = AtomicU32::new(0);
    with_vms(2, |vms| {
        // The first chunk fails at once; what is under way is a minute's work.
        let mut sizes = [1, 60_000, 60_000, 60_000].into_iter();
        let work = std::iter::from_fn(move || sizes.next()).enumerate();
        let work = work.map(|(n, size)| vec![n as u64; size]);
        let all = |items: Vec<Vec<u64>>| {
            let items = items.into_iter().flatten();
            let slow = |x: u64| {
                assert!(x != 0, "not this one");
                std::thread::sleep(Duration::from_millis(1));
                DONE.fetch_add(1, Ordering::SeqCst)
            };
            items.take_while(|_| !current::is_cancelled()).map(slow).max()
        };
        let mut farm = vms.forkgen(all, work, 1);
        assert!(farm.next().unwrap().is_err());
        drop(farm);
        assert_eq!(join(vms.fork(foo, (1,)).unwrap()), Ok(vec![11, 11]));
        assert!(DONE.load(Ordering::SeqCst) < 30_000);
    });
}
