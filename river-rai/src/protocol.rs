//! What a client and a server say to each other. Every request and every reply is one envelope; arguments and results
//! are a part of it that is not copied on its way.

use std::fmt;

use river_core::VrId;
use river_core::code::CodePtr;
use serde::{Deserialize, Serialize};

/// Names one call of one client, from the request to its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ticket(pub(crate) u64);

/// Names an object on its server. The client chooses the number, so that it can call the object before it has heard
/// that it exists; with the owner's name in it, no two clients choose the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ObjectId {
    pub(crate) owner: VrId,
    pub(crate) number: u64,
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "object {} of VR {}", self.number, self.owner.short())
    }
}

/// What is asked of a server. The ticket says which reply is the answer; an operation without one has no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Op {
    /// Call a function.
    Call { ticket: Ticket, code: CodePtr },
    /// Call a function and keep what it returns as an object.
    Create { ticket: Ticket, object: ObjectId, code: CodePtr },
    /// Call a method of an object.
    Invoke { ticket: Ticket, object: ObjectId, code: CodePtr },
    /// Send an object back and forget it.
    Take { ticket: Ticket, object: ObjectId, code: CodePtr },
    /// Forget an object.
    Delete { object: ObjectId },
    /// End when everything that was asked before has been done.
    Stop,
}

/// Why a server could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Failure {
    /// The user's code panicked: text and place, and the VM.
    Panicked { text: String, vm: String },
    /// The code pointer is not one of the server's, or leads to something that is no call of this kind.
    NoSuchFunction(String),
    /// The object was never made, or is gone.
    NoSuchObject(ObjectId),
    /// The object is of another type.
    WrongType { found: String },
    /// The arguments cannot be read.
    Arguments(String),
    /// The result cannot be written.
    Result(String),
}
