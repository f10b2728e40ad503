//! Traces of what the VRs of a program did, and when: recorded while it runs, collected when it ends.
//!
//! Every VR has a ring of fixed-size events that its thread writes without a lock (`event`, `buffer`, `tracer`). A process
//! keeps the rings of its VRs (`traces`), and hands them to the initiator when it is told to stop; the initiator writes
//! them to a file as they arrive (`collector`, `record`). During the run it compares its clock with those of the other
//! processes (`clock`). A reader of the file gets all VRs on one clock (`read`), with no envelope received before it is
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
#[cfg(any(test, feature = "testing"))]
pub(crate) use record::{Reader, framed};
pub(crate) use tracer::{Begun, Tracer};
pub(crate) use traces::{Traces, now};

/// How many events of a VR are kept by default; if there are more, the newest are kept.
pub const EVENTS: u32 = 1 << 16;
