//! What a function takes and returns, as text that is equal in programs built from different sources.
//!
//! The first line names types; one for each struct and enum among them follows, with fields and variants. What a server keeps
//! as an object does not travel, and is known by its name only.

use std::any::{TypeId, type_name};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use river_core::naming::without_paths;

use crate::data::RemoteSend;
use crate::shape;

/// The signature of a function with this tuple of arguments and this result: `(i64, i64) -> String`.
pub(crate) fn signature<Args: RemoteSend, R: RemoteSend>() -> String {
    with_definitions::<(Args, R)>(format!(
        "{} -> {}",
        without_paths(type_name::<Args>()),
        without_paths(type_name::<R>())
    ))
}

/// The signature of a function whose result stays on the server: `(i64) -> object Stack`.
pub(crate) fn constructor<Args: RemoteSend, T>() -> String {
    with_definitions::<Args>(format!(
        "{} -> object {}",
        without_paths(type_name::<Args>()),
        without_paths(type_name::<T>())
    ))
}

/// The signature of a method: `Stack: (String) -> ()`.
pub(crate) fn method<T, Args: RemoteSend, R: RemoteSend>() -> String {
    format!("{}: {}", without_paths(type_name::<T>()), signature::<Args, R>())
}

/// The definitions of a type, one a line; each type is looked at once.
fn with_definitions<T: RemoteSend>(mut text: String) -> String {
    static KNOWN: Mutex<Option<HashMap<TypeId, String>>> = Mutex::new(None);
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let id = TypeId::of::<T>();
    if let Some(definitions) = known().get_or_insert_default().get(&id) {
        text.push_str(definitions);
        return text;
    }
    // Runs code of the type's, which may want a signature itself.
    let definitions: String = shape::definitions::<T>().iter().map(|line| format!("\n{line}")).collect();
    text.push_str(&definitions);
    known().get_or_insert_default().insert(id, definitions);
    text
}

/// In a sentence, how two signatures differ.
pub(crate) fn difference(function: &str, exported: &str, called: &str) -> String {
    let first = |text: &str| text.lines().next().unwrap_or_default().to_owned();
    let (theirs, ours) = (first(exported), first(called));
    if theirs != ours {
        return format!("{function} is {theirs} on the server, and was called as {ours}");
    }
    let mut lines = exported.lines().zip(called.lines());
    match lines.find(|(theirs, ours)| theirs != ours) {
        Some((theirs, ours)) => format!(
            "{function} is {first} on both sides, but of different types: `{theirs}` on the server, `{ours}` here",
            first = first(exported)
        ),
        None => {
            format!("{function} is {theirs} on both sides, but more is known of the types on one of them")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    #[test]
    fn paths_do_not_count_but_everything_else_does() {
        assert_eq!(signature::<(i64, String), Vec<f64>>(), "(i64, String) -> Vec<f64>");
        assert_eq!(method::<Named, (), Option<u8>>(), "Named: () -> Option<u8>");
        assert_ne!(signature::<(u8,), ()>(), signature::<(i8,), ()>());
    }

    #[derive(Serialize, Deserialize)]
    struct Named {
        x: f64,
    }

    mod other {
        use serde::{Deserialize, Serialize};

        #[derive(Serialize, Deserialize)]
        pub(super) struct Named {
            x: f32,
        }
    }

    #[test]
    fn what_is_in_a_type_counts() {
        let (theirs, ours) = (signature::<(Named,), ()>(), signature::<(other::Named,), ()>());
        assert_eq!(theirs, "(Named,) -> ()\nNamed { x: f64 }");
        let text = difference("f", &theirs, &ours);
        assert!(text.ends_with("`Named { x: f64 }` on the server, `Named { x: f32 }` here"), "{text}");
        // Not of what stays on the server.
        assert_eq!(constructor::<(), Named>(), constructor::<(), other::Named>());
    }
}
