//! The requests and replies of clients and servers. Each is one envelope; arguments and results are a part of it that
//! is not copied on its way.

use std::fmt;

use river_core::code::CodePtr;
use river_core::{Panic, VrId};
use serde::{Deserialize, Serialize};

use crate::signature::{Digest, Signature};

/// Identifies a call of one client, from the request to its reply. A client's tickets increase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ticket(pub(crate) u64);

/// Identifies an object on its server. The client chooses the number, so that it can call the object before it has been
/// created; as the id contains the owner, no two clients choose the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct ObjectId {
    pub(crate) owner: VrId,
    pub(crate) number: u64,
}

impl ObjectId {
    /// The reference held by the VR that created it.
    pub(crate) fn first_reference(self) -> Reference {
        Reference { by: self.owner, number: self.number }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "object {} of VR {}", self.number, self.owner.short())
    }
}

/// Identifies a reference to an object: what one VR holds, however many handles it has made from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Reference {
    /// The VR that made the reference, for itself or for another.
    pub(crate) by: VrId,
    pub(crate) number: u64,
}

/// Designates an object.
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

/// Designates a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Function {
    Code(CodePtr),
    /// The function that is exported under that name, if it takes and returns these types.
    Named {
        name: String,
        signature: Digest,
    },
}

/// A request to a server. The reply carries the same ticket; without a ticket there is no reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) ticket: Option<Ticket>,
    pub(crate) op: Op,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Op {
    /// Call a function.
    Call(Function),
    /// Call a function and keep its result as an object, to which the caller has this first reference.
    Create { object: ObjectId, function: Function },
    /// Call a function and keep its result under a name, for the lifetime of the caller.
    Put { object: ObjectId, name: String, function: Function },
    /// Call a method of an object.
    Invoke { target: Target, function: Function },
    /// Send an object back and forget it.
    Take { target: Target, function: Function },
    /// Record a reference that another VR gets.
    Grant { target: Target, reference: Reference, to: VrId },
    /// Drop a reference, and the object with the last one.
    Release(Reference),
    /// Remove the object with this name.
    Remove(String),
    /// Export a function under a name.
    Export(Export),
    /// Do not begin a call, or tell it that its result is no longer wanted.
    Cancel(Ticket),
    /// From a helper of the server: it has a report for the server.
    Back,
    /// Present a capability, for all later requests.
    Present(Capability),
    /// End when everything that was requested before has been executed.
    Stop,
    /// Do not begin a call, but leave it alone if it has begun.
    Withdraw(Ticket),
}

/// A function that a server exports by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Export {
    pub(crate) name: String,
    pub(crate) signature: Signature,
    pub(crate) code: CodePtr,
    /// The capability that a client must have presented, if any.
    pub(crate) capability: Option<Capability>,
}

/// A secret that a client presents to be served, see [`Exports`](crate::Exports). It cannot be guessed; a client that
/// has it may pass it on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Capability(u128);

impl Capability {
    /// Returns a new, random capability.
    #[must_use]
    pub fn fresh() -> Self {
        Self(VrId::fresh().as_uuid().as_u128())
    }
}

/// Does not reveal the secret.
impl fmt::Debug for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Capability(..)")
    }
}

/// Why a server could not execute a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Failure {
    /// The user's code panicked, on that VM.
    Panicked { panic: Panic, vm: String },
    /// The code pointer is not one of the server's, or does not lead to a call of this kind.
    NoSuchFunction(String),
    /// The object was never created, or is gone.
    NoSuchObject(Target),
    /// The object is of another type.
    WrongType { found: String },
    /// The arguments cannot be decoded.
    Arguments(String),
    /// The result cannot be encoded.
    Result(String),
    /// The function has another signature.
    Signature { exported: String, called: Digest },
    /// The server refuses this to this client.
    Refused(String),
    /// The client cancelled the call before it began.
    Cancelled,
}
