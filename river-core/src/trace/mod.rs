//! What the VRs of a program did, and when: recorded while it runs, collected when it ends.
//!
//! Every VR has a ring of events of fixed size that its thread writes without a lock (`event`, `buffer`,
//! `tracer`). A process keeps those of its VRs (`traces`), and hands them to the initiator when it is told to stop; the
//! initiator writes them to a file as they come (`collector`, `record`). Meanwhile it compares its clock with theirs
//! (`clock`). Who reads the file gets all VRs on one clock (`read`), and no envelope that is received before it is
//! sent (`order`).
//!
//! When nothing is traced, a send, a receive and a wait cost one branch each.

mod buffer;
mod clock;
mod collector;
mod event;
mod order;
mod read;
mod record;
mod tracer;
mod traces;

pub use event::{Event, Reason, What};
pub use read::{Loss, Run, VmTrace, VrTrace};
pub use tracer::Label;

pub(crate) use collector::{Collector, boot};
pub(crate) use record::{Piece, encode};
pub(crate) use tracer::{Begun, Tracer};
pub(crate) use traces::{Traces, now};

/// How many events are kept of a VR if nothing else is said; of more, the newest.
pub const EVENTS: u32 = 1 << 16;
