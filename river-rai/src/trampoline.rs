//! The way from a code pointer to a call: what the server hands to a trampoline, and the trampolines.
//!
//! There is one trampoline for each function and tuple of arguments that the program mentions, made by the compiler.
//! It alone knows the types, so reading the arguments and writing the result happen in it.

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
    /// The Rust type, for messages to people.
    pub(crate) kind: &'static str,
}

/// What a trampoline works on.
#[derive(Default)]
pub(crate) struct Call {
    pub(crate) args: Body,
    /// The object of a method call on the way in; what a constructor made on the way out.
    pub(crate) object: Option<Kept>,
    /// `None` if the code pointer led to something that is no call.
    pub(crate) outcome: Option<Result<Body, Failure>>,
}

impl Call {
    fn finish(&mut self, outcome: Result<Body, Failure>) {
        self.outcome = Some(outcome);
    }

    /// The arguments; their bytes are dropped, as they may be large and the call may take long.
    fn take_args<Args: RemoteSend>(&mut self) -> Result<Args, Failure> {
        let args = std::mem::take(&mut self.args);
        body::decode(&args).map_err(|error| Failure::Arguments(error.to_string()))
    }
}

/// Asks a trampoline for what it calls, instead of having it called. Equal for all code pointers to the same function,
/// wherever in the program they were made.
struct Identity(Option<TypeId>);

/// What a code pointer calls, if it is one of this layer's.
pub(crate) fn identity(code: CodePtr) -> Option<TypeId> {
    let mut identity = Identity(None);
    code.resolve().ok()?(&mut identity as &mut dyn Any);
    identity.0
}

/// What is asked of a trampoline: to call (then what to call it with), or to say what it is.
fn asked<T: 'static, F: 'static>(context: &mut dyn Any) -> Option<&mut Call> {
    // A pointer made for another purpose meets another context and does nothing; the server reports that.
    if let Some(identity) = context.downcast_mut::<Identity>() {
        identity.0 = Some(TypeId::of::<(T, F)>());
        return None;
    }
    context.downcast_mut::<Call>()
}

fn encode<R: Serialize>(result: &R) -> Result<Body, Failure> {
    body::encode(result).map_err(|error| Failure::Result(error.to_string()))
}

/// Stands for types of which the trampoline has no value.
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
            // The object stays in its place, so that a panic does not take it along.
            let outcome = call.object.as_mut().map(|kept| match kept.value.downcast_mut::<T>() {
                Some(object) => args.and_then(|args| encode(&f.run(object, args))),
                None => Err(Failure::WrongType { found: kept.kind.into() }),
            });
            call.outcome = outcome;
        }
    }
}

/// Returns an object itself, as a copy.
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
