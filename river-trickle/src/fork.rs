//! Fork (paper, section 2.3): without threads, a fork is a request, and a join waits for its reply.

use std::fmt;

use river_rai::{CallError, Object, Packed, Pending, RemoteFn, RemoteMethod, RemoteSend};

use crate::error::TrickleError;
use crate::vm::Vm;
use crate::vms::Vms;

/// A forked function or method that has not been joined.
#[must_use = "nobody will see the result, or the error, of a fork that is not joined"]
pub struct Handle<'a, R> {
    pub(crate) pending: Pending<'a, R>,
    on: OnVm<'a>,
}

/// The VM of a fork, which is not given back before the fork is joined or dropped.
struct OnVm<'a>(Vm<'a>);

impl<'a> OnVm<'a> {
    fn new(vm: &Vm<'a>) -> Self {
        vm.lot().begin_fork(vm.place());
        Self(vm.clone())
    }
}

impl Drop for OnVm<'_> {
    fn drop(&mut self) {
        self.0.lot().end_fork(self.0.place());
    }
}

impl<'a, R> Handle<'a, R> {
    /// The VM on which it runs.
    #[must_use]
    pub fn vm(&self) -> &Vm<'a> {
        &self.on.0
    }

    /// Cancels it: a function that has not begun never will; one that has begun can check
    /// [`is_cancelled`](river_rai::current::is_cancelled).
    pub fn cancel(self) {
        self.pending.cancel();
    }

    /// Waits for the result; an error names the VM.
    pub(crate) fn wait(self) -> Result<R, TrickleError>
    where
        R: RemoteSend,
    {
        let Self { pending, on } = self;
        pending.wait().map_err(|error| on.0.error(error))
    }
}

impl<R> fmt::Debug for Handle<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({} on VM {})", self.pending.function(), self.vm().name())
    }
}

/// The arguments that [`fork`] accepts: where to run, what to run, and with which arguments. `Form` is always inferred.
///
/// * on a [`Vm`], a function with a tuple of arguments: one [`Handle`];
/// * on [`Vms`] or a slice of them, a function with a tuple of arguments for all: a handle per VM;
/// * on VMs, a tuple of functions, one VM for each, all with the same arguments: a tuple of handles;
/// * on VMs, a tuple of functions with [`each`] of a tuple of argument tuples: a tuple of handles;
/// * on VMs, a function with [`each`] of a list of argument tuples, one VM for each: a handle per tuple.
pub trait Fork<'a, F, Args, Form> {
    /// One handle, or one per VM that is used.
    type Handles;

    /// See the function [`fork`].
    ///
    /// # Errors
    /// As the function [`fork`].
    fn fork(self, functions: F, args: Args) -> Result<Self::Handles, TrickleError>;
}

/// The same arguments for every VM.
#[derive(Debug)]
pub enum Same {}

/// A tuple of functions.
#[derive(Debug)]
pub enum Listed {}

/// A tuple of functions, with arguments for each.
#[derive(Debug)]
pub enum ListedEach {}

/// One function, with arguments for each VM.
#[derive(Debug)]
pub enum Mapped {}

/// Arguments that differ from VM to VM, made by [`each`].
#[derive(Clone, Copy, Debug)]
pub struct Each<L>(L);

/// Marks a list, or a tuple, as holding the arguments of one VM after the other.
pub fn each<L>(arguments: L) -> Each<L> {
    Each(arguments)
}

/// Starts functions on VMs, without waiting; [`join`](crate::join) waits for the results (paper, section 2.3). The original
/// inspected its arguments to decide whether a list is one argument or one for each VM; here their types decide.
///
/// ```no_run
/// # fn example(vms: river_trickle::Vms<'_>) -> river_core::Result {
/// use river_trickle::{each, fork, join};
///
/// fn foo(x: i64) -> i64 {
///     x + 10
/// }
///
/// fn bar(x: i64) -> i64 {
///     x + 20
/// }
///
/// assert_eq!(join(fork(&vms[0], foo, (1,))?)?, 11);
/// assert_eq!(join(fork(&vms, foo, (1,))?)?, vec![11; vms.len()]);
/// assert_eq!(join(fork(&vms[0..2], (foo, bar), (1,))?)?, (11, 21));
/// assert_eq!(join(fork(&vms[0..2], (foo, bar), each(((1,), (2,))))?)?, (11, 22));
/// assert_eq!(join(fork(&vms[0..2], foo, each([(1,), (2,)]))?)?, [11, 12]);
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`TrickleError::Call`] if a VM is known to be gone or the arguments cannot be encoded; functions that were started
/// go on, and their results are discarded. [`TrickleError::TooManyArguments`] if there are more functions or arguments
/// than VMs.
pub fn fork<'a, On, F, Args, Form>(on: On, functions: F, args: Args) -> Result<On::Handles, TrickleError>
where
    On: Fork<'a, F, Args, Form>,
{
    on.fork(functions, args)
}

impl<'a, F, Args> Fork<'a, F, Args, Same> for &Vm<'a>
where
    F: RemoteFn<Args>,
    F::Output: RemoteSend,
    Args: RemoteSend,
{
    type Handles = Handle<'a, F::Output>;

    fn fork(self, function: F, args: Args) -> Result<Self::Handles, TrickleError> {
        fork_packed(self, function, &Packed::new(args).map_err(|error| self.error(error))?)
    }
}

impl<'a, F, Args> Fork<'a, F, Args, Same> for &[Vm<'a>]
where
    F: RemoteFn<Args>,
    F::Output: RemoteSend,
    Args: RemoteSend,
{
    type Handles = Vec<Handle<'a, F::Output>>;

    fn fork(self, function: F, args: Args) -> Result<Self::Handles, TrickleError> {
        let Some(first) = self.first() else { return Ok(Vec::new()) };
        let args = Packed::new(args).map_err(|error| first.error(error))?;
        self.iter().map(|vm| fork_packed(vm, function, &args)).collect()
    }
}

impl<'a, F, List> Fork<'a, F, Each<List>, Mapped> for &[Vm<'a>]
where
    List: IntoIterator<Item: RemoteSend>,
    F: RemoteFn<List::Item>,
    F::Output: RemoteSend,
{
    type Handles = Vec<Handle<'a, F::Output>>;

    fn fork(self, function: F, Each(args): Each<List>) -> Result<Self::Handles, TrickleError> {
        // Collected first: an error should not leave half of them running.
        let args: Vec<List::Item> = args.into_iter().take(self.len() + 1).collect();
        enough(self, args.len())?;
        self.iter().zip(args).map(|(vm, args)| fork(vm, function, args)).collect()
    }
}

impl<'v, 'a, F, Args, Form> Fork<'a, F, Args, Form> for &'v Vms<'a>
where
    &'v [Vm<'a>]: Fork<'a, F, Args, Form>,
{
    type Handles = <&'v [Vm<'a>] as Fork<'a, F, Args, Form>>::Handles;

    fn fork(self, functions: F, args: Args) -> Result<Self::Handles, TrickleError> {
        Fork::fork(&self[..], functions, args)
    }
}

macro_rules! lists {
    ($count:literal $($function:ident $args:ident $index:tt)*) => {
        impl<'a, Args, $($function),*> Fork<'a, ($($function,)*), Args, Listed> for &[Vm<'a>]
        where
            Args: RemoteSend,
            $($function: RemoteFn<Args, Output: RemoteSend>,)*
        {
            type Handles = ($(Handle<'a, $function::Output>,)*);

            fn fork(self, functions: ($($function,)*), args: Args) -> Result<Self::Handles, TrickleError> {
                enough(self, $count)?;
                let args = Packed::new(args).map_err(|error| self[0].error(error))?;
                Ok(($(fork_packed(&self[$index], functions.$index, &args)?,)*))
            }
        }

        impl<'a, $($function, $args),*> Fork<'a, ($($function,)*), Each<($($args,)*)>, ListedEach> for &[Vm<'a>]
        where
            $($args: RemoteSend, $function: RemoteFn<$args, Output: RemoteSend>,)*
        {
            type Handles = ($(Handle<'a, $function::Output>,)*);

            fn fork(
                self,
                functions: ($($function,)*),
                Each(args): Each<($($args,)*)>,
            ) -> Result<Self::Handles, TrickleError> {
                enough(self, $count)?;
                Ok(($(fork(&self[$index], functions.$index, args.$index)?,)*))
            }
        }
    };
}

lists!(2 F A 0 G B 1);
lists!(3 F A 0 G B 1 H C 2);
lists!(4 F A 0 G B 1 H C 2 I D 3);
lists!(5 F A 0 G B 1 H C 2 I D 3 J E 4);
lists!(6 F A 0 G B 1 H C 2 I D 3 J E 4 K X 5);
lists!(7 F A 0 G B 1 H C 2 I D 3 J E 4 K X 5 L Y 6);
lists!(8 F A 0 G B 1 H C 2 I D 3 J E 4 K X 5 L Y 6 M Z 7);

fn enough(vms: &[Vm<'_>], needed: usize) -> Result<(), TrickleError> {
    if needed > vms.len() { Err(TrickleError::TooManyArguments { vms: vms.len() }) } else { Ok(()) }
}

fn fork_packed<'a, F, Args>(
    vm: &Vm<'a>,
    function: F,
    args: &Packed<Args>,
) -> Result<Handle<'a, F::Output>, TrickleError>
where
    F: RemoteFn<Args>,
    F::Output: RemoteSend,
    Args: RemoteSend,
{
    let on = OnVm::new(vm);
    let pending = vm.rai().call_packed(function, args).map_err(|error| vm.error(error))?;
    Ok(Handle { pending, on })
}

impl<'a> Vm<'a> {
    /// Starts a function on the VM, without waiting; [`join`](crate::join) waits for the result (paper, section 2.3).
    ///
    /// # Errors
    /// As [`fork`].
    pub fn fork<F, Args>(&self, function: F, args: Args) -> Result<Handle<'a, F::Output>, TrickleError>
    where
        F: RemoteFn<Args>,
        F::Output: RemoteSend,
        Args: RemoteSend,
    {
        fork(self, function, args)
    }

    /// Starts a method of an object that lives on the VM, without waiting; [`join`](crate::join) waits for the result.
    ///
    /// ```no_run
    /// # fn example(vms: river_trickle::Vms<'_>) -> river_core::Result {
    /// use river_trickle::join;
    ///
    /// let stack = vms[0].create(Vec::<String>::new, ())?;
    /// let pushed = vms[0].fork_method(&stack, Vec::push, ("A".to_string(),))?;
    /// let length = vms[0].fork_method(&stack, Vec::len, ())?;
    /// assert_eq!(join((pushed, length))?, ((), 1));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As the function [`fork`]; [`CallError::NoSuchObject`] in it if the object lives on another VM.
    pub fn fork_method<T, F, Args, Access>(
        &self,
        object: &Object<'a, T>,
        method: F,
        args: Args,
    ) -> Result<Handle<'a, F::Output>, TrickleError>
    where
        T: Send + 'static,
        F: RemoteMethod<T, Args, Access>,
        F::Output: RemoteSend,
        Args: RemoteSend,
        Access: 'static,
    {
        if object.server() != self.server() {
            let (function, object) = (std::any::type_name::<F>().into(), format!("{object:?}"));
            return Err(self.error(CallError::NoSuchObject { function, object }));
        }
        let on = OnVm::new(self);
        let pending = match self.limit() {
            Some(limit) => object.timeout(limit).call_async(method, args),
            None => object.call_async(method, args),
        };
        Ok(Handle { pending: pending.map_err(|error| self.error(error))?, on })
    }
}

impl<'a> Vms<'a> {
    /// Starts a function with the same arguments on every VM.
    ///
    /// # Errors
    /// As the function [`fork`].
    pub fn fork<F, Args>(&self, function: F, args: Args) -> Result<Vec<Handle<'a, F::Output>>, TrickleError>
    where
        F: RemoteFn<Args>,
        F::Output: RemoteSend,
        Args: RemoteSend,
    {
        fork(&self[..], function, args)
    }

    /// Starts a function on the first VMs, once for each tuple of arguments (paper, example 6, line 18). If there are
    /// fewer tuples than VMs, the last VMs stay idle.
    ///
    /// # Errors
    /// As the function [`fork`].
    pub fn fork_each<F, Args>(
        &self,
        function: F,
        args: impl IntoIterator<Item = Args>,
    ) -> Result<Vec<Handle<'a, F::Output>>, TrickleError>
    where
        F: RemoteFn<Args>,
        F::Output: RemoteSend,
        Args: RemoteSend,
    {
        fork(&self[..], function, each(args))
    }
}
