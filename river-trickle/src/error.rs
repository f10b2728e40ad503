//! What can go wrong.

use std::fmt;
use std::ops::Range;

use river_core::{DeployError, Trace};
use river_rai::CallError;

/// Why a Trickle operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrickleError {
    /// VMs could not be found, leased or used; if there were too few, it lists those found and how to start more.
    #[error(transparent)]
    Deploy(#[from] DeployError),
    /// A call, or the join of a fork, failed.
    #[error("VM {vm}: {error}")]
    Call {
        /// The name of the VM.
        vm: String,
        /// What happened.
        #[source]
        error: CallError,
    },
    /// The function panicked. The VM goes on.
    #[error("the function panicked on {items} (VM {vm}): {text}")]
    Panicked {
        /// The items that it was working on.
        items: Items,
        /// The name of the VM.
        vm: String,
        /// The message of the panic, with its location.
        text: String,
        /// The backtrace, if `RUST_BACKTRACE` is set. Printed by `{:?}`.
        #[source]
        trace: Option<Trace>,
    },
    /// The fold was cancelled before all work was done: see [`ForkFold::cancel_when`](crate::ForkFold::cancel_when).
    #[error("cancelled")]
    Cancelled,
    /// The function took longer than [`ForkGen::deadline`](crate::ForkGen::deadline) or
    /// [`ForkFold::deadline`](crate::ForkFold::deadline) allows.
    #[error("{items} took longer than the deadline of {limit:?} (VM {vm})")]
    TimedOut {
        /// The items that it was working on.
        items: Items,
        /// The name of the VM.
        vm: String,
        /// The deadline.
        limit: std::time::Duration,
    },
    /// The work could not be encoded locally, so no VM has received it.
    #[error("{items} cannot be sent to any VM: {error}")]
    Unsendable {
        /// The items concerned.
        items: Items,
        /// The error of the encoding.
        #[source]
        error: Box<CallError>,
    },
    /// The work could not be decoded on a VM, or its result not encoded.
    #[error("{items} failed on VM {vm}: {error}")]
    Items {
        /// The items concerned.
        items: Items,
        /// The name of the VM.
        vm: String,
        /// What happened.
        #[source]
        error: Box<CallError>,
    },
    /// Too many VMs died while they worked on these items, so the items are probably the cause.
    #[error("{items} were given up, as every VM that worked on them died: {}", list(deaths))]
    Deadly {
        /// The items concerned.
        items: Items,
        /// How each of the VMs died.
        deaths: Vec<Death>,
    },
    /// All VMs are gone and there is work left.
    #[error("no VM is left{}{}", if deaths.is_empty() { "" } else { ": " }, list(deaths))]
    NoVmLeft {
        /// How each of them died.
        deaths: Vec<Death>,
    },
    /// The chunk size was 0.
    #[error("a chunk of 0 items is no work: use a chunk size of at least 1")]
    ChunkZero,
    /// There are more functions, or tuples of arguments, than VMs.
    #[error(
        "there are {vms} VMs, but functions or arguments for more: use `forkwork` to spread work over fewer VMs"
    )]
    TooManyArguments {
        /// How many VMs there are.
        vms: usize,
    },
    /// `joinany` was called with an empty list.
    #[error("there is no handle to join")]
    NothingToJoin,
    /// The wait was called from within a receive's predicate, where nothing can be received.
    #[error("a farm was used from within a receive's predicate: predicates may only look at the message")]
    Reentrant,
    /// A function that runs on a VM waits for others on the same VM, which would run only after it.
    #[error(
        "this function waits for work that only its own VM can do: do not wait for a call to one's own VM from inside a call, \
         or use another VM"
    )]
    Itself,
    /// The program is ending.
    #[error("the program is ending")]
    Stopped,
}

impl TrickleError {
    /// The error of waiting itself, whichever VM the result would have come from.
    pub(crate) fn waiting(error: &CallError) -> Self {
        match error {
            CallError::Reentrant(_) => TrickleError::Reentrant,
            CallError::Itself(_) => TrickleError::Itself,
            _ => TrickleError::Stopped,
        }
    }

    /// Whether VMs were lost, so that repeating the operation cannot succeed.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        match self {
            TrickleError::NoVmLeft { .. } => true,
            TrickleError::Call { error, .. } => error.is_disconnected(),
            TrickleError::Items { error, .. } => error.is_disconnected(),
            _ => false,
        }
    }
}

/// Whether a call failed because of the values that it was given or returned, be it that they cannot be encoded or
/// decoded, or that their code panicked.
pub(crate) fn concerns_values(error: &CallError) -> bool {
    matches!(error, CallError::Panicked { .. } | CallError::Encode { .. } | CallError::Decode { .. })
}

/// A range of consecutive items of the work, counted from 0 in the order in which they were pulled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Items(pub Range<u64>);

impl fmt::Display for Items {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { start, end } = self.0;
        if end == start + 1 { write!(f, "item {start}") } else { write!(f, "items {start}..{end}") }
    }
}

/// How a VM was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// The VM's name.
    pub vm: String,
    /// The reason for its end, as far as it is known.
    pub why: String,
}

fn list(deaths: &[Death]) -> String {
    let deaths: Vec<String> = deaths.iter().map(|Death { vm, why }| format!("VM {vm}: {why}")).collect();
    deaths.join("; ")
}
