//! Turns a code pointer into a call: the context that the server hands to a trampoline, and the trampolines.
//!
//! The compiler makes one trampoline for each function and tuple of arguments that the program uses remotely. Only the
//! trampoline knows the types, so it decodes the arguments and encodes the result.

use std::any::{Any, TypeId, type_name};
use std::marker::PhantomData;

use river_core::code::{CodePtr, Trampoline};
use serde::Serialize;

use crate::body::{self, Body};
use crate::data::RemoteSend;
use crate::function::{RemoteFn, RemoteMethod};
use crate::protocol::Failure;

/// An object that a server keeps.
pub(crate) struct Kept {
    pub(crate) value: Box<dyn Any + Send>,
    /// The Rust type, for error messages.
    pub(crate) kind: &'static str,
}

/// The context of a trampoline.
#[derive(Default)]
pub(crate) struct Call {
    pub(crate) args: Body,
    /// On entry the object of a method call; on return the object that a constructor made.
    pub(crate) object: Option<Kept>,
    /// `None` if the code pointer led to something that is not a call.
    pub(crate) outcome: Option<Result<Body, Failure>>,
}

impl Call {
    fn finish(&mut self, outcome: Result<Body, Failure>) {
        self.outcome = Some(outcome);
    }

    /// Takes the arguments, and drops their bytes, which may be large while the call may take long.
    fn take_args<Args: RemoteSend>(&mut self) -> Result<Args, Failure> {
        let args = std::mem::take(&mut self.args);
        body::decode(&args).map_err(|error| Failure::Arguments(error.to_string()))
    }
}

/// Asks a trampoline which function it calls, instead of calling it. Equal for all code pointers to the same function,
/// wherever in the program they were made.
struct Identity(Option<TypeId>);

/// Identifies the function that a code pointer calls, if it is one of this layer's.
pub(crate) fn identity(code: CodePtr) -> Option<TypeId> {
    let mut identity = Identity(None);
    code.resolve().ok()?(&mut identity as &mut dyn Any);
    identity.0
}

/// Returns the call to execute, unless the trampoline is only asked for its identity.
fn asked<T: 'static, F: 'static>(context: &mut dyn Any) -> Option<&mut Call> {
    // A pointer made for another purpose gets another context and does nothing; the server reports that.
    if let Some(identity) = context.downcast_mut::<Identity>() {
        identity.0 = Some(TypeId::of::<(T, F)>());
        return None;
    }
    context.downcast_mut::<Call>()
}

fn encode<R: Serialize>(result: &R) -> Result<Body, Failure> {
    body::encode(result).map_err(|error| Failure::Result(error.to_string()))
}

/// Marks types of which the trampoline holds no value.
type Types<T> = PhantomData<fn() -> T>;

/// Calls a function and returns its result.
pub(crate) struct CallFunction<Args>(Types<Args>);

impl<F, Args> Trampoline<F> for CallFunction<Args>
where
    F: RemoteFn<Args>,
    F::Output: RemoteSend,
    Args: RemoteSend,
{
    fn enter(f: F, context: &mut dyn Any) {
        if let Some(call) = asked::<Self, F>(context) {
            let outcome = call.take_args().and_then(|args| encode(&f.run(args)));
            call.finish(outcome);
        }
    }
}

/// Calls a function and leaves its result on the server.
pub(crate) struct CreateObject<Args>(Types<Args>);

impl<F, Args> Trampoline<F> for CreateObject<Args>
where
    F: RemoteFn<Args>,
    F::Output: Send + 'static,
    Args: RemoteSend,
{
    fn enter(f: F, context: &mut dyn Any) {
        if let Some(call) = asked::<Self, F>(context) {
            let outcome = call.take_args().map(|args| {
                let value = Box::new(f.run(args));
                call.object = Some(Kept { value, kind: type_name::<F::Output>() });
                Body::default()
            });
            call.finish(outcome);
        }
    }
}

/// Calls a method of an object.
pub(crate) struct CallMethod<T, Args, Access>(Types<(T, Args, Access)>);

impl<F, T, Args, Access> Trampoline<F> for CallMethod<T, Args, Access>
where
    F: RemoteMethod<T, Args, Access>,
    F::Output: RemoteSend,
    T: Send + 'static,
    Args: RemoteSend,
    Access: 'static,
{
    fn enter(f: F, context: &mut dyn Any) {
        if let Some(call) = asked::<Self, F>(context)
            && call.object.is_some()
        {
            let args = call.take_args();
            // The object stays in place, so that a panic does not destroy it.
            let outcome = call.object.as_mut().map(|kept| match kept.value.downcast_mut::<T>() {
                Some(object) => args.and_then(|args| encode(&f.run(object, args))),
                None => Err(Failure::WrongType { found: kept.kind.into() }),
            });
            call.outcome = outcome;
        }
    }
}

/// Returns a copy of the object itself.
pub(crate) struct ReadObject<T>(Types<T>);

impl<T: RemoteSend> Trampoline<()> for ReadObject<T> {
    fn enter((): (), context: &mut dyn Any) {
        if let Some(call) = asked::<Self, ()>(context)
            && let Some(kept) = &call.object
        {
            let outcome = match kept.value.downcast_ref::<T>() {
                Some(object) => encode(object),
                None => Err(Failure::WrongType { found: kept.kind.into() }),
            };
            call.finish(outcome);
        }
    }
}
