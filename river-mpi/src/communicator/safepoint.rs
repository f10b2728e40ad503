//! Where a recoverable rank goes on from.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Communicator;
use crate::engine::Kept;
use crate::error::{MpiError, Result};
use crate::job::{Life, Past};

impl Communicator<'_> {
    /// Says that `state` is all that the rank's function needs to go on from here: a recoverable rank that is restored or moved
    /// is called anew, gets it by [`resumed`](Self::resumed), and what was recorded before is forgotten. Does nothing in a
    /// rank that is not recoverable.
    ///
    /// Call it at a point that the function, when called again, reaches before it uses its communicator, such as the top of a
    /// loop. The ranks need not make their safepoints at the same time: messages in flight, or waiting for their receives, are
    /// kept. `self` must be the world.
    ///
    /// ```no_run
    /// use river_mpi::{Communicator, Launch, SUM};
    ///
    /// fn body(world: &Communicator) -> river_core::Result<f64> {
    ///     let (mut step, mut x) = world.resumed()?.unwrap_or((0, 1.0_f64));
    ///     while step < 1_000 {
    ///         world.safepoint(&(step, x))?;
    ///         let mut sum = [x];
    ///         world.allreduce_in_place(&mut sum, &SUM)?;
    ///         (step, x) = (step + 1, sum[0].sqrt());
    ///     }
    ///     Ok(x)
    /// }
    /// # fn main() { let _ = Launch::new(4).recoverable().try_run(body); }
    /// ```
    ///
    /// # Errors
    /// [`MpiError::Safepoint`] if something would be lost: requests that are pending (a send of up to 4 KiB is not),
    /// communicators beside the world, an attached buffer; if `state` cannot be encoded. The rank can go on without it, so the
    /// [`ErrorHandler`](crate::ErrorHandler) is not asked.
    ///
    /// # Blocking
    /// While a checkpoint is being taken.
    pub fn safepoint<S: Serialize + ?Sized>(&self, state: &S) -> Result<()> {
        let engine = &self.inner.engine;
        let Some(life) = engine.life().filter(|_| engine.vr().is_recoverable()) else { return Ok(()) };
        let failed = |error: &dyn fmt::Display| MpiError::Safepoint(error.to_string());
        if self.inner.context != 0 {
            return Err(failed(&"it is made on the world, not on a communicator of some of its ranks"));
        }
        let start = life.past.as_ref().map(|past| past.start.clone()).unwrap_or_default();
        let past = Past {
            start,
            engine: postcard::to_stdvec(&engine.keep()?).map_err(|error| failed(&error))?,
            collectives: self.inner.collectives.get(),
            agreements: self.inner.agreements.get(),
            state: postcard::to_stdvec(state).map_err(|error| failed(&error))?,
        };
        let life = Life { past: Some(past), ..life.clone() };
        engine.vr().safepoint(&life).map_err(|error| failed(&error))
    }

    /// What was given to the last [`safepoint`](Self::safepoint), if this call of the rank's function begins there. `None` if
    /// it begins at the beginning.
    ///
    /// # Errors
    /// [`MpiError::Safepoint`] if it was of another type.
    pub fn resumed<S: DeserializeOwned>(&self) -> Result<Option<S>> {
        let past = self.inner.engine.life().and_then(|life| life.past.as_ref());
        let Some(past) = past.filter(|past| !past.engine.is_empty()) else { return Ok(None) };
        let state = postcard::from_bytes(&past.state);
        state.map(Some).map_err(|error| MpiError::Safepoint(format!("its state: {error}")))
    }

    /// Goes on from a safepoint.
    pub(crate) fn take_up(&self, past: &Past) -> Result<()> {
        let kept: Kept = postcard::from_bytes(&past.engine)
            .map_err(|error| MpiError::Safepoint(format!("its messages: {error}")))?;
        self.inner.collectives.set(past.collectives);
        self.inner.agreements.set(past.agreements);
        self.inner.engine.take_up(kept)
    }
}
