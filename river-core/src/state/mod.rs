//! The state of VRs: recorded, written down, and taken up again.
//!
//! Rust cannot copy a stack to another process, so a VR is restored by running its `main` again from the last safepoint
//! and telling it what it was told. `docs/guide/state.md` says what follows from that.
//!
//! * [`Record`]: what one VR was told, and replay with detection of divergence. Pure.
//! * [`Base`], [`Origin`]: where a record begins, and whose it is.
//! * [`Recorder`]: a record that the VR's thread writes and the control plane freezes and copies; [`Registry`]: those of a
//!   process.
//! * [`Coordination`]: how all processes of a program are frozen and copied at one moment. Pure.
//! * [`Migration`]: how VRs change their processes. Pure.
//! * [`Twin`]: how a mirrored VR is followed by another process, and taken over. Pure. [`Takeover`]: what its program does then. Pure.
//! * [`Saved`]: a VR as it is written down; [`Store`]: where checkpoints are kept; [`Directory`]: those on disk;
//!   [`lock`]: who writes there.
//! * [`tape`]: a VR's record as it is written to a file while it grows; [`Recording`]: those of a program.

mod base;
mod codec;
mod coordination;
mod directory;
mod file;
mod line;
mod lock;
pub(crate) mod migration;
mod record;
mod recorder;
mod recording;
mod registry;
mod saved;
mod store;
mod stored;
pub(crate) mod takeover;
mod tape;
mod twin;

pub(crate) use base::{Base, Origin};
pub(crate) use coordination::{Action, Coordination};
pub(crate) use directory::{Directory, KEEP};
pub(crate) use file::{Content, Header, SavedVm, Writer, read_part};
pub(crate) use line::{Call, Refusal, Sent};
pub(crate) use migration::{Migration, Move};
pub(crate) use record::{Blocked, Record, Sending};
pub(crate) use recorder::{Recorder, Replay};
pub use recording::{Happening, RecordedStep, RecordedVr, Recording};
pub(crate) use recording::{Ran, append as append_tape, create as create_recording};
pub(crate) use registry::Registry;
pub(crate) use saved::Saved;
pub(crate) use store::{Draft, Store};
pub use stored::{Stored, StoredVr};
pub(crate) use takeover::Takeover;
pub(crate) use twin::{Shipment, Twin};
