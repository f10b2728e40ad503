//! A handle to an object that lives on a server.

use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use river_core::code::code_ptr;
use river_core::{Vr, VrId};
use serde::{Deserialize, Serialize};

use crate::connection::Connection;
use crate::data::RemoteSend;
use crate::error::CallError;
use crate::function::RemoteMethod;
use crate::handles::Held;
use crate::items::Items;
use crate::packed::Packed;
use crate::pending::{self, Pending};
use crate::post::Post;
use crate::protocol::{Function, ObjectId, Op, Reference, Target};
use crate::signature::{Method, digest};
use crate::trampoline::{CallMethod, ReadObject};

/// An object on a server, held by reference (Trickle paper, example 5).
///
/// An object made by [`Rai::create`](crate::Rai::create) exists as long as any VR holds a handle: this VR, also by a
/// clone, or a VR to which it was [granted](Self::grant). A VR that dies holds nothing any more. An object with a name
/// ([`Rai::put`](crate::Rai::put)) exists until it is removed. The method calls of one VR run in the order in which it
/// made them.
pub struct Object<'a, T> {
    connection: Connection<'a>,
    target: Target,
    held: Option<Held<'a>>,
    kind: PhantomData<fn() -> T>,
}

/// A reference to an object in the form that is sent, in a message or as an argument, to the VR that it was
/// [granted](Object::grant) to.
///
/// No other VR can use it. It keeps the object alive until that VR has opened it and dropped the handle, or is gone.
#[derive(Clone, Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Remote<T> {
    server: VrId,
    object: ObjectId,
    reference: Reference,
    holder: VrId,
    kind: PhantomData<fn() -> T>,
}

impl<T: Send + 'static> Remote<T> {
    /// Opens the reference, which makes a handle. The same reference can be opened several times.
    ///
    /// # Errors
    /// [`CallError::NotGranted`] if it was granted to another VR.
    pub fn open<'a>(&self, vr: &'a Vr) -> Result<Object<'a, T>, CallError> {
        if self.holder != vr.id() {
            return Err(CallError::NotGranted { holder: self.holder });
        }
        let connection = Connection::new(vr, self.server);
        let held = Some(Held::new(vr, self.server, self.reference));
        Ok(Object { connection, target: Target::Object(self.object), held, kind: PhantomData })
    }
}

impl<T> fmt::Debug for Remote<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({} on VR {})", type_name::<T>(), self.server.short())
    }
}

impl<'a, T: Send + 'static> Object<'a, T> {
    pub(crate) fn created(connection: Connection<'a>, id: ObjectId) -> Self {
        let held = Some(Held::new(connection.vr, connection.server, id.first_reference()));
        Self { connection, target: Target::Object(id), held, kind: PhantomData }
    }

    pub(crate) fn named(connection: Connection<'a>, name: &str) -> Self {
        Self { connection, target: Target::Named(name.into()), held: None, kind: PhantomData }
    }

    /// The server on which the object lives.
    #[must_use]
    pub fn server(&self) -> VrId {
        self.connection.server
    }

    /// The same object, but with a time limit for each call, as with [`Rai::timeout`](crate::Rai::timeout).
    pub fn timeout(&self, limit: Duration) -> Self {
        let mut other = self.clone();
        other.connection.limit = Some(limit);
        other
    }

    /// Calls a method: any function whose first argument is `&T` or `&mut T`.
    ///
    /// # Errors
    /// [`CallError`]; if the method panicked, the object keeps the state in which the method left it.
    ///
    /// # Blocking
    /// Until the method has returned.
    pub fn call<F, Args, Access>(&self, method: F, args: Args) -> Result<F::Output, CallError>
    where
        F: RemoteMethod<T, Args, Access>,
        F::Output: RemoteSend,
        Args: RemoteSend,
        Access: 'static,
    {
        self.call_async(method, args)?.wait()
    }

    /// Starts a call of a method, without waiting for its result.
    ///
    /// # Errors
    /// As [`Rai::call_async`](crate::Rai::call_async).
    pub fn call_async<F, Args, Access>(
        &self,
        method: F,
        args: Args,
    ) -> Result<Pending<'a, F::Output>, CallError>
    where
        F: RemoteMethod<T, Args, Access>,
        F::Output: RemoteSend,
        Args: RemoteSend,
        Access: 'static,
    {
        let op = self.invoke(code_ptr::<CallMethod<T, Args, Access>, F>(method));
        pending::call(&self.connection, type_name::<F>(), args, op)
    }

    /// Starts a call of a method with arguments that are already encoded.
    ///
    /// # Errors
    /// As [`call_async`](Self::call_async), except [`CallError::Encode`].
    pub fn call_packed<F, Args, Access>(
        &self,
        method: F,
        args: &Packed<Args>,
    ) -> Result<Pending<'a, F::Output>, CallError>
    where
        F: RemoteMethod<T, Args, Access>,
        F::Output: RemoteSend,
        Args: RemoteSend,
        Access: 'static,
    {
        let op = self.invoke(code_ptr::<CallMethod<T, Args, Access>, F>(method));
        pending::send(&self.connection, type_name::<F>().into(), args.body.clone(), op)
    }

    /// Has a method called without an answer: neither its result nor an error is returned.
    ///
    /// # Errors
    /// As [`call_async`](Self::call_async).
    pub fn cast<F, Args, Access>(&self, method: F, args: Args) -> Result<(), CallError>
    where
        F: RemoteMethod<T, Args, Access>,
        F::Output: RemoteSend,
        Args: RemoteSend,
        Access: 'static,
    {
        let op = self.invoke(code_ptr::<CallMethod<T, Args, Access>, F>(method));
        pending::cast(&self.connection, type_name::<F>(), args, op)
    }

    /// Calls the method that was exported on the server under that name.
    ///
    /// # Errors
    /// As [`Rai::call_named`](crate::Rai::call_named).
    ///
    /// # Blocking
    /// Until the method has returned.
    pub fn call_named<R, Args>(&self, name: &str, args: Args) -> Result<R, CallError>
    where
        R: RemoteSend,
        Args: RemoteSend,
    {
        let function = Function::Named { name: name.into(), signature: digest::<Method<T, Args, R>>() };
        let op = Op::Invoke { target: self.target.clone(), function };
        pending::call(&self.connection, name.to_owned(), args, op)?.wait()
    }

    fn invoke(&self, code: river_core::code::CodePtr) -> Op {
        Op::Invoke { target: self.target.clone(), function: Function::Code(code) }
    }

    // ---- as data ----

    /// Returns a copy of the object.
    ///
    /// # Errors
    /// [`CallError`].
    ///
    /// # Blocking
    /// Until the copy has arrived.
    pub fn get(&self) -> Result<T, CallError>
    where
        T: RemoteSend,
    {
        let op = self.invoke(code_ptr::<ReadObject<T>, ()>(()));
        pending::call(&self.connection, type_name::<T>(), (), op)?.wait()
    }

    /// Replaces the object.
    ///
    /// # Errors
    /// [`CallError`].
    ///
    /// # Blocking
    /// Until the object has been replaced.
    pub fn set(&self, value: T) -> Result<(), CallError>
    where
        T: RemoteSend,
    {
        self.call(|object: &mut T, value: T| *object = value, (value,))
    }

    /// Changes the object in place: [`call`](Self::call) by another name, for objects that are regarded as data.
    ///
    /// # Errors
    /// [`CallError`].
    ///
    /// # Blocking
    /// Until the object has been changed.
    pub fn update<F, Args, Access>(&self, change: F, args: Args) -> Result<F::Output, CallError>
    where
        F: RemoteMethod<T, Args, Access>,
        F::Output: RemoteSend,
        Args: RemoteSend,
        Access: 'static,
    {
        self.call(change, args)
    }

    /// Returns a copy of one item.
    ///
    /// # Errors
    /// [`CallError::NoSuchItem`], or another [`CallError`].
    ///
    /// # Blocking
    /// Until the copy has arrived.
    pub fn get_item(&self, key: T::Key) -> Result<T::Item, CallError>
    where
        T: Items,
    {
        let missing = no_such_item::<T>(&key);
        self.call(|object: &T, key: T::Key| object.item(&key).cloned(), (key,))?.ok_or(missing)
    }

    /// Sets one item.
    ///
    /// # Errors
    /// [`CallError::NoSuchItem`] if there is no place for it, or another [`CallError`].
    ///
    /// # Blocking
    /// Until the item has been set.
    pub fn set_item(&self, key: T::Key, item: T::Item) -> Result<(), CallError>
    where
        T: Items,
    {
        let missing = no_such_item::<T>(&key);
        let set = |object: &mut T, key: T::Key, item: T::Item| object.set_item(key, item);
        if self.call(set, (key, item))? { Ok(()) } else { Err(missing) }
    }

    // ---- other holders ----

    /// Makes a reference for another VR, to be sent to it and [opened](Remote::open) there. The object lives until that
    /// reference is dropped too, or that VR is gone.
    ///
    /// # Errors
    /// [`CallError`].
    ///
    /// # Blocking
    /// Until the server has recorded the reference: only then is it certain to arrive in time.
    pub fn grant(&self, to: VrId) -> Result<Remote<T>, CallError> {
        let Connection { vr, server, .. } = self.connection;
        let reference = Reference { by: vr.id(), number: vr.fresh_number() };
        let op = Op::Grant { target: self.target.clone(), reference, to };
        let granted = pending::call(&self.connection, "grant", (), op)?.wait();
        let object = granted.inspect_err(|_| {
            // If the wait was given up, nobody will open the reference, though the server may have recorded it.
            Post::of(vr).tell(vr, server, Op::Release(reference));
        })?;
        Ok(Remote { server, object, reference, holder: to, kind: PhantomData })
    }

    /// Moves the object from the server to this VR, even if others hold it.
    ///
    /// # Errors
    /// [`CallError`]; an object that cannot be encoded is freed.
    ///
    /// # Blocking
    /// Until the object has arrived.
    pub fn take(self) -> Result<T, CallError>
    where
        T: RemoteSend,
    {
        self.take_async()?.wait()
    }

    /// Starts to move the object from the server to this VR.
    ///
    /// # Errors
    /// As [`call_async`](Self::call_async).
    pub fn take_async(self) -> Result<Pending<'a, T>, CallError>
    where
        T: RemoteSend,
    {
        let function = Function::Code(code_ptr::<ReadObject<T>, ()>(()));
        let op = Op::Take { target: self.target.clone(), function };
        // The release that follows, when this handle is dropped, finds nothing, or an object that could not be encoded.
        pending::call(&self.connection, type_name::<T>(), (), op)
    }
}

fn no_such_item<T: Items>(key: &T::Key) -> CallError {
    CallError::NoSuchItem { object: type_name::<T>().into(), key: format!("{key:?}") }
}

impl<T> Clone for Object<'_, T> {
    fn clone(&self) -> Self {
        let (target, held) = (self.target.clone(), self.held.clone());
        Self { connection: self.connection, target, held, kind: PhantomData }
    }
}

impl<T> fmt::Debug for Object<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({} on VR {})", type_name::<T>(), self.connection.server.short())
    }
}
