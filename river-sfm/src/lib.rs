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
//!   [`not`], or a [`Constraint`] of your own. All must hold. Attributes that the pattern does not name are ignored.
//! - Messages that do not match stay queued, in order.
//! - The names `src` and `ask` are reserved and cannot be sent. `src` is the VR that sent the message; `ask` is present
//!   in a message that wants a reply ([`Sfm::ask`], [`Sfm::reply`]). A receive from a VR that is gone returns an error
//!   instead of waiting forever.
//! - A [`Template`] is a pattern that can be sent. A struct is a message, field by field ([`Sfm::send_fields`]).
//! - The messages that wait for a VR can be counted ([`Vr::queue`](river_core::Vr::queue)) and limited
//!   ([`Vr::limit_queue`](river_core::Vr::limit_queue)): senders then wait, or are refused ([`SendError::is_full`]).
//! - Messages with a `tag` are found by its value, without a search through messages with other tags.
//!
//! # Layers, lowest first
//!
//! A module uses only modules above it in this list.
//!
//! * `error`: what can go wrong
//! * `value`: kinds of values; scalars, which compare and convert by value
//! * `typename`: names of types, equal for types that encode alike
//! * `encode`: encodes a value as the body of an attribute
//! * `wire`: the layout of a message in a payload
//! * `decode`: decodes the body of an attribute to a value
//! * `blob`: plain memory, neither encoded nor copied
//! * `message`: sets of attributes
//! * `fields`: structs as messages
//! * `range`: ranges of numbers
//! * `check`: the forms of constraints, and the values that satisfy each
//! * `constraint`: the constraints that a pattern can put on an attribute
//! * `pattern`: the condition on a message that a receive waits for
//! * `template`: patterns that can be sent
//! * `fuzzing`: the decoders of input from other VRs, for fuzzers
//! * `receive`: receives by pattern
//! * `traced`: labels messages in a trace by their tags
//! * `iter`: iterators over messages
//! * `posted`: receives that are posted now and completed later
//! * `ask`: questions and replies
//! * `vr`: send and receive
//! * `macros`: the syntax of messages and patterns

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

/// Items that the macros use.
#[doc(hidden)]
pub mod __private {
    pub use crate::constraint::case;

    /// The name of a raw identifier without its prefix.
    #[must_use]
    pub fn plain(name: &'static str) -> &'static str {
        name.strip_prefix("r#").unwrap_or(name)
    }
}
