//! Remote access and invocation: functions, objects and data on other machines.
//!
//! A *server* is a VR that calls functions and keeps objects for others; a *client* has typed handles. Functions are
//! named by code pointers, as all processes of a program run the same image: there is nothing to register, to
//! annotate or to inject.
//!
//! ```
//! use river_core::VirtualResource;
//! use river_rai::{CallError, Rai, RaiServer};
//!
//! fn add(a: i64, b: i64, c: i64) -> i64 {
//!     a + b + c
//! }
//!
//! # fn client(vr: &river_core::Vr, server: river_core::VrId) -> Result<(), CallError> {
//! let r = Rai::connect(vr, server);
//! assert_eq!(r.call(add, (1, 2, 3))?, 6); // a function
//! assert_eq!(r.call(|x: i64| x + 10, (5,))?, 15); // a closure that captures nothing
//!
//! let first = r.call_async(add, (1, 2, 3))?; // many may be under way
//! let second = r.call_async(add, (4, 5, 6))?;
//! assert_eq!((second.wait()?, first.wait()?), (15, 6));
//!
//! let stack = r.create(Vec::<String>::new, ())?; // an object, held by reference
//! stack.call(Vec::push, ("A".to_string(),))?;
//! assert_eq!(stack.take()?, ["A"]);
//! # r.stop()
//! # }
//! # river_core::testing::threads(2, |vr, index, vrs| match index {
//! #     0 => client(vr, vrs[1]).unwrap(),
//! #     _ => RaiServer::unrestricted().main(vr).unwrap(),
//! # });
//! ```
//!
//! # What success means
//!
//! A result means that the function ran exactly once and returned it. [`CallError::Panicked`] means that it ran once
//! and did not get to its end; if `RUST_BACKTRACE` is set, `{:?}` of the error shows the calls that led there. After
//! [`CallError::Down`] nobody knows: it ran once, partly, or not at all.
//! **No call hangs for ever**: it ends with the function, or with its server.
//!
//! A client that [limits its mailbox](river_core::Vr::limit_queue) and has more refused gets an answer that was refused
//! when there is room. It has to make room: while it waits for a call nobody takes its other messages out. If these
//! alone fill the mailbox, only a [time limit](Rai::timeout) ends the call. Clients of a server whose own mailbox is full
//! are told so ([`CallError::Full`]).
//!
//! One server does one thing at a time, in the order in which a client asked. A function that blocks keeps the
//! server from everything else, unless it is [concurrent](RaiServer::concurrent): one that waits for a call of its own server
//! gets an error ([`CallError::Itself`]).
//!
//! # Servers of other programs
//!
//! A server that is [published](RaiServer::published) under a name is found by programs that were built from other
//! sources and started by somebody else, as long as they have the same key ([`Rai::look_up`]). Between programs there
//! are no code pointers: everything is called by the name under which it was exported, and the server compares what the
//! caller takes its arguments and result for with what they are, as Rust writes the types ([`CallError::Signature`]). A
//! type of one's own counts by its name alone, so its fields have to be the same on both sides; those who share a type
//! best share the crate that defines it.
//!
//! ```no_run
//! use river_rai::{Exports, Rai, RaiServer};
//! # use river_core::{Result, VirtualResource, Vr};
//!
//! fn server(vr: &Vr) -> Result { // one program
//!     let exports = Exports::new()
//!         .function("add", |a: i64, b: i64| a + b)
//!         .constructor("stack", Vec::<String>::new)
//!         .method("push", Vec::<String>::push);
//!     RaiServer::restricted(exports).published("calculator").main(vr)
//! }
//!
//! fn client(vr: &Vr) -> Result { // another
//!     let calculator = Rai::look_up(vr, "calculator")?;
//!     let three: i64 = calculator.call_named("add", (1_i64, 2_i64))?;
//!     let stack = calculator.create_named::<Vec<String>, _>("stack", ())?;
//!     let () = stack.call_named("push", ("A".to_string(),))?;
//!     Ok(())
//! }
//! ```
//!
//! When either program ends, is killed or stopped, the other learns it as of a VR of its own: calls end with
//! [`CallError::Down`], and what a client held is freed.
//!
//! # Where things are
//!
//! [`RaiServer`] is deployed, [`Rai`] connects to it, [`Pending`] is a call under way, [`Object`] a handle, which
//! travels to another VR as a [`Remote`]. What a restricted server lets be called are its [`Exports`], perhaps only for
//! those who have a [`Capability`]. [`current`] is for functions that run on a server. [`Blob`] is memory
//! that travels as it is. [`Completions`] and [`Packed`] are for
//! layers that schedule calls. [`RemoteFn`], [`RemoteMethod`], [`RemoteSend`] and [`Items`] say what can be called, with
//! what, and what can be read item by item.
//!
//! # Layers, lowest first
//!
//! A module uses only modules above it in this list.
//!
//! * `data`: what can travel
//! * `body`: arguments and results as bytes
//! * `items`: collections that are read and set item by item
//! * `function`: what can be called
//! * `shape`: structs and enums, as their `Deserialize` tells them
//! * `signature`: what a function takes and returns, as text, and its hash
//! * `protocol`: requests and failures
//! * `error`: what can go wrong
//! * `packed`: arguments as bytes
//! * `trampoline`: from a code pointer to a call
//! * `wire`: requests and replies as envelopes
//! * `unsent`: replies that wait for room
//! * `calls`: calls without an answer, and answers that nobody has asked for
//! * `post`: where replies come in
//! * `connection`: from where calls are made, and to where
//! * `pending`: a call under way
//! * `completions`: whichever call is answered first
//! * `handles`: how many handles a VR has made of a reference
//! * `object`: handles on objects
//! * `exports`: what a restricted server exposes
//! * `foreign`: what other programs may ask
//! * `client`: the client's end of a connection
//! * `put`: values that a client puts on a server
//! * `references`: who holds which object
//! * `store`: the objects and exports of a server
//! * `handed_out`: calls that helpers of a server do
//! * `intake`: what a server has to do
//! * `current`: the call that runs on this thread
//! * `work`: doing what a request asks for
//! * `pool`: serving several calls at a time
//! * `server`: the server

mod body;
mod calls;
mod client;
mod completions;
mod connection;
pub mod current;
mod data;
mod error;
mod exports;
mod foreign;
mod function;
mod handed_out;
mod handles;
mod intake;
mod items;
mod object;
mod packed;
mod pending;
mod pool;
mod post;
mod protocol;
mod put;
mod references;
mod server;
mod shape;
mod signature;
mod store;
mod trampoline;
mod unsent;
mod wire;
mod work;

pub use body::Blob;
pub use client::Rai;
pub use completions::{Completion, Completions};
pub use data::RemoteSend;
pub use error::CallError;
pub use exports::Exports;
pub use function::{ByMut, ByRef, RemoteFn, RemoteMethod};
pub use items::Items;
pub use object::{Object, Remote};
pub use packed::Packed;
pub use pending::Pending;
pub use protocol::{Capability, Ticket};
pub use server::RaiServer;
