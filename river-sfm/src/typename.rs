//! Names of types, made equal for types that encode alike: `&str` is `String`, `&[T]` and `Box<[T]>` are `Vec<T>`.
//!
//! Both ends of a message are built from the same crates, so the compiler's own names distinguish types, and people can
//! read them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use river_core::naming::without_paths;

use crate::value::Elem;

/// The normalised name of a type.
#[derive(Debug)]
pub(crate) struct TypeName {
    pub(crate) name: String,
    /// The element type if this is a sequence of numbers, which is sent without per-element encoding.
    pub(crate) element: Option<Elem>,
}

/// One entry per type that the program sends or reads, so that leaking the names is bounded.
static NAMES: Mutex<Option<HashMap<&'static str, &'static TypeName>>> = Mutex::new(None);

thread_local! {
    /// Keyed by address and length of the compiler's name: found without hashing the name and without a lock.
    static CACHE: RefCell<HashMap<(usize, usize), &'static TypeName>> = RefCell::default();
}

impl TypeName {
    pub(crate) fn of<T: ?Sized>() -> &'static TypeName {
        let raw = std::any::type_name::<T>();
        let key = (raw.as_ptr().addr(), raw.len());
        let look_up = |cache: &RefCell<HashMap<_, _>>| {
            let known = cache.borrow().get(&key).copied();
            known.unwrap_or_else(|| {
                let name = Self::intern(raw);
                cache.borrow_mut().insert(key, name);
                name
            })
        };
        CACHE.try_with(look_up).unwrap_or_else(|_| Self::intern(raw))
    }

    fn intern(raw: &'static str) -> &'static TypeName {
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        names.get_or_insert_default().entry(raw).or_insert_with(|| Box::leak(Box::new(Self::new(raw))))
    }

    fn new(raw: &str) -> TypeName {
        let name = normal(raw);
        let element = name
            .strip_prefix("Vec<")
            .and_then(|rest| rest.strip_suffix('>'))
            .or_else(|| name.strip_prefix('[')?.split_once(';').map(|(element, _)| element))
            .and_then(Elem::from_name);
        TypeName { name, element }
    }
}

/// Shortens two names as far as they remain distinct.
pub(crate) fn shorten(sent: &str, wanted: &str) -> (String, String) {
    let (a, b) = (without_paths(sent), without_paths(wanted));
    if a == b { (sent.into(), wanted.into()) } else { (a, b) }
}

fn normal(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let raw = without_lifetimes(raw);
    let rest = one(&raw, &mut out);
    // Text outside the grammar below is kept as it is: both ends see the same text.
    out.push_str(rest);
    out
}

/// Lifetimes say nothing about the encoding; compilers differ in whether they print `'_`.
fn without_lifetimes(raw: &str) -> String {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((before, after)) = rest.split_once('\'') {
        out.push_str(before);
        let behind = after.trim_start_matches(is_name);
        if let Some(behind) = behind.strip_prefix('\'') {
            // Not a lifetime but a char, the value of a const parameter.
            out.push_str(&rest[before.len()..rest.len() - behind.len()]);
            rest = behind;
        } else {
            rest = behind.trim_start_matches([',', ' ']);
        }
    }
    out.push_str(rest);
    out.replace("<>", "")
}

/// Appends the normalised form of the type at the start of the text; returns the rest of the text.
fn one<'a>(mut text: &'a str, out: &mut String) -> &'a str {
    while let Some(rest) = text.strip_prefix('&') {
        text = rest.strip_prefix("mut ").unwrap_or(rest);
    }
    if let Some(rest) = text.strip_prefix('[') {
        return sequence(rest, out);
    }
    if let Some(rest) = text.strip_prefix('(') {
        out.push('(');
        return list(rest, ')', out);
    }
    let end = text.find(['<', '>', ',', ';', ')', ']', '(', '[']).unwrap_or(text.len());
    let (path, rest) = text.split_at(end);
    match (path, rest.strip_prefix('<')) {
        ("alloc::boxed::Box" | "alloc::rc::Rc" | "alloc::sync::Arc" | "alloc::borrow::Cow", Some(inner)) => {
            // Transparent to serde.
            let rest = one(inner, out);
            rest.strip_prefix('>').unwrap_or(rest)
        }
        ("str" | "alloc::string::String", _) => {
            out.push_str("String");
            rest
        }
        ("alloc::vec::Vec", Some(inner)) => {
            out.push_str("Vec<");
            list(inner, '>', out)
        }
        (path, Some(inner)) => {
            out.push_str(path);
            out.push('<');
            list(inner, '>', out)
        }
        (path, None) => {
            out.push_str(path);
            rest
        }
    }
}

/// After `[`: a slice, which is a `Vec` to serde, or an array, which is not, as its length is not encoded.
fn sequence<'a>(text: &'a str, out: &mut String) -> &'a str {
    let start = out.len();
    let rest = one(text, out);
    if let Some(rest) = rest.strip_prefix(']') {
        out.insert_str(start, "Vec<");
        out.push('>');
        return rest;
    }
    out.insert(start, '[');
    match rest.split_once(']') {
        Some((length, rest)) => {
            out.push_str(length);
            out.push(']');
            rest
        }
        None => rest,
    }
}

/// A list of types separated by commas, up to and including the closing character.
fn list<'a>(mut text: &'a str, close: char, out: &mut String) -> &'a str {
    loop {
        let before = text.len();
        if let Some(rest) = text.strip_prefix(close) {
            out.push(close);
            return rest;
        }
        if let Some(rest) = text.strip_prefix(',') {
            out.push(',');
            text = rest;
        }
        if let Some(rest) = text.strip_prefix(' ') {
            out.push(' ');
            text = rest;
        }
        if !text.starts_with([close, ',']) {
            text = one(text, out);
        }
        if text.len() == before {
            // Not in the grammar.
            return text;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::HashMap;
    use std::sync::Arc;

    use super::*;

    type Of<T> = std::num::Wrapping<T>;

    fn name<T: ?Sized>() -> &'static str {
        &TypeName::of::<T>().name
    }

    #[test]
    fn types_that_encode_alike_have_one_name() {
        assert_eq!(name::<&str>(), "String");
        assert_eq!(name::<Cow<'_, str>>(), name::<Box<String>>());
        assert_eq!(name::<&mut [f64]>(), "Vec<f64>");
        assert_eq!(name::<Arc<[(&str, u8)]>>(), "Vec<(String, u8)>");
        assert_eq!(name::<HashMap<&str, &[Of<&str>]>>(), name::<HashMap<String, Vec<Of<String>>>>());
        assert_eq!(name::<Of<std::slice::Iter<'static, u8>>>(), name::<Of<std::slice::Iter<'_, u8>>>());
        assert_eq!(without_lifetimes("a::B<'_>"), "a::B");
        assert_eq!(without_lifetimes("&'_ a::B<'_, 'x', 'b>"), "&a::B<'x', >");
        assert_eq!(name::<(i32,)>(), "(i32,)");
        assert_eq!(name::<()>(), "()");
    }

    #[test]
    fn types_that_do_not_encode_alike_have_two() {
        assert_ne!(name::<[String; 2]>(), name::<Vec<String>>());
        assert_ne!(name::<Of<i32>>(), name::<Of<i64>>());
        assert_eq!(name::<[[f32; 2]; 3]>(), "[[f32; 2]; 3]");
        assert_eq!(name::<Option<[u8; 4]>>(), "core::option::Option<[u8; 4]>");
    }

    #[test]
    fn sequences_of_numbers_are_recognised() {
        let element = |name: &TypeName| name.element;
        assert_eq!(element(TypeName::of::<Vec<i32>>()), Some(Elem::I32));
        assert_eq!(element(TypeName::of::<&[f64; 3]>()), Some(Elem::F64));
        assert_eq!(element(TypeName::of::<[usize]>()), Some(Elem::U64));
        assert_eq!(element(TypeName::of::<Vec<Vec<f64>>>()), None);
        assert_eq!(element(TypeName::of::<[[f64; 3]; 3]>()), None);
        assert_eq!(element(TypeName::of::<Vec<bool>>()), None);
    }
}
