//! Handlers that call something while their VR waits for a call.

mod scene;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use river_core::testing::threads;
use river_core::{Vr, VrId};
use river_rai::{CallError, Completions, Rai, RaiServer, current};
use river_sfm::{Sfm, msg, pat};
use scene::with_servers_like;

/// Has the client's handler run, and returns when it says that it does.
fn disturb(client: VrId, handling: &AtomicBool) -> i32 {
    current::with_vr(|vr| vr.send(client, msg! { tag: "event" })).unwrap().unwrap();
    while !handling.load(Ordering::SeqCst) {
        thread::yield_now();
    }
    1
}

#[test]
fn a_call_ends_whose_reply_has_come_while_a_handler_waited_for_another_one() {
    static HANDLING: AtomicBool = AtomicBool::new(false);
    with_servers_like(RaiServer::unrestricted, 1, |vr, servers| {
        let server = servers[0].server();
        let handler = vr.on(pat! { tag: "event" }, move |vr, _| {
            HANDLING.store(true, Ordering::SeqCst);
            // The server answers in order.
            assert_eq!(Rai::connect(vr, server).call(|| 2, ()), Ok(2));
        });
        let _handler = handler.unwrap();
        assert_eq!(servers[0].call(|client| disturb(client, &HANDLING), (vr.id(),)), Ok(1));
    });
}

#[test]
fn a_set_of_calls_names_one_whose_reply_has_come_while_a_handler_waited_for_another_one() {
    static HANDLING: AtomicBool = AtomicBool::new(false);
    with_servers_like(RaiServer::unrestricted, 1, |vr, servers| {
        let server = servers[0].server();
        let handler = vr.on(pat! { tag: "event" }, move |vr, _| {
            HANDLING.store(true, Ordering::SeqCst);
            assert_eq!(Rai::connect(vr, server).call(|| 2, ()), Ok(2));
        });
        let _handler = handler.unwrap();
        let call = servers[0].call_async(|client| disturb(client, &HANDLING), (vr.id(),)).unwrap();
        let mut completions = Completions::new(vr);
        completions.add(&call);
        assert_eq!(completions.next(), Ok(Some(call.ticket())));
        assert_eq!(call.wait(), Ok(1));
        assert_eq!(completions.next(), Ok(None));
    });
}

/// A VR that answers no call has its client's handler run, which sees its end.
fn a_death_that_a_handler_sees(see: impl Fn(&Vr, VrId) + Copy + Sync + 'static) {
    threads(2, |vr, index, vrs| {
        let [client, server] = vrs[..] else { unreachable!() };
        if index == 1 {
            vr.recv(pat! { tag: "begin" }).unwrap();
            vr.send(client, msg! { tag: "event" }).unwrap();
            // Its handler runs now.
            vr.recv(pat! { tag: "end" }).unwrap();
            return;
        }
        let handler = vr.on(pat! { tag: "event" }, move |vr, _| {
            vr.send(server, msg! { tag: "end" }).unwrap();
            see(vr, server);
        });
        let _handler = handler.unwrap();
        let call = Rai::connect(vr, server).call_async(|| (), ()).unwrap();
        let mut completions = Completions::new(vr);
        completions.add(&call);
        vr.send(server, msg! { tag: "begin" }).unwrap();
        assert_eq!(completions.next(), Ok(Some(call.ticket())));
        assert!(matches!(call.wait(), Err(CallError::Down(down)) if down.who == server));
    });
}

#[test]
fn a_set_of_calls_hears_of_the_end_of_a_server_that_a_handler_has_called_meanwhile() {
    a_death_that_a_handler_sees(|vr, server| {
        let error = Rai::connect(vr, server).call(|| (), ()).unwrap_err();
        assert!(error.is_disconnected(), "{error}");
    });
}

#[test]
fn a_set_of_calls_hears_of_the_end_of_a_server_that_a_handler_has_heard_of() {
    a_death_that_a_handler_sees(|vr, server| {
        assert!(vr.recv(pat! { src: server, tag: "never" }).is_err());
    });
}
