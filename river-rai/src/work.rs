//! Executes requests: calls functions, and keeps objects.

use std::any::Any;

use river_core::code::CodePtr;
use river_core::{Trace, Vr, VrId, catch_traced};

use crate::body::{self, Body};
use crate::current;
use crate::protocol::{Failure, Function, ObjectId, Op, Target, Ticket};
use crate::store::Store;
use crate::trampoline::{Call, Kept};
use crate::wire::{self, Outcome, Reply};

/// One request.
pub(crate) struct Job {
    pub(crate) client: VrId,
    pub(crate) ticket: Option<Ticket>,
    pub(crate) op: Op,
    pub(crate) args: Body,
}

impl Job {
    /// The targets that no other job may use meanwhile: an object, a name, or a name and the object that has it now.
    /// While a name is reserved, no other object gets it.
    pub(crate) fn about(&self, store: &Store) -> Vec<Target> {
        let target = match &self.op {
            Op::Create { object, .. } => Target::Object(*object),
            Op::Put { name, .. } | Op::Remove(name) => Target::Named(name.clone()),
            Op::Invoke { target, .. } | Op::Take { target, .. } | Op::Grant { target, .. } => target.clone(),
            Op::Release(reference) => Target::Object(store.object_of(*reference)),
            _ => return Vec::new(),
        };
        let object = store.meant(&target).map(Target::Object).filter(|object| *object != target);
        [Some(target), object].into_iter().flatten().collect()
    }

    /// The identifier of the call, if its client wants an answer.
    pub(crate) fn call(&self) -> Option<(VrId, Ticket)> {
        self.ticket.map(|ticket| (self.client, ticket))
    }

    /// Whether the job calls a user's function.
    pub(crate) fn calls(&self) -> bool {
        matches!(
            self.op,
            Op::Call(_) | Op::Create { .. } | Op::Put { .. } | Op::Invoke { .. } | Op::Take { .. }
        )
    }

    /// Executes the job and answers. `vr` is the VR that calls, and answers. Returns the answer if it must be sent
    /// later.
    pub(crate) fn run(self, vr: &Vr, store: &Store) -> Option<Reply> {
        let Job { client, ticket, op, args } = self;
        let outcome = execute(vr, store, client, op, args);
        answer(vr, client, ticket, outcome)
    }
}

/// Answers a request. Returns the answer if it must be sent later.
pub(crate) fn answer(vr: &Vr, client: VrId, ticket: Option<Ticket>, mut outcome: Outcome) -> Option<Reply> {
    let Some(ticket) = ticket else {
        if let Err(failure) = outcome {
            tracing::warn!(%client, ?failure, "a request failed, and its client wants no answer");
        }
        return None;
    };
    if let Err(Failure::Panicked { panic, .. }) = &mut outcome
        && vr.is_foreign(client)
    {
        // Code addresses of this image are meaningless to another program.
        panic.trace = panic.trace.take().map(Trace::into_text);
    }
    wire::send_reply(vr, Reply { client, ticket, outcome })
}

fn execute(vr: &Vr, store: &Store, client: VrId, op: Op, args: Body) -> Outcome {
    let done = Ok(Body::default());
    match op {
        Op::Call(function) => call(vr, store.find(client, &function)?, args, None).0,
        Op::Create { object, function } => create(vr, store, client, object, &function, args, None),
        Op::Put { object, name, function } => create(vr, store, client, object, &function, args, Some(name)),
        Op::Invoke { target, function } => {
            let code = store.find(client, &function)?;
            let mut out = store.take(&target, vr.id()).ok_or(Failure::NoSuchObject(target))?;
            let (outcome, left) = call(vr, code, args, out.kept.take());
            out.kept = left;
            outcome
        }
        Op::Take { target, function } => {
            let code = store.find(client, &function)?;
            let mut out = store.take(&target, vr.id()).ok_or(Failure::NoSuchObject(target))?;
            let (outcome, left) = call(vr, code, args, out.kept.take());
            out.kept = left;
            // An object that cannot be encoded stays where it is.
            if outcome.is_ok() {
                out.remove();
            }
            outcome
        }
        Op::Grant { target, reference, to } => {
            let object = store.grant(reference, &target, to).ok_or(Failure::NoSuchObject(target))?;
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
        // The server handles its own requests before they get here.
        Op::Stop | Op::Cancel(_) | Op::Withdraw(_) | Op::Back => done,
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

/// Calls the function that a code pointer leads to; returns the outcome and the object that exists afterwards.
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
