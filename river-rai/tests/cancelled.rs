//! Deadlines, cancellation and casts.

mod scene;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use river_core::testing::threads;
use river_core::{VirtualResource, Vr};
use river_rai::{CallError, Rai, RaiServer, current};
use river_sfm::{Sfm, pat};
use scene::with_servers_like;

fn with_server<R: Send>(client: impl Fn(&Vr, Rai<'_>) -> R + Sync) -> R {
    with_servers_like(RaiServer::unrestricted, 1, |vr, servers| client(vr, servers[0]))
}

fn double(x: i64) -> i64 {
    2 * x
}

static BEGUN: AtomicBool = AtomicBool::new(false);
static NOTICED: AtomicBool = AtomicBool::new(false);

fn endless() {
    while !current::is_cancelled() {
        thread::yield_now();
    }
}

/// For one test only, which reads the statics.
fn until_cancelled() {
    BEGUN.store(true, Ordering::SeqCst);
    while !current::is_cancelled() {
        thread::yield_now();
    }
    NOTICED.store(true, Ordering::SeqCst);
}

#[test]
fn a_call_that_runs_hears_that_it_is_cancelled_and_one_that_waits_is_not_begun() {
    static RAN: AtomicU32 = AtomicU32::new(0);
    with_server(|_, r| {
        let running = r.call_async(until_cancelled, ()).unwrap();
        let waiting = r.call_async(|| RAN.fetch_add(1, Ordering::SeqCst), ()).unwrap();
        let wanted = r.call_async(|| RAN.fetch_add(10, Ordering::SeqCst), ()).unwrap();
        while !BEGUN.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        waiting.cancel();
        running.cancel();
        assert_eq!(wanted.wait(), Ok(0));
        assert!(NOTICED.load(Ordering::SeqCst));
        assert_eq!(r.call(|| RAN.load(Ordering::SeqCst), ()), Ok(10));
    });
}

#[test]
fn a_call_that_is_withdrawn_is_not_begun_or_not_disturbed() {
    static BEGUN: AtomicBool = AtomicBool::new(false);
    static TOLD: AtomicBool = AtomicBool::new(false);
    let running = || {
        BEGUN.store(true, Ordering::SeqCst);
        while !TOLD.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        current::is_cancelled()
    };
    with_server(|_, r| {
        let running = r.call_async(running, ()).unwrap();
        let waiting = r.call_async(double, (1,)).unwrap();
        let wanted = r.call_async(double, (2,)).unwrap();
        while !BEGUN.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        running.withdraw();
        waiting.withdraw();
        TOLD.store(true, Ordering::SeqCst);
        assert_eq!(running.wait(), Ok(false));
        assert!(matches!(waiting.wait(), Err(CallError::Cancelled(_))));
        assert_eq!(wanted.wait(), Ok(4));
    });
}

#[test]
fn a_cast_after_a_cancelled_call_is_not_cancelled() {
    static BEGUN: AtomicBool = AtomicBool::new(false);
    static TOLD: AtomicBool = AtomicBool::new(true);
    let begin = || {
        BEGUN.store(true, Ordering::SeqCst);
        endless();
    };
    with_server(|_, r| {
        let call = r.call_async(begin, ()).unwrap();
        r.cast(|| TOLD.store(current::is_cancelled(), Ordering::SeqCst), ()).unwrap();
        while !BEGUN.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        call.cancel();
        assert_eq!(call.wait(), Ok(()));
        assert_eq!(r.call(|| TOLD.load(Ordering::SeqCst), ()), Ok(false));
    });
}

#[test]
fn a_limit_beyond_all_time_is_none() {
    with_server(|_, r| {
        let patient = r.timeout(Duration::MAX);
        assert_eq!(patient.call(double, (2,)), Ok(4));
        let mut call = patient.call_async(double, (3,)).unwrap();
        assert_eq!(call.wait_timeout(Duration::MAX), Ok(Some(6)));
    });
}

#[test]
fn a_deadline_ends_the_wait_and_the_call() {
    with_server(|_, r| {
        let soon = r.timeout(Duration::from_millis(30));
        let error = soon.call(endless, ()).unwrap_err();
        assert!(error.is_timeout() && error.to_string().contains("endless"), "{error}");
        // The server is free again, or this would never return.
        assert_eq!(r.call(double, (4,)), Ok(8));
        assert_eq!(r.timeout(Duration::from_secs(60)).call(double, (4,)), Ok(8));
        let mut patient = r.call_async(endless, ()).unwrap();
        assert_eq!(patient.wait_timeout(Duration::from_millis(10)), Ok(None));
        patient.cancel();
        let object = r.create(|| 5_u8, ()).unwrap().timeout(Duration::from_millis(30));
        assert!(object.call(|_: &u8| endless(), ()).unwrap_err().is_timeout());
    });
}

#[test]
fn a_cancellation_that_comes_too_late_is_forgotten() {
    with_server(|_, r| {
        for x in 0..100 {
            let mut call = r.call_async(double, (x,)).unwrap();
            let answer = call.wait_timeout(Duration::from_micros(20)).unwrap();
            call.cancel();
            assert!(answer.is_none_or(|answer| answer == 2 * x));
            assert_eq!(r.call(double, (x,)), Ok(2 * x));
        }
    });
}

#[test]
fn a_cast_is_done_in_order_and_answers_nothing() {
    with_server(|vr, r| {
        let list = r.put("list", Vec::<u32>::new()).unwrap();
        for x in 0..1000 {
            list.cast(Vec::push, (x,)).unwrap();
        }
        r.cast(|| -> () { panic!("nobody hears this") }, ()).unwrap();
        assert_eq!(list.get(), Ok((0..1000).collect()));
        assert!(vr.try_recv(pat! {}).unwrap().is_none());
    });
}

#[test]
fn the_end_of_a_client_cancels_what_it_waits_for() {
    threads(3, |vr, index, vrs| match index {
        0 => RaiServer::unrestricted().main(vr).unwrap(),
        1 => {
            let call = Rai::connect(vr, vrs[0]).call_async(endless, ()).unwrap();
            drop(call);
        }
        _ => {
            vr.watch(vrs[1]);
            assert!(vr.recv(pat! { tag: "never" }).is_err());
            let r = Rai::connect(vr, vrs[0]);
            assert_eq!(r.call(double, (1,)), Ok(2));
            r.stop().unwrap();
        }
    });
}

#[test]
fn a_thousand_calls_are_outstanding_on_one_connection() {
    with_server(|_, r| {
        // The first call blocks the server until all the others have arrived.
        let first = r.call_async(endless, ()).unwrap();
        let calls: Vec<_> = (0..1000).map(|x| r.call_async(double, (x,)).unwrap()).collect();
        first.cancel();
        for (x, call) in (0..).zip(calls) {
            assert_eq!(call.wait(), Ok(2 * x));
        }
    });
}
