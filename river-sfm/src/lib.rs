//! Super flexible messaging: messages are sets of named attributes, received by pattern.
//!
//! ```
//! use river_sfm::{ANY, Sfm, msg, pat};
//!
//! # river_core::testing::threads(2, |vr, index, ids| -> river_core::Result {
//! # let peer = ids[1 - index];
//! # if index == 0 {
//! // One VR sends ...
//! vr.send(peer, msg! { text: "hello" })?;
//! vr.send(peer, msg! { tag: "inputlist", items: vec![1, 2, 3, 4] })?;
//! # vr.recv(pat! { done: true })?;
//! # } else {
//! // ... and another receives in the order that it likes.
//! let m = vr.recv(pat! { tag: "inputlist", items: |x: &Vec<i32>| x.len() > 1 })?;
//! let items: Vec<i32> = m.get("items")?;
//! assert_eq!(items, [1, 2, 3, 4]);
//!
//! let m = vr.recv(pat! { src: peer, text: ANY })?;
//! assert_eq!(m.get::<String>("text")?, "hello");
//! # vr.send(peer, msg! { done: true })?;
//! # }
//! # Ok(())
//! # }).into_iter().collect::<river_core::Result<Vec<()>>>().unwrap();
//! ```
//!
//! - A message is made by [`msg!`] and sent by [`Sfm::send`]. A value is anything that is `Serialize`, or a [`Blob`].
//! - A pattern is made by [`pat!`]: each constraint is a value, [`ANY`], [`ABSENT`], a predicate, a range, [`one_of`],
//!   [`not`], or a [`Constraint`] of your own. All must hold. Attributes that it does not name do not hinder.
//! - What does not match stays queued, in order.
//! - The names `src` and `ask` are the system's and cannot be sent. `src` is who sent the message; `ask` is there in a message
//!   that wants a reply ([`Sfm::ask`], [`Sfm::reply`]). A receive from a VR that is gone says so instead of waiting for ever.
//! - A [`Template`] is a pattern that can be sent. A struct is a message, field by field ([`Sfm::send_fields`]).
//! - What waits for a VR can be counted ([`Vr::queue`](river_core::Vr::queue)) and limited
//!   ([`Vr::limit_queue`](river_core::Vr::limit_queue)): then senders wait, or are refused ([`SendError::is_full`]).
//! - Messages with a `tag` are found by its value without a search through those with another.
//!
//! # Layers, lowest first
//!
//! A module uses only modules above it in this list.
//!
//! * `error`: what can go wrong
//! * `value`: kinds of values; scalars, which compare and convert by value
//! * `typename`: names of types, equal for types that encode alike
//! * `encode`: from a value to the body of an attribute
//! * `wire`: how a message lies in a payload
//! * `decode`: from the body of an attribute to a value
//! * `blob`: plain memory, neither encoded nor copied
//! * `message`: sets of attributes
//! * `fields`: structs as messages
//! * `range`: ranges of numbers
//! * `check`: the forms of constraints, and what they hold for
//! * `constraint`: what a pattern can ask of an attribute
//! * `pattern`: what a receive asks of a message
//! * `template`: patterns that can be sent
//! * `fuzzing`: the decoders of what comes from other VRs, for fuzzers
//! * `receive`: receives by pattern
//! * `traced`: what a trace says of messages
//! * `iter`: messages one by one
//! * `posted`: receives that are completed later
//! * `ask`: questions and replies
//! * `vr`: send and receive
//! * `macros`: how to write messages and patterns

mod ask;
mod blob;
mod check;
mod constraint;
mod decode;
mod encode;
mod error;
mod fields;
#[cfg(any(test, feature = "testing"))]
pub mod fuzzing;
mod iter;
mod macros;
mod message;
mod pattern;
mod posted;
mod range;
mod receive;
mod template;
mod traced;
mod typename;
mod value;
mod vr;
mod wire;

pub use blob::Blob;
pub use check::Constraint;
pub use constraint::{ABSENT, ANY, Absent, Check, IntoConstraint, Present, not, one_of};
pub use decode::FromAttr;
pub use encode::ToAttr;
pub use error::{AskError, BlobError, GetError, NearMiss, RecvError, SendError, TemplateError};
pub use iter::{Iter, TryIter};
pub use message::Message;
pub use pattern::Pattern;
pub use posted::PostedRecv;
pub use template::Template;
pub use vr::Sfm;
pub use wire::Attr;

/// What the macros need.
#[doc(hidden)]
pub mod __private {
    pub use crate::constraint::case;

    /// The name of a raw identifier without its prefix.
    #[must_use]
    pub fn plain(name: &'static str) -> &'static str {
        name.strip_prefix("r#").unwrap_or(name)
    }
}
