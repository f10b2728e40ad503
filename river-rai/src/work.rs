//! Doing what a request asks for: calling functions, and keeping objects.

use std::any::Any;

use river_core::code::CodePtr;
use river_core::{Panic, SendError, Trace, Vr, VrId, catch_traced};

use crate::body::{self, Body};
use crate::current;
use crate::protocol::{Failure, Function, ObjectId, Op, Reference, Ticket};
use crate::store::{Store, discard};
use crate::trampoline::{Call, Kept};
use crate::wire::{self, Outcome};

/// One request.
pub(crate) struct Job {
    pub(crate) client: VrId,
    pub(crate) ticket: Option<Ticket>,
    pub(crate) op: Op,
    pub(crate) args: Body,
}

impl Job {
    /// The object that is concerned, if there is one.
    pub(crate) fn object(&self, store: &Store) -> Option<ObjectId> {
        match &self.op {
            Op::Create { object, .. } | Op::Put { object, .. } => Some(*object),
            Op::Invoke { target, .. } | Op::Take { target, .. } | Op::Grant { target, .. } => {
                store.object(target).ok()
            }
            // The first reference to an object has its numbers.
            Op::Release(Reference { by, number }) => Some(ObjectId { owner: *by, number: *number }),
            _ => None,
        }
    }

    /// Whether a function of the user's is called.
    pub(crate) fn calls(&self) -> bool {
        matches!(
            self.op,
            Op::Call(_) | Op::Create { .. } | Op::Put { .. } | Op::Invoke { .. } | Op::Take { .. }
        )
    }

    /// Does it and answers. `vr` is the VR that calls, and answers.
    pub(crate) fn run(self, vr: &Vr, store: &Store) -> Result<(), SendError> {
        let Job { client, ticket, op, args } = self;
        let outcome = execute(vr, store, client, op, args);
        answer(vr, client, ticket, outcome)
    }
}

pub(crate) fn answer(
    vr: &Vr,
    client: VrId,
    ticket: Option<Ticket>,
    outcome: Outcome,
) -> Result<(), SendError> {
    match (ticket, outcome) {
        (Some(ticket), Err(Failure::Panicked { panic: Panic { text, trace }, vm: on }))
            if vr.is_foreign(client) =>
        {
            // The places of this image mean nothing to another program.
            let panic = Panic { text, trace: trace.map(Trace::into_text) };
            wire::send_reply(vr, client, ticket, Err(Failure::Panicked { panic, vm: on }))
        }
        (Some(ticket), outcome) => wire::send_reply(vr, client, ticket, outcome),
        (None, Err(failure)) => {
            tracing::warn!(%client, ?failure, "a request failed, and its client wants no answer");
            Ok(())
        }
        (None, Ok(_)) => Ok(()),
    }
}

fn execute(vr: &Vr, store: &Store, client: VrId, op: Op, args: Body) -> Outcome {
    let done = Ok(Body::default());
    match op {
        Op::Call(function) => call(vr, store.find(client, &function)?, args, None).0,
        Op::Create { object, function } => create(vr, store, client, object, &function, args, None),
        Op::Put { object, name, function } => create(vr, store, client, object, &function, args, Some(name)),
        Op::Invoke { target, function } => {
            let (code, object) = (store.find(client, &function)?, store.object(&target)?);
            let kept = store.take(object).ok_or(Failure::NoSuchObject(target))?;
            let (outcome, left) = call(vr, code, args, Some(kept));
            if let Some(left) = left {
                store.keep(object, left);
            }
            outcome
        }
        Op::Take { target, function } => {
            let (code, object) = (store.find(client, &function)?, store.object(&target)?);
            let kept = store.take(object).ok_or(Failure::NoSuchObject(target))?;
            let (outcome, left) = call(vr, code, args, Some(kept));
            if outcome.is_ok() {
                store.gone(object);
                left.into_iter().for_each(discard);
            } else if let Some(left) = left {
                // An object that cannot travel stays where it is.
                store.keep(object, left);
            }
            outcome
        }
        Op::Grant { target, reference, to } => {
            let object = store.object(&target)?;
            store.grant(reference, object, to)?;
            body::encode(&object).map_err(|error| Failure::Result(error.to_string()))
        }
        Op::Release(reference) => {
            store.release(reference);
            done
        }
        Op::Remove(name) if !store.is_restricted() => {
            store.unname(&name);
            done
        }
        Op::Export(export) if !store.is_restricted() => {
            store.export(export);
            done
        }
        Op::Remove(_) | Op::Export(_) => Err(Failure::Refused("the server is restricted".into())),
        Op::Present(capability) => {
            store.show(client, capability);
            done
        }
        // What concerns the server itself does not get here.
        Op::Stop | Op::Cancel(_) | Op::Back(_) => done,
    }
}

fn create(
    vr: &Vr,
    store: &Store,
    client: VrId,
    object: ObjectId,
    function: &Function,
    args: Body,
    name: Option<String>,
) -> Outcome {
    if object.owner != client {
        return Err(Failure::Refused("an object is created by its owner".into()));
    }
    let code = store.find(client, function)?;
    let (outcome, made) = call(vr, code, args, None);
    if let Some(made) = made {
        store.add(object, made);
        if let Some(name) = name {
            store.name(name, object);
        }
    }
    outcome
}

/// Calls what a code pointer leads to; returns the outcome and the object that is there afterwards.
fn call(vr: &Vr, code: CodePtr, args: Body, object: Option<Kept>) -> (Outcome, Option<Kept>) {
    let entry = match code.resolve() {
        Ok(entry) => entry,
        Err(error) => return (Err(Failure::NoSuchFunction(error.to_string())), object),
    };
    let mut call = Call { args, object, outcome: None };
    let outcome = match current::serving(vr, || catch_traced(|| entry(&mut call as &mut dyn Any))) {
        Ok(()) => call.outcome.unwrap_or_else(|| Err(Failure::NoSuchFunction("it leads elsewhere".into()))),
        Err(panic) => Err(Failure::Panicked { panic, vm: vr.vm().to_owned() }),
    };
    (outcome, call.object)
}
