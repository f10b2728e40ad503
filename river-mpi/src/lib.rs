//! The Message Passing Interface over River, for people who use it, study it or change its algorithms: ranks are VRs.
//!
//! **Nothing is here yet.** This crate holds its place in the stack, above `river-core` and `river-sfm`. To come:
//! point-to-point communication, derived datatypes, requests, communicators, topologies and collectives.
