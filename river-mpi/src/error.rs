//! What can go wrong: MPI's error classes as values.

use std::fmt;

use river_core::DeployError;
use serde::{Deserialize, Serialize};

/// What every operation of this crate returns.
pub type Result<T = ()> = std::result::Result<T, MpiError>;

/// The kind of an error, as MPI numbers them.
///
/// # Standard section
/// MPI 1.3, section 7.3; the last five are those of later standards and of this implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ErrorClass {
    /// `MPI_ERR_BUFFER`: no buffer, or not enough of it, for a buffered send.
    Buffer,
    /// `MPI_ERR_COUNT`: two lengths that must agree do not.
    Count,
    /// `MPI_ERR_TYPE`: a datatype does not fit.
    Type,
    /// `MPI_ERR_TAG`
    Tag,
    /// `MPI_ERR_COMM`
    Comm,
    /// `MPI_ERR_RANK`
    Rank,
    /// `MPI_ERR_REQUEST`
    Request,
    /// `MPI_ERR_ROOT`
    Root,
    /// `MPI_ERR_GROUP`
    Group,
    /// `MPI_ERR_TOPOLOGY`
    Topology,
    /// `MPI_ERR_DIMS`
    Dims,
    /// `MPI_ERR_ARG`
    Arg,
    /// `MPI_ERR_TRUNCATE`: a message is longer than the buffer.
    Truncate,
    /// `MPI_ERR_OTHER`
    Other,
    /// `MPI_ERR_PROC_FAILED` (MPI 5): a rank that is needed is gone.
    ProcFailed,
    /// `MPI_ERR_REVOKED` (MPI 5): the communicator was revoked.
    Revoked,
    /// Every rank waited for another.
    Deadlock,
    /// The ranks could not be started.
    Start,
    /// The job is ending.
    Stopped,
}

/// Why an operation failed: what happened, to whom, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MpiError {
    /// A rank that the communicator does not have.
    #[error("there is no rank {rank} in {comm}, which has ranks 0..{size}")]
    Rank {
        /// The rank.
        rank: String,
        /// The communicator's name.
        comm: String,
        /// How many ranks it has.
        size: usize,
    },
    /// A tag that cannot be sent.
    #[error("{0} is no tag: tags are 0..=2147483647, and only receives may ask for any")]
    Tag(String),
    /// A message is longer than the buffer that it was to go to. The message is gone.
    #[error("the message from rank {source_rank} with tag {tag} has {sent} bytes, the buffer {room}")]
    Truncated {
        /// Who sent it.
        source_rank: usize,
        /// Its tag.
        tag: i32,
        /// Its length in bytes.
        sent: usize,
        /// The length of the buffer in bytes.
        room: usize,
    },
    /// The bytes of a message are no values of the type that was asked for.
    #[error("{0}")]
    Type(String),
    /// Two lengths that must agree do not.
    #[error("{what}: expected {expected} elements, found {found}")]
    Count {
        /// What is too short or too long.
        what: &'static str,
        /// What it should have.
        expected: usize,
        /// What it has.
        found: usize,
    },
    /// A buffered send found no room.
    #[error(
        "a buffered send of {wanted} bytes found {free} bytes free: attach a larger buffer with `buffer_attach`"
    )]
    Buffer {
        /// What the message needs.
        wanted: usize,
        /// What was free.
        free: usize,
    },
    /// There is a buffer for buffered sends already.
    #[error("a buffer of {0} bytes is attached already: take it back with `buffer_detach` first")]
    BufferAttached(usize),
    /// The operation is not for this kind of communicator.
    #[error("{0}")]
    Comm(String),
    /// A root that the communicator does not have.
    #[error("root {root} is not in {comm}, which has ranks 0..{size}")]
    Root {
        /// The root.
        root: usize,
        /// The communicator's name.
        comm: String,
        /// How many ranks it has.
        size: usize,
    },
    /// A group does not have, or has twice, what was asked for.
    #[error("{0}")]
    Group(String),
    /// A topology that makes no sense, or the communicator has none.
    #[error("{0}")]
    Topology(String),
    /// Dimensions that do not fit the number of ranks.
    #[error("{0}")]
    Dims(String),
    /// Some other argument.
    #[error("{0}")]
    Arg(String),
    /// A request that is not in a state for this.
    #[error("{0}")]
    Request(String),
    /// A value that cannot be encoded, or bytes that cannot be decoded as the type that was asked for.
    #[error("a value of type {kind}: {error}")]
    Value {
        /// The Rust type.
        kind: &'static str,
        /// What serde says.
        error: String,
    },
    /// A collective operation received a message of unexpected length or contents: not all ranks have made the same call.
    #[error(
        "{operation}: rank {from} of the job sent {sent} bytes where {expected} were expected: all ranks must make the same calls in the \
         same order, with the same counts"
    )]
    Mismatch {
        /// The operation and its communicator.
        operation: String,
        /// Who has sent them: its rank in the world.
        from: usize,
        /// How many came.
        sent: usize,
        /// How many the operation expects here.
        expected: usize,
    },
    /// The length of a buffer is not a multiple of the number of ranks.
    #[error("{what}: {elements} elements are no equal blocks for {ranks} ranks")]
    Blocks {
        /// The buffer.
        what: &'static str,
        /// What it has.
        elements: usize,
        /// How many blocks it is to have.
        ranks: usize,
    },
    /// A rank that is needed is gone.
    #[error("{}rank {rank} of the job {why}", Waiting(waiting_for))]
    ProcFailed {
        /// Its rank in the world.
        rank: usize,
        /// Continues the sentence.
        why: String,
        /// What the operation waited for, if it waited.
        waiting_for: String,
    },
    /// The communicator was revoked.
    #[error("{0} was revoked: shrink it to go on with the ranks that are left")]
    Revoked(String),
    /// Every rank waits for another; the text says who waits for what.
    #[error("deadlock: every rank waits\n{0}")]
    Deadlock(String),
    /// A rank ended the job by its failure.
    #[error("rank {rank}: {text}")]
    Job {
        /// Its rank in the world.
        rank: usize,
        /// Its error.
        text: String,
    },
    /// A rank ended the job by [`abort`](crate::Communicator::abort).
    #[error("rank {rank}: {text}")]
    Aborted {
        /// Its rank in the world.
        rank: usize,
        /// What it said.
        text: String,
        /// The exit code of the program that started the job.
        code: u8,
    },
    /// The ranks could not be started.
    #[error(transparent)]
    Start(#[from] DeployError),
    /// The job is ending: another rank has failed, or the program is over.
    #[error("the job is ending")]
    Stopped,
    /// A safepoint could not be made, or restored.
    #[error("a safepoint of a rank: {0}")]
    Safepoint(String),
    /// What a function of the program says, one that copies or deletes attributes for instance.
    #[error("{0}")]
    Other(String),
    /// It was called from within a receive's predicate.
    #[error("an operation was called from within a receive's predicate, which may only look at the message")]
    Reentrant,
}

/// What was waited for, as the beginning of a text.
struct Waiting<'a>(&'a str);

impl fmt::Display for Waiting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "waiting for {}: ", self.0) }
    }
}

impl MpiError {
    /// Says of the death of a rank what was waited for.
    #[cold]
    pub(crate) fn while_waiting_for(mut self, what: impl FnOnce() -> String) -> Self {
        if let Self::ProcFailed { waiting_for, .. } = &mut self {
            *waiting_for = what();
        }
        self
    }

    /// Says of a mismatch which operation it was, and which rank of the world has sent what.
    #[cold]
    pub(crate) fn in_operation(
        mut self,
        name: impl FnOnce() -> String,
        world_rank: impl FnOnce(usize) -> u32,
    ) -> Self {
        if let Self::Mismatch { operation, from, .. } = &mut self {
            *operation = name();
            *from = world_rank(*from) as usize;
        }
        self
    }

    /// The error's class.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Rank { .. } => ErrorClass::Rank,
            Self::Tag(_) => ErrorClass::Tag,
            Self::Truncated { .. } => ErrorClass::Truncate,
            Self::Type(_) | Self::Value { .. } => ErrorClass::Type,
            Self::Count { .. } | Self::Blocks { .. } => ErrorClass::Count,
            Self::Buffer { .. } | Self::BufferAttached(_) => ErrorClass::Buffer,
            Self::Comm(_) => ErrorClass::Comm,
            Self::Root { .. } => ErrorClass::Root,
            Self::Group(_) => ErrorClass::Group,
            Self::Topology(_) => ErrorClass::Topology,
            Self::Dims(_) => ErrorClass::Dims,
            Self::Arg(_) | Self::Mismatch { .. } => ErrorClass::Arg,
            Self::Request(_) => ErrorClass::Request,
            Self::ProcFailed { .. } => ErrorClass::ProcFailed,
            Self::Revoked(_) => ErrorClass::Revoked,
            Self::Deadlock(_) => ErrorClass::Deadlock,
            Self::Start(_) => ErrorClass::Start,
            Self::Stopped => ErrorClass::Stopped,
            Self::Job { .. }
            | Self::Aborted { .. }
            | Self::Reentrant
            | Self::Safepoint(_)
            | Self::Other(_) => ErrorClass::Other,
        }
    }

    /// Whether a rank that is needed is gone for good.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        matches!(self, Self::ProcFailed { .. } | Self::Stopped)
    }
}
