//! The server: a VR that does what it is asked, one request at a time.

use std::any::Any;
use std::collections::HashSet;

use river_core::code::CodePtr;
use river_core::{RecvError, Result, SendError, VirtualResource, Vr, VrId, catch_panic};
use serde::{Deserialize, Serialize};

use crate::body::{self, Body};
use crate::current;
use crate::exports::Exports;
use crate::intake::{Arrival, Intake};
use crate::protocol::{Failure, Function, ObjectId, Op, Order};
use crate::store::{Store, discard};
use crate::trampoline::{Call, Kept};
use crate::wire::{self, Outcome, Request};

/// A VR that calls functions and keeps objects for others (Trickle paper, section 4).
///
/// It serves until its parent or the program is gone, or it is told to stop. A function that panics costs its caller
/// an error and hurts no one else.
///
/// ```no_run
/// # fn example(vr: &river_core::Vr) -> river_core::Result {
/// use river_rai::{Rai, RaiServer};
///
/// let vms = vr.start_local(1)?;
/// let servers = vr.deploy(&vms, |_| RaiServer::unrestricted())?;
/// let r = Rai::connect(vr, servers[0]);
/// assert_eq!(r.call(|x: i64| x + 10, (5,))?, 15);
/// # Ok(()) }
/// ```
#[derive(Debug, Serialize, Deserialize)]
pub struct RaiServer {
    /// `None`: everything in the image can be called.
    exports: Option<Exports>,
    /// Whose end ends the server, if not its parent's.
    guardian: Option<VrId>,
}

impl RaiServer {
    /// A server that exposes everything in its image: every function that its program calls remotely anywhere.
    #[must_use]
    pub fn unrestricted() -> Self {
        Self { exports: None, guardian: None }
    }

    /// A server that exposes only what is exported, and of that to each client only what it may use.
    ///
    /// ```no_run
    /// # fn example(vr: &river_core::Vr, vms: Vec<river_core::VmInfo>) -> river_core::Result {
    /// use river_rai::{Capability, Exports, Rai, RaiServer};
    ///
    /// fn add(a: i64, b: i64) -> i64 {
    ///     a + b
    /// }
    ///
    /// fn shut_the_valve() {}
    ///
    /// let operator = Capability::fresh();
    /// let exports = Exports::new()
    ///     .function("add", add)
    ///     .and(Exports::new().function("shut", shut_the_valve).only_with(operator));
    /// let servers = vr.deploy(&vms, |_| RaiServer::restricted(exports.clone()))?;
    /// let r = Rai::connect(vr, servers[0]);
    /// assert_eq!(r.call_named::<i64, _>("add", (1_i64, 2_i64))?, 3);
    /// assert!(r.call(shut_the_valve, ()).is_err()); // refused
    /// r.show(operator)?;
    /// r.call(shut_the_valve, ())?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn restricted(exports: Exports) -> Self {
        Self { exports: Some(exports), guardian: None }
    }

    /// The same, but ending with that VR instead of with its parent.
    #[must_use]
    pub fn ends_with(mut self, guardian: VrId) -> Self {
        self.guardian = Some(guardian);
        self
    }
}

impl VirtualResource for RaiServer {
    fn main(&mut self, vr: &Vr) -> Result {
        let guardian = self.guardian.or(vr.parent());
        if let Some(guardian) = guardian {
            vr.watch(guardian);
        }
        let (store, intake) = (vr.slot::<Store>(), vr.slot::<Intake>());
        if let Some(exports) = &self.exports {
            store.restrict(&exports.list);
        }
        let mut server = Server { vr, store: &store, guardian, known: HashSet::new() };
        loop {
            let served = match intake.next(vr) {
                Arrival::Request(request) => server.serve(request),
                Arrival::Cancelled { client, ticket } => {
                    wire::send_reply(vr, client, ticket, Err(Failure::Cancelled)).map(|()| true)
                }
                Arrival::News(RecvError::Down(down)) if Some(down.who) == guardian => return Ok(()),
                Arrival::News(RecvError::Down(down)) => {
                    server.known.remove(&down.who);
                    store.forget(down.who);
                    intake.forget(down.who);
                    Ok(true)
                }
                Arrival::News(RecvError::Stopped) => return Ok(()),
                Arrival::News(error) => return Err(error.into()),
            };
            match served {
                Ok(true) => {}
                Ok(false) | Err(SendError::Stopped(_)) => return Ok(()),
                // A client that is gone needs no reply; the notice of its death comes on its own.
                Err(error) => tracing::debug!(%error, "a reply was not sent"),
            }
        }
    }
}

struct Server<'a> {
    vr: &'a Vr,
    store: &'a Store,
    guardian: Option<VrId>,
    /// Clients and holders whose death will be told.
    known: HashSet<VrId>,
}

impl Server<'_> {
    /// Does what is asked and replies. False: the server was asked to stop.
    fn serve(&mut self, request: Request) -> std::result::Result<bool, SendError> {
        let Request { client, order: Order { ticket, op }, args } = request;
        // What it leaves here goes when it goes.
        self.know(client);
        if op == Op::Stop {
            // Not everybody who may call something may end it.
            return Ok(self.store.is_restricted() && Some(client) != self.guardian);
        }
        let outcome = self.execute(client, op, args);
        match ticket {
            Some(ticket) => wire::send_reply(self.vr, client, ticket, outcome)?,
            None => {
                if let Err(failure) = outcome {
                    tracing::warn!(%client, ?failure, "a request failed, and its client wants no answer");
                }
            }
        }
        Ok(true)
    }

    fn know(&mut self, who: VrId) {
        if self.known.insert(who) {
            self.vr.watch(who);
        }
    }

    fn execute(&mut self, client: VrId, op: Op, args: Body) -> Outcome {
        let done = Ok(Body::default());
        match op {
            Op::Call(function) => {
                let code = self.store.find(client, &function)?;
                run(self.vr, code, args, None).0
            }
            Op::Create { object, function } => self.create(client, object, &function, args, None),
            Op::Put { object, name, function } => self.create(client, object, &function, args, Some(name)),
            Op::Invoke { target, function } => {
                let (code, object) = (self.store.find(client, &function)?, self.store.object(&target)?);
                let kept = self.store.take(object).ok_or(Failure::NoSuchObject(target))?;
                let (outcome, left) = run(self.vr, code, args, Some(kept));
                if let Some(left) = left {
                    self.store.keep(object, left);
                }
                outcome
            }
            Op::Take { target, function } => {
                let (code, object) = (self.store.find(client, &function)?, self.store.object(&target)?);
                let kept = self.store.take(object).ok_or(Failure::NoSuchObject(target))?;
                let (outcome, left) = run(self.vr, code, args, Some(kept));
                if outcome.is_ok() {
                    self.store.gone(object);
                    left.into_iter().for_each(discard);
                } else if let Some(left) = left {
                    // An object that cannot travel stays where it is.
                    self.store.keep(object, left);
                }
                outcome
            }
            Op::Grant { target, reference, to } => {
                let object = self.store.object(&target)?;
                self.store.grant(reference, object, to)?;
                self.know(to);
                body::encode(&object).map_err(|error| Failure::Result(error.to_string()))
            }
            Op::Release(reference) => {
                self.store.release(reference);
                done
            }
            Op::Remove(name) if !self.store.is_restricted() => {
                self.store.unname(&name);
                done
            }
            Op::Export(export) if !self.store.is_restricted() => {
                self.store.export(export);
                done
            }
            Op::Remove(_) | Op::Export(_) => Err(Failure::Refused("the server is restricted".into())),
            Op::Present(capability) => {
                self.store.show(client, capability);
                done
            }
            // Stops are done, and cancellations filed, before they get here.
            Op::Stop | Op::Cancel(_) => done,
        }
    }

    fn create(
        &mut self,
        client: VrId,
        object: ObjectId,
        function: &Function,
        args: Body,
        name: Option<String>,
    ) -> Outcome {
        if object.owner != client {
            return Err(Failure::Refused("an object is created by its owner".into()));
        }
        let code = self.store.find(client, function)?;
        let (outcome, made) = run(self.vr, code, args, None);
        if let Some(made) = made {
            self.store.add(object, made);
            if let Some(name) = name {
                self.store.name(name, object);
            }
        }
        outcome
    }
}

/// Calls what a code pointer leads to; returns the outcome and the object that is there afterwards.
fn run(vr: &Vr, code: CodePtr, args: Body, object: Option<Kept>) -> (Outcome, Option<Kept>) {
    let entry = match code.resolve() {
        Ok(entry) => entry,
        Err(error) => return (Err(Failure::NoSuchFunction(error.to_string())), object),
    };
    let mut call = Call { args, object, outcome: None };
    let outcome = match current::serving(vr, || catch_panic(|| entry(&mut call as &mut dyn Any))) {
        Ok(()) => call.outcome.unwrap_or_else(|| Err(Failure::NoSuchFunction("it leads elsewhere".into()))),
        Err(text) => Err(Failure::Panicked { text, vm: vr.vm().to_owned() }),
    };
    (outcome, call.object)
}
