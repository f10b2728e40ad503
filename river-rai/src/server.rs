//! The server: a VR that does what it is asked, one request at a time.

use std::any::Any;
use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use river_core::code::CodePtr;
use river_core::{RecvError, Result, SendError, VirtualResource, Vr, VrId, catch_panic};
use serde::{Deserialize, Serialize};

use crate::protocol::{Failure, ObjectId, Op};
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
#[non_exhaustive]
pub struct RaiServer {}

impl RaiServer {
    /// A server that exposes everything in its image: every function that its program calls remotely anywhere.
    #[must_use]
    pub fn unrestricted() -> Self {
        Self {}
    }
}

impl VirtualResource for RaiServer {
    fn main(&mut self, vr: &Vr) -> Result {
        if let Some(parent) = vr.parent() {
            vr.watch(parent);
        }
        let mut store = Store::default();
        loop {
            match wire::recv_request(vr) {
                Ok(request) => {
                    if store.clients.insert(request.client) {
                        // Its objects go when it goes.
                        vr.watch(request.client);
                    }
                    match store.serve(vr, request) {
                        Ok(true) => {}
                        Ok(false) | Err(SendError::Stopped(_)) => return Ok(()),
                        // A client that is gone needs no reply; the notice of its death comes on its own.
                        Err(error) => tracing::debug!(%error, "a reply was not sent"),
                    }
                }
                Err(RecvError::Down(down)) if Some(down.who) == vr.parent() => return Ok(()),
                Err(RecvError::Down(down)) => store.forget(down.who),
                Err(RecvError::Stopped) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The objects of a server, and whom it has served.
#[derive(Default)]
struct Store {
    objects: HashMap<ObjectId, Kept>,
    clients: HashSet<VrId>,
}

impl Store {
    /// Does what is asked and replies. False: the server was asked to stop.
    fn serve(&mut self, vr: &Vr, request: Request) -> std::result::Result<bool, SendError> {
        let Request { client, op, args } = request;
        let (ticket, outcome) = match op {
            Op::Call { ticket, code } => {
                let (outcome, _) = run(vr, code, args, None);
                (ticket, outcome)
            }
            Op::Create { ticket, object, code } => {
                let (outcome, made) = run(vr, code, args, None);
                if let Some(made) = made {
                    self.objects.insert(object, made);
                }
                (ticket, outcome)
            }
            Op::Invoke { ticket, object, code } | Op::Take { ticket, object, code } => {
                let outcome = match self.objects.remove(&object) {
                    Some(kept) => {
                        let (outcome, left) = run(vr, code, args, Some(kept));
                        if let Some(left) = left {
                            self.objects.insert(object, left);
                        }
                        outcome
                    }
                    None => Err(Failure::NoSuchObject(object)),
                };
                (ticket, outcome)
            }
            Op::Delete { object } => {
                if let Some(kept) = self.objects.remove(&object) {
                    discard(kept);
                }
                return Ok(true);
            }
            Op::Stop => return Ok(false),
        };
        wire::send_reply(vr, client, ticket, outcome)?;
        Ok(true)
    }

    /// Frees what a client that is gone has left.
    fn forget(&mut self, client: VrId) {
        self.clients.remove(&client);
        for (_, kept) in self.objects.extract_if(|id, _| id.owner == client) {
            discard(kept);
        }
    }
}

/// Calls what a code pointer leads to; returns the outcome and the object that is there afterwards.
fn run(vr: &Vr, code: CodePtr, args: Bytes, object: Option<Kept>) -> (Outcome, Option<Kept>) {
    let entry = match code.resolve() {
        Ok(entry) => entry,
        Err(error) => return (Err(Failure::NoSuchFunction(error.to_string())), object),
    };
    let mut call = Call { args, object, outcome: None };
    let outcome = match catch_panic(|| entry(&mut call as &mut dyn Any)) {
        Ok(()) => call.outcome.unwrap_or_else(|| Err(Failure::NoSuchFunction("it leads elsewhere".into()))),
        Err(text) => Err(Failure::Panicked { text, vm: vr.vm().to_owned() }),
    };
    (outcome, call.object)
}

/// Drops an object, whose destructor is the user's code and may panic.
fn discard(kept: Kept) {
    if let Err(text) = catch_panic(|| drop(kept)) {
        tracing::warn!(%text, "the destructor of an object panicked");
    }
}
