//! Linda: processes that do not know each other share a *space* of tuples.
//!
//! The operations are those of Gelernter (*Generative communication in Linda*, 1985) and of Carriero and Gelernter
//! (*How to write parallel programs*, 1989): `out` puts a tuple into the space, `in` takes one that matches a template,
//! `rd` reads one; both wait for a match, `inp` and `rdp` do not; `eval` starts a process whose result becomes a tuple.
//! A tuple is a message of [`river_sfm`]; a template is a pattern without code: values, ranges, `ANY` and the like.
//!
//! ```
//! use linda::Space;
//! use river_sfm::{ANY, msg, pat};
//!
//! # fn main() -> river_core::Result {
//! river_core::try_run(|vr| {
//!     let vms = vr.start_local(2)?; // or: vr.allocate(vr.discover(Query { idle_only: true, ..Query::default() })?, 2)?
//!     let space = Space::create(vr, &vms[0])?;
//!     space.eval(&vms[1], |space, n: u64| {
//!         let task = space.in_(pat! { tag: "task", n: n })?;
//!         Ok(msg! { tag: "square", n: n, of: task.get::<u64>("x")?.pow(2) })
//!     }, 1)?;
//!     space.out(msg! { tag: "task", n: 1, x: 12 })?;
//!     assert_eq!(space.rd(pat! { tag: "square", n: ANY })?.get::<u64>("of")?, 144);
//!     assert!(space.inp(pat! { tag: "task" })?.is_none());
//!     Ok(())
//! })
//! # }
//! ```
//!
//! A space is a virtual resource: any VR that knows its id can use it, and there can be many spaces. If a space is
//! gone, VRs that wait for a tuple get an error; if a VR that waits is gone, its request is forgotten. As in every
//! Linda, a tuple that was handed to a VR that then dies is lost with it.

mod active;
mod tuples;

use std::borrow::Borrow;
use std::slice::from_ref;

use active::{Active, Function};
use river_core::code::code_ptr;
use river_core::{Result, VirtualResource, VmInfo, Vr, VrError, VrId};
use river_sfm::{Message, Pattern, RecvError, Sfm, msg, pat};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tuples::{Request, Tuples};

/// The attribute that distinguishes the model's own messages from tuples.
const LINDA: &str = "linda";

/// A tuple space, as a virtual resource sees it.
#[derive(Clone, Copy, Debug)]
pub struct Space<'v> {
    vr: &'v Vr,
    id: VrId,
}

impl<'v> Space<'v> {
    /// Makes a new space on a leased VM. Errors as [`Vr::deploy`].
    pub fn create(vr: &'v Vr, vm: &VmInfo) -> Result<Self> {
        Ok(Self::join(vr, vr.deploy(from_ref(vm), |_| Keeper)?[0]))
    }

    /// Returns the space of that name on a leased VM, created by the first caller. Errors are those of [`Vr::service`].
    pub fn named(vr: &'v Vr, vm: &VmInfo, name: &str) -> Result<Self> {
        Ok(Self::join(vr, vr.service(vm, &format!("linda {name}"), || Keeper)?))
    }

    /// Returns the space with this [`id`](Self::id).
    #[must_use]
    pub fn join(vr: &'v Vr, id: VrId) -> Self {
        Self { vr, id }
    }

    /// The space's id, by which others can [`join`](Self::join) it.
    #[must_use]
    pub fn id(&self) -> VrId {
        self.id
    }

    /// Puts a tuple into the space, without waiting for anything to take it. It is an error if the space is gone, or if a value
    /// cannot be encoded. The attribute `linda` is reserved.
    pub fn out(&self, tuple: Message) -> Result {
        if tuple.has(LINDA) {
            return Err(VrError::msg("a tuple cannot have an attribute `linda`, which is the model's own"));
        }
        Ok(self.vr.send(self.id, tuple)?)
    }

    /// Takes a tuple that matches, waiting for one if necessary: Linda's `in`, which is a keyword of Rust. It is an error if the
    /// space is gone, if another VR ends whose end this one is told, or if the pattern contains code, which cannot be sent.
    pub fn in_<'p>(&self, pattern: impl Borrow<Pattern<'p>>) -> Result<Message> {
        self.ask(pattern.borrow(), true, true)
    }

    /// Reads a tuple that matches, waiting for one if necessary. It stays in the space. Errors as [`in_`](Self::in_).
    pub fn rd<'p>(&self, pattern: impl Borrow<Pattern<'p>>) -> Result<Message> {
        self.ask(pattern.borrow(), false, true)
    }

    /// Takes a tuple that matches, if there is one. Errors as [`in_`](Self::in_).
    pub fn inp<'p>(&self, pattern: impl Borrow<Pattern<'p>>) -> Result<Option<Message>> {
        Ok(Some(self.ask(pattern.borrow(), true, false)?).filter(|reply| !reply.has(LINDA)))
    }

    /// Reads a tuple that matches, if there is one. Errors as [`in_`](Self::in_).
    pub fn rdp<'p>(&self, pattern: impl Borrow<Pattern<'p>>) -> Result<Option<Message>> {
        Ok(Some(self.ask(pattern.borrow(), false, false)?).filter(|reply| !reply.has(LINDA)))
    }

    /// Starts an active tuple on a leased VM: a process that calls `f` with the space and the arguments, and puts the
    /// result into the space. `f` must be a function or a closure that captures nothing. Errors are those of [`Vr::deploy`]; if
    /// `f` fails, this VR is told as of the end of any VR that it has deployed.
    pub fn eval<A, F>(&self, vm: &VmInfo, f: F, args: A) -> Result<VrId>
    where
        A: Serialize + DeserializeOwned + 'static,
        F: Fn(&Space<'_>, A) -> Result<Message> + Copy + Send + 'static,
    {
        let code = code_ptr::<Function<A>, F>(f);
        let active = self.vr.deploy(from_ref(vm), |_| Active { space: self.id, code })?[0];
        self.vr.send(active, msg! { linda: "arguments", args: args })?;
        Ok(active)
    }

    fn ask(&self, pattern: &Pattern<'_>, take: bool, wait: bool) -> Result<Message> {
        let number = self.vr.fresh_number();
        let question = msg! { linda: (take, wait, number), template: pattern.template()? };
        self.vr.ask(self.id, question).map_err(|error| {
            // If another VR is gone, the space still has the request, or its answer is a tuple that comes too late.
            let _ = self.vr.send(self.id, msg! { linda: number });
            error.into()
        })
    }
}

/// The virtual resource of a space: it keeps the tuples, and answers requests, until the program ends.
#[derive(Serialize, Deserialize)]
struct Keeper;

impl VirtualResource for Keeper {
    fn main(&mut self, vr: &Vr) -> Result {
        let mut tuples = Tuples::default();
        loop {
            let given = match vr.recv(pat! {}) {
                Ok(m) if m.get::<u64>(LINDA).is_ok() => tuples.withdraw(m.src(), m.get(LINDA).ok()),
                Ok(m) if m.has(LINDA) => {
                    vr.watch(m.src());
                    Request::read(m).map(|request| tuples.ask(request)).unwrap_or_default()
                }
                Ok(tuple) => tuples.out(tuple),
                Err(RecvError::Down(down)) => tuples.withdraw(down.who, None),
                Err(RecvError::Stopped) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            for (request, tuple) in given {
                // One that is gone must not affect the others.
                let _ = vr.reply(&request.question, tuple.unwrap_or_else(|| msg! { linda: "nothing" }));
            }
        }
    }
}
