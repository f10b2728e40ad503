//! What the benchmarks share. Each benchmark is a program that prints a table, beside its baseline, measured in the
//! same run:
//!
//! * `cargo bench -p river-benches --bench wfreq`: word frequency, against the same count within one process
//!
//! # Layers, lowest first
//!
//! * `table`: numbers and tables
//! * `process`: whole programs, their time and memory
//! * `corpus`: text to count

pub mod corpus;
pub mod process;
pub mod table;
