//! Calls between VRs that are threads of this process.

mod scene;

use std::time::Duration;

use river_core::testing::threads;
use river_core::{Channel, VirtualResource, Vr};
use river_rai::{CallError, Completions, Packed, Rai, RaiServer};
use river_sfm::{Sfm, msg, pat};
use scene::with_servers_like;
use serde::{Deserialize, Serialize};

fn with_servers<R: Send>(count: usize, client: impl Fn(&Vr, &[Rai<'_>]) -> R + Sync) -> R {
    with_servers_like(RaiServer::unrestricted, count, client)
}

fn with_server<R: Send>(client: impl Fn(&Vr, Rai<'_>) -> R + Sync) -> R {
    with_servers(1, |vr, servers| client(vr, servers[0]))
}

fn add(a: i64, b: i64, c: i64) -> i64 {
    a + b + c
}

fn twice<T: std::ops::Add<Output = T> + Copy>(x: T) -> T {
    x + x
}

fn parse(mut text: String) -> Result<u32, String> {
    text.push('0');
    text.parse().map_err(|error: std::num::ParseIntError| error.to_string())
}

fn fail(mut what: String) -> u32 {
    what.push_str(" here");
    panic!("no {what}")
}

#[test]
fn functions_of_any_shape_are_called() {
    with_server(|_, r| {
        assert_eq!(r.call(add, (1, 2, 3)), Ok(6));
        assert_eq!(r.call(twice::<f64>, (1.5,)), Ok(3.0));
        assert_eq!(r.call(|x: i64| x + 10, (5,)), Ok(15));
        assert_eq!(r.call(|| (), ()), Ok(()));
        assert_eq!(r.call(parse, ("17".into(),)), Ok(Ok(170)));
        assert!(r.call(parse, ("x".into(),)).unwrap().is_err());
        let all = |a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8, h: u8| vec![a, b, c, d, e, f, g, h];
        assert_eq!(r.call(all, (1, 2, 3, 4, 5, 6, 7, 8)), Ok(vec![1, 2, 3, 4, 5, 6, 7, 8]));
    });
}

#[test]
fn large_values_travel_both_ways() {
    with_server(|_, r| {
        let data: Vec<u8> = (0..3_000_000).map(|i| (i % 251) as u8).collect();
        let back = r
            .call(
                |mut data: Vec<u8>| {
                    data.reverse();
                    data
                },
                (data.clone(),),
            )
            .unwrap();
        assert!(back.iter().rev().eq(&data));
    });
}

#[test]
fn a_panic_is_an_error_and_the_server_lives_on() {
    with_server(|_, r| {
        let error = r.call(fail, ("input".into(),)).unwrap_err();
        let CallError::Panicked { function, vm, text, .. } = &error else { panic!("{error}") };
        assert!(function.ends_with("fail"), "{function}");
        assert_eq!(vm, "test");
        assert!(text.starts_with("no input here (") && text.contains("calls.rs:"), "{text}");
        assert!(!error.is_disconnected());
        assert_eq!(r.call(add, (1, 2, 3)), Ok(6));
    });
}

#[test]
fn many_calls_are_outstanding_and_waited_for_in_any_order() {
    with_servers(2, |_, servers| {
        let calls: Vec<_> =
            (0..2000).map(|i: i64| servers[i as usize % 2].call_async(add, (i, i, 0)).unwrap()).collect();
        for (i, call) in calls.into_iter().enumerate().rev() {
            assert_eq!(call.wait(), Ok(2 * i as i64));
        }
    });
}

#[test]
fn a_result_is_asked_for_without_waiting_and_handed_out_once() {
    with_server(|vr, r| {
        let mut call = r.call_async(add, (1, 2, 3)).unwrap();
        let result = loop {
            if let Some(result) = call.try_wait().unwrap() {
                break result;
            }
            let _ = vr.wait(Duration::from_secs(10));
        };
        assert_eq!(result, 6);
        assert!(matches!(call.try_wait(), Err(CallError::Taken(_))));
        assert!(matches!(call.wait(), Err(CallError::Taken(_))));
    });
}

#[test]
fn calls_that_are_dropped_leave_nothing_in_the_queue() {
    with_server(|vr, r| {
        for i in 0..100 {
            drop(r.call_async(add, (i, 0, 0)).unwrap());
        }
        assert_eq!(r.call(add, (1, 2, 3)), Ok(6));
        drop(r.call_async(add, (0, 0, 0)).unwrap());
        assert_eq!(r.call(add, (4, 5, 6)), Ok(15));
        assert!(vr.try_recv(pat! {}).unwrap().is_none());
    });
}

#[test]
fn no_receive_of_another_layer_takes_a_reply() {
    with_server(|vr, r| {
        let call = r.call_async(add, (1, 2, 3)).unwrap();
        let patience = Duration::from_millis(20);
        assert!(vr.recv_timeout(pat! {}, patience).is_err());
        assert_eq!(call.wait(), Ok(6));
    });
}

#[test]
fn messages_of_others_stay_in_the_queue() {
    with_server(|vr, r| {
        vr.send(vr.id(), msg! { tag: "mine", n: 1 }).unwrap();
        assert_eq!(r.call(add, (1, 2, 3)), Ok(6));
        assert_eq!(vr.recv(pat! { tag: "mine" }).unwrap().get::<i32>("n").unwrap(), 1);
    });
}

#[test]
fn completions_name_every_call_once() {
    with_servers(3, |vr, servers| {
        let mut completions = Completions::new(vr);
        assert_eq!(completions.next(), Ok(None));
        let mut calls: Vec<_> =
            (0..300).map(|i| (i, servers[i % 3].call_async(twice::<usize>, (i,)).unwrap())).collect();
        for (_, call) in &calls {
            completions.add(call);
        }
        // One is dropped, one is waited for separately.
        drop(calls.remove(0));
        let (i, call) = calls.remove(5);
        assert_eq!(call.wait(), Ok(2 * i));
        while let Some(ticket) = completions.next().unwrap() {
            let at = calls.iter().position(|(_, call)| call.ticket() == ticket).unwrap();
            let (i, call) = calls.swap_remove(at);
            assert_eq!(call.wait(), Ok(2 * i));
        }
        assert!(calls.is_empty());
    });
}

#[test]
fn packed_arguments_serve_many_calls() {
    with_servers(2, |_, servers| {
        let args = Packed::new((1_i64, 2_i64, 3_i64)).unwrap();
        for server in servers {
            assert_eq!(server.call_packed(add, &args).unwrap().wait(), Ok(6));
        }
    });
}

// ---- objects ----

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Stack {
    items: Vec<String>,
}

impl Stack {
    fn new() -> Self {
        Self::default()
    }

    fn push(&mut self, item: String) {
        self.items.push(item);
    }

    fn pop(&mut self) -> Option<String> {
        self.items.pop()
    }

    fn depth(&self) -> usize {
        self.items.len()
    }

    fn fail_after_push(&mut self) {
        self.items.push("half".into());
        panic!("in the middle");
    }
}

#[test]
fn the_stack_of_the_paper() {
    with_server(|_, r| {
        let s = r.create(Stack::new, ()).unwrap();
        for item in ["A", "B", "C"] {
            s.call(Stack::push, (item.to_string(),)).unwrap();
        }
        assert_eq!(s.call(Stack::pop, ()), Ok(Some("C".into())));
        assert_eq!(s.call(Stack::depth, ()), Ok(2));
        assert_eq!(s.take(), Ok(Stack { items: vec!["A".into(), "B".into()] }));
    });
}

#[test]
fn an_object_is_called_before_its_creation_is_confirmed() {
    with_server(|_, r| {
        let (s, created) = r.create_async(Stack::new, ()).unwrap();
        let pushed = s.call_async(Stack::push, ("A".into(),)).unwrap();
        assert_eq!(s.call(Stack::depth, ()), Ok(1));
        assert_eq!((pushed.wait(), created.wait()), (Ok(()), Ok(())));
    });
}

#[test]
fn a_constructor_that_fails_leaves_no_object() {
    with_server(|_, r| {
        fn broken() -> Stack {
            panic!("out of plates")
        }
        assert!(matches!(r.create(broken, ()), Err(CallError::Panicked { .. })));
        let (s, created) = r.create_async(broken, ()).unwrap();
        assert!(matches!(s.call(Stack::depth, ()), Err(CallError::NoSuchObject { .. })));
        drop(created);
    });
}

#[test]
fn an_object_survives_the_panic_of_a_method() {
    with_server(|_, r| {
        let s = r.create(Stack::new, ()).unwrap();
        assert!(matches!(s.call(Stack::fail_after_push, ()), Err(CallError::Panicked { .. })));
        assert_eq!(s.call(Stack::depth, ()), Ok(1));
    });
}

/// Reports, on the server's thread, that it was dropped.
struct Guard;

thread_local! {
    static DROPPED: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

impl Drop for Guard {
    fn drop(&mut self) {
        DROPPED.set(DROPPED.get() + 1);
    }
}

#[test]
fn dropping_the_handle_frees_the_object() {
    with_server(|_, r| {
        let first = r.create(|| Guard, ()).unwrap();
        let second = r.create(|| Guard, ()).unwrap();
        drop(first);
        assert_eq!(r.call(|| DROPPED.get(), ()), Ok(1));
        drop(second);
        assert_eq!(r.call(|| DROPPED.get(), ()), Ok(2));
    });
}

#[test]
fn the_death_of_a_client_frees_its_objects() {
    threads(3, |vr, index, vrs| match index {
        0 => RaiServer::unrestricted().main(vr).unwrap(),
        1 => {
            let s = Rai::connect(vr, vrs[0]).create(|| Guard, ()).unwrap();
            // As if the VR had been killed: its handle releases nothing.
            std::mem::forget(s);
        }
        _ => {
            vr.watch(vrs[1]);
            assert!(matches!(vr.recv(pat! { tag: "never" }), Err(river_sfm::RecvError::Down(_))));
            let r = Rai::connect(vr, vrs[0]);
            while r.call(|| DROPPED.get(), ()).unwrap() == 0 {}
            r.stop().unwrap();
        }
    });
}

// ---- messages of strangers ----

#[test]
fn garbage_does_not_end_a_server() {
    with_server(|vr, r| {
        for channel in ["rai.requests", "rai.replies"].map(Channel::named) {
            for garbage in [vec![], vec![255; 100], vec![0; 3]] {
                vr.send_bytes(r.server(), channel, 1, garbage.clone()).unwrap();
                vr.send_bytes(vr.id(), channel, 1, garbage).unwrap();
            }
        }
        assert_eq!(r.call(add, (1, 2, 3)), Ok(6));
    });
}

// ---- types of the same name ----

/// The type on the server.
#[derive(Serialize, Deserialize)]
struct Point {
    x: f64,
    y: f64,
}

/// The type in another program.
mod elsewhere {
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    pub(super) struct Point {
        pub(super) y: f64,
        pub(super) x: f64,
    }
}

#[test]
fn a_struct_of_the_same_name_with_other_fields_is_refused() {
    with_server(|_, r| {
        r.export("norm", |point: Point| point.x.hypot(point.y)).unwrap();
        assert_eq!(r.call_named("norm", (Point { x: 3.0, y: 4.0 },)), Ok(5.0));
        let error = r.call_named::<f64, _>("norm", (elsewhere::Point { x: 3.0, y: 4.0 },)).unwrap_err();
        assert!(matches!(error, CallError::Signature { .. }));
        assert_eq!(
            error.to_string(),
            "norm is (Point,) -> f64 on both sides, but of different types: `Point { x: f64, y: f64 }` on the server, \
             `Point { y: f64, x: f64 }` here"
        );
    });
}
