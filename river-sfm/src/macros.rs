//! The two macros, which only expand to calls of `with`.

/// Makes a [`Message`](crate::Message): `msg! { tag: "inputlist", items: vec![1, 2, 3, 4] }`.
///
/// Names are identifiers, string literals, or expressions in parentheses. Values are borrowed and encoded at once; they
/// can be anything that is `Serialize`, or a [`Blob`](crate::Blob).
///
/// ```
/// use river_sfm::msg;
///
/// let key = String::from("größe");
/// let m = msg! { tag: "box", "first name": "Ada", (key): 3.5, };
/// assert_eq!(m.to_string(), r#"{tag: "box", first name: "Ada", größe: 3.5}"#);
/// ```
#[macro_export]
macro_rules! msg {
    ($($name:tt : $value:expr),* $(,)?) => {
        $crate::Message::new()$(.with(&$crate::__name!($name), &$value))*
    };
}

/// Makes a [`Pattern`](crate::Pattern): `pat! { tag: "inputlist", items: |x: &Vec<i32>| x.len() > 1 }`.
///
/// Names are written as in [`msg!`](crate::msg). Each is followed by a value, [`ANY`](crate::ANY),
/// [`ABSENT`](crate::ABSENT), a closure whose argument is a reference with its type written out, a range of numbers,
/// [`one_of`](crate::one_of), [`not`](crate::not), or a [`Constraint`](crate::Constraint) of your own. Values are moved
/// into the pattern, unless a reference is given.
///
/// ```
/// use river_sfm::{ANY, not, one_of, pat};
///
/// let p = pat! { tag: one_of(["work", "stop"]), n: 1..=9, n: not(5), data: ANY, name: |s: &str| s.len() > 1 };
/// assert_eq!(p.to_string(), r#"{tag: one_of("work", "stop"), n: 1..=9, n: not(5), data: ANY, name: |&str| ..}"#);
/// ```
#[macro_export]
macro_rules! pat {
    ($($name:tt : $constraint:expr),* $(,)?) => {
        $crate::Pattern::new()$(.with($crate::__name!($name), $constraint))*
    };
}

/// The name of an attribute as it is written in the macros.
#[doc(hidden)]
#[macro_export]
macro_rules! __name {
    ($name:ident) => {
        $crate::__private::plain(stringify!($name))
    };
    ($name:literal) => {
        $name
    };
    (($name:expr)) => {
        $name
    };
}
