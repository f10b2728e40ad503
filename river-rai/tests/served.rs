//! Features of a server besides calling functions by pointer: data, names, restrictions, references of others.

mod scene;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use river_core::testing::{for_each_topology, threads};
use river_core::{Channel, Selector, VirtualResource, Vr, VrId};
use river_rai::{CallError, Capability, Completions, Exports, Rai, RaiServer, Remote, current};
use river_sfm::{Sfm, msg, pat};
use scene::with_servers_like;
use serde::{Deserialize, Serialize};

fn with_servers<R: Send>(count: usize, client: impl Fn(&Vr, &[Rai<'_>]) -> R + Sync) -> R {
    with_servers_like(RaiServer::unrestricted, count, client)
}

fn with_server<R: Send>(client: impl Fn(&Vr, Rai<'_>) -> R + Sync) -> R {
    with_servers(1, |vr, servers| client(vr, servers[0]))
}

fn add(a: i64, b: i64) -> i64 {
    a + b
}

fn double(x: i64) -> i64 {
    2 * x
}

// ---- data ----

#[test]
fn items_of_vectors_and_maps_are_read_and_set() {
    with_server(|_, r| {
        let list = r.put("list", vec![1_i64, 2, 3]).unwrap();
        list.set_item(1, 20).unwrap();
        assert_eq!((list.get_item(0), list.get_item(1)), (Ok(1), Ok(20)));
        assert!(matches!(list.get_item(3), Err(CallError::NoSuchItem { .. })));
        let error = list.set_item(3, 0).unwrap_err().to_string();
        assert!(error.ends_with("has no item 3"), "{error}");
        let table = r.put("table", BTreeMap::from([(1, 'a')])).unwrap();
        table.set_item(2, 'b').unwrap();
        assert_eq!(table.get(), Ok(BTreeMap::from([(1, 'a'), (2, 'b')])));
        assert_eq!(list.update(|list: &mut Vec<i64>, x: i64| list.push(x), (4,)), Ok(()));
        assert_eq!(list.get(), Ok(vec![1, 20, 3, 4]));
        list.set(vec![]).unwrap();
        assert_eq!(list.call(Vec::len, ()), Ok(0));
    });
}

#[test]
fn named_data_outlives_its_handle_until_it_is_removed_or_replaced() {
    with_server(|_, r| {
        drop(r.put("x", 1_u8).unwrap());
        assert_eq!(r.named::<u8>("x").get(), Ok(1));
        assert!(matches!(r.named::<u16>("x").get(), Err(CallError::WrongType { .. })));
        drop(r.put("x", 2_u16).unwrap());
        assert_eq!(r.named::<u16>("x").get(), Ok(2));
        r.remove("x").unwrap();
        r.remove("x").unwrap();
        let error = r.named::<u16>("x").get().unwrap_err();
        assert!(
            matches!(&error, CallError::NoSuchObject { .. }) && error.to_string().contains("\"x\""),
            "{error}"
        );
    });
}

#[test]
fn functions_on_the_server_use_what_was_put_there() {
    fn longest() -> Option<usize> {
        current::with_named("names", |names: &mut Vec<String>| {
            // It is in use, so nothing else can access it meanwhile.
            assert!(current::with_named("names", |_: &mut Vec<String>| ()).is_none());
            names.iter().map(String::len).max()
        })?
    }
    with_server(|_, r| {
        assert_eq!(r.call(longest, ()), Ok(None));
        let _names = r.put("names", vec!["Alex".to_string(), "Peter".into()]).unwrap();
        assert_eq!(r.call(longest, ()), Ok(Some(5)));
        assert_eq!(r.call(longest, ()), Ok(Some(5)));
    });
    assert_eq!(current::with_vr(Vr::id), None);
    assert!(!current::is_cancelled());
}

#[test]
fn a_function_reaches_other_servers_through_the_vr_it_runs_on() {
    fn relay(other: VrId, x: i64) -> Result<i64, String> {
        let called = current::with_vr(|vr| Rai::connect(vr, other).call(double, (x,)));
        called.ok_or("no server")?.map_err(|error| error.to_string())
    }
    with_servers(2, |_, servers| {
        assert_eq!(servers[0].call(relay, (servers[1].server(), 21)), Ok(Ok(42)));
    });
}

#[test]
fn a_function_that_waits_for_its_own_server_is_told_that_it_waits_for_ever() {
    fn call(of: VrId) -> Result<i64, String> {
        let called = current::with_vr(|vr| Rai::connect(vr, of).call(double, (21,)));
        called.ok_or("no server")?.map_err(|error| error.to_string())
    }
    fn wait_for_any(of: [VrId; 2]) -> Result<Vec<i64>, String> {
        current::with_vr(|vr| {
            let mut calls: Vec<_> =
                of.iter().map(|&of| Rai::connect(vr, of).call_async(double, (21,)).unwrap()).collect();
            let mut completions = Completions::new(vr);
            calls.iter().for_each(|call| completions.add(call));
            let first = completions.next().map_err(|error| error.to_string())?;
            calls.retain(|call| Some(call.ticket()) == first);
            let results = calls.into_iter().map(|call| call.wait().map_err(|error| error.to_string()));
            let results: Result<Vec<i64>, String> = results.collect();
            completions.next().map_or_else(|error| Err(error.to_string()), |_| results)
        })
        .ok_or("no server")?
    }
    fn cast(of: VrId) -> Result<(), String> {
        let cast = current::with_vr(|vr| Rai::connect(vr, of).cast(double, (21,)));
        cast.ok_or("no server")?.map_err(|error| error.to_string())
    }
    with_servers(2, |_, servers| {
        let (own, other) = (servers[0].server(), servers[1].server());
        let error = servers[0].call(call, (own,)).unwrap().unwrap_err();
        assert!(error.contains("by its own server") && error.contains("concurrent"), "{error}");
        let error = servers[0].call(wait_for_any, ([own, own],)).unwrap().unwrap_err();
        assert!(error.contains("concurrent"), "{error}");
        assert_eq!(servers[0].call(wait_for_any, ([own, other],)), Ok(Ok(vec![42])));
        assert_eq!(servers[0].call(cast, (own,)), Ok(Ok(())));
        assert_eq!(servers[0].call(call, (other,)), Ok(Ok(42)));
    });
    with_servers_like(
        || RaiServer::unrestricted().concurrent(2),
        1,
        |_, servers| {
            assert_eq!(servers[0].call(call, (servers[0].server(),)), Ok(Ok(42)));
        },
    );
}

#[test]
fn what_a_client_has_put_goes_when_it_goes() {
    threads(3, |vr, index, vrs| match index {
        0 => RaiServer::unrestricted().main(vr).unwrap(),
        1 => {
            let _ = Rai::connect(vr, vrs[0]).put("mine", 1_u8).unwrap();
        }
        _ => {
            vr.watch(vrs[1]);
            assert!(vr.recv(pat! { tag: "never" }).is_err());
            let r = Rai::connect(vr, vrs[0]);
            while r.named::<u8>("mine").get().is_ok() {}
            r.stop().unwrap();
        }
    });
}

// ---- names ----

#[test]
fn exported_functions_are_called_by_name_with_the_right_types() {
    with_server(|_, r| {
        r.export("add", add).unwrap();
        let three: i64 = r.call_named("add", (1_i64, 2_i64)).unwrap();
        assert_eq!(three, 3);
        let error = r.call_named::<i64, _>("add", (1_i32, 2_i32)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "add is (i64, i64) -> i64 on the server, and was called as (i32, i32) -> i64"
        );
        let error = r.call_named::<i64, _>("sub", (1_i64,)).unwrap_err().to_string();
        assert!(error.contains("no function sub") && error.contains("it exports add"), "{error}");
        r.export_constructor("list", |n: usize| vec![0_u8; n]).unwrap();
        let list = r.create_named::<Vec<u8>, _>("list", (3_usize,)).unwrap();
        assert_eq!(list.take(), Ok(vec![0; 3]));
        // A constructor cannot be called as a function.
        assert!(matches!(r.call_named::<Vec<u8>, _>("list", (3_usize,)), Err(CallError::Signature { .. })));
    });
}

// ---- restrictions ----

#[derive(Default)]
struct Account {
    cents: i64,
}

impl Account {
    fn pay_in(&mut self, cents: i64) {
        self.cents += cents;
    }

    fn balance(&self) -> i64 {
        self.cents
    }
}

fn is_refused<T: std::fmt::Debug>(result: Result<T, CallError>) -> bool {
    matches!(result, Err(CallError::Refused { .. }))
}

#[test]
fn a_restricted_server_does_what_it_exports_and_nothing_else() {
    threads(2, |vr, index, vrs| {
        if index == 1 {
            let exports = Exports::new()
                .function("add", add)
                .constructor("account", Account::default)
                .method("balance", Account::balance)
                .method("pay in", Account::pay_in);
            return RaiServer::restricted(exports).ends_with(vrs[0]).main(vr).unwrap();
        }
        let r = Rai::connect(vr, vrs[1]);
        assert_eq!(r.call(add, (1, 2)), Ok(3));
        assert_eq!(r.call_named("add", (1_i64, 2_i64)), Ok(3_i64));
        assert!(is_refused(r.call(double, (1,))));
        assert!(is_refused(r.call(|| -> () { std::process::exit(1) }, ())));
        assert!(is_refused(r.put("x", 1)));
        assert!(is_refused(r.export("double", double)));
        assert!(is_refused(r.remove("x")));
        let account = r.create(Account::default, ()).unwrap();
        account.call(Account::pay_in, (5,)).unwrap();
        account.call_named::<(), _>("pay in", (2_i64,)).unwrap();
        assert_eq!(account.call(Account::balance, ()), Ok(7));
        assert!(is_refused(account.call(|account: &mut Account| account.cents = 1_000_000, ())));
        r.stop().unwrap();
    });
}

#[test]
fn a_capability_opens_what_is_kept_from_others() {
    let key = Capability::fresh();
    threads(3, |vr, index, vrs| {
        let guarded = Exports::new().function("double", double).only_with(key);
        if index == 0 {
            let exports = Exports::new().function("add", add).and(guarded);
            return RaiServer::restricted(exports).ends_with(vrs[1]).main(vr).unwrap();
        }
        let r = Rai::connect(vr, vrs[0]);
        assert_eq!(r.call(add, (1, 2)), Ok(3));
        assert!(is_refused(r.call(double, (1,))));
        r.show(if index == 1 { key } else { Capability::fresh() }).unwrap();
        assert_eq!(r.call(double, (2,)).ok(), (index == 1).then_some(4));
        assert_eq!(r.call_named::<i64, _>("double", (2_i64,)).ok(), (index == 1).then_some(4));
        // Only the VR that its end is tied to may end it.
        if index == 2 {
            r.stop().unwrap();
            assert_eq!(r.call(add, (1, 2)), Ok(3));
            vr.send(vrs[1], msg! { done: true }).unwrap();
        } else {
            vr.recv(pat! { done: true }).unwrap();
            r.stop().unwrap();
        }
    });
}

// ---- references of others ----

/// Counts, on the server, how many instances are left.
struct Guard;

static ALIVE: AtomicU32 = AtomicU32::new(0);

impl Guard {
    fn new() -> Self {
        ALIVE.fetch_add(1, Ordering::SeqCst);
        Guard
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Ordering::SeqCst);
    }
}

fn alive() -> u32 {
    ALIVE.load(Ordering::SeqCst)
}

/// Gets a reference from its parent, uses it, and ends when it is told to.
#[derive(Serialize, Deserialize)]
struct Holder {
    dies: bool,
}

impl VirtualResource for Holder {
    fn main(&mut self, vr: &Vr) -> river_core::Result {
        let parent = vr.parent().unwrap();
        let remote: Remote<Guard> = vr.recv(pat! { src: parent, guard: river_sfm::ANY })?.get("guard")?;
        let (first, second) = (remote.open(vr)?, remote.open(vr)?);
        drop(first);
        second.call(|_: &Guard| (), ())?;
        vr.send(parent, msg! { opened: true })?;
        vr.recv(pat! { src: parent, end: true })?;
        if self.dies {
            std::mem::forget(second);
            return Err(river_core::VrError::msg("as if killed"));
        }
        drop(second);
        vr.send(parent, msg! { dropped: true })?;
        vr.recv(pat! { src: parent, end: true })?;
        Ok(())
    }
}

#[test]
fn an_object_lives_as_long_as_its_last_holder_whoever_that_is() {
    for_each_topology(|_, make_vms| {
        river_core::try_run(|vr| {
            let vms = make_vms(vr, 2)?;
            let r = Rai::connect(vr, vr.deploy(&vms[..1], |_| RaiServer::unrestricted())?[0]);
            for dies in [false, true] {
                let holder = vr.deploy(&vms[1..], |_| Holder { dies })?[0];
                let guard = r.create(Guard::new, ())?;
                let remote = guard.grant(holder)?;
                assert!(matches!(remote.open(vr), Err(CallError::NotGranted { .. })));
                drop(guard);
                assert_eq!(r.call(alive, ())?, 1);
                vr.send(holder, msg! { guard: remote })?;
                vr.recv(pat! { src: holder, opened: true })?;
                assert_eq!(r.call(alive, ())?, 1);
                vr.send(holder, msg! { end: true })?;
                if !dies {
                    vr.recv(pat! { src: holder, dropped: true })?;
                }
                while r.call(alive, ())? > 0 {}
                if dies {
                    assert!(vr.recv(pat! { src: holder, never: true }).is_err());
                } else {
                    vr.send(holder, msg! { end: true })?;
                }
            }
            Ok(())
        })
        .unwrap();
    });
}

#[test]
fn clones_of_a_handle_share_one_reference() {
    static DROPS: AtomicU32 = AtomicU32::new(0);
    struct Noted;
    impl Drop for Noted {
        fn drop(&mut self) {
            DROPS.fetch_add(1, Ordering::SeqCst);
        }
    }
    let drops = || DROPS.load(Ordering::SeqCst);
    with_server(|_, r| {
        let first = r.create(|| Noted, ()).unwrap();
        let second = first.clone();
        drop(first);
        assert_eq!(r.call(drops, ()), Ok(0));
        second.call(|_: &Noted| (), ()).unwrap();
        drop(second);
        assert_eq!(r.call(drops, ()), Ok(1));
    });
}

// ---- servers that are clients ----

#[test]
fn a_server_that_calls_another_one_hears_of_its_end_as_its_server_too() {
    /// Waits for an answer that never comes.
    fn ask(other: VrId) -> bool {
        let called = current::with_vr(|vr| Rai::connect(vr, other).call(double, (1,)));
        matches!(called, Some(Err(CallError::Down(_))))
    }
    threads(3, |vr, index, vrs| match index {
        0 => RaiServer::unrestricted().main(vr).unwrap(),
        1 => {
            let _ = Rai::connect(vr, vrs[0]).put("mine", 1_u8).unwrap();
            vr.send(vrs[2], msg! { put: true }).unwrap();
            // A request, which ends it.
            vr.receive(Selector::on(Channel::named("rai.requests"))).unwrap();
        }
        _ => {
            vr.recv(pat! { put: true }).unwrap();
            let r = Rai::connect(vr, vrs[0]);
            assert_eq!(r.call(ask, (vrs[1],)), Ok(true));
            // The first one may have arrived before the notice.
            let lost = (0..2).any(|_| r.named::<u8>("mine").get().is_err());
            r.stop().unwrap();
            assert!(lost);
        }
    });
}
