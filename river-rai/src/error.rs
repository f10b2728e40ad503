//! What can go wrong with a call.

use river_core::{Divergence, Down, Panic, RecvError, SendError, Trace, VrId};

use crate::protocol::Failure;
use crate::signature::{difference, text_of};

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The function panicked. The server goes on, and so does the object if it was a method; changes that the function
    /// had made before remain.
    #[error("{function} panicked on VM {vm}: {text}")]
    Panicked {
        /// The Rust name of the function.
        function: String,
        /// The VM on which it ran.
        vm: String,
        /// The message of the panic, with its location.
        text: String,
        /// The backtrace, if the server runs with `RUST_BACKTRACE` set, as it does if this program does. Printed by
        /// `{:?}`.
        #[source]
        trace: Option<Trace>,
    },
    /// The server is gone. Whether the function has run is unknown.
    #[error("no answer to the call, as its server is gone: {0}")]
    Down(Down),
    /// The arguments or the result cannot be encoded: an error of their `Serialize` implementation.
    #[error("{what} of {function} cannot be encoded: {error}")]
    Encode {
        /// "the arguments" or "the result".
        what: &'static str,
        /// The Rust name of the function.
        function: String,
        /// The error of the encoding.
        error: String,
    },
    /// The arguments or the result cannot be decoded: their `Serialize` and `Deserialize` implementations disagree.
    #[error("{what} of {function} cannot be decoded: {error}")]
    Decode {
        /// "the arguments" or "the result".
        what: &'static str,
        /// The Rust name of the function.
        function: String,
        /// The error of the encoding.
        error: String,
    },
    /// The server does not know the function: none is exported under that name, or the code pointer does not belong to
    /// the server's image.
    #[error("the server has no function {function} ({error})")]
    NoSuchFunction {
        /// The Rust name of the function.
        function: String,
        /// What the server found at the code pointer.
        error: String,
    },
    /// The object does not exist: its constructor failed, or it has been freed.
    #[error(
        "cannot call {function}: {object} does not exist on the server (its constructor failed, or it is gone)"
    )]
    NoSuchObject {
        /// The Rust name of the method.
        function: String,
        /// The object.
        object: String,
    },
    /// The object is of another type than the method expects.
    #[error("cannot call {function}: the object is a {found}")]
    WrongType {
        /// The Rust name of the method.
        function: String,
        /// The Rust type of the object.
        found: String,
    },
    /// The collection has no item with that key, and no place for it.
    #[error("{object} has no item {key}")]
    NoSuchItem {
        /// The Rust type of the collection.
        object: String,
        /// The key.
        key: String,
    },
    /// The function exported under that name takes or returns other types, or types of the same names with other fields
    /// or variants.
    #[error("{}", difference(function, exported, called))]
    Signature {
        /// The name.
        function: String,
        /// The signature on the server.
        exported: String,
        /// The signature that the caller expected.
        called: String,
    },
    /// The server refuses this to this client.
    #[error("the server refuses {function}: {why}")]
    Refused {
        /// The function.
        function: String,
        /// The reason.
        why: String,
    },
    /// No result arrived in time. The server was told to cancel the call; whether the function has run is unknown.
    #[error("no answer to {function} in time")]
    Timeout {
        /// The Rust name of the function.
        function: String,
    },
    /// The call was cancelled before it began.
    #[error("{0} was cancelled")]
    Cancelled(String),
    /// A reference was opened by a VR to which it was not granted.
    #[error("the reference was granted to VR {}, and nobody else can open it", holder.short())]
    NotGranted {
        /// The VR to which it was granted.
        holder: VrId,
    },
    /// The result has already been returned.
    #[error("the result of {0} has been taken already")]
    Taken(String),
    /// The call was made from within a receive's predicate, where nothing can be received.
    #[error("{0} was called from within a receive's predicate: predicates may only look at the message")]
    Reentrant(String),
    /// The server would wait for a call to itself, which it can execute only after the waiting function has returned.
    /// The call is cancelled. On a [concurrent](crate::RaiServer::concurrent) server functions can call others of the
    /// same server.
    #[error(
        "{0} would be waited for by its own server, which can do it only afterwards: make the server `concurrent`"
    )]
    Itself(String),
    /// The server has limited its mailbox, which is full. Nothing was sent; calling again later may succeed.
    #[error("cannot call VR {}: its mailbox is full", .0.short())]
    Full(VrId),
    /// This VR is being replayed and does not do what its record says.
    #[error(transparent)]
    Diverged(#[from] Box<Divergence>),
    /// The program is ending.
    #[error("the program is ending")]
    Stopped,
}

impl CallError {
    /// Whether the server can never be reached again.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        matches!(self, CallError::Down(_))
    }

    /// Whether a time limit was exceeded.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, CallError::Timeout { .. })
    }

    pub(crate) fn sending(error: SendError) -> Self {
        match error {
            SendError::Down(down) => CallError::Down(down),
            SendError::Full(server) => CallError::Full(server),
            SendError::Diverged(divergence) => CallError::Diverged(divergence),
            _ => CallError::Stopped,
        }
    }

    pub(crate) fn receiving(error: &RecvError, function: &str) -> Self {
        match error {
            RecvError::Down(down) => CallError::Down(down.clone()),
            RecvError::Reentrant => CallError::Reentrant(function.into()),
            RecvError::Diverged(divergence) => CallError::Diverged(divergence.clone()),
            // The other errors concern user-supplied deadlines and patterns, which this layer does not have.
            _ => CallError::Stopped,
        }
    }

    pub(crate) fn remote(failure: Failure, function: &str) -> Self {
        let function = function.to_owned();
        match failure {
            Failure::Panicked { panic: Panic { text, trace }, vm } => {
                CallError::Panicked { function, vm, text, trace }
            }
            Failure::NoSuchFunction(error) => CallError::NoSuchFunction { function, error },
            Failure::NoSuchObject(object) => CallError::NoSuchObject { function, object: object.to_string() },
            Failure::WrongType { found } => CallError::WrongType { function, found },
            Failure::Arguments(error) => CallError::Decode { what: "the arguments", function, error },
            Failure::Result(error) => CallError::Encode { what: "the result", function, error },
            Failure::Signature { exported, called } => {
                let called = text_of(&called).unwrap_or_else(|| "something else".into());
                CallError::Signature { function, exported, called }
            }
            Failure::Refused(why) => CallError::Refused { function, why },
            Failure::Cancelled => CallError::Cancelled(function),
        }
    }
}
