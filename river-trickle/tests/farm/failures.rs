//! Failures while items are worked on, and how they are handled.

use std::cell::Cell;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use river_core::testing::threads;
use river_core::{Channel, Selector, VirtualResource, Vr, VrId};
use river_rai::RaiServer;
use river_trickle::{Chunk, TrickleError, Vms, current, join};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::scene::with_vms;
use super::{expected, foo, kill, merge, tally};

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
    /// Counts how many times an item is decoded, here or on a VM, which is a thread.
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
        // Each is tried twice, and decoded once more to take it out of its chunk.
        assert_eq!(farm().retries(1).filter(Result::is_err).count(), 100);
        assert_eq!(DECODED.load(Ordering::SeqCst), 300);
    });
}

#[test]
fn what_cannot_be_encoded_is_no_fault_of_a_vm() {
    #[derive(Deserialize)]
    struct Item(u64);
    impl Serialize for Item {
        fn serialize<S: Serializer>(&self, sink: S) -> Result<S::Ok, S::Error> {
            if self.0 == 7 { Err(serde::ser::Error::custom("seven")) } else { self.0.serialize(sink) }
        }
    }
    with_vms(2, |vms| {
        let error = vms.forkwork(|item: Item| item.0, (0..20).map(Item), 1).unwrap_err();
        let TrickleError::Unsendable { items, .. } = &error else { panic!("{error}") };
        assert_eq!(items.0, 7..8);
        assert!(!error.to_string().contains("vm-"), "{error}");
    });
}

/// Refuses to be encoded as a result, or panics, if it is one of these.
struct Picky(u64);

const REFUSED: u64 = 15_007;
const PANICS: u64 = 15_013;

impl Serialize for Picky {
    fn serialize<S: Serializer>(&self, sink: S) -> Result<S::Ok, S::Error> {
        assert!(self.0 != PANICS, "not this one");
        if self.0 == REFUSED { Err(serde::ser::Error::custom("refused")) } else { self.0.serialize(sink) }
    }
}

impl<'de> Deserialize<'de> for Picky {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        u64::deserialize(source).map(Picky)
    }
}

#[test]
fn a_result_that_cannot_be_encoded_costs_no_other_its_result() {
    with_vms(2, |vms| {
        // Many chunks of one share a message by the time that it happens.
        for chunk in [1, 10] {
            let (good, bad): (Vec<_>, Vec<_>) = vms.forkgen(Picky, 0..20_000, chunk).partition(Result::is_ok);
            let mut bad: Vec<_> = bad.into_iter().filter_map(Result::err).collect();
            bad.sort_by_key(
                |error| matches!(error, TrickleError::Items { items, .. } if items.0.start == PANICS),
            );
            let texts: Vec<String> = bad.iter().map(ToString::to_string).collect();
            let [refused, panicked] = &texts[..] else { panic!("{} errors: {texts:?}", texts.len()) };
            assert!(refused.starts_with("item 15007 failed on VM vm-"), "{refused}");
            assert!(panicked.starts_with("item 15013 ") && panicked.contains("not this one"), "{panicked}");
            let good: HashSet<u64> = good.into_iter().flatten().map(|Picky(x)| x).collect();
            assert_eq!(good.len(), 19_998);
        }
    });
}

#[test]
fn an_item_that_cannot_be_decoded_costs_only_its_chunk_its_results() {
    #[derive(Serialize)]
    struct Item(u64);
    impl<'de> Deserialize<'de> for Item {
        fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
            let item = u64::deserialize(source)?;
            assert!(item != PANICS, "not this one");
            if item == REFUSED { Err(serde::de::Error::custom("refused")) } else { Ok(Item(item)) }
        }
    }
    with_vms(2, |vms| {
        for chunk in [1, 5] {
            let results = vms.forkgen(|item: Item| item.0, (0..20_000).map(Item), chunk);
            let mut failed: Vec<_> = results
                .filter_map(|result| match result {
                    Err(TrickleError::Items { items, .. }) => Some(items.0),
                    other => other.map(|_| None).unwrap(),
                })
                .collect();
            failed.sort_by_key(|items| items.start);
            let chunk = chunk as u64;
            let of = |item: u64| item / chunk * chunk..item / chunk * chunk + chunk;
            assert_eq!(failed, [of(REFUSED), of(PANICS)]);
        }
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
        // On a busy machine other items may exceed the limit, too.
        let late = bad.iter().map(|bad| match bad {
            Err(TrickleError::TimedOut { items, limit: told, .. }) if *told == limit => items.0.clone(),
            other => panic!("{other:?}"),
        });
        let late: Vec<_> = late.collect();
        assert!(late.contains(&(5..6)), "{late:?}");
        assert_eq!(good.len() + late.len(), 40);
        assert_eq!(vms.iter().filter(|vm| vm.call(foo, (1,)) == Ok(11)).count(), 2);
    });
}

#[test]
fn a_deadline_is_kept_while_other_vms_answer_all_the_time() {
    let endless = |x: u64| {
        while x == 5 && !current::is_cancelled() {
            std::thread::yield_now();
        }
        x
    };
    with_vms(2, |vms| {
        let started = Instant::now();
        let results = vms.forkgen(endless, 0.., 1).deadline(Duration::from_millis(200));
        let mut results = results.take_while(|_| started.elapsed() < Duration::from_secs(5));
        let late = results
            .find(|result| matches!(result, Err(TrickleError::TimedOut { items, .. }) if items.0 == (5..6)));
        assert!(late.is_some());
    });
}

/// Works for this long, even if cancelled.
fn toil(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

#[test]
fn the_time_of_a_chunk_begins_when_the_vm_has_done_what_others_want_of_it() {
    with_vms(2, |vms| {
        let fork = vms[0].fork(toil, (1500,)).unwrap();
        let farm = vms.forkgen(|x: u64| x, 0..20, 1).deadline(Duration::from_millis(500)).speculate(false);
        assert_eq!(farm.in_order(), Ok((0..20).collect()));
        assert_eq!(join(fork), Ok(()));
        let fork = vms[1].fork(toil, (1500,)).unwrap();
        let fold = vms.forkfold(tally, merge, 0..100, 1).deadline(Duration::from_millis(500));
        assert_eq!(fold.run(), Ok(expected(100)));
        assert_eq!(join(fork), Ok(()));
    });
}

#[test]
fn a_vm_that_is_at_what_others_want_of_it_is_not_stuck() {
    static HUNG: AtomicU32 = AtomicU32::new(0);
    let once = |x: u64| {
        while x == 1 && HUNG.load(Ordering::SeqCst) == 0 && !current::is_cancelled() {
            std::thread::yield_now();
        }
        HUNG.fetch_add(u32::from(x == 1), Ordering::SeqCst);
        x
    };
    with_vms(1, |vms| {
        let mut farm = vms.forkgen(once, 0..4, 1).deadline(Duration::from_millis(500)).retries(1);
        let mut results = vec![farm.next().unwrap().unwrap()];
        // Between the VM's current work and its next: longer than the wait for a cancelled call.
        let fork = vms[0].fork(toil, (3000,)).unwrap();
        results.extend(farm.map(Result::unwrap));
        results.sort_unstable();
        assert_eq!((results, join(fork)), (vec![0, 1, 2, 3], Ok(())));
    });
}

#[test]
fn a_straggler_is_overtaken_by_a_copy() {
    static BEGUN: AtomicU32 = AtomicU32::new(0);
    let sticky = |x: u64| {
        // Only the first call gets stuck.
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
        // Without a farm it leaves at once.
        vms.drain(&vms[0]);
        assert_eq!(vms.forkwork(foo, 0..3, 1), Err(TrickleError::NoVmLeft { deaths: vec![] }));
    });
}

#[test]
fn a_farm_that_is_dropped_leaves_its_vms_free() {
    static DONE: AtomicU32 = AtomicU32::new(0);
    with_vms(2, |vms| {
        // The first chunk fails at once; the chunks already issued would take a minute.
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

/// The server of a VM is to end, as its guardian is gone, while a function runs there on the first of three items.
#[test]
fn a_chunk_that_was_broken_off_is_done_again() {
    const END: Channel = Channel::named("end");
    static FIRST: AtomicBool = AtomicBool::new(true);
    let work = |(guarded, guardian, x): (VrId, VrId, u64)| {
        let here = current::with_vr(Vr::id);
        if here == Some(guarded) && FIRST.swap(false, Ordering::SeqCst) {
            current::with_vr(|vr| vr.send_bytes(guardian, END, 0, vec![])).unwrap().unwrap();
            // Longer than a chunk goes on without checking whether it is still wanted.
            let start = Instant::now();
            while !current::is_cancelled() || start.elapsed() < Duration::from_millis(5) {
                std::thread::yield_now();
            }
        }
        2 * x
    };
    threads(4, |vr, index, vrs| match index {
        0 => {
            let vms = Vms::attach(vr, [("a".into(), vrs[2]), ("b".into(), vrs[3])]);
            let results = vms.forkwork(work, (0..6).map(|x| (vrs[2], vrs[1], x)), 3);
            // They end, whatever has happened.
            drop(vr.send_bytes(vrs[1], END, 0, vec![]));
            drop(vms[1].rai().stop());
            assert_eq!(results, Ok(vec![0, 2, 4, 6, 8, 10]));
        }
        1 => drop(vr.receive(Selector::on(END)).unwrap()),
        2 => RaiServer::unrestricted().ends_with(vrs[1]).main(vr).unwrap(),
        _ => RaiServer::unrestricted().main(vr).unwrap(),
    });
}
