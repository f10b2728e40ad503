//! The examples of the paper that concern forks and injection, over servers that are threads of this process.

mod scene;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use river_trickle::{TrickleError, current, each, fork, join, joinany};
use scene::with_vms;

fn foo(x: i64) -> i64 {
    x + 10
}

fn bar(x: i64) -> String {
    (x + 20).to_string()
}

#[test]
fn fork_has_a_form_for_every_kind_of_list() {
    with_vms(4, |vms| {
        let h = fork(&vms[2], foo, (1,)).unwrap();
        assert_eq!(h.vm().name(), "vm-2");
        assert_eq!(join(h), Ok(11));
        assert_eq!(join(fork(vms, foo, (10,)).unwrap()), Ok(vec![20; 4]));
        assert_eq!(join(fork(&vms[1..], foo, (10,)).unwrap()), Ok(vec![20; 3]));
        assert_eq!(join(fork(&vms[..0], foo, (10,)).unwrap()), Ok(vec![]));
        // Functions of different types, with the same arguments and with arguments of their own.
        assert_eq!(join(fork(&vms[0..2], (foo, bar), (1,)).unwrap()), Ok((11, "21".into())));
        let (a, b) = fork(vms, (foo, bar), each(((1,), (2,)))).unwrap();
        assert_eq!((a.vm().name(), b.vm().name()), ("vm-0", "vm-1"));
        assert_eq!(join((a, b)), Ok((11, "22".into())));
        let hs = fork(vms, (foo, |s: String| s.len(), bar), each(((1,), ("abc".into(),), (3,)))).unwrap();
        assert_eq!(join(hs), Ok((11, 3, "23".into())));
        assert_eq!(join(fork(vms, foo, each((0..4).map(|i| (i,)))).unwrap()), Ok(vec![10, 11, 12, 13]));
        // A list can be a single argument.
        let sum = |list: Vec<i64>| list.into_iter().sum::<i64>();
        assert_eq!(join(fork(vms, sum, (vec![1, 2, 3],)).unwrap()), Ok(vec![6; 4]));
        assert_eq!(join(fork(vms, sum, each([(vec![1],), (vec![2, 3],)])).unwrap()), Ok(vec![1, 5]));
        for error in [
            fork(&vms[..1], (foo, bar), (1,)).unwrap_err(),
            fork(&vms[..1], (foo, bar), each(((1,), (2,)))).unwrap_err(),
            fork(&vms[..1], foo, each([(1,), (2,)])).unwrap_err(),
        ] {
            assert_eq!(error, TrickleError::TooManyArguments { vms: 1 });
        }
    });
}

#[test]
fn a_fork_that_is_cancelled_frees_its_vm() {
    with_vms(1, |vms| {
        let endless = || while !current::is_cancelled() {};
        let h = fork(&vms[0], endless, ()).unwrap();
        let mut queued = vec![fork(&vms[0], foo, (1,)).unwrap()];
        h.cancel();
        assert_eq!(joinany(&mut queued).unwrap().1, 11);
    });
}

#[test]
fn injected_data_is_used_by_handle_and_by_the_functions_of_the_vm() {
    fn longest() -> Option<usize> {
        current::with_named("names", |names: &mut Vec<String>| names.iter().map(String::len).max())?
    }
    with_vms(3, |vms| {
        let names = ["Alex", "Sami"].map(String::from).to_vec();
        let handles = vms.inject("names", names).unwrap();
        for (i, names) in handles.iter().enumerate().take(2) {
            names.set_item(i, "*NONE*".into()).unwrap();
        }
        let lists: Vec<Vec<String>> = handles.iter().map(|names| names.get().unwrap()).collect();
        assert_eq!(lists, [["*NONE*", "Sami"], ["Alex", "*NONE*"], ["Alex", "Sami"]]);
        assert_eq!(join(vms.fork(longest, ()).unwrap()), Ok(vec![Some(6), Some(6), Some(4)]));
        vms[1].inject("names", vec!["Gregory".to_string()]).unwrap();
        assert_eq!(vms[1].named::<Vec<String>>("names").get_item(0), Ok("Gregory".into()));
    });
}

#[test]
fn injected_functions_and_objects_have_names() {
    with_vms(2, |vms| {
        vms.inject_fn("foo", foo).unwrap();
        let sum: i64 = vms.iter().map(|vm| vm.call_named::<i64, _>("foo", (1_i64,)).unwrap()).sum();
        assert_eq!(sum, 22);
        let error = vms[0].call_named::<i64, _>("foo", ("1".to_string(),)).unwrap_err().to_string();
        assert!(error.contains("foo is (i64,) -> i64 on the server"), "{error}");
        drop(vms.inject_object("counter", || std::sync::Mutex::new(0), ()).unwrap());
        let counter = vms[1].named::<std::sync::Mutex<i32>>("counter");
        let count = |counter: &std::sync::Mutex<i32>| {
            let mut counter = counter.lock().unwrap();
            *counter += 1;
            *counter
        };
        assert_eq!((counter.call(count, ()), counter.call(count, ())), (Ok(1), Ok(2)));
    });
}

#[test]
fn what_is_injected_is_made_everywhere_at_the_same_time() {
    static BEGUN: AtomicU32 = AtomicU32::new(0);
    // Returns when both have begun, or after a minute.
    let meet = || {
        let start = Instant::now();
        BEGUN.fetch_add(1, Ordering::SeqCst);
        while BEGUN.load(Ordering::SeqCst) < 2 && start.elapsed() < Duration::from_secs(60) {
            std::thread::yield_now();
        }
        start.elapsed() < Duration::from_secs(60)
    };
    with_vms(2, |vms| {
        let met = vms.inject_object("met", meet, ()).unwrap();
        assert!(met.iter().all(|met| met.get() == Ok(true)));
    });
}
