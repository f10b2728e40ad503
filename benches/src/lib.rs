//! Code that the benchmarks share. Each benchmark is a program that prints a table, with a baseline measured in the
//! same run:
//!
//! * `cargo bench -p river-benches --bench farm`: calls and farms, against Python's libraries
//! * `cargo bench -p river-benches --bench links`: latency, bandwidth and message rate between two VRs, against the
//!   same exchange between two threads without River
//! * `cargo bench -p river-benches --bench machines`: finding and leasing VMs, deploying VRs, shipping the image
//! * `cargo bench -p river-benches --bench mpi`: latency, bandwidth and message rate of MPI, against the link alone and
//!   against MPICH and Open MPI
//! * `cargo bench -p river-benches --bench mpi_cg`: the NAS CG kernel, against NPB's
//! * `cargo bench -p river-benches --bench mpi_coll`: every algorithm of every collective operation, against each other
//!   and, with `--peers`, against MPICH and Open MPI
//! * `cargo bench -p river-benches --bench mapreduce`: MapReduce's word count and sort, against rayon, Spark and Dask
//! * `cargo bench -p river-benches --bench state`: recording, checkpoints, restoring
//! * `cargo bench -p river-benches --bench trace`: the cost of tracing, off and on
//! * `cargo bench -p river-benches --bench wfreq`: word frequency, against the same count within one process
//!
//! `cargo run --release -p river-benches --bin report` runs all of them and writes `docs/results`.
//!
//! # Layers, lowest first
//!
//! * `table`: numbers and tables
//! * `peers`: peers written in other languages
//! * `mpi`: other implementations of MPI
//! * `process`: runs whole programs, and measures their time and memory
//! * `exchange`: the exchanges of two ends that are measured
//! * `bare`: ends without River, as baselines
//! * `corpus`: texts for counting
//! * `report`: runs all benchmarks, and makes pages and plots

pub mod bare;
pub mod corpus;
pub mod exchange;
pub mod mpi;
pub mod peers;
pub mod process;
pub mod report;
pub mod table;
