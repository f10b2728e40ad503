//! Types of all kinds.

#![allow(dead_code)] // Nobody reads what is made of nothing.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU8;

use river_core::VrId;
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};

use super::*;
use crate::Blob;

#[derive(Deserialize)]
struct Order {
    customer: String,
    items: Vec<Item>,
    notes: BTreeMap<u16, (bool, char)>,
}

#[derive(Deserialize)]
enum Item {
    Book(Isbn),
    Record { length: Option<u32>, tracks: [u8; 3] },
    Pair(Isbn, i8),
    Nothing,
}

#[derive(Deserialize)]
struct Isbn(u64);

#[test]
fn structs_and_enums_are_described_and_what_is_in_them() {
    let expected = [
        "Order { customer: String, items: [Item], notes: {u16: (bool, char)} }",
        "Item = Book(Isbn) | Record { length: Option<u32>, tracks: [u8; 3] } | Pair(Isbn, i8) | Nothing",
        "Isbn(u64)",
    ];
    assert_eq!(definitions::<Order>(), expected);
    assert_eq!(definitions::<(HashMap<Isbn, u8>,)>(), ["Isbn(u64)"]);
    assert!(definitions::<(u8, Vec<Option<String>>, f64, [u8; 32])>().is_empty());
}

impl std::hash::Hash for Isbn {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
impl PartialEq for Isbn {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl Eq for Isbn {}

#[derive(Deserialize)]
struct Node {
    value: u8,
    next: Option<Box<Node>>,
    children: Vec<Node>,
    of: Formula,
}

#[derive(Deserialize)]
enum Formula {
    Sum(Box<Formula>, Box<Formula>),
    Product(Vec<Formula>),
    Negation(Box<Formula>),
    Number(f64),
    Of(Box<Node>),
}

#[test]
fn types_that_contain_themselves_come_to_an_end() {
    let expected = [
        "Node { value: u8, next: Option<Node>, children: [Node], of: Formula }",
        "Formula = Sum(Formula, Formula) | Product([Formula]) | Negation(Formula) | Number(f64) | Of(Node)",
    ];
    assert_eq!(definitions::<Node>(), expected);
    let mut others = definitions::<Formula>();
    others.reverse();
    assert_eq!(others, expected);
}

#[derive(Deserialize)]
enum Endless {
    More(Box<Endless>),
}

#[derive(Deserialize)]
enum Never {}

#[test]
fn types_of_which_there_is_no_value_do_as_well() {
    assert_eq!(definitions::<Endless>(), ["Endless = More(Endless)"]);
    assert_eq!(definitions::<(Never, Isbn)>(), ["Never = "]);
}

#[derive(Deserialize)]
struct Generic<T> {
    of: T,
}

#[test]
fn a_generic_type_is_described_for_each_that_it_is_made_of() {
    let of = definitions::<(Generic<u8>, Generic<Generic<String>>, Generic<u8>)>();
    assert_eq!(of, ["Generic { of: u8 }", "Generic { of: Generic }", "Generic { of: String }"]);
}

/// Refuses all but one value.
struct Even;

impl<'de> Deserialize<'de> for Even {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? % 2 {
            0 => Ok(Self),
            _ => Err(de::Error::custom("it is odd")),
        }
    }
}

#[derive(Deserialize)]
enum Choice {
    Checked(Even, u8),
    Free(u16),
}

#[test]
fn what_is_behind_a_check_that_fails_is_not_known() {
    assert_eq!(definitions::<Choice>(), ["Choice = Checked(u32) | Free(u16)"]);
    // The variant that works makes the rest known.
    assert_eq!(definitions::<(Choice, Isbn)>().last().unwrap(), "Isbn(u64)");
    assert_eq!(definitions::<(NonZeroU8, VrId, std::net::IpAddr, Isbn)>().last().unwrap(), "Isbn(u64)");
}

#[derive(Serialize, Deserialize)]
struct Picture {
    name: String,
    pixels: Blob,
    mask: Blob,
    scale: f32,
}

#[test]
fn blobs_are_traced_too() {
    let of = definitions::<Picture>();
    assert_eq!(of[0], "Picture { name: String, pixels: Stand, mask: Stand, scale: f32 }");
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Tree(Vec<Tree>);

#[derive(Deserialize)]
#[serde(transparent)]
struct Chain(Option<Box<Chain>>);

#[derive(Deserialize)]
#[serde(from = "(Vec<Fork>, BTreeMap<u8, Fork>, Option<Box<Fork>>)")]
struct Fork;

impl From<(Vec<Fork>, BTreeMap<u8, Fork>, Option<Box<Fork>>)> for Fork {
    fn from(_: (Vec<Fork>, BTreeMap<u8, Fork>, Option<Box<Fork>>)) -> Self {
        Self
    }
}

/// Contains itself twice, so it has no values.
struct Pair;

impl<'de> Deserialize<'de> for Pair {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <(Box<Self>, Box<Self>)>::deserialize(deserializer).map(|_| Self)
    }
}

#[test]
fn types_without_a_name_that_contain_themselves_come_to_an_end_too() {
    for of in [
        definitions::<Generic<Tree>>(),
        definitions::<Generic<Chain>>(),
        definitions::<Generic<Fork>>(),
        definitions::<Generic<Pair>>(),
    ] {
        let [only] = &of[..] else { panic!("{of:?}") };
        assert!(only.starts_with("Generic { of: ") && only.len() < 10_000, "{only}");
    }
    // What follows is known.
    let of = definitions::<(Tree, Chain, Generic<Isbn>)>();
    assert_eq!(of, ["Generic { of: Isbn }", "Isbn(u64)"]);
    let nested = definitions::<Vec<Option<Vec<(Option<BTreeMap<u8, Vec<Isbn>>>,)>>>>();
    assert_eq!(nested, ["Isbn(u64)"]);
}
