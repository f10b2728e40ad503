//! Folds: accumulators on VMs, whatever happens to the VMs.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use river_core::{Vr, VrId};
use river_trickle::{TrickleError, current};

use super::scene::with_vms;
use super::{Tally, expected, foo, kill, merge, tally};

#[test]
fn forkfold_is_the_fold() {
    with_vms(3, |vms| {
        for n in [0, 1, 7, 1000] {
            assert_eq!(vms.forkfold(tally, merge, 0..n, 10).run(), Ok(expected(n)));
        }
        let done = Cell::new(0);
        let sum: Result<u64, _> = vms
            .forkfold(|acc: &mut u64, ns: Vec<u64>| *acc += ns.iter().sum::<u64>(), |a, b| *a += b, 0..100, 9)
            .on_progress(|p| done.set(p.done_items))
            .run();
        assert_eq!((sum, done.get()), (Ok(4950), 100));
    });
}

#[test]
fn what_a_dead_vm_had_folded_is_folded_again() {
    with_vms(3, |vms| {
        for when in [30, 300, 960] {
            let killed = Cell::new(false);
            let lost = Cell::new((0, 0));
            let fold = vms.forkfold(tally, merge, 0..1000, 10).on_progress(|p| {
                if p.done_items >= when && !killed.replace(true) {
                    kill(vms, usize::from(when > 30) + usize::from(when > 300));
                }
                lost.set((p.vms, p.lost));
            });
            let alive = vms.iter().filter(|vm| vm.call(foo, (1,)).is_ok()).count();
            if alive == 1 {
                // The last one dies as well.
                assert!(matches!(fold.run(), Err(TrickleError::NoVmLeft { .. })));
            } else {
                assert_eq!(fold.run(), Ok(expected(1000)));
                let (left, lost) = lost.get();
                // Those that had died before are not in this farm.
                assert!(lost > 0 && left + lost == alive, "{left} left, {lost} lost of {alive}");
            }
        }
    });
}

#[test]
fn a_slow_vm_folds_only_what_it_has_begun() {
    /// Which VM has folded which items.
    type Who = Vec<(VrId, u64)>;
    let step = |who: &mut Who, items: Vec<u64>| {
        let here = current::with_vr(Vr::id).unwrap();
        for item in items {
            // Too long for several chunks to share a message; the first one long enough to be noticed.
            std::thread::sleep(Duration::from_millis(if item == 0 { 2000 } else { 5 }));
            who.push((here, item));
        }
    };
    with_vms(2, |vms| {
        let who = vms.forkfold(step, |a: &mut Who, b| a.extend(b), 0..30, 1).run().unwrap();
        let mut items: Vec<u64> = who.iter().map(|(_, item)| *item).collect();
        items.sort_unstable();
        assert_eq!(items, (0..30).collect::<Vec<u64>>());
        let slow = who.iter().find(|(_, item)| *item == 0).unwrap().0;
        let folded: Vec<u64> = who.iter().filter(|(vm, _)| *vm == slow).map(|(_, item)| *item).collect();
        assert_eq!(folded, [0], "it has folded more");
    });
}

#[test]
fn a_panic_in_a_fold_ends_it() {
    with_vms(2, |vms| {
        let step = |_: &mut u64, ns: Vec<u64>| assert!(!ns.contains(&55), "odd");
        let error = vms.forkfold(step, |a, b| *a += b, 0..100, 10).run().unwrap_err();
        assert!(error.to_string().contains("items 50..60"), "{error}");
        // What it had accumulated does not affect the next one.
        assert_eq!(vms.forkfold(tally, merge, 0..100, 10).run(), Ok(expected(100)));
    });
}

#[test]
fn a_fold_that_panics_is_done_again_with_all_that_it_had() {
    static PANICS: AtomicU32 = AtomicU32::new(0);
    let step = |tally: &mut Tally, numbers: Vec<u64>| {
        for n in numbers {
            *tally.entry(n % 10).or_default() += n;
            assert!(n != 555 || PANICS.fetch_add(1, Ordering::SeqCst) >= 2, "in the middle of a chunk");
        }
    };
    with_vms(3, |vms| {
        assert_eq!(vms.forkfold(step, merge, 0..1000, 10).retries(5).run(), Ok(expected(1000)));
        assert!(PANICS.load(Ordering::SeqCst) >= 3);
        let stubborn = |_: &mut Tally, numbers: Vec<u64>| assert!(!numbers.contains(&555), "always");
        let error = vms.forkfold(stubborn, merge, 0..1000, 10).retries(1).run().unwrap_err();
        let TrickleError::Panicked { items, .. } = &error else { panic!("{error}") };
        assert_eq!(items.0, 550..560);
    });
}

#[test]
fn a_fold_that_takes_too_long_is_done_by_others() {
    static HUNG: AtomicU32 = AtomicU32::new(0);
    fn hang() {
        while !current::is_cancelled() {
            std::thread::yield_now();
        }
    }
    let step = |sums: &mut Tally, numbers: Vec<u64>| {
        if numbers.contains(&555) && HUNG.fetch_add(1, Ordering::SeqCst) == 0 {
            hang();
        }
        tally(sums, numbers);
    };
    let limit = Duration::from_millis(200);
    with_vms(3, |vms| {
        // On a busy machine other chunks may exceed the limit as well.
        let fold = vms.forkfold(step, merge, 0..1000, 10).deadline(limit).retries(1000);
        assert_eq!(fold.run(), Ok(expected(1000)));
        assert!(HUNG.load(Ordering::SeqCst) >= 2);
        let endless = |_: &mut u64, _: Vec<u64>| hang();
        let error = vms.forkfold(endless, |a, b| *a += b, 0..100, 10).deadline(limit).run().unwrap_err();
        assert!(matches!(error, TrickleError::TimedOut { .. }), "{error}");
        assert_eq!(vms.forkfold(tally, merge, 0..100, 10).run(), Ok(expected(100)));
    });
}

#[test]
fn a_vm_that_is_at_another_chunk_when_one_has_panicked_is_not_given_up() {
    /// Longer than a VM may take to end a call that was cancelled at its deadline.
    const LONG: Duration = Duration::from_millis(2500);
    static PANICKED: AtomicU32 = AtomicU32::new(0);
    static SLOW: AtomicU32 = AtomicU32::new(0);
    let step = |sum: &mut u64, numbers: Vec<u64>| {
        if numbers == [0] && PANICKED.fetch_add(1, Ordering::SeqCst) == 0 {
            panic!("once");
        }
        // It does not check whether it is cancelled.
        if numbers == [1] && SLOW.fetch_add(1, Ordering::SeqCst) == 0 {
            std::thread::sleep(LONG);
        }
        *sum += numbers.iter().sum::<u64>();
    };
    with_vms(1, |vms| {
        let fold = vms.forkfold(step, |a, b| *a += b, 0..4, 1).deadline(Duration::from_secs(60)).retries(1);
        assert_eq!(fold.run(), Ok(6));
        assert_eq!(PANICKED.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn a_deadline_may_be_as_long_as_durations_can_be() {
    static PANICKED: AtomicU32 = AtomicU32::new(0);
    let step = |sum: &mut u64, numbers: Vec<u64>| {
        assert!(numbers != [0] || PANICKED.fetch_add(1, Ordering::SeqCst) > 0, "once");
        *sum += numbers.iter().sum::<u64>();
    };
    with_vms(1, |vms| {
        // When the first one has panicked, the VM still has to answer the second one.
        let fold = vms.forkfold(step, |a, b| *a += b, 0..4, 1).deadline(Duration::MAX).retries(1);
        assert_eq!(fold.run(), Ok(6));
    });
}

#[test]
fn a_fold_can_be_cancelled() {
    with_vms(2, |vms| {
        let done = Cell::new(0);
        let endless = vms.forkfold(tally, merge, 0.., 10);
        let endless = endless.on_progress(|p| done.set(p.done_items)).cancel_when(|| done.get() > 1000);
        assert_eq!(endless.run(), Err(TrickleError::Cancelled));
        assert_eq!(vms.forkfold(tally, merge, 0..100, 10).run(), Ok(expected(100)));
    });
}
