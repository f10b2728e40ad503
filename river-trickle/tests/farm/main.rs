//! Farms over servers that are threads of this process. A VM "dies" here when its server ends: work that it had not
//! begun is lost with it.

mod failures;
mod folds;
mod handlers;
#[path = "../scene/mod.rs"]
mod scene;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use river_core::VrError;
use river_trickle::{Chunk, TrickleError, Vms, current, join, joinany};
use scene::with_vms;

/// Makes a VM die as soon as it has executed what was requested so far.
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
fn methods_are_forked_like_functions() {
    with_vms(2, |vms| {
        let stack = vms[0].create(Vec::<i64>::new, ()).unwrap();
        let pushed =
            (1..=3).map(|n| vms[0].fork_method(&stack, Vec::push, (n,)).unwrap()).collect::<Vec<_>>();
        let length = vms[0].fork_method(&stack, Vec::len, ()).unwrap();
        assert_eq!(join((pushed, length)), Ok((vec![(); 3], 3)));
        let first = |stack: &Vec<i64>| stack[0];
        let mut hs = vec![vms[0].fork_method(&stack, first, ()).unwrap(), vms[1].fork(foo, (1,)).unwrap()];
        let mut results = [joinany(&mut hs).unwrap(), joinany(&mut hs).unwrap()]
            .map(|(h, r)| (h.vm().name().to_owned(), r));
        results.sort();
        assert_eq!(results, [("vm-0".into(), 1), ("vm-1".into(), 11)]);
        let error = vms[1].fork_method(&stack, Vec::len, ()).unwrap_err().to_string();
        assert!(error.starts_with("VM vm-1: ") && error.contains("does not exist on the server"), "{error}");
    });
}

#[test]
fn a_forked_method_has_the_time_limit_of_its_vm() {
    with_vms(1, |vms| {
        let object = vms[0].create(|| 0_u64, ()).unwrap();
        let endless = |_: &u64| {
            while !current::is_cancelled() {
                std::thread::yield_now();
            }
        };
        let fork = || vms[0].timeout(Duration::from_millis(20)).fork_method(&object, endless, ()).unwrap();
        for error in [join(fork()).unwrap_err(), joinany(&mut vec![fork()]).unwrap_err()] {
            assert!(matches!(&error, TrickleError::Call { error, .. } if error.is_timeout()), "{error}");
        }
    });
}

#[test]
fn a_vm_that_is_drained_is_not_given_back_before_its_methods_are_joined() {
    with_vms(1, |vms| {
        let object = vms[0].create(|| 5_u64, ()).unwrap();
        let forked = vms[0].fork_method(&object, |n: &u64| *n, ()).unwrap();
        vms.drain(&vms[0]);
        assert_eq!(vms[0].call(foo, (1,)), Ok(11));
        assert_eq!(join(forked), Ok(5));
        assert!(vms[0].call(foo, (1,)).is_err());
    });
}

/// If each call looked at all that is left, this would take minutes.
#[test]
fn joinany_finds_what_has_been_answered_however_many_are_left() {
    with_vms(2, |vms| {
        let forks = (0..8000).map(|n| vms[n % 2].fork(|x: usize| x, (n,)));
        let mut hs = forks.collect::<Result<Vec<_>, _>>().unwrap();
        let start = Instant::now();
        let mut results = HashSet::new();
        while !hs.is_empty() {
            results.insert(joinany(&mut hs).unwrap().1);
        }
        assert_eq!(results.len(), 8000);
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
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
