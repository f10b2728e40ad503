//! The guarantees of super flexible messaging between virtual machines, in every topology.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use river_core::testing::for_each_topology;
use river_core::{Result, VirtualResource, VmInfo, Vr, VrError, VrId};
use river_sfm::{ABSENT, ANY, Blob, Message, Pattern, Sfm, msg, pat};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

fn everywhere(places: usize, body: impl Fn(&Vr, &[VmInfo]) -> Result) {
    for_each_topology(|name, make_vms| {
        river_core::try_run(|vr| body(vr, &make_vms(vr, places)?))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    });
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Stack {
    items: Vec<i32>,
}

impl Stack {
    fn push(&mut self, item: i32) {
        self.items.push(item);
    }

    fn pop(&mut self) -> Option<i32> {
        self.items.pop()
    }
}

/// Sends the messages of the slides.
#[derive(Serialize, Deserialize)]
struct Slides;

impl VirtualResource for Slides {
    fn main(&mut self, vr: &Vr) -> Result {
        let dest = vr.parent().expect("it was deployed");
        vr.send(dest, msg! { text: "hello" })?;
        vr.send(dest, msg! { tag: "inputlist", items: [1, 2, 3, 4] })?;
        vr.send(dest, msg! { tag: "inputlist", items: [1] })?;
        vr.send(dest, msg! { tag: "inputlist", items: vec![1, 2, 3, 4] })?;
        let mut stk = Stack::default();
        stk.push(1);
        stk.push(2);
        vr.send(dest, msg! { data: stk })?;
        Ok(vr.send(dest, msg! { myname: vr.vm() })?)
    }
}

#[test]
fn what_is_on_the_slides_works_between_machines() {
    everywhere(2, |vr, vms| {
        for vrid in vr.deploy(vms, |_| Slides)?.iter() {
            let m = vr.recv(pat! { src: vrid })?;
            assert_eq!(m.get::<String>("text")?, "hello");
            let m = vr.recv(pat! { src: vrid, tag: "inputlist" })?;
            assert_eq!(m.get::<Vec<i32>>("items")?, [1, 2, 3, 4]);
            let m = vr.recv(pat! { src: vrid, tag: "inputlist", items: |x: &Vec<i32>| x.len() > 1 })?;
            assert_eq!(m.get::<Vec<i32>>("items")?, [1, 2, 3, 4]);
            let m = vr.recv(pat! { src: vrid, data: ANY })?;
            assert_eq!(m.get::<Stack>("data")?.pop(), Some(2));
            let m = vr.recv(pat! { src: vrid, myname: ANY })?;
            assert!(!m.get::<String>("myname")?.is_empty());
            assert_eq!(vr.recv(pat! { src: vrid })?.get::<[i32; 1]>("items")?, [1]);
        }
        Ok(())
    });
}

/// Sends every message back to its source, with all its attributes, and replies to it if asked.
#[derive(Serialize, Deserialize)]
struct Mirror;

impl VirtualResource for Mirror {
    fn main(&mut self, vr: &Vr) -> Result {
        for m in vr.iter(pat! {}) {
            let Ok(m) = m else { return Ok(()) };
            let to = m.src();
            if m.has("ask") {
                vr.send(to, m.clone().without("ask"))?;
                vr.reply(&m, msg! {})?;
            } else {
                vr.forward(to, &m)?;
            }
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Tree {
    Leaf,
    Node { left: Box<Tree>, value: i64, right: Box<Tree> },
    Many(Vec<Tree>),
    Named(String, Option<Box<Tree>>),
}

fn tree() -> Tree {
    let node = Tree::Node { left: Box::new(Tree::Leaf), value: -7, right: Box::new(Tree::Many(vec![])) };
    Tree::Many(vec![
        node.clone(),
        Tree::Named("größe".into(), Some(Box::new(node))),
        Tree::Named(String::new(), None),
    ])
}

#[test]
fn values_of_every_sort_survive_the_way() {
    everywhere(1, |vr, vms| {
        let mirror = vr.deploy(vms, |_| Mirror)?[0];
        let map = HashMap::from([("a".to_string(), vec![Some(1u8), None]), (String::new(), vec![])]);
        let nested = BTreeMap::from([((1u8, 'x'), BTreeMap::from([(Uuid::from_u128(5), [0.5f32; 3])]))]);
        vr.send(
            mirror,
            msg! {
                tree: tree(), map: map, nested: nested, id: Uuid::from_u128(u128::MAX), "größe ✓": "ü",
                waited: Duration::new(3, 4), result: Err::<(), _>("no"), inner: Some(Some(())), unit: (),
                big: i128::MIN, bytes: &b"\0\xff"[..], text: "line\nline", x: f64::NEG_INFINITY, r: 3..9, who: vr.id(),
            },
        )?;
        let m =
            vr.recv(pat! { src: mirror, id: Uuid::from_u128(u128::MAX), tree: tree(), "größe ✓": "ü" })?;
        assert_eq!(m.get::<Tree>("tree")?, tree());
        assert_eq!(m.get::<HashMap<String, Vec<Option<u8>>>>("map")?, map);
        assert_eq!(m.get::<BTreeMap<(u8, char), BTreeMap<Uuid, [f32; 3]>>>("nested")?, nested);
        assert_eq!(m.get::<Duration>("waited")?, Duration::new(3, 4));
        assert_eq!(m.get::<std::result::Result<(), String>>("result")?, Err("no".into()));
        assert_eq!(m.get::<Option<Option<()>>>("inner")?, Some(Some(())));
        assert_eq!((m.get::<i128>("big")?, m.get::<f64>("x")?), (i128::MIN, f64::NEG_INFINITY));
        assert_eq!((m.get::<Vec<u8>>("bytes")?, m.get::<VrId>("who")?), (vec![0, 255], vr.id()));
        assert_eq!(m.get::<std::ops::Range<i32>>("r")?, 3..9);

        vr.send(mirror, msg! {})?;
        assert_eq!(vr.recv(pat! { src: mirror })?.names().count(), 0);
        let hundred = (0..100).fold(Message::new(), |m, n| m.with(format!("attribute {n}"), &n));
        vr.send(mirror, hundred)?;
        let m = vr.recv(pat! { "attribute 99": 99, "attribute 0": 0 })?;
        assert_eq!((m.names().count(), m.get::<u64>("attribute 50")?), (100, 50));
        Ok(())
    });
}

#[test]
fn values_of_a_hundred_megabytes_survive_the_way() {
    const LEN: usize = 100_000_000;
    everywhere(1, |vr, vms| {
        let mirror = vr.deploy(vms, |_| Mirror)?[0];
        let mut memory = vec![7u8; LEN];
        memory[LEN - 1] = 9;
        vr.send(mirror, msg! { small: 1, blob: Blob::from(memory), end: "x" })?;
        let m = vr.recv(pat! { src: mirror, blob: ANY })?;
        let blob: Blob = m.get("blob")?;
        assert_eq!((blob.bytes().len(), blob.bytes()[LEN - 2], blob.bytes()[LEN - 1]), (LEN, 7, 9));
        assert_eq!(m.get::<String>("end")?, "x");

        vr.send(mirror, msg! { text: "ü".repeat(LEN / 2) })?;
        let m = vr.recv(pat! { src: mirror, text: |text: &str| text.len() == LEN })?;
        assert!(m.get::<String>("text")?.ends_with("üü"));
        Ok(())
    });
}

#[derive(Clone, Debug)]
struct Sent {
    mirror: usize,
    tag: Option<u8>,
    n: i8,
}

#[derive(Clone, Debug)]
struct Wish {
    mirror: Option<usize>,
    /// A value, or absent.
    tag: Option<Option<u8>>,
    n: Option<Is>,
}

#[derive(Clone, Debug)]
enum Is {
    Value(i8),
    Below(i8),
    Odd,
}

#[derive(Clone, Debug)]
enum Step {
    Send(Sent),
    Receive(Wish),
    Peek(Wish),
}

fn step() -> impl Strategy<Value = Step> {
    let sent = (0..2usize, prop::option::of(0..3u8), -1..3i8)
        .prop_map(|(mirror, tag, n)| Step::Send(Sent { mirror, tag, n }));
    let is = prop_oneof![(-1..3i8).prop_map(Is::Value), (-1..3i8).prop_map(Is::Below), Just(Is::Odd)];
    let tag = prop::option::of(prop::option::of(0..3u8));
    let wish = (prop::option::of(0..2usize), tag, prop::option::of(is)).prop_map(|(mirror, tag, n)| Wish {
        mirror,
        tag,
        n,
    });
    prop_oneof![3 => sent, 2 => wish.clone().prop_map(Step::Receive), 1 => wish.prop_map(Step::Peek)]
}

impl Wish {
    fn fits(&self, sent: &Sent) -> bool {
        self.mirror.is_none_or(|mirror| mirror == sent.mirror)
            && self.tag.is_none_or(|tag| tag == sent.tag)
            && match self.n {
                None => true,
                Some(Is::Value(n)) => n == sent.n,
                Some(Is::Below(n)) => sent.n < n,
                Some(Is::Odd) => sent.n % 2 != 0,
            }
    }

    fn pattern(&self, mirrors: &[VrId]) -> Pattern<'static> {
        let mut pattern = pat! { n: ANY };
        if let Some(mirror) = self.mirror {
            pattern = pattern.with("src", mirrors[mirror]);
        }
        pattern = match self.tag {
            None => pattern,
            Some(None) => pattern.with("tag", ABSENT),
            Some(Some(tag)) => pattern.with("tag", u64::from(tag)),
        };
        match self.n {
            None => pattern,
            Some(Is::Value(n)) => pattern.with("n", i64::from(n)),
            Some(Is::Below(n)) => pattern.with("n", ..n),
            Some(Is::Odd) => pattern.with("n", |n: &i32| n % 2 != 0),
        }
    }
}

/// Receiving is a search from the front of a list, whatever the order of sends and receives.
#[test]
fn a_queue_is_a_list() {
    everywhere(2, |vr, vms| {
        let mirrors = vr.deploy(vms, |_| Mirror)?;
        let mut runner = TestRunner::new(Config { cases: 60, ..Config::default() });
        let result = runner.run(&prop::collection::vec(step(), 1..40), |steps| {
            let mut list: Vec<Sent> = Vec::new();
            for step in steps {
                let (found, wish, take) = match step {
                    Step::Send(sent) => {
                        let m = msg! { n: sent.n };
                        let m = sent.tag.map_or(m.clone(), |tag| m.with("tag", &tag));
                        // The reply comes after everything that its sender had sent before.
                        vr.ask(mirrors[sent.mirror], m).unwrap();
                        list.push(sent);
                        continue;
                    }
                    Step::Receive(wish) => (vr.try_recv(wish.pattern(mirrors.ids())).unwrap(), wish, true),
                    Step::Peek(wish) => (vr.peek(wish.pattern(mirrors.ids())).unwrap(), wish, false),
                };
                let expected = list.iter().position(|sent| wish.fits(sent));
                prop_assert_eq!(found.is_some(), expected.is_some(), "{:?} of {:?}", wish, list);
                if let (Some(m), Some(index)) = (found, expected) {
                    let Sent { mirror, tag, n } = list[index].clone();
                    prop_assert_eq!(m.src(), mirrors[mirror]);
                    prop_assert_eq!((m.get::<u8>("tag").ok(), m.get::<i8>("n")), (tag, Ok(n)));
                    if take {
                        list.remove(index);
                    }
                }
            }
            prop_assert_eq!(vr.queue().messages, list.len());
            prop_assert_eq!(vr.try_iter(pat! {}).count(), list.len());
            Ok(())
        });
        result.map_err(|error| VrError::msg(error.to_string()))
    });
}
