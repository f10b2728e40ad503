//! Structs as messages, field by field.

use std::collections::BTreeMap;

use river_core::testing::threads;
use river_sfm::{GetError, Message, SendError, Sfm, msg, pat};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Work {
    first: u32,
    items: Vec<f64>,
    name: String,
    nested: Vec<(u8, String)>,
    hint: Option<i8>,
    #[serde(default)]
    urgent: bool,
    #[serde(rename = "größe")]
    size: u64,
}

fn work() -> Work {
    Work {
        first: 7,
        items: vec![0.5, -1.0],
        name: "a".into(),
        nested: vec![(1, "x".into())],
        hint: Some(-1),
        urgent: true,
        size: 9,
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Job {
    Work { n: i64 },
    Stop,
}

#[test]
fn a_struct_is_sent_and_received_field_by_field() {
    let received = threads(2, |vr, index, ids| -> river_core::Result<Option<Work>> {
        if index == 0 {
            vr.send(ids[1], msg! { first: 1, name: "not all of a work's fields" })?;
            vr.send(ids[1], msg! { first: -1, items: [0.0], name: "", nested: (), size: 1 })?;
            vr.send_fields(ids[1], &work())?;
            vr.recv(pat! { over: true })?;
            return Ok(None);
        }
        let work: Work = vr.recv_fields(pat! { src: ids[0], first: 1.. })?;
        vr.send(ids[0], msg! { over: true })?;
        assert_eq!(vr.recv(pat! {})?.get::<i32>("first")?, 1);
        assert_eq!(vr.recv(pat! {})?.get::<i32>("first")?, -1);
        Ok(Some(work))
    });
    assert_eq!(received[1].as_ref().unwrap(), &Some(work()));
}

#[test]
fn its_fields_are_attributes_like_others() {
    let m = Message::of_fields(&work()).unwrap();
    assert_eq!(m.get("first"), Ok(7u8));
    assert_eq!(m.get("größe"), Ok(9i128));
    assert!(pat! { items: |items: &Vec<f64>| items.len() == 2, hint: Some(-1i8) }.matches(&m));
    // Extra attributes are ignored, and fields with a default may be absent.
    let m = m.without("urgent").without("hint").with("more", "x");
    assert_eq!(m.fields(), Ok(Work { urgent: false, hint: None, ..work() }));
}

#[test]
fn a_variant_is_a_tag() {
    let m = Message::of_fields(&Job::Work { n: 3 }).unwrap();
    assert_eq!(m.to_string(), r#"{tag: "work", n: 3}"#);
    assert_eq!(m.fields(), Ok(Job::Work { n: 3 }));
    assert_eq!(Message::of_fields(&Job::Stop).unwrap().fields(), Ok(Job::Stop));
    assert!(msg! { tag: "rest" }.fields::<Job>().is_err());
    assert!(matches!(msg! { n: 3 }.fields::<Job>(), Err(GetError::Missing { name, .. }) if name == "tag"));
}

#[test]
fn a_map_is_a_message_of_its_entries() {
    let map = BTreeMap::from([("a".to_string(), 1), ("first name".to_string(), 2)]);
    let m = Message::of_fields(&map).unwrap();
    assert_eq!(m.to_string(), "{a: 1, first name: 2}");
    assert_eq!(m.fields(), Ok(map));
}

#[test]
fn a_question_is_read_as_a_map_or_as_a_struct_that_takes_the_rest() {
    #[derive(Deserialize)]
    struct Question {
        n: u32,
        #[serde(flatten)]
        rest: BTreeMap<String, u32>,
    }
    threads(2, |vr, index, ids| -> river_core::Result {
        if index == 0 {
            vr.ask(ids[1], msg! { n: 1, m: 2 })?;
            return Ok(());
        }
        let question = vr.recv(pat! {})?;
        // Before anything is asserted: who asked waits for it.
        vr.reply(&question, msg! {})?;
        let all: BTreeMap<String, u32> = question.fields()?;
        assert_eq!(all, BTreeMap::from([("n".into(), 1), ("m".into(), 2)]));
        let Question { n, rest } = question.fields()?;
        assert_eq!((n, rest), (1, BTreeMap::from([("m".into(), 2)])));
        Ok(())
    })
    .into_iter()
    .collect::<river_core::Result<Vec<()>>>()
    .unwrap();
}

#[test]
fn what_is_wrong_with_a_field_is_said_with_its_name() {
    let m = Message::of_fields(&work()).unwrap();
    let error = m.clone().without("name").fields::<Work>().unwrap_err();
    assert!(matches!(&error, GetError::Missing { name, .. } if name == "name"), "{error}");
    let error = m.clone().without("name").with("name", &1).fields::<Work>().unwrap_err();
    assert_eq!(error.to_string(), "attribute `name` was sent as integer, which cannot be read as String");
    let error = m.without("first").with("first", &-1).fields::<Work>().unwrap_err();
    assert!(matches!(error, GetError::Range { name, .. } if name == "first"));
    assert!(matches!(Message::of_fields(&5), Err(SendError::Encode { name, .. }) if name == "i32"));
    assert!(matches!(Message::of_fields(&BTreeMap::from([(1, 1)])), Err(SendError::Encode { .. })));
}
