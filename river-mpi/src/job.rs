//! What ranks and their supervisor say to each other, beside the messages between ranks.

use river_core::VrId;
use river_core::code::CodePtr;
use serde::{Deserialize, Serialize};

use crate::coll::Names;

/// The supervisor to a rank.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// All ranks run: their names, where they are, and the algorithms that the environment of the program names.
    Start { ranks: Vec<VrId>, places: Vec<Place>, algorithms: Names },
    /// The job ends: every wait returns an error.
    End,
    /// Everybody seems to wait; say whether you still do.
    StillWaiting,
    /// The outcome of an agreement.
    Agreed(Agreement),
}

/// Where a rank runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Ranks with the same number share a process.
    pub(crate) host: u32,
    /// Ranks with the same number share a machine.
    pub(crate) machine: u32,
}

/// What a rank is made of, here or anywhere.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Life {
    pub(crate) rank: u32,
    /// Leads to its function.
    pub(crate) body: CodePtr,
    pub(crate) survive: bool,
    /// It goes on from a safepoint.
    pub(crate) past: Option<Past>,
}

/// A rank at a safepoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Past {
    /// The order by which it was started.
    pub(crate) start: Vec<u8>,
    /// Its engine.
    pub(crate) engine: Vec<u8>,
    /// How many collective operations there were on the world, and agreements.
    pub(crate) collectives: u32,
    pub(crate) agreements: u32,
    /// What it keeps itself.
    pub(crate) state: Vec<u8>,
}

/// A rank to the supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// Its function has returned; how many envelopes it has sent to each rank.
    Finished { result: Vec<u8>, sent: Vec<u64> },
    /// It is over: the rank that is to blame, if it is another one.
    Failed { text: String, because_of: Option<u32> },
    /// It ends the job, whoever else would survive, with this exit code.
    Aborted { text: String, code: u8 },
    /// It has waited for a while.
    Waiting(Waiting),
    /// The number of the wait that it is in, if it has reported one, and the ranks that could end that wait, without those whose
    /// end it knows of.
    StillWaiting { number: Option<u64>, on: Vec<u32> },
    /// It agrees with others on something.
    Agree { key: AgreementKey, members: Vec<u32>, proposal: Proposal },
}

/// What a rank waits for, and how many envelopes it has sent to and received from each rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Waiting {
    /// Counts the waits of this rank that were reported.
    pub(crate) number: u64,
    pub(crate) what: String,
    pub(crate) sent: Vec<u64>,
    pub(crate) received: Vec<u64>,
}

/// Names an agreement: the context of the communicator, the first of its members, as groups that share a context have none in
/// common, and how many there were on it before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct AgreementKey {
    pub(crate) context: u32,
    pub(crate) first: u32,
    pub(crate) number: u32,
}

/// What a member says in an agreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proposal {
    pub(crate) flags: u64,
    /// The lowest context that it has not used.
    pub(crate) highest: u32,
}

/// What all members that are left have agreed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Agreement {
    pub(crate) key: AgreementKey,
    /// The flags of all of them, combined by AND.
    pub(crate) flags: u64,
    /// The highest of theirs.
    pub(crate) highest: u32,
    /// The members that are gone.
    pub(crate) gone: Vec<u32>,
}
