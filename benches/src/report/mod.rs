//! The report: runs the benchmarks, keeps their records, and makes pages and plots from them. Nothing in these is typed
//! by hand.
//!
//! * `host`: the machine and the installed software
//! * `record`: the results of one benchmark, as they are stored
//! * `criterion`: converts criterion's results to tables
//! * `plan`: the benchmarks and their arguments
//! * `plot`: draws a table
//! * `page`: writes everything as Markdown

mod criterion;
mod host;
mod page;
mod plan;
mod plot;
mod record;

pub use host::Host;
pub use page::{Page, pages};
pub use plan::{Bench, Places, benches};
pub use record::{Record, load_all, run};
