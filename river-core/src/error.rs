//! Error types, one per family of operations. Every message says what happened, to which VR or VM, and what can be done about
//! it, if anything.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::down::Down;
use crate::id::VrId;
use crate::panics::Trace;

/// The error that a VR's `main` or a program returns: any error, kept with the chain of its causes.
///
/// `?` converts every error type into it. It does not implement `Error` itself, as it is sent between machines as text.
pub struct VrError(Box<dyn std::error::Error + Send + Sync>);

impl VrError {
    /// Creates an error from a message.
    pub fn msg(text: impl Into<String>) -> Self {
        Self(text.into().into())
    }

    /// Returns the backtrace of the panic that caused this error, perhaps on another machine, if a panic did and
    /// `RUST_BACKTRACE` is set there.
    #[must_use]
    pub fn trace(&self) -> Option<&Trace> {
        let mut cause = self.0.source();
        while let Some(error) = cause {
            if let Some(trace) = error.downcast_ref() {
                return Some(trace);
            }
            cause = error.source();
        }
        None
    }

    /// Returns the error that was converted into this one, if it is an `E`.
    #[must_use]
    pub fn downcast_ref<E: std::error::Error + 'static>(&self) -> Option<&E> {
        self.0.downcast_ref()
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for VrError {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl fmt::Display for VrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut cause = self.0.source();
        while let Some(error) = cause.filter(|error| !error.is::<Trace>()) {
            let text = error.to_string();
            // Some errors quote their cause in the middle of their own message.
            if !said.contains(&text) {
                write!(f, ": {text}")?;
            }
            said = text;
            cause = error.source();
        }
        Ok(())
    }
}

/// Like `Display`, followed by the backtrace of the panic that caused the error, if one did and its backtrace is known.
impl fmt::Debug for VrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)?;
        self.trace().map_or(Ok(()), |trace| write!(f, "\n{trace}"))
    }
}

/// The result of a VR's `main` and of a program.
pub type Result<T = ()> = std::result::Result<T, VrError>;

/// Why an envelope was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The destination is gone.
    #[error("cannot send: {0}")]
    Down(Down),
    /// The destination has limited its mailbox, which is full. Nothing was sent; sending again later may succeed.
    #[error("cannot send to VR {}: its mailbox is full", .0.short())]
    Full(VrId),
    /// The program is ending.
    #[error("cannot send to VR {}: the program is ending", .0.short())]
    Stopped(VrId),
    /// The VR is being replayed and has diverged from its record.
    #[error(transparent)]
    Diverged(#[from] Box<Divergence>),
}

impl SendError {
    /// Whether the destination can never be reached again.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        matches!(self, SendError::Down(_))
    }

    /// Whether the destination's mailbox is full, and sending again later may succeed.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, SendError::Full(_))
    }
}

/// Why a receive returned without an envelope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// Nothing that matches came in time.
    #[error("nothing that matches arrived within {waited:?} ({queued} other messages wait in the queue)")]
    Timeout {
        /// How long the receive waited.
        waited: Duration,
        /// How many envelopes that did not match are queued.
        queued: usize,
    },
    /// The VR that could have answered is gone, or a watched one is.
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
    /// The envelope of a posted receive has already been returned by `test`.
    #[error("the envelope of this posted receive was already returned by `test`")]
    HandedOut,
    /// The VR is being replayed and has diverged from its record.
    #[error(transparent)]
    Diverged(#[from] Box<Divergence>),
}

impl RecvError {
    /// Whether the deadline passed and a later receive may succeed.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, RecvError::Timeout { .. })
    }

    /// Whether the receive ended because a VR is gone.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        matches!(self, RecvError::Down(_))
    }
}

/// Why virtual machines could not be found, leased or used. Sent by the initiator to the VR that asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum DeployError {
    /// Fewer VMs than were asked for could be leased. None of them is kept.
    #[error("{wanted} VMs were asked for, {} could be had{}: start more with `river vm -n {}` or ask for fewer", got.len(), list(got, busy), wanted.saturating_sub(got.len()))]
    TooFew {
        /// How many were asked for.
        wanted: usize,
        /// The names of those that could have been leased.
        got: Vec<String>,
        /// Those that another program holds: VM and program.
        busy: Vec<(String, String)>,
    },
    /// A VM could not be reached, or closed the connection.
    #[error("VM {vm}: {error}")]
    Vm {
        /// The VM's name.
        vm: String,
        /// What happened.
        error: String,
    },
    /// A VM named by the caller is not leased by this program.
    #[error("VM {0} is not leased by this program: allocate it first")]
    NotLeased(String),
    /// Searching failed.
    #[error("cannot search for VMs: {0}")]
    Discovery(String),
    /// There are VMs, but all of them speak another version of the protocol.
    #[error(
        "{count} VMs were found, but they speak protocol version {theirs} and this program speaks {ours}: use the same version of River on both sides"
    )]
    OtherVersion {
        /// How many there are.
        count: usize,
        /// The version that most of them speak.
        theirs: u16,
        /// The version that this program speaks.
        ours: u16,
    },
    /// The state of a VR cannot be encoded or decoded.
    #[error("the state of VR type {name} cannot be sent: {error}")]
    State {
        /// The Rust type of the VR.
        name: String,
        /// The error of the encoding.
        error: String,
    },
    /// The program is ending.
    #[error("the program is ending")]
    Stopped,
    /// The VR is being replayed and has diverged from its record.
    #[error(transparent)]
    Diverged(#[from] Box<Divergence>),
    /// The VRs run, but one of those that should be mirrored has no twin.
    #[error("a VR that should be mirrored has no twin: {0}")]
    Mirror(Box<MigrateError>),
}

/// Why a VR could not be published to other programs, or a VR of another program could not be found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The VR is recoverable: messages from other programs could not be restored with its state.
    #[error(
        "a recoverable VR cannot communicate with other programs, since their messages could not be restored"
    )]
    Recoverable,
    /// The name is empty or too long.
    #[error("{0:?} is not a valid name of a service: it must have 1 to {max} bytes", max = Self::MAX_NAME)]
    Name(String),
    /// Another VR of this process has already published the name.
    #[error("another VR of this process has already published the name {0:?}")]
    Taken(String),
    /// Searches cannot be answered.
    #[error("other programs could not find the service {name:?}: {error}")]
    Listen {
        /// The name.
        name: String,
        /// What the system said.
        error: String,
    },
    /// There is no such service.
    #[error(
        "no program publishes {0:?}: is it running, with the same key (`river key`) and the same RIVER_PORT, and, on another machine, with RIVER_NETWORK=1 on both?"
    )]
    NotFound(String),
    /// Several processes publish the name.
    #[error("{name:?} is published by {}: end all but one, or give them names of their own", .processes.join(" and by "))]
    Ambiguous {
        /// The name.
        name: String,
        /// Which processes.
        processes: Vec<String>,
    },
    /// Every process that publishes the name speaks another version of the protocol.
    #[error(
        "no program publishes {name:?} in protocol version {ours}, but {count} programs that publish services speak version \
         {theirs}: use the same version of River on both sides"
    )]
    OtherVersion {
        /// The name.
        name: String,
        /// How many processes.
        count: usize,
        /// The version that most of them speak.
        theirs: u16,
        /// The version that this program speaks.
        ours: u16,
    },
    /// The search could not be made.
    #[error("cannot search for the service {name:?}: {error}")]
    Search {
        /// The name.
        name: String,
        /// What went wrong.
        error: String,
    },
    /// The service was found, but its process could not be reached or did not admit this program.
    #[error("{name:?} was found in {process}, but cannot be used: {error}")]
    Unreachable {
        /// The name.
        name: String,
        /// Which process.
        process: String,
        /// What went wrong.
        error: String,
    },
}

impl ServiceError {
    /// The most bytes that a name can have.
    pub const MAX_NAME: usize = 256;
}

/// A replay of a recoverable VR has diverged from its record.
///
/// Between two calls on [`Vr`](crate::Vr) such a VR must be deterministic. The usual causes of a divergence are a clock other
/// than [`Vr::now`](crate::Vr::now), random numbers that are not from [`Vr::rng`](crate::Vr::rng), a hash map whose order
/// affects what is sent, threads of the VR's own, and files and variables that have changed in the meantime. All of these can
/// be used safely through [`Vr::effect`](crate::Vr::effect).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error(
    "this VR is run again from its record, and is not deterministic: line {line} of the record since {} says {recorded}, \
     but now comes {done} (between calls on Vr use no clock but vr.now(), no random numbers but vr.rng(), no order of a \
     hash map, and vr.effect() for all else that may differ)",
    place(*.safepoints)
)]
pub struct Divergence {
    /// The line of the record at which they differ, counted from 1.
    pub line: u64,
    /// The number of the safepoint at which the record begins; 0 if it begins at the beginning of the VR.
    pub safepoints: u64,
    /// What was recorded.
    pub recorded: String,
    /// What the replay did instead.
    pub done: String,
}

fn place(safepoints: u64) -> String {
    match safepoints {
        0 => "its beginning".into(),
        number => format!("safepoint {number}"),
    }
}

/// Why a VR's state could not be saved or restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The VR is being replayed and has diverged from its record.
    #[error(transparent)]
    Diverged(#[from] Box<Divergence>),
    /// Receives are posted. They live on the VR's stack, which a safepoint does not save.
    #[error("a safepoint was called while receives are posted: complete or drop them first")]
    Posted,
    /// A value cannot be encoded, or cannot be decoded as the requested type.
    #[error("{name} cannot be stored: {error}")]
    Value {
        /// The Rust type.
        name: String,
        /// The error of the encoding.
        error: String,
    },
    /// At least one VR of the program is not recorded.
    #[error(
        "VR {} ({name}) {on} is not recoverable{}: deploy it with deploy_recoverable, or run the program with \
         `river run --recoverable`; a helper that was started by Vr::spawn has to end first",
        vr.short(), others(*.more)
    )]
    NotRecoverable {
        /// One of them.
        vr: VrId,
        /// Its Rust type, or the name of the helper.
        name: String,
        /// Where it is.
        on: String,
        /// How many more there are.
        more: usize,
    },
    /// A process of the program died, or did not answer, while the checkpoint was being taken.
    #[error("the checkpoint was cancelled: {0}")]
    GivenUp(String),
    /// A checkpoint cannot be written or read.
    #[error("{path}: {error}")]
    File {
        /// Which file or directory.
        path: String,
        /// What is wrong.
        error: String,
    },
    /// There is no checkpoint in a directory, or none of the run that is asked for.
    #[error("{path}: there is no checkpoint{} in this directory", if *of_run { " of this run" } else { "" })]
    NoCheckpoint {
        /// The directory.
        path: String,
        /// Whether the directory may hold checkpoints of other runs.
        of_run: bool,
    },
    /// A checkpoint cannot be kept in the memory of the program's VMs, or cannot be fetched from there now.
    #[error("a checkpoint in memory: {0}")]
    Memory(String),
    /// Of no checkpoint the VMs have all that it takes any more.
    #[error("a checkpoint in memory: {0}")]
    NoneKept(String),
    /// The program is ending.
    #[error("the program is ending")]
    Stopped,
    /// A checkpoint cannot be written to the program's store or read from it, or there is none.
    #[error("{0}")]
    Store(String),
}

/// Why a VR was not moved to another VM. It continues where it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// The program has no such VR.
    #[error("the program has no VR {vr}; it has {known}")]
    Unknown {
        /// The beginning of the id that was asked for.
        vr: String,
        /// The VRs that are alive, and where.
        known: String,
    },
    /// Several VRs have an id that begins so.
    #[error("{count} VRs have an id that begins with {vr}: use more of it")]
    Ambiguous {
        /// The beginning of the id that was asked for.
        vr: String,
        /// How many VRs have such an id.
        count: usize,
    },
    /// The VR has ended.
    #[error("nothing was moved: {0}")]
    Ended(Down),
    /// The VR is the program's initiator, which cannot be moved.
    #[error("VR {} is the program's initiator, which stays where it was started", .0.short())]
    Initiator(VrId),
    /// At least one VR of the program is not recorded. All must be, since all of them are stopped for the move.
    #[error(
        "VR {} ({name}) {on} is not recoverable{}: deploy it with deploy_recoverable, or run the program with \
         `river run --recoverable`; a helper that was started by Vr::spawn has to end first",
        vr.short(), others(*.more)
    )]
    NotRecoverable {
        /// One of them.
        vr: VrId,
        /// Its Rust type, or the name of the helper.
        name: String,
        /// Where it is.
        on: String,
        /// How many more there are.
        more: usize,
    },
    /// The VM cannot take the VR: another program has it, or it cannot run this one.
    #[error("VM {vm}: {error}")]
    Vm {
        /// The VM's name.
        vm: String,
        /// What is wrong.
        error: String,
    },
    /// The VR is busy with an effect or a request to the program, which cannot be moved and does not end.
    #[error("VR {} is busy with {call}, which cannot be moved and does not end", vr.short())]
    Busy {
        /// Which VR.
        vr: VrId,
        /// What it is busy with.
        call: String,
    },
    /// A process died or did not answer. The migration was undone.
    #[error("the migration was cancelled and undone: {0}")]
    GivenUp(String),
    /// The program is ending.
    #[error("the program is ending")]
    Stopped,
    /// The VR that asked for the migration is being replayed and has diverged from its record.
    #[error(transparent)]
    Diverged(#[from] Box<Divergence>),
}

fn others(more: usize) -> String {
    match more {
        0 => String::new(),
        more => format!(", nor are {more} others"),
    }
}

fn list(got: &[String], busy: &[(String, String)]) -> String {
    let mut text = String::new();
    if !got.is_empty() {
        text += &format!(" ({})", got.join(", "));
    }
    for (vm, program) in busy {
        text += &format!("; {vm} is in use by {program}");
    }
    text
}
