//! The client's end of a connection.

use std::any::type_name;
use std::fmt;

use bytes::Bytes;
use river_core::code::code_ptr;
use river_core::{Vr, VrId};

use crate::data::RemoteSend;
use crate::error::CallError;
use crate::function::RemoteFn;
use crate::object::Object;
use crate::packed::Packed;
use crate::pending::{self, Pending};
use crate::post::Post;
use crate::protocol::{ObjectId, Op};
use crate::trampoline::{CallFunction, CreateObject};
use crate::wire;

/// A connection to a server: calls functions there and creates objects.
///
/// Cheap to copy; all copies, and all connections of one VR to one server, are the same connection. Requests to one
/// server are done one at a time, in the order in which they were made.
#[derive(Clone, Copy)]
pub struct Rai<'a> {
    vr: &'a Vr,
    server: VrId,
}

impl<'a> Rai<'a> {
    /// Connects to a server, a VR that is an [`RaiServer`](crate::RaiServer).
    ///
    /// Nothing is sent: if the server is gone, the first call says so.
    #[must_use]
    pub fn connect(vr: &'a Vr, server: VrId) -> Self {
        if Post::of(vr).with(|calls| calls.add_server(server)) {
            vr.watch(server);
        }
        Self { vr, server }
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> VrId {
        self.server
    }

    /// The VR that is connected.
    #[must_use]
    pub fn vr(&self) -> &'a Vr {
        self.vr
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
    /// [`CallError::Encode`], or [`CallError::Down`] if the server is known to be gone.
    pub fn call_async<F, Args>(&self, function: F, args: Args) -> Result<Pending<'a, F::Output>, CallError>
    where
        F: RemoteFn<Args>,
        F::Output: RemoteSend,
        Args: RemoteSend,
    {
        let args = Packed::for_function(args, type_name::<F>())?;
        self.call_packed(function, &args)
    }

    /// Starts a call with arguments that are encoded already.
    ///
    /// # Errors
    /// [`CallError::Down`] if the server is known to be gone.
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
        let code = code_ptr::<CallFunction<Args>, F>(function);
        let args = args.bytes.clone();
        pending::send(self.vr, self.server, type_name::<F>(), args, |ticket| Op::Call { ticket, code })
    }

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
        let code = code_ptr::<CreateObject<Args>, F>(function);
        let args = Packed::for_function(args, type_name::<F>())?.bytes;
        let id = ObjectId { owner: self.vr.id(), number: self.vr.fresh_number() };
        let op = |ticket| Op::Create { ticket, object: id, code };
        let created = pending::send(self.vr, self.server, type_name::<F>(), args, op)?;
        Ok((Object::new(self.vr, self.server, id), created))
    }

    /// Ends the server once it has done everything that was asked of it before.
    ///
    /// # Errors
    /// [`CallError::Down`] if it is gone already.
    pub fn stop(&self) -> Result<(), CallError> {
        wire::send_request(self.vr, self.server, Op::Stop, Bytes::new()).map_err(CallError::sending)
    }
}

impl fmt::Debug for Rai<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rai(VR {})", self.server.short())
    }
}
