//! Mailboxes that are full.

mod scene;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use river_core::testing::threads;
use river_core::{Channel, QueueLimit, RecvError, Selector, VirtualResource, Vr, WhenFull};
use river_rai::{CallError, Rai, RaiServer, current};
use scene::with_servers_like;

fn refuse_more_than(vr: &Vr, messages: usize) {
    vr.limit_queue(Some(QueueLimit { messages, bytes: usize::MAX, when_full: WhenFull::Refuse }));
}

#[test]
fn answers_for_which_there_is_no_room_come_later() {
    static ANSWERED: AtomicU32 = AtomicU32::new(0);
    const CALLS: u32 = 50;
    for helpers in [None, Some(2)] {
        ANSWERED.store(0, Ordering::SeqCst);
        let make = || {
            let server = RaiServer::unrestricted();
            if let Some(helpers) = helpers { server.concurrent(helpers) } else { server }
        };
        with_servers_like(make, 1, |vr, servers| {
            refuse_more_than(vr, 3);
            let call = |_| servers[0].call_async(|| ANSWERED.fetch_add(1, Ordering::SeqCst), ()).unwrap();
            let calls: Vec<_> = (0..CALLS).map(call).collect();
            while ANSWERED.load(Ordering::SeqCst) < CALLS {
                thread::yield_now();
            }
            // It does not end before all have their answers.
            servers[0].stop().unwrap();
            let mut answers: Vec<u32> = calls.into_iter().map(|call| call.wait().unwrap()).collect();
            answers.sort_unstable();
            assert_eq!(answers, (0..CALLS).collect::<Vec<_>>());
        });
    }
}

/// It retries for some seconds, and then ends.
#[test]
fn a_server_that_is_told_to_end_does_not_wait_for_a_client_that_takes_no_answers() {
    static ANSWERED: AtomicU32 = AtomicU32::new(0);
    threads(2, |vr, index, vrs| {
        if index == 1 {
            return RaiServer::unrestricted().main(vr).unwrap();
        }
        refuse_more_than(vr, 1);
        let r = Rai::connect(vr, vrs[1]);
        for _ in 0..3 {
            drop(r.call_async(|| ANSWERED.fetch_add(1, Ordering::SeqCst), ()).unwrap());
        }
        r.stop().unwrap();
        // Does not concern answers.
        vr.watch(vrs[1]);
        let ended = vr.receive(Selector::on(Channel::named("other")));
        assert!(matches!(ended, Err(RecvError::Down(down)) if down.who == vrs[1]));
        assert_eq!(ANSWERED.load(Ordering::SeqCst), 3);
    });
}

#[test]
fn a_call_of_a_server_whose_mailbox_is_full_says_so() {
    static LIMITED: AtomicBool = AtomicBool::new(false);
    static TRIED: AtomicBool = AtomicBool::new(false);
    let wait_for = |flag: &AtomicBool| {
        while !flag.load(Ordering::SeqCst) {
            thread::yield_now();
        }
    };
    threads(2, |vr, index, vrs| {
        if index == 1 {
            refuse_more_than(vr, 1);
            LIMITED.store(true, Ordering::SeqCst);
            return wait_for(&TRIED);
        }
        let r = Rai::connect(vr, vrs[1]);
        wait_for(&LIMITED);
        let first = r.call_async(|| (), ());
        let results = [r.call(|| (), ()), r.cast(|| (), ())];
        TRIED.store(true, Ordering::SeqCst);
        assert_eq!(results, [Err(CallError::Full(vrs[1])), Err(CallError::Full(vrs[1]))]);
        assert!(matches!(first.unwrap().wait(), Err(CallError::Down(_))));
    });
}

#[test]
fn a_handle_that_is_dropped_while_the_server_is_full_frees_its_object_later() {
    static BUSY: AtomicBool = AtomicBool::new(false);
    static FULL: AtomicBool = AtomicBool::new(false);
    static FREED: AtomicU32 = AtomicU32::new(0);
    struct Guard;
    impl Drop for Guard {
        fn drop(&mut self) {
            FREED.fetch_add(1, Ordering::SeqCst);
        }
    }
    /// Receives nothing until there is no room left.
    fn be_busy() {
        current::with_vr(|vr| refuse_more_than(vr, 1));
        BUSY.store(true, Ordering::SeqCst);
        while !FULL.load(Ordering::SeqCst) {
            thread::yield_now();
        }
    }
    with_servers_like(RaiServer::unrestricted, 1, |_, servers| {
        let r = servers[0];
        let objects = [(), ()].map(|()| r.create(|| Guard, ()).unwrap());
        let busy = r.call_async(be_busy, ()).unwrap();
        while !BUSY.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        while r.cast(|| (), ()).is_ok() {}
        drop(objects);
        FULL.store(true, Ordering::SeqCst);
        assert_eq!(busy.wait(), Ok(()));
        // A request may still find no room, but each time one is taken there is room for a reply that was kept.
        for _ in 0..10 {
            while r.call(|| (), ()).is_err() {}
        }
        assert_eq!(FREED.load(Ordering::SeqCst), 2);
        r.call(|| current::with_vr(|vr| vr.limit_queue(None)).unwrap(), ()).unwrap();
    });
}
