//! The guarantees of super flexible messaging, on VRs that are threads.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use river_core::testing::threads;
use river_core::{Channel, Result, Vr, VrId};
use river_sfm::{
    ABSENT, ANY, Attr, Blob, BlobError, Constraint, GetError, Message, Pattern, RecvError, SendError, Sfm,
    msg, not, one_of, pat,
};
use serde::ser::Error;
use serde::{Deserialize, Serialize, Serializer};

/// Runs a VR that sends to itself: its messages are in its own queue.
fn alone(body: impl Fn(&Vr, VrId) -> Result + Sync) {
    threads(1, |vr, _, ids| body(vr, ids[0])).into_iter().collect::<Result<Vec<()>>>().unwrap();
}

/// Runs a sender, which stays until the receiver has ended, and a receiver, which gets the sender's id.
fn pair(sender: impl Fn(&Vr, VrId) -> Result + Sync, receiver: impl Fn(&Vr, VrId) -> Result + Sync) {
    let body = |vr: &Vr, index: usize, ids: &[VrId]| -> Result {
        if index == 0 {
            sender(vr, ids[1])?;
            vr.recv(pat! { src: ids[1], over: true })?;
        } else {
            receiver(vr, ids[0])?;
            vr.send(ids[0], msg! { over: true })?;
        }
        Ok(())
    };
    threads(2, body).into_iter().collect::<Result<Vec<()>>>().unwrap();
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
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

/// Encodes as a `Stack` does.
#[derive(Debug, Serialize, Deserialize)]
struct Queue {
    items: Vec<i32>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Meters(f64);

/// Cannot be encoded.
struct Never;

impl Serialize for Never {
    fn serialize<S: Serializer>(&self, _: S) -> std::result::Result<S::Ok, S::Error> {
        Err(S::Error::custom("not today"))
    }
}

// ---- the slides ----

#[test]
fn the_slides_messages_are_received_as_on_the_slides() {
    pair(
        |vr, dest| {
            vr.send(dest, msg! { text: "hello" })?;
            vr.send(dest, msg! { tag: "inputlist", items: [1, 2, 3, 4] })?;
            vr.send(dest, msg! { tag: "inputlist", items: vec![1, 2, 3, 4] })?;
            let mut stk = Stack::default();
            stk.push(1);
            stk.push(2);
            Ok(vr.send(dest, msg! { data: stk })?)
        },
        |vr, src| {
            let m = vr.recv(pat! {})?; // any message
            assert_eq!(m.get::<String>("text")?, "hello");
            let m = vr.recv(pat! { tag: "inputlist" })?; // specific attribute and value
            assert_eq!(m.get::<Vec<i32>>("items")?, [1, 2, 3, 4]);

            let m = vr.recv(pat! { tag: "inputlist", items: |x: &Vec<i32>| x.len() > 1 })?;
            assert_eq!(m.get::<Vec<i32>>("items")?, [1, 2, 3, 4]);
            let m = vr.recv(pat! { src: src, data: ANY })?;
            assert_eq!(m.get::<Stack>("data")?.pop(), Some(2));
            assert_eq!(m.src(), src);
            Ok(())
        },
    );
}

#[test]
fn the_initiator_of_the_slides_receives_a_name_from_each() {
    let names = threads(4, |vr, index, ids| -> Result<Vec<String>> {
        if index > 0 {
            vr.send(ids[0], msg! { myname: format!("host{index}") })?;
            return Ok(vec![]);
        }
        ids[1..].iter().rev().map(|&id| Ok(vr.recv(pat! { src: id })?.get("myname")?)).collect()
    });
    assert_eq!(names[0].as_ref().unwrap()[..], ["host3", "host2", "host1"]);
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(u64),
    Pair(u64, u64),
}

#[derive(Serialize, Deserialize)]
struct Flat {
    #[serde(flatten)]
    rest: HashMap<String, u64>,
}

/// As the documentation says.
#[test]
fn what_needs_names_in_its_encoding_cannot_be_read_or_not_be_sent() {
    alone(|vr, me| {
        vr.send(me, msg! { data: Untagged::Pair(1, 2) })?;
        let read = vr.recv(pat! {})?.get::<Untagged>("data");
        assert!(matches!(read, Err(GetError::Decode { .. })), "{read:?}");
        let error = vr.send(me, msg! { data: Flat { rest: HashMap::new() } }).unwrap_err();
        assert!(matches!(error, SendError::Encode { .. }), "{error}");
        Ok(())
    });
}

// ---- matching ----

#[test]
fn what_does_not_match_stays_in_order() {
    alone(|vr, me| {
        for n in 0..6 {
            vr.send(me, msg! { n: n, tag: if n % 2 == 0 { "even" } else { "odd" } })?;
        }
        assert_eq!(vr.recv(pat! { n: 3 })?.get::<i32>("n")?, 3);
        assert_eq!(vr.recv(pat! { tag: "odd" })?.get::<i32>("n")?, 1);
        for n in [0, 2, 4, 5] {
            assert_eq!(Sfm::peek(vr, pat! {})?.unwrap().get::<i32>("n")?, n);
            assert_eq!(vr.recv(pat! {})?.get::<i32>("n")?, n);
        }
        assert!(vr.try_recv(pat! {})?.is_none());
        Ok(())
    });
}

/// Whether the pattern accepts the message, which is taken out of the queue in any case.
#[expect(clippy::needless_pass_by_value, reason = "every pattern of the tests is used once")]
fn accepts(vr: &Vr, message: Message, pattern: Pattern<'_>) -> bool {
    vr.send(vr.id(), message).unwrap();
    let found = Sfm::peek(vr, &pattern).unwrap().is_some();
    assert_eq!(vr.try_recv(&pattern).unwrap().is_some(), found);
    if !found {
        vr.recv(pat! {}).unwrap();
    }
    found
}

#[test]
fn numbers_match_by_value() {
    alone(|vr, _| {
        assert!(accepts(vr, msg! { n: 1i32 }, pat! { n: 1u64 }));
        assert!(accepts(vr, msg! { tag: 1i8 }, pat! { tag: 1u128 }));
        assert!(accepts(vr, msg! { n: -7i128 }, pat! { n: -7i8 }));
        assert!(accepts(vr, msg! { n: u128::MAX }, pat! { n: u128::MAX }));
        assert!(!accepts(vr, msg! { n: u64::MAX }, pat! { n: -1 }));
        assert!(!accepts(vr, msg! { n: 1 }, pat! { n: 1.0 }));
        assert!(accepts(vr, msg! { x: 0.5f32 }, pat! { x: 0.5f64 }));
        assert!(accepts(vr, msg! { tag: -0.0 }, pat! { tag: 0.0f32 }));
        assert!(!accepts(vr, msg! { x: f64::NAN }, pat! { x: f64::NAN }));
        assert!(accepts(vr, msg! { items: vec![1u8, 2] }, pat! { items: [1i64, 2] }));
        assert!(accepts(vr, msg! { items: vec![1.5f32] }, pat! { items: [1.5f64] }));
        assert!(!accepts(vr, msg! { items: vec![1] }, pat! { items: [1.0] }));
        assert!(accepts(vr, msg! { tag: vec![1u8] }, pat! { tag: vec![1u64] }));
        Ok(())
    });
}

#[test]
fn other_values_match_by_type_and_content() {
    alone(|vr, _| {
        assert!(accepts(vr, msg! { s: "größe" }, pat! { s: String::from("größe") }));
        assert!(accepts(vr, msg! { s: Cow::Borrowed("a") }, pat! { s: "a" }));
        assert!(!accepts(vr, msg! { s: "a" }, pat! { s: 'a' }));
        assert!(!accepts(vr, msg! { b: true }, pat! { b: 1 }));
        assert!(accepts(vr, msg! { s: Stack { items: vec![1] } }, pat! { s: Stack { items: vec![1] } }));
        assert!(!accepts(vr, msg! { s: Stack { items: vec![1] } }, pat! { s: Queue { items: vec![1] } }));
        assert!(accepts(vr, msg! { o: Some("x") }, pat! { o: Some(String::from("x")) }));
        assert!(!accepts(vr, msg! { o: Some(5) }, pat! { o: 5 }));
        let blob = || Blob::from(vec![1.0, 2.0]);
        assert!(accepts(vr, msg! { b: blob() }, pat! { b: blob() }));
        assert!(!accepts(vr, msg! { b: blob() }, pat! { b: Blob::from(vec![1.0]) }));
        Ok(())
    });
}

/// A constraint as a user might write it.
struct OfType(&'static str);

impl Constraint for OfType {
    fn accepts(&self, attr: Option<&Attr<'_>>) -> bool {
        attr.is_some_and(|attr| attr.type_name() == self.0)
    }

    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "of type {}", self.0)
    }
}

#[test]
fn constraints_of_every_sort() {
    alone(|vr, me| {
        let n = |n: i32| msg! { n: n };
        assert!(accepts(vr, n(4), pat! { n: 1..5 }));
        assert!(!accepts(vr, n(5), pat! { n: 1u8..5 }));
        assert!(accepts(vr, n(5), pat! { n: 1i64..=5 }));
        assert!(accepts(vr, n(9), pat! { n: ..=9 }));
        assert!(!accepts(vr, n(9), pat! { n: ..9 }));
        assert!(accepts(vr, n(-3), pat! { n: -3.. }));
        assert!(accepts(vr, msg! { x: 0.5 }, pat! { x: 0.0..1.0 }));
        assert!(!accepts(vr, n(0), pat! { n: 0.0..1.0 }));

        assert!(accepts(vr, n(2), pat! { n: one_of([1, 2]) }));
        assert!(!accepts(vr, n(3), pat! { n: one_of([1, 2]) }));
        assert!(accepts(vr, n(3), pat! { n: not(one_of([0..3, 4..9])) }));
        assert!(accepts(vr, n(3), pat! { m: not(3), n: ANY, n: not(4) }));
        assert!(accepts(vr, n(3), pat! { m: ABSENT, n: 1.., n: |n: &i64| n % 2 == 1 }));
        assert!(!accepts(vr, n(3), pat! { n: ABSENT }));
        assert!(!accepts(vr, n(3), pat! { n: |_: &String| true }));
        assert!(!accepts(vr, n(300), pat! { n: |_: &u8| true }));
        assert!(!accepts(vr, n(3), pat! { m: |_: &i32| true }));

        let limit = 2;
        assert!(accepts(vr, n(3), pat! { n: |n: &i32| *n > limit }));
        assert!(accepts(vr, msg! { s: "abc" }, pat! { s: |s: &str| s.starts_with('a') }));
        assert!(accepts(vr, msg! { b: Blob::from(vec![1u8]) }, pat! { b: |b: &Blob| b.bytes().len() == 1 }));
        assert!(accepts(vr, msg! { s: Stack::default() }, pat! { s: OfType("Stack") }));

        let other = VrId::fresh();
        assert!(accepts(vr, n(1), pat! { src: one_of([other, me]) }));
        assert!(accepts(vr, n(1), pat! { src: |src: &VrId| *src == me, src: not(other) }));
        Ok(())
    });
}

#[test]
fn names_are_any_strings() {
    alone(|vr, me| {
        let name = String::from("größe");
        vr.send(me, msg! { "first name": "Ada", (name): 1, r#type: 2, })?;
        let m = vr.recv(pat! { "first name": "Ada", (&name): 1, r#type: 2, })?;
        assert_eq!(m.names().collect::<Vec<_>>(), ["first name", "größe", "type"]);
        assert!(m.has("type") && m.has("src") && !m.has("first"));
        assert_eq!(m.get::<VrId>("src")?, me);
        Ok(())
    });
}

#[test]
fn a_message_can_have_many_attributes() {
    alone(|vr, me| {
        let message = (0..1000).fold(Message::new(), |m, n| m.with(format!("a{n}"), &n));
        vr.send(me, message.clone())?;
        assert_eq!(vr.recv(pat! { a999: 999, a0: 0 })?.get::<u16>("a500")?, 500);
        let error = vr.send(me, message.with("a500", &0)).unwrap_err();
        assert_eq!(error, SendError::Duplicate("a500".into()));
        Ok(())
    });
}

// ---- values ----

#[test]
fn values_are_read_as_what_they_convert_to() {
    let m = msg! {
        n: 300, big: u128::MAX, s: "text", xs: &[1.5, 2.5][..], ints: [1i32, -1], map: HashMap::from([("a", 1)]),
        unit: (), meters: Meters(2.0), x: 0.1f32, huge: 1e300, none: Vec::<i32>::new(), nested: vec![vec![1u8]],
        id: uuid::Uuid::nil(), c: 'x', pair: (1, "b"),
    };
    assert_eq!((m.get::<u16>("n"), m.get::<i128>("n")), (Ok(300), Ok(300)));
    assert_eq!(m.get::<u128>("big"), Ok(u128::MAX));
    assert_eq!(m.get::<String>("s").as_deref(), Ok("text"));
    assert_eq!(m.get("xs"), Ok(vec![1.5, 2.5]));
    assert_eq!((m.get("ints"), m.get("ints")), (Ok(vec![1i64, -1]), Ok([1i16, -1])));
    assert_eq!(m.get("map"), Ok(HashMap::from([("a".to_string(), 1)])));
    assert_eq!((m.get("unit"), m.get("meters")), (Ok(()), Ok(Meters(2.0))));
    assert_eq!((m.get("x"), m.get("x")), (Ok(0.1f32), Ok(f64::from(0.1f32))));
    assert_eq!((m.get("none"), m.get("nested")), (Ok(Vec::<u64>::new()), Ok(vec![vec![1u8]])));
    assert_eq!((m.get("id"), m.get("c")), (Ok(uuid::Uuid::nil()), Ok('x')));
    assert_eq!(m.get("pair"), Ok((1, "b".to_string())));
}

#[test]
fn a_wrong_type_is_an_error_that_names_both() {
    let m = msg! {
        n: 300, x: 1.0, s: "a", stack: Stack::default(), ints: [1, 300], none: Vec::<i32>::new(), opt: Some(1),
        huge: 1e300, blob: Blob::from(vec![1.5]),
    };
    let error = |result: std::result::Result<(), GetError>| result.unwrap_err().to_string();
    let of = |name: &str| format!("attribute `{name}` was sent as");
    assert_eq!(
        error(m.get::<u8>("n").map(drop)),
        "attribute `n` (sent as integer) holds 300, which does not fit into u8"
    );
    assert_eq!(
        error(m.get::<f64>("n").map(drop)),
        format!("{} integer, which cannot be read as f64", of("n"))
    );
    assert_eq!(error(m.get::<i32>("x").map(drop)), format!("{} float, which cannot be read as i32", of("x")));
    assert_eq!(
        error(m.get::<char>("s").map(drop)),
        format!("{} String, which cannot be read as char", of("s"))
    );
    assert_eq!(
        error(m.get::<Queue>("stack").map(drop)),
        format!("{} Stack, which cannot be read as Queue", of("stack"))
    );
    assert_eq!(
        error(m.get::<Vec<String>>("none").map(drop)),
        format!("{} Vec<i32>, which cannot be read as Vec<String>", of("none"))
    );
    assert_eq!(
        error(m.get::<i32>("opt").map(drop)),
        format!("{} Option<i32>, which cannot be read as i32", of("opt"))
    );
    assert_eq!(
        error(m.get::<String>("blob").map(drop)),
        format!("{} Blob<f64>, which cannot be read as String", of("blob"))
    );
    assert!(matches!(m.get::<Vec<u8>>("ints"), Err(GetError::Range { value, .. }) if value == "300"));
    assert!(matches!(m.get::<f32>("huge"), Err(GetError::Range { .. })));
    assert!(matches!(m.get::<[i32; 1]>("ints"), Err(GetError::Decode { .. })));
    assert!(matches!(m.get::<[i32; 3]>("ints"), Err(GetError::Decode { .. })));
    assert!(
        error(m.get::<i32>("m").map(drop)).starts_with("the message has no attribute `m`, only: n, x, s,")
    );
}

#[test]
fn types_of_one_name_are_told_apart_by_their_module() {
    mod other {
        #[derive(Debug, serde::Deserialize)]
        pub(crate) struct Stack {
            #[expect(dead_code)]
            items: Vec<i32>,
        }
    }
    let error = msg! { s: Stack::default() }.get::<other::Stack>("s").unwrap_err().to_string();
    assert!(error.contains("sent as sfm::Stack") && error.contains("other::Stack"), "{error}");
}

#[test]
fn what_cannot_be_sent_is_an_error_that_names_the_attribute() {
    alone(|vr, me| {
        let error = vr.send(me, msg! { a: 1, b: Never }).unwrap_err();
        assert_eq!(error, SendError::Encode { name: "b".into(), error: "not today".into() });
        assert_eq!(vr.send(me, msg! { src: me }).unwrap_err(), SendError::Reserved("src".into()));
        assert_eq!(vr.send(me, msg! { a: 1, a: 2 }).unwrap_err(), SendError::Duplicate("a".into()));
        assert!(vr.try_recv(pat! {})?.is_none());

        assert!(matches!(vr.recv(pat! { a: Never }), Err(RecvError::Pattern { name, .. }) if name == "a"));
        assert!(matches!(vr.recv(pat! { src: "me" }), Err(RecvError::Pattern { name, .. }) if name == "src"));
        Ok(())
    });
}

// ---- blobs ----

#[test]
fn a_blob_is_the_senders_memory() {
    alone(|vr, me| {
        let xs = vec![1.0, 2.0, 3.0];
        let address = xs.as_ptr();
        let row = Blob::from(xs);
        vr.send(me, msg! { a: 1, row: row, text: Blob::from(Bytes::from_static(b"abc")), z: "end" })?;
        let m = vr.recv(pat! { z: "end" })?;
        let row: Blob = m.get("row")?;
        assert_eq!(row.as_slice::<f64>()?, [1.0, 2.0, 3.0]);
        assert_eq!(row.as_slice::<f64>()?.as_ptr(), address);
        assert_eq!(m.get::<Blob>("text")?.bytes()[..], *b"abc");
        assert_eq!(m.to_string(), r#"{a: 1, row: Blob<f64>(3), text: Blob<u8>(3), z: "end"}"#);

        assert_eq!(row.to_vec::<f64>()?, m.get::<Vec<f64>>("row")?);
        let mut into = [0.0; 3];
        row.copy_to(&mut into)?;
        assert_eq!(into, [1.0, 2.0, 3.0]);
        let wrong = BlobError::Type { sent: "f64".into(), wanted: "f32".into() };
        assert_eq!(row.as_slice::<f32>(), Err(wrong));
        assert!(matches!(row.copy_to(&mut [0.0; 2]), Err(BlobError::Size { bytes: 24, .. })));
        assert_eq!(row.as_slice::<u8>()?.len(), 24);
        assert!(matches!(m.get::<Blob>("text")?.to_vec::<u16>(), Err(BlobError::Size { bytes: 3, .. })));
        Ok(())
    });
}

#[test]
fn a_received_message_can_be_forwarded_and_added_to() {
    let got = threads(3, |vr, index, ids| -> Result<String> {
        match index {
            0 => {
                vr.multicast(&ids[1..2], msg! { tag: "work", data: Blob::from(vec![1u32, 2]), n: 1 })?;
                Ok(String::new())
            }
            1 => {
                let m = vr.recv(pat! { tag: "work" })?;
                vr.forward(ids[2], &m)?;
                vr.send(ids[2], m.with("more", &Blob::from(vec![0.5f32])))?;
                Ok(String::new())
            }
            _ => {
                let a = vr.recv(pat! { tag: "work", src: ids[1], more: ABSENT })?;
                let b = vr.recv(pat! { tag: "work", more: ANY })?;
                assert_eq!(a.get::<Vec<u32>>("data")?, b.get::<Blob>("data")?.to_vec::<u32>()?);
                Ok(format!("{a} {b}"))
            }
        }
    });
    let first = r#"{tag: "work", data: Blob<u32>(2), n: 1"#;
    assert_eq!(got[2].as_deref().unwrap(), format!("{first}}} {first}, more: Blob<f32>(1)}}"));
}

// ---- ends ----

#[test]
fn a_receive_from_a_vr_that_is_gone_says_so() {
    let errors = threads(2, |vr, index, ids| {
        if index == 0 {
            vr.send(ids[1], msg! { last: true }).unwrap();
            return None;
        }
        vr.recv(pat! { src: ids[0] }).unwrap();
        Some(vr.recv(pat! { src: ids[0], tag: "x" }).unwrap_err())
    });
    let error = errors[1].as_ref().unwrap();
    assert!(error.is_disconnected() && error.to_string().ends_with("has finished"), "{error}");
}

#[test]
fn a_timeout_tells_what_was_there() {
    alone(|vr, me| {
        vr.send(me, msg! { tag: "x", n: 3, items: [1, 2, 3, 4] })?;
        vr.send(me, msg! { tag: "y" })?;
        let error =
            vr.recv_timeout(pat! { tag: "x", n: 4, stack: ANY }, Duration::from_millis(5)).unwrap_err();
        assert!(error.is_timeout());
        let text = error.to_string();
        assert!(
            text.starts_with(r#"nothing that matches {tag: "x", n: 4, stack: ANY} arrived within"#),
            "{text}"
        );
        assert!(text.contains("2 other message(s) wait"), "{text}");
        let line = format!(
            r#"    {{tag: "x", n: 3, items: Vec<i32>(4)}} from {}, but not n: 4, stack: ANY"#,
            me.short()
        );
        assert!(text.contains(&line), "{text}");
        Ok(())
    });
}

#[test]
fn what_is_no_message_matches_the_empty_pattern_only_and_is_an_error() {
    alone(|vr, me| {
        vr.send_bytes(me, Channel::named("sfm"), 0, b"garbage that is no message".to_vec())?;
        vr.send(me, msg! { n: 1 })?;
        assert_eq!(vr.recv(pat! { n: ANY })?.get::<i32>("n")?, 1);
        assert!(vr.try_recv(pat! { n: ABSENT })?.is_none());
        assert_eq!(vr.recv(pat! {}).unwrap_err(), RecvError::Malformed { src: me, bytes: 26 });
        assert!(vr.try_recv(pat! {})?.is_none());
        Ok(())
    });
}
