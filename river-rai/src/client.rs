//! The client's end of a connection.

use std::any::type_name;
use std::fmt;
use std::time::Duration;

use river_core::code::code_ptr;
use river_core::{ServiceError, Vr, VrId};

use crate::connection::{self, Connection};
use crate::data::RemoteSend;
use crate::error::CallError;
use crate::exports::{constructor_export, function_export};
use crate::function::RemoteFn;
use crate::object::Object;
use crate::packed::Packed;
use crate::pending::{self, Pending};
use crate::post::{Open, Post};
use crate::protocol::{Capability, Function, ObjectId, Op};
use crate::signature::{Constructor, Plain, digest};
use crate::trampoline::{CallFunction, CreateObject};

/// A connection to a server: calls functions there and creates objects.
///
/// Cheap to copy; all copies, and all connections of one VR to one server, are the same connection. A server executes
/// the requests of one client one at a time, in the order in which they were made.
#[derive(Clone, Copy)]
pub struct Rai<'a> {
    pub(crate) connection: Connection<'a>,
}

impl<'a> Rai<'a> {
    /// Connects to a server, a VR that is an [`RaiServer`](crate::RaiServer).
    ///
    /// Nothing is sent: if the server is gone, the first call fails. From now on this VR [watches](Vr::watch) the
    /// server.
    #[must_use]
    pub fn connect(vr: &'a Vr, server: VrId) -> Self {
        Self { connection: Connection::new(vr, server) }
    }

    /// Connects to a server of another program that is [published](crate::RaiServer::published) under that name. Its
    /// functions are called [by name](Self::call_named), as the two programs share no code.
    ///
    /// ```no_run
    /// # fn example(vr: &river_core::Vr) -> river_core::Result {
    /// use river_rai::Rai;
    ///
    /// let calculator = Rai::look_up(vr, "calculator")?;
    /// let three: i64 = calculator.call_named("add", (1_i64, 2_i64))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ServiceError`] if no server or more than one is published under the name, or if it uses another version of the
    /// protocol.
    ///
    /// # Blocking
    /// For 50 ms, or a quarter of a second if no server is published under the name: see [`Vr::look_up`].
    pub fn look_up(vr: &'a Vr, name: &str) -> Result<Self, ServiceError> {
        let server = vr.look_up(name)?.vr;
        let connection = Connection::new(vr, server);
        // It may have been lost before.
        vr.watch(server);
        Post::of(vr).with(|calls| calls.take_back(server));
        Ok(Self { connection })
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> VrId {
        self.connection.server
    }

    /// The VR that is the client.
    #[must_use]
    pub fn vr(&self) -> &'a Vr {
        self.connection.vr
    }

    /// The same connection, but with a time limit for each call: if there is no answer within it, waiting for the call
    /// returns [`CallError::Timeout`], and the server is told to cancel the call.
    ///
    /// ```no_run
    /// # fn example(r: river_rai::Rai<'_>) -> Result<(), river_rai::CallError> {
    /// use std::time::Duration;
    ///
    /// let quick = r.timeout(Duration::from_millis(100));
    /// let error = quick.call(|| std::thread::sleep(Duration::from_secs(9)), ()).unwrap_err();
    /// assert!(error.is_timeout());
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.connection.limit = Some(limit);
        self
    }

    /// Presents a capability to the server, for all later requests of this VR.
    ///
    /// # Errors
    /// As [`call_async`](Self::call_async).
    pub fn show(&self, capability: Capability) -> Result<(), CallError> {
        pending::cast(&self.connection, "show", (), Op::Present(capability))
    }

    /// Calls a function on the server and returns its result.
    ///
    /// The function may be any function item, method or closure of up to eight arguments that captures nothing, which
    /// is checked at compile time. There is nothing to register: the server runs the same program.
    ///
    /// # Errors
    /// [`CallError`] if the function panicked, the server is gone, the values cannot be encoded or decoded, or the
    /// program ends.
    ///
    /// # Blocking
    /// Until the function has returned or the server is gone.
    ///
    /// ```no_run
    /// # fn example(r: river_rai::Rai<'_>) -> Result<(), river_rai::CallError> {
    /// fn add(a: i64, b: i64, c: i64) -> i64 {
    ///     a + b + c
    /// }
    /// assert_eq!(r.call(add, (1, 2, 3))?, 6);
    /// assert_eq!(r.call(|x: i64| x + 10, (5,))?, 15);
    /// # Ok(()) }
    /// ```
    ///
    /// Everything that a closure needs must be an argument:
    ///
    /// ```compile_fail,E0080
    /// # fn example(r: river_rai::Rai<'_>) -> Result<(), river_rai::CallError> {
    /// let step = 10_i64;
    /// r.call(move |x: i64| x + step, (5,))?;
    /// # Ok(()) }
    /// # fn main() { river_core::testing::threads(1, |vr, _, ids| drop(example(river_rai::Rai::connect(vr, ids[0])))); }
    /// ```
    pub fn call<F, Args>(&self, function: F, args: Args) -> Result<F::Output, CallError>
    where
        F: RemoteFn<Args>,
        F::Output: RemoteSend,
        Args: RemoteSend,
    {
        self.call_async(function, args)?.wait()
    }

    /// Starts a call, without waiting for its result.
    ///
    /// # Errors
    /// [`CallError::Encode`]; [`CallError::Down`] if the server is known to be gone; [`CallError::Full`] if its mailbox
    /// is limited and full.
    pub fn call_async<F, Args>(&self, function: F, args: Args) -> Result<Pending<'a, F::Output>, CallError>
    where
        F: RemoteFn<Args>,
        F::Output: RemoteSend,
        Args: RemoteSend,
    {
        let op = Op::Call(Function::Code(code_ptr::<CallFunction<Args>, F>(function)));
        pending::call(&self.connection, type_name::<F>(), args, op)
    }

    /// Starts a call with arguments that are already encoded.
    ///
    /// # Errors
    /// As [`call_async`](Self::call_async), except [`CallError::Encode`].
    pub fn call_packed<F, Args>(
        &self,
        function: F,
        args: &Packed<Args>,
    ) -> Result<Pending<'a, F::Output>, CallError>
    where
        F: RemoteFn<Args>,
        F::Output: RemoteSend,
        Args: RemoteSend,
    {
        let op = Op::Call(Function::Code(code_ptr::<CallFunction<Args>, F>(function)));
        pending::send(&self.connection, type_name::<F>().into(), args.body.clone(), op)
    }

    /// Has a function called without an answer: neither its result nor an error is returned.
    ///
    /// # Errors
    /// As [`call_async`](Self::call_async).
    pub fn cast<F, Args>(&self, function: F, args: Args) -> Result<(), CallError>
    where
        F: RemoteFn<Args>,
        F::Output: RemoteSend,
        Args: RemoteSend,
    {
        let op = Op::Call(Function::Code(code_ptr::<CallFunction<Args>, F>(function)));
        pending::cast(&self.connection, type_name::<F>(), args, op)
    }

    // ---- by name ----

    /// Calls the function that was [exported](Self::export) on the server under that name.
    ///
    /// The types of the arguments and of the result must be those of the function; a type that cannot be inferred must
    /// be written out: `1_i64`.
    ///
    /// ```no_run
    /// # fn example(r: river_rai::Rai<'_>) -> Result<(), river_rai::CallError> {
    /// r.export("add", |a: i64, b: i64| a + b)?;
    /// let three: i64 = r.call_named("add", (1_i64, 2_i64))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`CallError::NoSuchFunction`] lists the exported names, [`CallError::Signature`] shows the right types;
    /// otherwise as [`call`](Self::call).
    ///
    /// # Blocking
    /// As [`call`](Self::call).
    pub fn call_named<R, Args>(&self, name: &str, args: Args) -> Result<R, CallError>
    where
        R: RemoteSend,
        Args: RemoteSend,
    {
        self.call_named_async(name, args)?.wait()
    }

    /// Starts a call by name, without waiting for its result.
    ///
    /// # Errors
    /// As [`call_async`](Self::call_async).
    pub fn call_named_async<R, Args>(&self, name: &str, args: Args) -> Result<Pending<'a, R>, CallError>
    where
        R: RemoteSend,
        Args: RemoteSend,
    {
        let function = Function::Named { name: name.into(), signature: digest::<Plain<Args, R>>() };
        pending::call(&self.connection, name.to_owned(), args, Op::Call(function))
    }

    /// Creates an object with the constructor that was exported on the server under that name.
    ///
    /// # Errors
    /// As [`call_named`](Self::call_named).
    ///
    /// # Blocking
    /// As [`call`](Self::call).
    pub fn create_named<T, Args>(&self, name: &str, args: Args) -> Result<Object<'a, T>, CallError>
    where
        T: Send + 'static,
        Args: RemoteSend,
    {
        let function = Function::Named { name: name.into(), signature: digest::<Constructor<Args, T>>() };
        let object = self.fresh_object();
        let op = Op::Create { object, function };
        let created = pending::call::<(), _>(&self.connection, name.to_owned(), args, op)?;
        // The object is released even if the wait fails.
        let object = Object::created(self.connection, object);
        created.wait()?;
        Ok(object)
    }

    /// Exports a function on the server under a name, to all its clients, for the lifetime of the server.
    ///
    /// # Errors
    /// [`CallError::Refused`] if the server is restricted.
    ///
    /// # Blocking
    /// Until the server has exported it.
    pub fn export<F, Args>(&self, name: &str, function: F) -> Result<(), CallError>
    where
        F: RemoteFn<Args>,
        F::Output: RemoteSend,
        Args: RemoteSend,
    {
        self.export_async(name, function)?.wait()
    }

    /// Starts to export a function, without waiting for the server.
    ///
    /// # Errors
    /// As [`call_async`](Self::call_async).
    pub fn export_async<F, Args>(&self, name: &str, function: F) -> Result<Pending<'a, ()>, CallError>
    where
        F: RemoteFn<Args>,
        F::Output: RemoteSend,
        Args: RemoteSend,
    {
        pending::call(&self.connection, name.to_owned(), (), Op::Export(function_export(name, function)))
    }

    /// Exports a constructor on the server under a name, for [`create_named`](Self::create_named).
    ///
    /// # Errors
    /// As [`export`](Self::export).
    ///
    /// # Blocking
    /// Until the server has exported it.
    pub fn export_constructor<F, Args>(&self, name: &str, function: F) -> Result<(), CallError>
    where
        F: RemoteFn<Args>,
        F::Output: Send + 'static,
        Args: RemoteSend,
    {
        self.ask(name, Op::Export(constructor_export(name, function)))
    }

    pub(crate) fn ask(&self, name: &str, op: Op) -> Result<(), CallError> {
        pending::call(&self.connection, name.to_owned(), (), op)?.wait()
    }

    pub(crate) fn fresh_object(&self) -> ObjectId {
        ObjectId { owner: self.vr().id(), number: self.vr().fresh_number() }
    }

    // ---- objects ----

    /// Creates an object on the server: calls a function there, whose result stays on the server.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    ///
    /// # Blocking
    /// As [`call`](Self::call).
    ///
    /// ```no_run
    /// # fn example(r: river_rai::Rai<'_>) -> Result<(), river_rai::CallError> {
    /// let stack = r.create(Vec::<String>::new, ())?;
    /// stack.call(Vec::push, ("A".to_string(),))?;
    /// assert_eq!(stack.call(Vec::len, ())?, 1);
    /// let here: Vec<String> = stack.take()?;
    /// # Ok(()) }
    /// ```
    pub fn create<F, Args>(&self, function: F, args: Args) -> Result<Object<'a, F::Output>, CallError>
    where
        F: RemoteFn<Args>,
        F::Output: Send + 'static,
        Args: RemoteSend,
    {
        let (object, created) = self.create_async(function, args)?;
        created.wait()?;
        Ok(object)
    }

    /// Starts to create an object. Its methods can be called at once: the calls queue up behind its creation. The
    /// second value is the result of the creation.
    ///
    /// # Errors
    /// As [`call_async`](Self::call_async).
    #[allow(clippy::type_complexity)] // A name for this pair would say less than the pair.
    pub fn create_async<F, Args>(
        &self,
        function: F,
        args: Args,
    ) -> Result<(Object<'a, F::Output>, Pending<'a, ()>), CallError>
    where
        F: RemoteFn<Args>,
        F::Output: Send + 'static,
        Args: RemoteSend,
    {
        let function = Function::Code(code_ptr::<CreateObject<Args>, F>(function));
        let object = self.fresh_object();
        let op = Op::Create { object, function };
        let created = pending::call(&self.connection, type_name::<F>(), args, op)?;
        Ok((Object::created(self.connection, object), created))
    }

    /// Stops the server once it has executed and answered everything that was requested before. Answers for which a
    /// client has no room are dropped if no client takes any for five seconds. A restricted server only obeys its
    /// parent.
    ///
    /// After this call no receive of this VR reports the end of the server, except waiting for a call; to be told of
    /// it, [watch](Vr::watch) the server afterwards.
    ///
    /// # Errors
    /// As [`call_async`](Self::call_async).
    pub fn stop(&self) -> Result<(), CallError> {
        pending::cast(&self.connection, "stop", (), Op::Stop)?;
        let (vr, server) = (self.vr(), self.server());
        let dismissed = Post::of(vr).with(|calls| {
            calls.dismiss(server);
            calls.is_dismissed(server)
        });
        if dismissed {
            vr.unwatch(server);
        }
        Ok(())
    }

    /// Waits, at most for `limit`, until the server is gone, because it was told to [stop](Self::stop) or its VM was
    /// released. Returns `true` if it is gone; then no receive of this VR will report it.
    ///
    /// # Blocking
    /// Until the server is gone, the time is up, or the program ends.
    #[must_use]
    pub fn wait_for_end(&self, limit: Duration) -> bool {
        Open::of(self.vr()).wait_for_end(self.server(), connection::from_now(limit)).is_ok()
    }
}

impl fmt::Debug for Rai<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rai(VR {})", self.server().short())
    }
}
