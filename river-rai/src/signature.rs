//! The argument and result types of a function, as text that is equal in programs built from different sources.
//!
//! The first line names the types; one line follows for each struct and enum among them, with its fields and variants.
//! A type that stays on the server as an object is not sent, and is identified by its name only. A call carries the
//! hash of the text; only an error carries the text.

use std::any::{TypeId, type_name};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::{Mutex, MutexGuard, PoisonError};

use river_core::naming::without_paths;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::data::RemoteSend;
use crate::shape;

/// Different for every signature.
pub(crate) type Digest = [u8; 16];

/// The text, and the digest that represents it in a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Signature {
    pub(crate) text: String,
    pub(crate) digest: Digest,
}

impl Signature {
    fn new(text: String) -> Self {
        let mut digest = Digest::default();
        let whole = blake3::hash(text.as_bytes());
        digest.copy_from_slice(&whole.as_bytes()[..size_of::<Digest>()]);
        Self { text, digest }
    }
}

/// A kind of function that can be called by name.
pub(crate) trait Callable: 'static {
    /// `(i64, i64) -> String`
    fn text() -> String;
}

/// A function with this tuple of arguments and this result.
pub(crate) struct Plain<Args, R>(PhantomData<fn(Args) -> R>);

/// A function whose result stays on the server.
pub(crate) struct Constructor<Args, T>(PhantomData<fn(Args) -> T>);

/// A function that also gets an object of type `T` from the server.
pub(crate) struct Method<T, Args, R>(PhantomData<fn(T, Args) -> R>);

impl<Args: RemoteSend, R: RemoteSend> Callable for Plain<Args, R> {
    fn text() -> String {
        with_definitions::<(Args, R)>(format!("{} -> {}", name::<Args>(), name::<R>()))
    }
}

impl<Args: RemoteSend, T: 'static> Callable for Constructor<Args, T> {
    fn text() -> String {
        with_definitions::<Args>(format!("{} -> object {}", name::<Args>(), name::<T>()))
    }
}

impl<T: 'static, Args: RemoteSend, R: RemoteSend> Callable for Method<T, Args, R> {
    fn text() -> String {
        format!("{}: {}", name::<T>(), Plain::<Args, R>::text())
    }
}

fn name<T>() -> String {
    without_paths(type_name::<T>())
}

/// Appends the definitions of a type, one per line.
fn with_definitions<T: RemoteSend>(mut text: String) -> String {
    for line in shape::definitions::<T>() {
        text.push('\n');
        text.push_str(&line);
    }
    text
}

/// The signatures that this process has needed.
fn known() -> MutexGuard<'static, BTreeMap<TypeId, Signature>> {
    static KNOWN: Mutex<BTreeMap<TypeId, Signature>> = Mutex::new(BTreeMap::new());
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the signature; the types in it are examined only once.
pub(crate) fn signature<C: Callable>() -> Signature {
    let id = TypeId::of::<C>();
    if let Some(signature) = known().get(&id) {
        return signature.clone();
    }
    // Runs code of the types, which may need a signature itself.
    let signature = Signature::new(C::text());
    known().insert(id, signature.clone());
    signature
}

/// The digest of the signature, for a call. Threads do not wait for each other here.
pub(crate) fn digest<C: Callable>() -> Digest {
    thread_local! {
        static KNOWN: RefCell<FxHashMap<TypeId, Digest>> = RefCell::default();
    }
    let id = TypeId::of::<C>();
    if let Some(digest) = KNOWN.with_borrow(|known| known.get(&id).copied()) {
        return digest;
    }
    let digest = signature::<C>().digest;
    KNOWN.with_borrow_mut(|known| known.insert(id, digest));
    digest
}

/// The text of a signature that this process has used in a call.
pub(crate) fn text_of(digest: &Digest) -> Option<String> {
    known().values().find(|signature| signature.digest == *digest).map(|signature| signature.text.clone())
}

/// Describes in a sentence how two signatures differ.
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
        assert_eq!(signature::<Plain<(i64, String), Vec<f64>>>().text, "(i64, String) -> Vec<f64>");
        assert_eq!(signature::<Method<Named, (), Option<u8>>>().text, "Named: () -> Option<u8>");
        assert_eq!(signature::<Constructor<(u8,), Named>>().text, "(u8,) -> object Named");
        assert_ne!(digest::<Plain<(u8,), ()>>(), digest::<Plain<(i8,), ()>>());
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
        type Theirs = Plain<(Named,), ()>;
        type Ours = Plain<(other::Named,), ()>;
        assert_ne!(digest::<Theirs>(), digest::<Ours>());
        let theirs = signature::<Theirs>().text;
        assert_eq!(theirs, "(Named,) -> ()\nNamed { x: f64 }");
        let text = difference("f", &theirs, &text_of(&digest::<Ours>()).unwrap());
        assert!(text.ends_with("`Named { x: f64 }` on the server, `Named { x: f32 }` here"), "{text}");
        // Not for objects that stay on the server.
        assert_eq!(digest::<Constructor<(), Named>>(), digest::<Constructor<(), other::Named>>());
        assert_eq!(text_of(&Digest::default()), None);
    }
}
