//! [`Template`]: a pattern that can be sent.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::{Serialize, Serializer};

use crate::check::{Ask, Constraint, Value};
use crate::constraint::Check;
use crate::decode::FromAttr;
use crate::error::TemplateError;
use crate::message::Message;
use crate::pattern::Pattern;
use crate::range::Bounds;
use crate::wire::Attr;

/// A pattern without code: only values, [`ANY`](crate::ANY), [`ABSENT`](crate::ABSENT), ranges,
/// [`one_of`](crate::one_of) and [`not`](crate::not). It is an ordinary value that can be cloned, kept in a VR's state
/// and sent, so that another VR can receive, or search for, the messages that match it.
///
/// ```
/// use river_sfm::{ANY, Template, msg, pat};
///
/// let template = pat! { tag: "task", n: 1..10, data: ANY }.template()?;
/// let message = msg! { want: template };
/// let received: Template = message.get("want")?;
/// assert!(received.pattern().matches(&msg! { tag: "task", n: 5, data: "x" }));
/// assert!(!received.pattern().matches(&msg! { tag: "task", n: 10, data: "x" }));
///
/// let error = pat! { n: |n: &i32| *n > 1 }.template().unwrap_err();
/// assert!(error.to_string().contains("`n`"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    asks: Vec<(String, Ask<Never>)>,
}

/// The type of code in a template: uninhabited.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Never {}

impl Constraint for Never {
    fn accepts(&self, _: Option<&Attr<'_>>) -> bool {
        match *self {}
    }

    fn describe(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

/// The deepest nesting of `one_of` and `not` in a template: decoding must not overflow the stack, whatever is sent.
const DEEPEST: usize = 32;

impl Pattern<'_> {
    /// The pattern as a template, which can be sent.
    ///
    /// # Errors
    /// [`TemplateError`] names the constraint that cannot be sent: a closure, a [`Constraint`] of your own, or one that
    /// is invalid even locally.
    pub fn template(&self) -> Result<Template, TemplateError> {
        let asks = self.checks().map(|on| match without_code(&on.check.0, 0) {
            Some(ask) => Ok((on.name.to_string(), ask)),
            None => Err(TemplateError { name: on.name.to_string(), constraint: on.check.to_string() }),
        });
        Ok(Template { asks: asks.collect::<Result<_, _>>()? })
    }
}

impl Template {
    /// The pattern, to receive by.
    pub fn pattern(&self) -> Pattern<'_> {
        self.asks.iter().fold(Pattern::new(), |pattern, (name, ask)| {
            pattern.with(Cow::Borrowed(name.as_str()), Check(with_code(ask)))
        })
    }

    /// The value that the template requires of the attribute, if there is one and it is a `T`: for stores that are
    /// indexed by it.
    #[must_use]
    pub fn value<T: FromAttr>(&self, name: &str) -> Option<T> {
        self.asks.iter().filter(|(of, _)| of == name).find_map(|(_, ask)| ask.value()?.get().ok())
    }

    /// Whether the message matches.
    #[must_use]
    pub fn matches(&self, message: &Message) -> bool {
        self.pattern().matches(message)
    }
}

fn without_code<C>(ask: &Ask<C>, depth: usize) -> Option<Ask<Never>> {
    Some(match ask {
        Ask::Present => Ask::Present,
        Ask::Absent => Ask::Absent,
        Ask::Value(value) => Ask::Value(value.clone()),
        Ask::Range(range) => Ask::Range(*range),
        _ if depth == DEEPEST => return None,
        Ask::OneOf(asks) => {
            Ask::OneOf(asks.iter().map(|ask| without_code(ask, depth + 1)).collect::<Option<_>>()?)
        }
        Ask::Not(ask) => Ask::Not(Box::new(without_code(ask, depth + 1)?)),
        Ask::Other(_) | Ask::Invalid(_) => return None,
    })
}

fn with_code<C>(ask: &Ask<Never>) -> Ask<C> {
    match ask {
        Ask::Present => Ask::Present,
        Ask::Absent => Ask::Absent,
        Ask::Value(value) => Ask::Value(value.clone()),
        Ask::Range(range) => Ask::Range(*range),
        Ask::OneOf(asks) => Ask::OneOf(asks.iter().map(with_code).collect()),
        Ask::Not(ask) => Ask::Not(Box::new(with_code(ask))),
        Ask::Other(never) => match *never {},
        Ask::Invalid(error) => Ask::Invalid(error.clone()),
    }
}

/// The encoded form of a template: each constraint is a list of these, an operator before its operands.
#[derive(Clone, Serialize, serde::Deserialize)]
enum Token<'a> {
    Present,
    Absent,
    Value(Cow<'a, Value>),
    Range(Bounds),
    OneOf(u32),
    Not,
}

impl Serialize for Template {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.asks.iter().map(|(name, ask)| {
            let mut tokens = Vec::new();
            write(ask, &mut tokens);
            (name, tokens)
        }))
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let asks = Vec::<(String, Vec<Token<'static>>)>::deserialize(deserializer)?;
        let asks = asks.into_iter().map(|(name, tokens)| {
            let mut tokens = tokens.into_iter();
            let ask = read(&mut tokens, 0).filter(|_| tokens.len() == 0);
            Ok((name, ask.ok_or_else(|| D::Error::custom("not a template"))?))
        });
        Ok(Self { asks: asks.collect::<Result<_, _>>()? })
    }
}

fn write<'a>(ask: &'a Ask<Never>, out: &mut Vec<Token<'a>>) {
    out.push(match ask {
        Ask::Present => Token::Present,
        Ask::Absent => Token::Absent,
        Ask::Value(value) => Token::Value(Cow::Borrowed(value)),
        Ask::Range(range) => Token::Range(*range),
        Ask::OneOf(asks) => Token::OneOf(asks.len() as u32),
        Ask::Not(_) => Token::Not,
        Ask::Other(never) => match *never {},
        // Never sent; holds for nothing, as this does.
        Ask::Invalid(_) => Token::OneOf(0),
    });
    match ask {
        Ask::OneOf(asks) => asks.iter().for_each(|ask| write(ask, out)),
        Ask::Not(ask) => write(ask, out),
        _ => {}
    }
}

fn read(tokens: &mut impl Iterator<Item = Token<'static>>, depth: usize) -> Option<Ask<Never>> {
    Some(match tokens.next()? {
        Token::Present => Ask::Present,
        Token::Absent => Ask::Absent,
        Token::Value(value) => Ask::Value(value.into_owned()),
        Token::Range(range) => Ask::Range(range),
        _ if depth == DEEPEST => return None,
        Token::OneOf(count) => {
            Ask::OneOf((0..count).map(|_| read(tokens, depth + 1)).collect::<Option<_>>()?)
        }
        Token::Not => Ask::Not(Box::new(read(tokens, depth + 1)?)),
    })
}

/// Formatted like the pattern.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pattern().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ABSENT, ANY, Blob, not, one_of, pat};

    #[test]
    fn a_template_survives_the_way() {
        let template = pat! {
            tag: "größe", n: 1..5, x: ..=0.5, m: not(one_of([1, 2])), b: Blob::from(vec![1.5f64]), v: vec![Some("x")],
            here: ANY, gone: ABSENT, id: uuid::Uuid::nil(),
        };
        let template = template.template().unwrap();
        let bytes = postcard::to_stdvec(&template).unwrap();
        let back: Template = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(back, template);
        assert_eq!(back.to_string(), template.to_string());
        assert_eq!((back.value("tag"), back.value("n")), (Some("größe".to_string()), None::<i32>));
    }

    #[test]
    fn what_nests_too_deep_is_refused_on_both_sides() {
        let deep = (0..=DEEPEST).fold(not(1), |check, _| not(check));
        assert!(pat! { n: deep }.template().is_err());
        let tokens = vec![("n", vec![Token::Not; 1_000_000])];
        let bytes = postcard::to_stdvec(&tokens).unwrap();
        assert!(postcard::from_bytes::<Template>(&bytes).is_err());
        let wide = postcard::to_stdvec(&vec![("n", vec![Token::OneOf(u32::MAX)])]).unwrap();
        assert!(postcard::from_bytes::<Template>(&wide).is_err());
    }
}
