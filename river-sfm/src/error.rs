//! What can go wrong, one type per family of operations: sending, receiving, reading a message, viewing a blob.

use std::time::Duration;

use river_core::Down;

/// Why a message was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The core did not accept it: the destination is gone, its mailbox is full, or the program is ending.
    #[error(transparent)]
    Core(#[from] river_core::SendError),
    /// The value of an attribute cannot be encoded.
    #[error("attribute `{name}` cannot be encoded: {error}")]
    Encode {
        /// The attribute.
        name: String,
        /// The error of its `Serialize`, or of the encoding.
        error: String,
    },
    /// The name is reserved: the system sets that attribute.
    #[error("attribute `{0}` is set by the system and cannot be sent")]
    Reserved(String),
    /// The message to reply to was not sent by [`Sfm::ask`](crate::Sfm::ask).
    #[error(
        "the message that this would reply to does not ask for a reply: it was sent by `send`, not by `ask`"
    )]
    NotAsked,
    /// Two attributes have the same name.
    #[error("attribute `{0}` is there twice")]
    Duplicate(String),
}

impl SendError {
    /// Whether the destination can never be reached again.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        matches!(self, SendError::Core(error) if error.is_disconnected())
    }

    /// Whether the destination's mailbox is full, and sending again later may succeed.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, SendError::Core(error) if error.is_full())
    }
}

/// Why a receive returned without a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// No message that matches came in time.
    #[error("nothing that matches {pattern} arrived within {waited:?}{}", list(*.queued, near))]
    Timeout {
        /// How long the receive waited.
        waited: Duration,
        /// The pattern, as text.
        pattern: String,
        /// The number of queued messages, none of which matched.
        queued: usize,
        /// The queued messages that come closest to the pattern, and why they did not match.
        near: Vec<NearMiss>,
    },
    /// The VR that could have answered is gone, or a watched VR or a child is gone.
    #[error("{0}")]
    Down(Down),
    /// The program is ending.
    #[error("the program is ending")]
    Stopped,
    /// A predicate called a receive of the same VR.
    #[error(
        "a receive was called from within a receive's predicate: predicates may only look at the message"
    )]
    Reentrant,
    /// The pattern itself is invalid: it could never match.
    #[error("the pattern's constraint on `{name}` is not usable: {error}")]
    Pattern {
        /// The attribute that the constraint is on.
        name: String,
        /// What is wrong with it.
        error: String,
    },
    /// The received envelope is not an SFM message. It has been taken out of the queue.
    #[error("{bytes} bytes from VR {} are not a message", .src.short())]
    Malformed {
        /// The VR that sent it.
        src: river_core::VrId,
        /// Its length in bytes.
        bytes: usize,
    },
    /// Another error from the core.
    #[error(transparent)]
    Core(river_core::RecvError),
}

impl RecvError {
    /// Whether the deadline passed and a later receive may succeed.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, RecvError::Timeout { .. })
    }

    /// Whether a VR that this receive depends on is gone.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        matches!(self, RecvError::Down(_))
    }
}

/// Why a question was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The question was not sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// There was no reply.
    #[error(transparent)]
    Recv(#[from] RecvError),
}

impl AskError {
    /// Whether the deadline passed.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, AskError::Recv(error) if error.is_timeout())
    }

    /// Whether the VR that was asked is gone, or another VR whose end this VR is told of.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        match self {
            AskError::Send(error) => error.is_disconnected(),
            AskError::Recv(error) => error.is_disconnected(),
        }
    }
}

impl From<river_core::RecvError> for RecvError {
    fn from(error: river_core::RecvError) -> Self {
        match error {
            river_core::RecvError::Down(down) => RecvError::Down(down),
            river_core::RecvError::Stopped => RecvError::Stopped,
            river_core::RecvError::Reentrant => RecvError::Reentrant,
            other => RecvError::Core(other),
        }
    }
}

/// A pattern cannot be sent because one of its constraints is code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the constraint on `{name}`, {constraint}, cannot be sent: only values, ranges, ANY, ABSENT, one_of and not can"
)]
pub struct TemplateError {
    /// The attribute that the constraint is on.
    pub name: String,
    /// The constraint, as text.
    pub constraint: String,
}

/// A message that waited while a receive timed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NearMiss {
    /// The message and its source, as text.
    pub message: String,
    /// The constraints that did not hold, as text.
    pub failed: Vec<String>,
}

fn list(queued: usize, near: &[NearMiss]) -> String {
    if queued == 0 {
        return "; the queue is empty".into();
    }
    let mut text = format!("; {queued} other message(s) wait in the queue");
    for NearMiss { message, failed } in near {
        text += &format!("\n    {message}, but not {}", failed.join(", "));
    }
    if queued > near.len() && !near.is_empty() {
        text += "\n    ...";
    }
    text
}

/// Why an attribute could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GetError {
    /// The message has no attribute of that name.
    #[error("the message has no attribute `{name}`, only: {}", present.join(", "))]
    Missing {
        /// The name asked for.
        name: String,
        /// The names of the attributes that it has.
        present: Vec<String>,
    },
    /// The attribute holds a value of another type.
    #[error("attribute `{name}` was sent as {sent}, which cannot be read as {wanted}")]
    Type {
        /// The attribute.
        name: String,
        /// The type that was sent.
        sent: String,
        /// The type asked for.
        wanted: String,
    },
    /// The attribute holds a number that does not fit the requested type.
    #[error("attribute `{name}` (sent as {sent}) holds {value}, which does not fit into {wanted}")]
    Range {
        /// The attribute.
        name: String,
        /// The type that was sent.
        sent: String,
        /// The number.
        value: String,
        /// The type asked for.
        wanted: String,
    },
    /// The type is right, but its `Deserialize` refuses the value, or the bytes are damaged.
    #[error("attribute `{name}` cannot be decoded as {wanted}: {error}")]
    Decode {
        /// The attribute.
        name: String,
        /// The type asked for.
        wanted: String,
        /// What was wrong.
        error: String,
    },
}

/// Why a [`Blob`](crate::Blob) cannot be viewed as a slice of the requested type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// It was made from elements of another type.
    #[error("the blob holds elements of type {sent}, not {wanted}")]
    Type {
        /// The type of the elements that it was made from.
        sent: String,
        /// The type asked for.
        wanted: String,
    },
    /// Its length is not a multiple of the element's size, or differs from that of the slice to be filled.
    #[error("{bytes} bytes are not {wanted}")]
    Size {
        /// The blob's length in bytes.
        bytes: usize,
        /// The type or length that was requested.
        wanted: String,
    },
    /// Its address is not aligned for such elements. [`Blob::to_vec`](crate::Blob::to_vec) makes an aligned copy.
    #[error("the blob is not aligned for elements of type {wanted}; copy it with `to_vec`")]
    Misaligned {
        /// The type asked for.
        wanted: String,
    },
}
