//! Join (paper, section 2.3).

use river_rai::{CallError, Completion, Completions, RemoteSend};

use crate::error::TrickleError;
use crate::fork::Handle;

/// The arguments that [`join`] accepts: a [`Handle`], or a `Vec` or a tuple of handles.
pub trait Join {
    /// The result, or the results in the order of the handles.
    type Output;

    /// See the function [`join`].
    ///
    /// # Errors
    /// As the function [`join`].
    fn join(self) -> Result<Self::Output, TrickleError>;
}

/// Waits for forked functions and methods and returns their results.
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
        self.wait()
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

/// Waits for whichever fork ends first, removes its handle from the list, and returns it with the result. The handle
/// only serves to tell on which VM it ran.
///
/// # Errors
/// [`TrickleError::Call`] if the one that ended first failed, or exceeded its [time limit](crate::Vm::timeout); it is removed
/// from the list as well. [`TrickleError::NothingToJoin`] if the list is empty.
///
/// # Blocking
/// Until one of the functions has returned or failed.
pub fn joinany<'a, R: RemoteSend>(
    handles: &mut Vec<Handle<'a, R>>,
) -> Result<(Handle<'a, R>, R), TrickleError> {
    let at = match handles.iter().position(|handle| handle.pending.is_answered()) {
        Some(at) => at,
        None => wait_for_any(handles)?,
    };
    let mut handle = handles.remove(at);
    match handle.pending.try_wait() {
        Ok(Some(result)) => Ok((handle, result)),
        Ok(None) => {
            handle.pending.cancel();
            Err(handle.vm().error(CallError::Timeout { function: handle.pending.function().into() }))
        }
        Err(error) => Err(handle.vm().error(error)),
    }
}

/// Returns the index of a handle whose answer has arrived or whose time is up.
fn wait_for_any<R>(handles: &[Handle<'_, R>]) -> Result<usize, TrickleError> {
    let first = handles.first().ok_or(TrickleError::NothingToJoin)?;
    let mut completions = Completions::new(first.vm().rai().vr());
    for handle in handles {
        completions.add(&handle.pending);
    }
    let deadline = handles.iter().filter_map(|handle| handle.pending.deadline()).min();
    let at = match completions.next_until(deadline).map_err(|error| TrickleError::waiting(&error))? {
        Completion::Answered(ready) => handles.iter().position(|handle| handle.pending.ticket() == ready),
        Completion::Timeout => handles.iter().position(|handle| handle.pending.deadline() == deadline),
        Completion::Empty => None,
    };
    at.ok_or(TrickleError::NothingToJoin)
}
