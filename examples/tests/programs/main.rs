//! The examples as a user runs them.

mod cg;
mod mapreduce;
mod mpi;
mod scene;
mod services;
mod trickle;
mod wfreq;
