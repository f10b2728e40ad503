//! The report: runs the benchmarks, keeps what they recorded, and makes pages and plots of it. Nothing in these is typed by hand.
//!
//! * `host`: the machine and what is installed on it
//! * `record`: what one benchmark measured, as it is kept
//! * `criterion`: what criterion leaves behind, as a table
//! * `plan`: which benchmarks there are, and how they are called
//! * `plot`: a table as a picture
//! * `page`: everything as Markdown

mod criterion;
mod host;
mod page;
mod plan;
mod plot;
mod record;

pub use host::Host;
pub use page::{Page, pages};
pub use plan::{Bench, benches};
pub use record::{Record, load_all, run};
