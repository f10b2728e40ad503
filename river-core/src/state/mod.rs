//! The state of VRs: recorded, saved and restored.
//!
//! Rust cannot copy a stack to another process, so a VR is restored by running its `main` again from the last safepoint
//! with the inputs that it got before. `docs/guide/state.md` says what follows from that.
//!
//! * [`Record`]: the inputs of one VR, and their replay with detection of divergence. Pure.
//! * [`Base`], [`Origin`]: where a record begins, and which VR it belongs to.
//! * [`Recorder`]: a record that the VR's thread writes and the control plane freezes and copies; [`Registry`]: all
//!   recorders of a process.
//! * [`Coordination`]: freezes and copies all processes of a program in one consistent cut. Pure.
//! * [`Migration`]: moves VRs between processes. Pure.
//! * [`Twin`]: the standby copy of a mirrored VR in another process, which follows it and can take over. Pure.
//!   [`Takeover`]: the program's side of that. Pure.
//! * [`Saved`]: a VR in serialized form; [`Target`]: where checkpoints go; [`Directory`]: checkpoints on disk; [`lock`]: which
//!   process may write there; [`Store`]: the interface of other storage; [`StoreTarget`]: checkpoints in it; [`series`]: which
//!   checkpoint counts, and what is removed. Pure.
//! * [`tape`]: a VR's record, written to a file while it grows; [`Recording`]: the tapes of a program.

mod base;
mod codec;
mod coordination;
mod directory;
pub(crate) mod file;
mod line;
mod lock;
pub(crate) mod migration;
mod record;
mod recorder;
mod recording;
mod registry;
mod saved;
mod series;
mod store;
mod store_target;
mod stored;
pub(crate) mod takeover;
pub(crate) mod tape;
mod target;
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
pub(crate) use series::run_id;
pub use store::Store;
pub(crate) use store_target::StoreTarget;
pub use stored::{Stored, StoredVr};
pub(crate) use takeover::Takeover;
pub(crate) use target::{Draft, Target};
pub(crate) use twin::{Shipment, Twin};
