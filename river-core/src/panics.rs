//! Panics as text with their place.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs `body`; its panic becomes an error: the panic's text and place.
///
/// For layers that run a user's functions one by one and want to go on after one of them failed. What `body` had
/// changed before it panicked stays changed. The usual report on stderr is printed as well.
///
/// # Errors
/// The text of the panic, with file and line.
///
/// ```
/// let error = river_core::catch_panic(|| -> u32 { panic!("no input") }).unwrap_err();
/// assert!(error.starts_with("no input ("));
/// assert_eq!(river_core::catch_panic(|| 6), Ok(6));
/// ```
pub fn catch_panic<R>(body: impl FnOnce() -> R) -> Result<R, String> {
    note_places();
    panic::catch_unwind(AssertUnwindSafe(body)).map_err(|payload| text(&*payload))
}

fn text(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a value that is not text".into());
    match PLACE.take() {
        Some(place) => format!("{text} ({place})"),
        None => text,
    }
}

/// Only a hook learns where a panic happened; it leaves that for whoever catches the panic on the same thread.
fn note_places() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PLACE.set(info.location().map(ToString::to_string));
            usual(info);
        }));
    });
}
