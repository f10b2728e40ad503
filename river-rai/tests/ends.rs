//! Servers that end, and which operations report it.

mod scene;

use std::time::{Duration, Instant};

use river_core::testing::threads;
use river_core::{Channel, Down, RecvError, Selector, VirtualResource, VrId, Why};
use river_rai::{CallError, Completion, Completions, Rai, RaiServer, current};
use river_sfm::{Sfm, msg, pat};
use scene::with_servers_like;

fn add(a: i64, b: i64, c: i64) -> i64 {
    a + b + c
}

fn is_down(result: &CallError, server: VrId) -> bool {
    matches!(result, CallError::Down(Down { who, why: Why::Finished }) if *who == server)
}

#[test]
fn calls_of_a_server_that_ends_say_so() {
    with_servers_like(RaiServer::unrestricted, 2, |_, servers| {
        let [first, second] = servers else { unreachable!() };
        let answered = first.call_async(add, (1, 2, 3)).unwrap();
        first.stop().unwrap();
        // Accepted or refused, depending on timing; but always answered.
        let lost = first.call_async(add, (1, 2, 3)).and_then(river_rai::Pending::wait).unwrap_err();
        assert!(is_down(&lost, first.server()), "{lost}");
        assert!(lost.is_disconnected());
        assert_eq!(answered.wait(), Ok(6));
        assert_eq!(second.call(add, (1, 2, 3)), Ok(6));
        assert!(is_down(&first.call(add, (1, 2, 3)).unwrap_err(), first.server()));
    });
}

#[test]
fn the_end_of_a_server_that_was_told_to_end_is_no_news() {
    threads(3, |vr, index, vrs| match index {
        0 => RaiServer::unrestricted().main(vr).unwrap(),
        1 => {
            vr.watch(vrs[0]);
            assert!(vr.recv(pat! { tag: "never" }).is_err());
            vr.send(vrs[2], msg! { tag: "over" }).unwrap();
        }
        _ => {
            let r = Rai::connect(vr, vrs[0]);
            let call = r.call_async(add, (1, 2, 3)).unwrap();
            r.stop().unwrap();
            vr.recv(pat! { tag: "over" }).unwrap();
            let news = vr.recv_timeout(pat! { tag: "never" }, Duration::from_millis(100)).unwrap_err();
            assert!(news.is_timeout(), "{news}");
            // Any wait for the server learns of it; no other receive does.
            assert_eq!(call.wait(), Ok(6));
            if let Ok(late) = r.call_async(add, (1, 2, 3)) {
                let mut completions = Completions::new(vr);
                completions.add(&late);
                assert_eq!(completions.next(), Ok(Some(late.ticket())));
                assert!(is_down(&late.wait().unwrap_err(), vrs[0]));
            }
            assert!(r.wait_for_end(Duration::from_secs(60)));
            assert!(vr.recv_timeout(pat! {}, Duration::ZERO).unwrap_err().is_timeout());
        }
    });
}

#[test]
fn a_call_ends_with_its_server_though_nobody_watches_it() {
    const LIMIT: Duration = Duration::from_secs(10);
    threads(3, |vr, index, vrs| match index {
        0 => {
            let servers: Vec<Rai<'_>> = vrs[1..].iter().map(|&server| Rai::connect(vr, server)).collect();
            let calls: Vec<_> = servers.iter().map(|r| r.call_async(add, (1, 2, 3)).unwrap()).collect();
            let [mut first, second] = <[_; 2]>::try_from(calls).unwrap();
            let mut completions = Completions::new(vr);
            completions.add(&second);
            vrs[1..].iter().for_each(|&server| vr.unwatch(server));
            for server in &vrs[1..] {
                vr.send(*server, msg! { tag: "die" }).unwrap();
            }
            assert!(is_down(&first.wait_timeout(LIMIT).unwrap_err(), vrs[1]));
            let named = completions.next_until(Some(Instant::now() + LIMIT));
            assert_eq!(named, Ok(Completion::Answered(second.ticket())));
        }
        _ => drop(vr.recv(pat! { tag: "die" })),
    });
}

#[test]
fn a_notice_that_somebody_else_received_is_not_missed() {
    with_servers_like(RaiServer::unrestricted, 1, |vr, servers| {
        let r = servers[0];
        let call = r.call_async(|| std::thread::sleep(Duration::from_millis(20)), ()).unwrap();
        r.stop().unwrap();
        vr.watch(r.server());
        let late = r.call_async(add, (1, 2, 3));
        let error = vr.recv(pat! { tag: "never" }).unwrap_err();
        assert!(matches!(error, river_sfm::RecvError::Down(_)), "{error}");
        assert_eq!(call.wait(), Ok(()));
        let mut completions = Completions::new(vr);
        if let Ok(late) = late {
            completions.add(&late);
            assert_eq!(completions.next(), Ok(Some(late.ticket())));
            assert!(is_down(&late.wait().unwrap_err(), r.server()));
        }
    });
}

#[test]
fn a_notice_that_concerns_somebody_else_is_given_back() {
    threads(3, |vr, index, vrs| match index {
        0 => RaiServer::unrestricted().main(vr).unwrap(),
        1 => {}
        _ => {
            vr.watch(vrs[1]);
            let r = Rai::connect(vr, vrs[0]);
            let nap = || std::thread::sleep(Duration::from_millis(20));
            assert_eq!(r.call(nap, ()), Ok(()));
            let error = vr.receive(Selector::on(Channel::named("x"))).unwrap_err();
            assert!(matches!(error, RecvError::Down(Down { who, .. }) if who == vrs[1]), "{error}");
            r.stop().unwrap();
        }
    });
}

/// Says that it has begun, and ends when nobody wants it any more.
fn endless(guardian: VrId) {
    current::with_vr(|vr| vr.send(guardian, msg! { tag: "begun" })).unwrap().unwrap();
    while !current::is_cancelled() {
        std::thread::yield_now();
    }
}

/// Runs a client of a server whose guardian ends when so many functions have begun.
fn with_guarded_server(
    make: impl Fn() -> RaiServer + Sync,
    begun: usize,
    client: impl Fn(Rai<'_>, VrId) + Sync,
) {
    threads(3, |vr, index, vrs| match index {
        0 => make().ends_with(vrs[1]).main(vr).unwrap(),
        1 => (0..begun).for_each(|_| drop(vr.recv(pat! { tag: "begun" }).unwrap())),
        _ => {
            let r = Rai::connect(vr, vrs[0]);
            client(r, vrs[1]);
            assert!(r.wait_for_end(Duration::from_secs(60)));
        }
    });
}

#[test]
fn a_function_hears_that_its_server_is_to_end_with_its_guardian() {
    with_guarded_server(RaiServer::unrestricted, 1, |r, guardian| {
        assert_eq!(r.call(endless, (guardian,)), Ok(()));
    });
}

#[test]
fn the_functions_of_a_concurrent_server_hear_that_it_is_to_end_with_its_guardian() {
    let call_back = |guardian: VrId, server: VrId| {
        endless(guardian);
        current::with_vr(|vr| Rai::connect(vr, server).call(|| (), ()).unwrap_err().to_string())
    };
    with_guarded_server(
        || RaiServer::unrestricted().concurrent(3),
        3,
        |r, guardian| {
            let calls = r.call_async(call_back, (guardian, r.server())).unwrap();
            let ends = r.call_async(endless, (guardian,)).unwrap();
            r.cast(endless, (guardian,)).unwrap();
            assert_eq!(ends.wait(), Ok(()));
            // Nor does it wait for what the server does not do any more.
            let refused = calls.wait().unwrap().unwrap();
            assert!(refused.contains("told to end"), "{refused}");
        },
    );
}
