//! Values that a client puts on a server under a name.

use std::any::type_name;

use river_core::code::code_ptr;

use crate::client::Rai;
use crate::data::RemoteSend;
use crate::error::CallError;
use crate::function::RemoteFn;
use crate::object::Object;
use crate::packed::Packed;
use crate::pending::{self, Pending};
use crate::protocol::{Function, Op};
use crate::trampoline::CreateObject;

impl<'a> Rai<'a> {
    /// Puts a value on the server under a name, where it stays until it is [removed](Self::remove), replaced, or this
    /// VR is gone. Functions that run there access it by [`with_named`](crate::current::with_named).
    ///
    /// ```no_run
    /// # fn example(r: river_rai::Rai<'_>) -> Result<(), river_rai::CallError> {
    /// let table = r.put("table", vec![0.0; 100])?;
    /// table.set_item(7, 1.5)?;
    /// table.update(|table: &mut Vec<f64>, x: f64| table.push(x), (2.5,))?;
    /// assert_eq!((table.get_item(7)?, table.get_item(100)?), (1.5, 2.5));
    /// table.set(vec![])?;
    /// assert!(table.get()?.is_empty());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`call`](Self::call).
    ///
    /// # Blocking
    /// Until the value is on the server.
    pub fn put<T: RemoteSend>(&self, name: &str, value: T) -> Result<Object<'a, T>, CallError> {
        let (object, put) = self.put_async(name, value)?;
        put.wait()?;
        Ok(object)
    }

    /// Starts to put a value on the server, without waiting. Its methods can be called at once: the calls queue up
    /// behind the put. The second value is the result of the put.
    ///
    /// # Errors
    /// As [`call_async`](Self::call_async).
    pub fn put_async<T: RemoteSend>(
        &self,
        name: &str,
        value: T,
    ) -> Result<(Object<'a, T>, Pending<'a, ()>), CallError> {
        let value = Packed::for_function((value,), type_name::<T>())?;
        self.put_with_async(name, |value: T| value, &value)
    }

    /// Like [`put`](Self::put), with a value that is already encoded.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    ///
    /// # Blocking
    /// As [`put`](Self::put).
    pub fn put_packed<T: RemoteSend>(
        &self,
        name: &str,
        value: &Packed<(T,)>,
    ) -> Result<Object<'a, T>, CallError> {
        self.put_with(name, |value: T| value, value)
    }

    /// Like [`put`](Self::put), but the value is made on the server, and need not be serialisable.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    ///
    /// # Blocking
    /// As [`put`](Self::put).
    pub fn put_with<F, Args>(
        &self,
        name: &str,
        function: F,
        args: &Packed<Args>,
    ) -> Result<Object<'a, F::Output>, CallError>
    where
        F: RemoteFn<Args>,
        F::Output: Send + 'static,
        Args: RemoteSend,
    {
        let (object, put) = self.put_with_async(name, function, args)?;
        put.wait()?;
        Ok(object)
    }

    /// Like [`put_async`](Self::put_async), but the value is made on the server.
    ///
    /// # Errors
    /// As [`put_async`](Self::put_async).
    #[allow(clippy::type_complexity)] // A name for this pair would say less than the pair.
    pub fn put_with_async<F, Args>(
        &self,
        name: &str,
        function: F,
        args: &Packed<Args>,
    ) -> Result<(Object<'a, F::Output>, Pending<'a, ()>), CallError>
    where
        F: RemoteFn<Args>,
        F::Output: Send + 'static,
        Args: RemoteSend,
    {
        let function = Function::Code(code_ptr::<CreateObject<Args>, F>(function));
        let op = Op::Put { object: self.fresh_object(), name: name.into(), function };
        let put = pending::send(&self.connection, type_name::<F>().into(), args.body.clone(), op)?;
        Ok((Object::named(self.connection, name), put))
    }

    /// Returns a handle to the value that has been, or will be, put on the server under that name.
    #[must_use]
    pub fn named<T: Send + 'static>(&self, name: &str) -> Object<'a, T> {
        Object::named(self.connection, name)
    }

    /// Frees the value with that name, if there is one.
    ///
    /// # Errors
    /// As [`export`](Self::export).
    ///
    /// # Blocking
    /// Until the value has been removed.
    pub fn remove(&self, name: &str) -> Result<(), CallError> {
        self.ask(name, Op::Remove(name.into()))
    }
}
