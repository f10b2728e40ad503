//! [`Pattern`]: the condition on a message that a receive waits for.

use std::borrow::Cow;
use std::fmt;

use river_core::{Envelope, Selector, VrId};

use crate::constraint::{Check, IntoConstraint};
use crate::error::RecvError;
use crate::message::{Message, SFM, SRC, SrcAttr, TAG, tag_lane};
use crate::wire::{self, Head};

/// The condition on a message that a receive waits for: constraints on attributes, all of which must hold. Attributes
/// that the pattern does not name are ignored. A name may occur several times.
///
/// Made by [`pat!`](crate::pat) or by [`new`](Pattern::new) and [`with`](Pattern::with). To use a pattern again,
/// receive with a reference to it.
///
/// Numbers are compared by value: `1i32` matches `1u64`, and `[1i32]` matches `[1u64]`, but an integer never matches a
/// float. Other values match if the type and the encoded bytes are the same, so for types whose encoding has no fixed
/// order, such as `HashMap`, use a predicate. A predicate does not hold if the value cannot be read as its argument's
/// type.
#[derive(Default)]
#[must_use]
pub struct Pattern<'p> {
    checks: Vec<On<'p>>,
    src: Option<VrId>,
    lane: Option<u64>,
    error: Option<RecvError>,
}

/// A constraint on an attribute.
pub(crate) struct On<'p> {
    pub(crate) name: Cow<'p, str>,
    pub(crate) check: Check<'p>,
    src: bool,
}

impl<'p> Pattern<'p> {
    /// Returns the pattern that any message matches.
    pub const fn new() -> Self {
        Self { checks: Vec::new(), src: None, lane: None, error: None }
    }

    /// Adds a constraint on the attribute of that name.
    ///
    /// A constraint that can never hold (a value that cannot be encoded, or `src` compared with something that is not a
    /// [`VrId`]) is an error of the receive.
    pub fn with<M>(mut self, name: impl Into<Cow<'p, str>>, constraint: impl IntoConstraint<'p, M>) -> Self {
        let (name, check) = (name.into(), constraint.into_constraint());
        if let Some(error) = check.0.invalid() {
            self.fail(&name, error.to_owned());
        }
        if let Some(value) = check.0.value() {
            if name == SRC {
                match value.get::<VrId>() {
                    Ok(src) => self.src = Some(src),
                    Err(_) => self.fail(SRC, format!("it is a VrId, never {value}")),
                }
            } else if name == TAG {
                self.lane = Some(tag_lane(value.kind, value.body)).filter(|&lane| lane != 0);
            }
        }
        let src = name == SRC;
        self.checks.push(On { name, check, src });
        self
    }

    /// Whether the message matches; the attribute `src` is that of a received message.
    #[must_use]
    pub fn matches(&self, message: &Message) -> bool {
        self.error.is_none() && self.failing(message.view(), message.src()).next().is_none()
    }

    pub(crate) fn checks(&self) -> impl Iterator<Item = &On<'p>> {
        self.checks.iter()
    }

    fn fail(&mut self, name: &str, error: String) {
        self.error.get_or_insert(RecvError::Pattern { name: name.to_owned(), error });
    }

    /// What the core can select by without reading messages, or why this pattern is unusable.
    pub(crate) fn selector(&self) -> Result<Selector, RecvError> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        let mut selector = Selector::on(SFM);
        if let Some(lane) = self.lane {
            selector = selector.lane(lane);
        }
        if let Some(src) = self.src {
            selector = selector.from(src);
        }
        Ok(selector)
    }

    /// Whether this is the pattern that any message matches.
    pub(crate) fn is_any(&self) -> bool {
        self.checks.is_empty()
    }

    /// Whether all constraints hold. A malformed envelope matches only the pattern without constraints, so that some
    /// receive reports it.
    pub(crate) fn accepts(&self, envelope: &Envelope) -> bool {
        if self.checks.is_empty() {
            return true;
        }
        let bytes = envelope.payload.head();
        let Some(length) = wire::head_len(bytes).and_then(|length| usize::try_from(length).ok()) else {
            return false;
        };
        if let Some(head) = bytes.get(..length) {
            return self.accepts_head(head, envelope);
        }
        // The head was cut into several parts, which this layer never does.
        envelope.payload.slice(0, length).is_some_and(|head| self.accepts_head(&head, envelope))
    }

    fn accepts_head(&self, head: &[u8], envelope: &Envelope) -> bool {
        // Match first, as most messages do not match: that does not trust any length either.
        self.failing(Head::checked(head, &envelope.payload), envelope.src).next().is_none()
            && Head::check(head, &envelope.payload).is_some()
    }

    /// Returns how many constraints do not hold for a queued message.
    pub(crate) fn misses(&self, envelope: &Envelope) -> usize {
        match Message::received(envelope.src, envelope.payload.clone()) {
            Some(message) => self.failing(message.view(), envelope.src).count(),
            None => usize::MAX,
        }
    }

    /// The constraints that do not hold.
    pub(crate) fn failing<'a>(&'a self, head: Head<'a>, src: VrId) -> impl Iterator<Item = &'a On<'p>> {
        self.checks.iter().filter(move |on| {
            if on.src {
                return !on.check.0.accepts(Some(&SrcAttr::new(src).attr()));
            }
            !on.check.0.accepts(head.find(&on.name).as_ref())
        })
    }
}

/// `{tag: "x", data: ANY, items: |&Vec<i32>| ..}`
impl fmt::Display for Pattern<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, On { name, check, src }) in self.checks.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            match self.src {
                Some(id) if *src => write!(f, "{comma}{name}: {}", id.short())?,
                _ => write!(f, "{comma}{name}: {check}")?,
            }
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Pattern<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern {self}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use river_core::Payload;

    use super::*;
    use crate::{ABSENT, ANY, Blob, Message, not, one_of};

    /// Values from a domain so small that collisions are frequent.
    #[derive(Clone, Debug)]
    enum Value {
        Int(i8, bool),
        Float(i8, bool),
        Text(&'static str),
        Ints(Vec<i8>, bool),
        Memory(Vec<u8>),
    }

    #[derive(Clone, Debug)]
    enum Asks {
        Any,
        Absent,
        Is(Value),
        Below(i8),
        Text,
        Either(Value, Value),
        Not(Box<Asks>),
    }

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            (-2..3i8, any::<bool>()).prop_map(|(n, wide)| Value::Int(n, wide)),
            (-2..3i8, any::<bool>()).prop_map(|(n, wide)| Value::Float(n, wide)),
            prop::sample::select(vec!["", "a", "bc"]).prop_map(Value::Text),
            (prop::collection::vec(0..2i8, 0..3), any::<bool>()).prop_map(|(v, wide)| Value::Ints(v, wide)),
            prop::collection::vec(0..2u8, 0..3).prop_map(Value::Memory),
        ]
    }

    fn asks() -> impl Strategy<Value = Asks> {
        let leaf = prop_oneof![
            Just(Asks::Any),
            Just(Asks::Absent),
            value().prop_map(Asks::Is),
            (-2..3i8).prop_map(Asks::Below),
            Just(Asks::Text),
            (value(), value()).prop_map(|(a, b)| Asks::Either(a, b)),
        ];
        leaf.prop_recursive(1, 2, 1, |inner| inner.prop_map(|asks| Asks::Not(Box::new(asks))))
    }

    fn name() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["tag", "a", "größe"])
    }

    fn add(message: Message, name: &str, value: &Value) -> Message {
        match value {
            Value::Int(n, false) => message.with(name, n),
            Value::Int(n, true) => message.with(name, &i128::from(*n)),
            Value::Float(n, false) => message.with(name, &f32::from(*n)),
            Value::Float(n, true) => message.with(name, &f64::from(*n)),
            Value::Text(text) => message.with(name, text),
            Value::Ints(v, false) => message.with(name, v),
            Value::Ints(v, true) => message.with(name, &v.iter().map(|&n| i64::from(n)).collect::<Vec<_>>()),
            Value::Memory(v) => message.with(name, &Blob::from(v.clone())),
        }
    }

    fn check(asks: &Asks) -> Check<'static> {
        match asks {
            Asks::Any => ANY.into_constraint(),
            Asks::Absent => ABSENT.into_constraint(),
            Asks::Is(value) => is(value),
            Asks::Below(n) => (..*n).into_constraint(),
            Asks::Text => (|s: &String| s.len() < 2).into_constraint(),
            Asks::Either(a, b) => one_of([is(a), is(b)]),
            Asks::Not(asks) => not(check(asks)),
        }
    }

    fn is(value: &Value) -> Check<'static> {
        match value {
            Value::Int(n, false) => n.into_constraint(),
            Value::Int(n, true) => i64::from(*n).into_constraint(),
            Value::Float(n, false) => f32::from(*n).into_constraint(),
            Value::Float(n, true) => f64::from(*n).into_constraint(),
            Value::Text(text) => text.into_constraint(),
            Value::Ints(v, false) => v.into_constraint(),
            Value::Ints(v, true) => v.iter().map(|&n| i16::from(n)).collect::<Vec<_>>().into_constraint(),
            Value::Memory(v) => Blob::from(v.clone()).into_constraint(),
        }
    }

    fn same(a: &Value, b: &Value) -> bool {
        match (a, b) {
            (Value::Int(a, _), Value::Int(b, _)) | (Value::Float(a, _), Value::Float(b, _)) => a == b,
            (Value::Text(a), Value::Text(b)) => a == b,
            (Value::Ints(a, _), Value::Ints(b, _)) => a == b,
            (Value::Memory(a), Value::Memory(b)) => a == b,
            _ => false,
        }
    }

    fn holds(asks: &Asks, value: Option<&Value>) -> bool {
        match asks {
            Asks::Any => value.is_some(),
            Asks::Absent => value.is_none(),
            Asks::Is(wanted) => value.is_some_and(|value| same(wanted, value)),
            Asks::Below(high) => matches!(value, Some(Value::Int(n, _)) if n < high),
            Asks::Text => matches!(value, Some(Value::Text(text)) if text.len() < 2),
            Asks::Either(a, b) => value.is_some_and(|value| same(a, value) || same(b, value)),
            Asks::Not(asks) => !holds(asks, value),
        }
    }

    fn id(n: u128) -> VrId {
        VrId::from_uuid(uuid::Uuid::from_u128(n))
    }

    fn envelope(lane: u64, payload: Payload) -> Envelope {
        Envelope { src: id(1), dst: id(2), seq: 0, channel: SFM, lane, payload }
    }

    type Attributes = std::collections::BTreeMap<&'static str, Value>;

    fn attributes() -> impl Strategy<Value = Attributes> {
        prop::collection::btree_map(name(), value(), 0..4)
    }

    fn message(attributes: &Attributes) -> Message {
        attributes.iter().fold(Message::new(), |message, (name, value)| add(message, name, value))
    }

    proptest! {
        #[test]
        fn matching_is_that_of_the_model(
            attributes in attributes(),
            constraints in prop::collection::vec((name(), asks()), 0..4),
        ) {
            let pattern = constraints.iter().fold(Pattern::new(), |p, (name, asks)| p.with(*name, check(asks)));
            let expected = constraints.iter().all(|(name, asks)| holds(asks, attributes.get(name)));
            let sealed = message(&attributes).seal().unwrap();
            let in_one_piece = Payload::from(sealed.payload.to_bytes());
            for payload in [sealed.payload, in_one_piece] {
                let accepted = pattern.accepts(&envelope(sealed.lane, payload));
                prop_assert_eq!(accepted, expected, "{} on {}", pattern, message(&attributes));
            }
            // A message that matches is found in the pattern's lane.
            prop_assert!(!expected || pattern.lane.is_none_or(|lane| lane == sealed.lane));
        }

        #[test]
        fn what_is_sent_is_what_is_read(
            n in any::<i128>(), x in any::<f64>(), text in ".*", xs in prop::collection::vec(any::<f64>(), 0..9),
            options in prop::collection::vec(any::<Option<(u8, String)>>(), 0..5),
            memory in prop::collection::vec(any::<u32>(), 0..40), more in prop::collection::vec(any::<u8>(), 0..70),
        ) {
            let sent = Message::new()
                .with("memory", &Blob::from(memory.clone()))
                .with("n", &n).with("x", &x).with("text", &text).with("xs", &xs[..]).with("options", &options)
                .with("more", &Blob::from(more.clone()));
            let payload = sent.seal().unwrap().payload;
            let in_one_piece = Payload::from(payload.to_bytes());
            for payload in [payload, in_one_piece] {
                let m = Message::received(id(1), payload).unwrap();
                prop_assert_eq!(m.get("n"), Ok(n));
                prop_assert_eq!(m.get::<f64>("x").unwrap().to_bits(), x.to_bits());
                prop_assert_eq!(m.get("text"), Ok(text.clone()));
                prop_assert_eq!(m.get("xs"), Ok(xs.clone()));
                prop_assert_eq!(m.get("options"), Ok(options.clone()));
                prop_assert_eq!(m.get::<Blob>("memory").unwrap().to_vec(), Ok(memory.clone()));
                prop_assert_eq!(m.get("more"), Ok(more.clone()));
            }
        }
    }
}
