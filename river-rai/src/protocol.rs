//! What a client and a server say to each other. Every request and every reply is one envelope; arguments and results
//! are a part of it that is not copied on its way.

use std::fmt;

use river_core::code::CodePtr;
use river_core::{Panic, VrId};
use serde::{Deserialize, Serialize};

use crate::signature::{Digest, Signature};

/// Names one call of one client, from the request to its reply. A client's tickets grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ticket(pub(crate) u64);

/// Names an object on its server. The client chooses the number, so that it can call the object before it has heard
/// that it exists; with the owner's name in it, no two clients choose the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct ObjectId {
    pub(crate) owner: VrId,
    pub(crate) number: u64,
}

impl ObjectId {
    /// The reference of who has created it.
    pub(crate) fn first_reference(self) -> Reference {
        Reference { by: self.owner, number: self.number }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "object {} of VR {}", self.number, self.owner.short())
    }
}

/// Names one reference to an object: what one VR holds, however many handles it has made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Reference {
    /// Who made the reference, for itself or for another.
    pub(crate) by: VrId,
    pub(crate) number: u64,
}

/// The object that is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Target {
    Object(ObjectId),
    Named(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Object(id) => id.fmt(f),
            Target::Named(name) => write!(f, "{name:?}"),
        }
    }
}

/// The function that is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Function {
    Code(CodePtr),
    /// What the server has exported under that name, if it takes and returns these types.
    Named {
        name: String,
        signature: Digest,
    },
}

/// What is asked of a server. The ticket says which reply is the answer; without one there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) ticket: Option<Ticket>,
    pub(crate) op: Op,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Op {
    /// Call a function.
    Call(Function),
    /// Call a function and keep what it returns as an object, to which the caller has this first reference.
    Create { object: ObjectId, function: Function },
    /// Call a function and keep what it returns under a name, as long as the caller lives.
    Put { object: ObjectId, name: String, function: Function },
    /// Call a method of an object.
    Invoke { target: Target, function: Function },
    /// Send an object back and forget it.
    Take { target: Target, function: Function },
    /// Note a reference that another VR gets.
    Grant { target: Target, reference: Reference, to: VrId },
    /// Forget a reference; with the last one the object goes.
    Release(Reference),
    /// Forget what has this name.
    Remove(String),
    /// Make a function known by name.
    Export(Export),
    /// Do not begin a call, or tell it that nobody wants its result.
    Cancel(Ticket),
    /// From a helper of the server: it has done something that the server has to look at.
    Back,
    /// Show a capability, for all further requests.
    Present(Capability),
    /// End when everything that was asked before has been done.
    Stop,
}

/// A function that a server makes known by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Export {
    pub(crate) name: String,
    pub(crate) signature: Signature,
    pub(crate) code: CodePtr,
    /// What a client must have shown.
    pub(crate) capability: Option<Capability>,
}

/// A secret that a client shows to be served: of [`Exports`](crate::Exports). It cannot be guessed; who has it may pass it on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Capability(u128);

impl Capability {
    /// One that nobody else has.
    #[must_use]
    pub fn fresh() -> Self {
        Self(VrId::fresh().as_uuid().as_u128())
    }
}

/// Does not show the secret.
impl fmt::Debug for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Capability(..)")
    }
}

/// Why a server could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Failure {
    /// The user's code panicked, on that VM.
    Panicked { panic: Panic, vm: String },
    /// The code pointer is not one of the server's, or leads to something that is no call of this kind.
    NoSuchFunction(String),
    /// The object was never made, or is gone.
    NoSuchObject(Target),
    /// The object is of another type.
    WrongType { found: String },
    /// The arguments cannot be read.
    Arguments(String),
    /// The result cannot be written.
    Result(String),
    /// The function has another signature.
    Signature { exported: String, called: Digest },
    /// The server does not let this client do that.
    Refused(String),
    /// The client has cancelled the call before it began.
    Cancelled,
}
