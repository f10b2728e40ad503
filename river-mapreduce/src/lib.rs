//! MapReduce over River's virtual machines: map, combine, shuffle, reduce.
//!
//! **Nothing is here yet.** This crate holds its place in the stack, above `river-trickle`. To come: typed jobs,
//! splittable inputs, a shuffle that spills to disk under a memory limit, fault tolerance, atomic outputs.
