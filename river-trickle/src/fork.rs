//! Fork and join (paper, section 2.3): no threads here, a fork is a request and a join waits for its reply.

use std::fmt;

use river_rai::{Completions, Packed, Pending, RemoteFn, RemoteSend};

use crate::error::TrickleError;
use crate::vm::Vm;
use crate::vms::Vms;

/// A function that was forked, until it is joined.
#[must_use = "nobody will see the result, or the error, of a fork that is not joined"]
pub struct Handle<'a, R> {
    vm: Vm<'a>,
    pending: Pending<'a, R>,
}

impl<'a, R> Handle<'a, R> {
    /// The VM on which the function runs.
    #[must_use]
    pub fn vm(&self) -> &Vm<'a> {
        &self.vm
    }
}

impl<R> fmt::Debug for Handle<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({} on VM {})", self.pending.function(), self.vm.name())
    }
}

impl<'a> Vm<'a> {
    /// Starts a function on the VM and returns at once; [`join`] waits for the result (paper, section 2.3).
    ///
    /// # Errors
    /// [`TrickleError::Call`] if the VM is known to be gone or the arguments cannot travel.
    pub fn fork<F, Args>(&self, function: F, args: Args) -> Result<Handle<'a, F::Output>, TrickleError>
    where
        F: RemoteFn<Args>,
        F::Output: RemoteSend,
        Args: RemoteSend,
    {
        self.fork_packed(function, &Packed::new(args).map_err(|error| self.error(error))?)
    }

    fn fork_packed<F, Args>(
        &self,
        function: F,
        args: &Packed<Args>,
    ) -> Result<Handle<'a, F::Output>, TrickleError>
    where
        F: RemoteFn<Args>,
        F::Output: RemoteSend,
        Args: RemoteSend,
    {
        let pending = self.rai().call_packed(function, args).map_err(|error| self.error(error))?;
        Ok(Handle { vm: self.clone(), pending })
    }
}

impl<'a> Vms<'a> {
    /// Starts a function with the same arguments on every VM.
    ///
    /// # Errors
    /// As [`Vm::fork`]; what has been started goes on, and its results are thrown away.
    pub fn fork<F, Args>(&self, function: F, args: Args) -> Result<Vec<Handle<'a, F::Output>>, TrickleError>
    where
        F: RemoteFn<Args>,
        F::Output: RemoteSend,
        Args: RemoteSend,
    {
        let Some(first) = self.first() else { return Ok(Vec::new()) };
        let args = Packed::new(args).map_err(|error| first.error(error))?;
        self.iter().map(|vm| vm.fork_packed(function, &args)).collect()
    }

    /// Starts a function on one VM after the other, each with its own arguments (paper, example 6, line 18). If there
    /// are fewer arguments than VMs, the last VMs stay idle.
    ///
    /// # Errors
    /// As [`fork`](Self::fork), and [`TrickleError::TooManyArguments`] if there are more arguments than VMs.
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
        // All of them first: an error should not leave half of them running.
        let args: Vec<Args> = args.into_iter().take(self.len() + 1).collect();
        if args.len() > self.len() {
            return Err(TrickleError::TooManyArguments { vms: self.len() });
        }
        self.iter().zip(args).map(|(vm, args)| vm.fork(function, args)).collect()
    }
}

/// What [`join`] takes: a [`Handle`], or a `Vec` or a tuple of handles.
pub trait Join {
    /// The result, or as many results in the same order.
    type Output;

    /// As the function [`join`].
    ///
    /// # Errors
    /// As the function [`join`].
    fn join(self) -> Result<Self::Output, TrickleError>;
}

/// Waits for what was forked.
///
/// ```no_run
/// # fn example(vms: river_trickle::Vms<'_>) -> river_core::Result {
/// use river_trickle::join;
///
/// let h = vms[0].fork(|x: i64| x + 10, (1,))?;
/// assert_eq!(join(h)?, 11);
///
/// let hs = (vms[0].fork(|x: i64| x + 10, (1,))?, vms[1].fork(|x: i64| x + 20, (2,))?);
/// assert_eq!(join(hs)?, (11, 22));
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`TrickleError::Call`] of the first handle that failed; the others are dropped.
///
/// # Blocking
/// Until all the functions have returned or one has failed.
pub fn join<J: Join>(handles: J) -> Result<J::Output, TrickleError> {
    handles.join()
}

impl<R: RemoteSend> Join for Handle<'_, R> {
    type Output = R;

    fn join(self) -> Result<R, TrickleError> {
        let Self { vm, pending } = self;
        pending.wait().map_err(|error| vm.error(error))
    }
}

impl<J: Join> Join for Vec<J> {
    type Output = Vec<J::Output>;

    fn join(self) -> Result<Self::Output, TrickleError> {
        self.into_iter().map(Join::join).collect()
    }
}

macro_rules! tuples {
    ($($handle:ident)*) => {
        impl<$($handle: Join),*> Join for ($($handle,)*) {
            type Output = ($($handle::Output,)*);

            #[allow(non_snake_case)]
            fn join(self) -> Result<Self::Output, TrickleError> {
                let ($($handle,)*) = self;
                Ok(($($handle.join()?,)*))
            }
        }
    };
}

tuples!(A B);
tuples!(A B C);
tuples!(A B C D);
tuples!(A B C D E);
tuples!(A B C D E F);
tuples!(A B C D E F G);
tuples!(A B C D E F G H);

/// Waits for whichever fork ends first, takes it out of the list and returns it with its result. The handle says on
/// which VM it ran; there is nothing left to join.
///
/// # Errors
/// [`TrickleError::Call`] if the one that ended first failed, it is out of the list then too;
/// [`TrickleError::NothingToJoin`] if the list is empty.
///
/// # Blocking
/// Until one of the functions has returned or failed.
pub fn joinany<'a, R: RemoteSend>(
    handles: &mut Vec<Handle<'a, R>>,
) -> Result<(Handle<'a, R>, R), TrickleError> {
    let first = handles.first().ok_or(TrickleError::NothingToJoin)?;
    let vr = first.vm.rai().vr();
    let mut completions = Completions::new(vr);
    for handle in handles.iter() {
        completions.add(&handle.pending);
    }
    let ready = completions.next().map_err(|error| TrickleError::waiting(&error))?;
    let at = handles.iter().position(|handle| Some(handle.pending.ticket()) == ready);
    let mut handle = handles.remove(at.ok_or(TrickleError::NothingToJoin)?);
    match handle.pending.try_wait() {
        Ok(Some(result)) => Ok((handle, result)),
        Ok(None) => Err(TrickleError::NothingToJoin),
        Err(error) => Err(handle.vm.error(error)),
    }
}
