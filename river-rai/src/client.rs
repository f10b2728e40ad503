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
/// Cheap to copy; all copies, and all connections of one VR to one server, are the same connection. Requests to one
/// server are done one at a time, in the order in which they were made.
#[derive(Clone, Copy)]
pub struct Rai<'a> {
    pub(crate) connection: Connection<'a>,
}

impl<'a> Rai<'a> {
    /// Connects to a server, a VR that is an [`RaiServer`](crate::RaiServer).
    ///
    /// Nothing is sent: if the server is gone, the first call says so. From now on this VR [watches](Vr::watch) the server.
    #[must_use]
    pub fn connect(vr: &'a Vr, server: VrId) -> Self {
        Self { connection: Connection::new(vr, server) }
    }

    /// Connects to a server of another program, which is [published](crate::RaiServer::published) under that name. Its
    /// functions are called [by name](Self::call_named): the two programs have no code in common.
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
    /// [`ServiceError`]: nobody or more than one publishes it, or whoever does speaks another version of the protocol.
    ///
    /// # Blocking
    /// For 50 ms, or a quarter of a second if nobody publishes it: see [`Vr::look_up`].
    pub fn look_up(vr: &'a Vr, name: &str) -> Result<Self, ServiceError> {
        let server = vr.look_up(name)?.vr;
        let connection = Connection::new(vr, server);
        // It may be known as a server that was lost.
        vr.watch(server);
        Post::of(vr).with(|calls| calls.take_back(server));
        Ok(Self { connection })
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> VrId {
        self.connection.server
    }

    /// The VR that is connected.
    #[must_use]
    pub fn vr(&self) -> &'a Vr {
        self.connection.vr
    }

    /// The same connection, with calls that are given up when they have no answer after that time: waiting for one
    /// ends with [`CallError::Timeout`], and the server is told to cancel it.
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

    /// Shows the server a capability, for all that this VR asks of it from now on.
    ///
    /// # Errors
    /// As [`call_async`](Self::call_async).
    pub fn show(&self, capability: Capability) -> Result<(), CallError> {
        pending::cast(&self.connection, "show", (), Op::Present(capability))
    }

    /// Calls a function on the server and returns what it returned.
    ///
    /// The function may be any function item, method or closure of up to eight arguments, as long as it captures
    /// nothing; this is checked at compile time. There is nothing to register: the server runs the same program.
    ///
    /// # Errors
    /// [`CallError`]: the function panicked, the server is gone, the values cannot travel, or the program ends.
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
    /// What a closure needs has to be an argument:
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

    /// Starts a call and returns at once.
    ///
    /// # Errors
    /// [`CallError::Encode`]; [`CallError::Down`] if the server is known to be gone; [`CallError::Full`] if its mailbox
    /// has a limit and is full.
    pub fn call_async<F, Args>(&self, function: F, args: Args) -> Result<Pending<'a, F::Output>, CallError>
    where
        F: RemoteFn<Args>,
        F::Output: RemoteSend,
        Args: RemoteSend,
    {
        let op = Op::Call(Function::Code(code_ptr::<CallFunction<Args>, F>(function)));
        pending::call(&self.connection, type_name::<F>(), args, op)
    }

    /// Starts a call with arguments that are encoded already.
    ///
    /// # Errors
    /// As [`call_async`](Self::call_async), but for the encoding.
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

    /// Has a function called and wants to hear nothing of it, neither a result nor an error.
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

    /// Calls what the server has [exported](Self::export) under that name.
    ///
    /// The types of the arguments and of the result must be those of the function; what cannot be inferred has to
    /// be written: `1_i64`.
    ///
    /// ```no_run
    /// # fn example(r: river_rai::Rai<'_>) -> Result<(), river_rai::CallError> {
    /// r.export("add", |a: i64, b: i64| a + b)?;
    /// let three: i64 = r.call_named("add", (1_i64, 2_i64))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`CallError::NoSuchFunction`] says what there is, [`CallError::Signature`] what types it has; otherwise as
    /// [`call`](Self::call).
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

    /// Starts a call by name and returns at once.
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

    /// Creates an object with the constructor that the server has exported under that name.
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
        // Released also if this is given up.
        let object = Object::created(self.connection, object);
        created.wait()?;
        Ok(object)
    }

    /// Makes a function known on the server by name, to whoever calls it, as long as the server lives.
    ///
    /// # Errors
    /// [`CallError::Refused`] if the server is restricted.
    ///
    /// # Blocking
    /// Until that is done.
    pub fn export<F, Args>(&self, name: &str, function: F) -> Result<(), CallError>
    where
        F: RemoteFn<Args>,
        F::Output: RemoteSend,
        Args: RemoteSend,
    {
        self.export_async(name, function)?.wait()
    }

    /// Starts to make a function known and returns at once.
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

    /// Makes a constructor known on the server by name, for [`create_named`](Self::create_named).
    ///
    /// # Errors
    /// As [`export`](Self::export).
    ///
    /// # Blocking
    /// Until that is done.
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

    /// Creates an object on the server: calls a function there and keeps what it returns.
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

    /// Starts to create an object and returns at once. The object can be called right away: calls queue up behind its
    /// creation. The second value tells how that went.
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

    /// Ends the server once it has done and answered everything that was asked of it before. Answers for which their clients
    /// have no room it gives up when none was taken for five seconds. A restricted server does that for its parent only.
    ///
    /// No receive of this VR hears of that end any more, but for who waits for a call; [watch](Vr::watch) the server afterwards
    /// to hear of it.
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

    /// Waits until the server is gone, because it was told to [stop](Self::stop) or its VM was released, but not longer than that.
    /// True: it is gone, and no receive of this VR will hear of it.
    ///
    /// # Blocking
    /// Until it is gone, the time is over, or the program ends.
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
