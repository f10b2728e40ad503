//! MapReduce over River's virtual machines: map, combine, shuffle, reduce; out of core, and through the death of machines.
//!
//! ```no_run
//! use river_mapreduce::{Cluster, Input, Job, MapContext, ReduceContext, Values, job};
//!
//! fn program(vr: &river_core::Vr) -> river_core::Result {
//!     let count = job(
//!         |line: &str, out: &mut MapContext<'_, String, u64>| {
//!             line.split_whitespace().for_each(|word| out.emit(word, 1));
//!         },
//!         |word: &str, counts: &mut Values<'_, u64>, out: &mut ReduceContext<'_, String, u64>| {
//!             out.emit(word, counts.sum());
//!         },
//!     )
//!     .combine(|sum: &mut u64, n: u64| *sum += n);
//!     let cluster = Cluster::connect_or_start(vr, None)?;
//!     let outcome = Job::new(count, Input::<String>::lines(["README.md"])).sorted().run(&cluster)?;
//!     for (word, n) in outcome.collect()? {
//!         println!("{word}\t{n}");
//!     }
//!     eprint!("{}", outcome.report());
//!     Ok(())
//! }
//!
//! fn main() -> river_core::ExitCode {
//!     river_core::run(program)
//! }
//! ```
//!
//! # What is promised
//!
//! * **The output is that of a sequential program**, record by record, whatever dies and however many VMs there are, as
//!   long as one is left and user code is deterministic: the values of a key come in the order of the input.
//! * **Memory is limited** ([`Job::memory`]): what does not fit goes to temporary files, which have no names and are gone
//!   with the process, however it ends.
//! * **Output directories are all or nothing** ([`Output`]): a part that can be seen is whole, `_SUCCESS` says that all are.
//! * **A panic is an error with the place of its record**, and can be skipped ([`Job::skip_bad_records`]).
//!
//! # How it works
//!
//! After "MapReduce: Simplified Data Processing on Large Clusters" (Dean and Ghemawat, OSDI 2004). A map task reads a split
//! of the input; what it emits is encoded into an arena, or combined in a hash table, and leaves it as sorted runs, one part
//! for each reducer, that stay with the VM, in memory while there is room. A reduce task reads its part of all runs from
//! where they are, a few hundred kilobytes at a time, and merges them while they come: nothing is stored a second time.
//! A request for bytes is a credit, so nobody is sent what it has no room for.
//!
//! A VM that dies takes its runs along. The map tasks concerned are run again, on whichever VM is free or waits for them,
//! and reducers go on with the new runs at the byte at which they lost the old ones; checksums say that these are the
//! same.
//!
//! # Where things are
//!
//! [`MapReduce`] is a job's code, or [`job`] makes one of closures; [`Job`] adds [`Input`], [`Output`] and options, and runs
//! on a [`Cluster`] or, for debugging, in one thread ([`Job::run_serial`]). [`Datum`] and [`Key`] say what records are made of.
//! An [`Outcome`] has the records and a [`Report`].
//!
//! # Layers, lowest first
//!
//! A module uses only modules above it in this list.
//!
//! * `varint`: lengths
//! * `raw_path`: paths as they travel
//! * `datum`: keys, values and records, and their encodings
//! * `inline_key`: short keys within two words, and the hash of any key
//! * `record`: how a record lies in memory
//! * `counters`: numbers that jobs count by name
//! * `partition`: which reducer a key belongs to
//! * `sort`: sorting, combining, runs, merging
//! * `output`: where records go
//! * `input`: where records come from
//! * `job`: user code and what it is called with
//! * `failure`: why an attempt at a task did not succeed
//! * `task`: what a task does
//! * `spec`: a job as it travels
//! * `sample`: what is looked at to choose ranges of keys
//! * `serial`: a job in the caller's thread
//! * `error`: what can go wrong
//! * `report`: what a job has done
//! * `progress`: the progress bar
//! * `travel`: how a job gets to the workers
//! * `pack`: compression of what travels to another machine
//! * `protocol`: what master, workers and depots say to each other
//! * `streams`: the reducer's side of the shuffle, a state machine
//! * `place`: what the VRs of a VM share
//! * `depot`: hands out what map tasks have made
//! * `worker`: runs tasks, and gets them what they read
//! * `cluster`: the VMs that jobs run on
//! * `master`: which task runs where, a state machine
//! * `simulation` (tests): a job without machines, whose VMs die at any step
//! * `driver`: the state machine, driven by messages
//! * `memory`: how it is shared out
//! * `builder`: a job that is set up

mod builder;
mod cluster;
mod counters;
mod datum;
mod depot;
mod driver;
mod error;
mod failure;
mod inline_key;
mod input;
mod job;
mod master;
mod memory;
mod output;
mod pack;
mod partition;
mod place;
mod progress;
mod protocol;
mod raw_path;
mod record;
mod report;
mod sample;
mod serial;
#[cfg(test)]
mod simulation;
mod sort;
mod spec;
mod streams;
mod task;
mod travel;
mod varint;
mod worker;

pub use builder::{Job, Outcome};
pub use cluster::Cluster;
pub use counters::Counters;
pub use datum::{Datum, DecodeError, Key, Ref, Serde};
pub use error::{Death, JobError};
pub use input::{Input, InputError, Text};
pub use job::{
    Closures, CombineBy, CombineFn, CombineWith, Combiner, MapContext, MapFn, MapReduce, NoCombiner,
    ReduceContext, ReduceFn, ValueOrder, Values, job,
};
pub use output::Output;
pub use report::{Reducer, Report};
pub use travel::Travel;
