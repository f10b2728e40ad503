//! Servers that execute several calls at a time.

mod scene;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use river_core::testing::threads;
use river_core::{Channel, Selector, VirtualResource, Vr};
use river_rai::{CallError, Rai, RaiServer, current};
use river_sfm::{Sfm, msg, pat};
use scene::{Servers, with_servers_like};

fn with_concurrent_server(client: impl Fn(&Vr, Rai<'_>) + Sync) {
    with_servers_like(|| RaiServer::unrestricted().concurrent(4), 1, |vr, servers| client(vr, servers[0]));
}

fn double(x: i64) -> i64 {
    2 * x
}

/// Closed until it is opened; a test that fails opens it as well.
struct Gate(AtomicBool);

impl Gate {
    const fn closed() -> Self {
        Self(AtomicBool::new(false))
    }

    fn open(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn is_open(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    fn pass(&self) {
        while !self.is_open() && !current::is_cancelled() {
            thread::yield_now();
        }
    }
}

// ---- order ----

#[test]
fn a_concurrent_server_runs_functions_side_by_side() {
    static MET: AtomicU32 = AtomicU32::new(0);
    // Returns only when four calls run at once.
    let meet = || {
        MET.fetch_add(1, Ordering::SeqCst);
        while MET.load(Ordering::SeqCst) < 4 {
            thread::yield_now();
        }
    };
    with_concurrent_server(|_, r| {
        let calls: Vec<_> = (0..4).map(|_| r.call_async(meet, ()).unwrap()).collect();
        for call in calls {
            assert_eq!(call.wait(), Ok(()));
        }
    });
}

#[test]
fn calls_of_one_object_run_one_at_a_time_in_order() {
    with_concurrent_server(|_, r| {
        let (lists, created): (Vec<_>, Vec<_>) =
            (0..3).map(|_| r.create_async(Vec::<u32>::new, ()).unwrap()).unzip();
        for x in 0..500 {
            for list in &lists {
                list.cast(Vec::push, (x,)).unwrap();
            }
        }
        for list in lists {
            let copy = list.clone();
            drop(list);
            assert_eq!(copy.take(), Ok((0..500).collect()));
        }
        created.into_iter().for_each(|created| created.wait().unwrap());
        // Dropped before it exists: freed once it does.
        drop(r.create_async(Vec::<u8>::new, ()).unwrap());
        let named = r.put("named", 1_u8).unwrap();
        assert_eq!((named.get(), r.named::<u8>("named").get()), (Ok(1), Ok(1)));
        assert_eq!(r.call(|| current::with_named("named", |x: &mut u8| *x), ()), Ok(Some(1)));
    });
}

#[test]
fn calls_of_a_concurrent_server_are_cancelled_each_by_itself() {
    static NEVER: Gate = Gate::closed();
    with_concurrent_server(|_, r| {
        let calls: Vec<_> = (0..10).map(|_| r.call_async(|| NEVER.pass(), ()).unwrap()).collect();
        for call in calls {
            call.cancel();
            assert!(matches!(call.wait(), Ok(()) | Err(CallError::Cancelled(_))));
        }
        assert_eq!(r.call(double, (4,)), Ok(8));
    });
}

#[test]
fn calls_are_cancelled_also_when_the_server_was_told_to_end() {
    static BEGUN: Gate = Gate::closed();
    static NEVER: Gate = Gate::closed();
    with_concurrent_server(|_, r| {
        let begin = || {
            BEGUN.open();
            NEVER.pass();
        };
        let running = r.call_async(begin, ()).unwrap();
        while !BEGUN.is_open() {
            thread::yield_now();
        }
        r.stop().unwrap();
        // Nothing new is begun.
        assert!(matches!(r.call(double, (4,)), Err(CallError::Refused { .. })));
        running.cancel();
        assert_eq!(running.wait(), Ok(()));
    });
}

#[test]
fn calls_that_wait_for_an_object_are_cancelled_too() {
    static GATE: Gate = Gate::closed();
    static RAN: AtomicU32 = AtomicU32::new(0);
    with_concurrent_server(|_, r| {
        let object = r.create(|| 0_u8, ()).unwrap();
        let running = object.call_async(|_: &u8| GATE.pass(), ()).unwrap();
        let waiting = object.call_async(|_: &u8| RAN.fetch_add(1, Ordering::SeqCst), ()).unwrap();
        // The server has examined it, and the cancellation, before it can be begun.
        assert_eq!(r.call(double, (4,)), Ok(8));
        waiting.cancel();
        assert_eq!(r.call(double, (4,)), Ok(8));
        GATE.open();
        assert_eq!(running.wait(), Ok(()));
        assert!(matches!(waiting.wait(), Err(CallError::Cancelled(_))));
        assert_eq!(RAN.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn the_release_of_a_granted_handle_comes_after_its_calls() {
    static GATE: Gate = Gate::closed();
    with_concurrent_server(|vr, r| {
        let created = r.create(|| 7_u8, ()).unwrap();
        let granted = created.grant(vr.id()).unwrap().open(vr).unwrap();
        drop(created);
        let running = granted.call_async(|_: &u8| GATE.pass(), ()).unwrap();
        let waiting = granted.call_async(|x: &u8| *x, ()).unwrap();
        drop(granted);
        assert_eq!(r.call(double, (4,)), Ok(8));
        GATE.open();
        assert_eq!((running.wait(), waiting.wait()), (Ok(()), Ok(7)));
    });
}

#[test]
fn calls_of_an_object_run_in_order_whether_they_name_it_or_hold_it() {
    static GATE: Gate = Gate::closed();
    with_concurrent_server(|vr, r| {
        let named = r.put("list", Vec::<u8>::new()).unwrap();
        let held = named.grant(vr.id()).unwrap().open(vr).unwrap();
        named.cast(|_: &mut Vec<u8>| GATE.pass(), ()).unwrap();
        for x in 0..4 {
            if x % 2 == 0 { &held } else { &named }.cast(Vec::push, (x,)).unwrap();
        }
        // The server has examined all of them.
        assert_eq!(r.call(double, (4,)), Ok(8));
        GATE.open();
        assert_eq!(named.get(), Ok(vec![0, 1, 2, 3]));
    });
}

/// A time limit that expires while the gate is still closed.
const AT_ONCE: Duration = Duration::from_millis(1);

#[test]
fn what_has_a_name_is_replaced_and_removed_after_the_calls_that_came_before() {
    static GATE: Gate = Gate::closed();
    with_concurrent_server(|_, r| {
        let first = r.put("x", 1_u8).unwrap();
        let running = first.call_async(|_: &u8| GATE.pass(), ()).unwrap();
        let read = || r.named("x").call_async(|x: &u8| *x, ()).unwrap();
        let before = read();
        // Both are given up before they begin.
        assert!(r.timeout(AT_ONCE).put("x", 2_u8).unwrap_err().is_timeout());
        let between = read();
        assert!(r.timeout(AT_ONCE).remove("x").unwrap_err().is_timeout());
        let after = read();
        GATE.open();
        assert_eq!((running.wait(), before.wait()), (Ok(()), Ok(1)));
        assert_eq!((between.wait(), after.wait()), (Ok(1), Ok(1)));
        assert_eq!((r.put("x", 3_u8).map(drop), read().wait()), (Ok(()), Ok(3)));
        r.remove("x").unwrap();
        assert!(matches!(read().wait(), Err(CallError::NoSuchObject { .. })));
    });
}

// ---- data that functions use ----

#[test]
fn functions_and_methods_wait_for_data_that_another_function_uses() {
    const ROUNDS: u32 = 500;
    fn count() -> bool {
        (0..ROUNDS).all(|_| {
            let counted = current::with_named("count", |count: &mut u32| {
                thread::yield_now();
                *count += 1;
                // A function that already uses the value does not wait for itself.
                current::with_named("count", |_: &mut u32| ()).is_none()
            });
            counted == Some(true)
        })
    }
    with_concurrent_server(|_, r| {
        let total = r.put("count", 0_u32).unwrap();
        let calls: Vec<_> = (0..3).map(|_| r.call_async(count, ()).unwrap()).collect();
        for _ in 0..ROUNDS {
            assert_eq!(total.update(|count: &mut u32| *count += 1, ()), Ok(()));
        }
        for call in calls {
            assert_eq!(call.wait(), Ok(true));
        }
        assert_eq!(total.get(), Ok(4 * ROUNDS));
    });
}

#[test]
fn functions_that_would_wait_for_each_other_do_not() {
    static INSIDE: AtomicU32 = AtomicU32::new(0);
    fn both(first: String, second: String) -> Option<Option<u8>> {
        current::with_named(&first, |_: &mut u8| {
            INSIDE.fetch_add(1, Ordering::SeqCst);
            while INSIDE.load(Ordering::SeqCst) < 2 {
                thread::yield_now();
            }
            current::with_named(&second, |x: &mut u8| *x)
        })
    }
    with_concurrent_server(|_, r| {
        let _named = ["a", "b"].map(|name| r.put(name, 1_u8).unwrap());
        let names = [("a", "b"), ("b", "a")].map(|(a, b)| (a.to_string(), b.to_string()));
        let calls = names.map(|names| r.call_async(both, names).unwrap());
        let mut found = calls.map(|call| call.wait().unwrap());
        found.sort();
        assert_eq!(found, [Some(None), Some(Some(1))]);
    });
}

// ---- VRs that end ----

#[test]
fn what_is_made_for_a_client_that_has_gone_meanwhile_is_freed() {
    static BEGUN: Gate = Gate::closed();
    static GATE: Gate = Gate::closed();
    static MADE: Gate = Gate::closed();
    static FREED: Gate = Gate::closed();
    struct Made;
    impl Drop for Made {
        fn drop(&mut self) {
            FREED.open();
        }
    }
    // Does not check whether its client is alive.
    fn make() -> Made {
        BEGUN.open();
        while !GATE.is_open() {
            thread::yield_now();
        }
        MADE.open();
        Made
    }
    threads(3, |vr, index, vrs| match index {
        0 => RaiServer::unrestricted().concurrent(2).main(vr).unwrap(),
        1 => {
            let making = Rai::connect(vr, vrs[0]).create_async(make, ()).unwrap();
            BEGUN.pass();
            // As if it had been killed: its handle releases nothing.
            std::mem::forget(making);
        }
        _ => {
            let servers = Servers(vec![Rai::connect(vr, vrs[0])]);
            vr.watch(vrs[1]);
            assert!(vr.recv(pat! { never: true }).is_err());
            // The server has noticed it too.
            assert_eq!(servers.0[0].call(double, (4,)), Ok(8));
            GATE.open();
            while !FREED.is_open() {
                assert_eq!(servers.0[0].call(double, (4,)), Ok(8));
            }
            assert!(MADE.is_open());
        }
    });
}

#[test]
fn a_grant_to_who_has_gone_while_it_waited_keeps_nothing() {
    static GATE: Gate = Gate::closed();
    static SENT: Gate = Gate::closed();
    static FREED: Gate = Gate::closed();
    struct Granted;
    impl Drop for Granted {
        fn drop(&mut self) {
            FREED.open();
        }
    }
    threads(4, |vr, index, vrs| match index {
        0 => {
            // Begins when the creation, the call and the grant have arrived.
            let requests = Selector::on(Channel::named("rai.requests")).from(vrs[2]);
            let mut seen = 0;
            while seen < 3 {
                seen = 0;
                vr.peek_where(requests, |_| {
                    seen += 1;
                    None::<()>
                });
                thread::yield_now();
            }
            SENT.open();
            RaiServer::unrestricted().concurrent(2).main(vr).unwrap();
        }
        1 => drop(vr.recv(pat! { end: true }).unwrap()),
        2 => {
            let (object, created) = Rai::connect(vr, vrs[0]).create_async(|| Granted, ()).unwrap();
            let running = object.call_async(|_: &Granted| GATE.pass(), ()).unwrap();
            object.grant(vrs[1]).unwrap();
            created.wait().unwrap();
            assert_eq!(running.wait(), Ok(()));
        }
        _ => {
            let servers = Servers(vec![Rai::connect(vr, vrs[0])]);
            SENT.pass();
            // The server has examined the grant when it answers this.
            assert_eq!(servers.0[0].call(double, (4,)), Ok(8));
            vr.watch(vrs[1]);
            vr.send(vrs[1], msg! { end: true }).unwrap();
            assert!(vr.recv(pat! { never: true }).is_err());
            assert_eq!(servers.0[0].call(double, (4,)), Ok(8));
            GATE.open();
            while !FREED.is_open() {
                assert_eq!(servers.0[0].call(double, (4,)), Ok(8));
            }
        }
    });
}

#[test]
fn a_grant_that_is_given_up_keeps_nothing() {
    static GATE: Gate = Gate::closed();
    static FREED: Gate = Gate::closed();
    struct Granted;
    impl Drop for Granted {
        fn drop(&mut self) {
            FREED.open();
        }
    }
    with_concurrent_server(|vr, r| {
        let object = r.create(|| Granted, ()).unwrap();
        let running = object.call_async(|_: &Granted| GATE.pass(), ()).unwrap();
        assert!(object.timeout(AT_ONCE).grant(vr.id()).unwrap_err().is_timeout());
        GATE.open();
        assert_eq!(running.wait(), Ok(()));
        drop(object);
        while !FREED.is_open() {
            assert_eq!(r.call(double, (4,)), Ok(8));
        }
    });
}
