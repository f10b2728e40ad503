//! Shows what a program did: turns a trace ([`Run`]) into a page for a browser ([`page`]) or a file for Perfetto
//! ([`perfetto`]).
//!
//! Everything is computed here, without clocks or files: which receive belongs to which send, who talks to whom, the
//! longest waits ([`Flow`]), and the critical path ([`critical_path`]). The page only draws.
//!
//! ```no_run
//! use river::trace::{Flow, Run, page};
//!
//! # fn main() -> std::io::Result<()> {
//! let flow = Flow::new(Run::read("run.rivertrace")?);
//! std::fs::write("run.html", page(&flow))
//! # }
//! ```

mod critical;
mod flow;
mod page;
mod perfetto;

pub use critical::{Step, critical_path};
pub use flow::{Flow, Message, Pair, Wait};
pub use page::page;
pub use perfetto::perfetto;
pub use river_core::trace::{Event, Loss, Reason, Run, VmTrace, VrTrace, What};
