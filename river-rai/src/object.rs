//! A handle on an object that lives on a server.

use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use river_core::code::code_ptr;
use river_core::{Vr, VrId};

use crate::data::RemoteSend;
use crate::error::CallError;
use crate::function::RemoteMethod;
use crate::packed::Packed;
use crate::pending::{self, Pending};
use crate::protocol::{ObjectId, Op};
use crate::trampoline::{CallMethod, TakeObject};
use crate::wire;

/// An object on a server, held by reference (Trickle paper, example 5).
///
/// It exists as long as this handle does: dropping the handle frees it. It is freed too when the VR that created it
/// dies. The methods of one handle run in the order in which they were called.
#[must_use = "dropping the handle frees the object"]
pub struct Object<'a, T> {
    vr: &'a Vr,
    server: VrId,
    id: ObjectId,
    owned: bool,
    kind: PhantomData<fn() -> T>,
}

impl<'a, T: Send + 'static> Object<'a, T> {
    pub(crate) fn new(vr: &'a Vr, server: VrId, id: ObjectId) -> Self {
        Self { vr, server, id, owned: true, kind: PhantomData }
    }

    /// The server on which the object lives.
    #[must_use]
    pub fn server(&self) -> VrId {
        self.server
    }

    /// Calls a method: any function that takes `&T` or `&mut T` first.
    ///
    /// # Errors
    /// [`CallError`]; if the method panicked, the object stays as the method left it.
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

    /// Starts a call of a method and returns at once.
    ///
    /// # Errors
    /// [`CallError::Encode`], or [`CallError::Down`] if the server is known to be gone.
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
        let args = Packed::for_function(args, type_name::<F>())?;
        self.call_packed(method, &args)
    }

    /// Starts a call of a method with arguments that are encoded already.
    ///
    /// # Errors
    /// [`CallError::Down`] if the server is known to be gone.
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
        let (object, code) = (self.id, code_ptr::<CallMethod<T, Args, Access>, F>(method));
        let args = args.bytes.clone();
        pending::send(self.vr, self.server, type_name::<F>(), args, |ticket| Op::Invoke {
            ticket,
            object,
            code,
        })
    }

    /// Fetches the object from the server, where it is gone then.
    ///
    /// # Errors
    /// [`CallError`]; an object that cannot be encoded is freed.
    ///
    /// # Blocking
    /// Until it is here.
    pub fn take(self) -> Result<T, CallError>
    where
        T: RemoteSend,
    {
        self.take_async()?.wait()
    }

    /// Starts to fetch the object from the server, where it is gone then.
    ///
    /// # Errors
    /// [`CallError::Down`] if the server is known to be gone.
    pub fn take_async(mut self) -> Result<Pending<'a, T>, CallError>
    where
        T: RemoteSend,
    {
        let (object, code) = (self.id, code_ptr::<TakeObject<T>, ()>(()));
        let name = type_name::<T>();
        let taken = pending::send(self.vr, self.server, name, Bytes::new(), |ticket| Op::Take {
            ticket,
            object,
            code,
        });
        self.owned = taken.is_err();
        taken
    }
}

impl<T> Drop for Object<'_, T> {
    fn drop(&mut self) {
        if self.owned {
            // If the server is gone, so is the object.
            let _ = wire::send_request(self.vr, self.server, Op::Delete { object: self.id }, Bytes::new());
        }
    }
}

impl<T> fmt::Debug for Object<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({} on VR {})", type_name::<T>(), self.server.short())
    }
}
