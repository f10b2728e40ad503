//! The messages between ranks and their supervisor.

use river_core::VrId;
use river_core::code::CodePtr;
use serde::{Deserialize, Serialize};

use crate::coll::Names;

/// A message from the supervisor to a rank.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// All ranks have started. Contains their ids, their places, and the algorithms named in the program's environment.
    Start { ranks: Vec<VrId>, places: Vec<Place>, algorithms: Names },
    /// The job is ending: every wait returns an error.
    End,
    /// All ranks seem to wait; report whether you still do.
    StillWaiting,
    /// The result of an agreement.
    Agreed(Agreement),
}

/// The place where a rank runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Equal for ranks that share a process.
    pub(crate) host: u32,
    /// Equal for ranks that share a machine.
    pub(crate) machine: u32,
}

/// Everything from which a rank can be created, on this VM or another one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Life {
    pub(crate) rank: u32,
    /// Leads to the function that the rank runs.
    pub(crate) body: CodePtr,
    pub(crate) survive: bool,
    /// The safepoint from which the rank continues, if there is one.
    pub(crate) past: Option<Past>,
}

/// The state of a rank at a safepoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Past {
    /// The encoded order that started it.
    pub(crate) start: Vec<u8>,
    /// The encoded state of its engine.
    pub(crate) engine: Vec<u8>,
    /// The number of collective operations on the world so far, followed by the number of agreements.
    pub(crate) collectives: u32,
    pub(crate) agreements: u32,
    /// The state that the rank itself provided.
    pub(crate) state: Vec<u8>,
}

/// A message from a rank to the supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The rank's function has returned. `sent` is the number of envelopes that it has sent to each rank.
    Finished { result: Vec<u8>, sent: Vec<u64> },
    /// The rank has failed. `because_of` is the rank that is to blame, if it is another one.
    Failed { text: String, because_of: Option<u32> },
    /// The rank ends the job with this exit code, even if other ranks would survive.
    Aborted { text: String, code: u8 },
    /// The rank has waited for a while.
    Waiting(Waiting),
    /// The number of the wait that the rank is in, if it has reported it, and the ranks that could end this wait, except
    /// those whose end it already knows about.
    StillWaiting { number: Option<u64>, on: Vec<u32> },
    /// The rank takes part in an agreement.
    Agree { key: AgreementKey, members: Vec<u32>, proposal: Proposal },
}

/// The object of a rank's wait, and how many envelopes it has sent to and received from each rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Waiting {
    /// Numbers the reported waits of this rank.
    pub(crate) number: u64,
    pub(crate) what: String,
    pub(crate) sent: Vec<u64>,
    pub(crate) received: Vec<u64>,
}

/// Identifies an agreement: the communicator's context, the first of its members (since disjoint groups may share a context),
/// and the number of earlier agreements on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct AgreementKey {
    pub(crate) context: u32,
    pub(crate) first: u32,
    pub(crate) number: u32,
}

/// The contribution of a member to an agreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proposal {
    pub(crate) flags: u64,
    /// The lowest context that the member has not used.
    pub(crate) highest: u32,
}

/// The result of an agreement of all members that are left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Agreement {
    pub(crate) key: AgreementKey,
    /// The flags of all members, combined by AND.
    pub(crate) flags: u64,
    /// The maximum of the members' values.
    pub(crate) highest: u32,
    /// The members that are gone.
    pub(crate) gone: Vec<u32>,
}
