//! Help for tests and documentation: worlds without VMs.

use crate::communicator::Communicator;
use crate::error::Result;
use crate::launch;

/// Runs ranks as threads of this process, without VMs, and returns their results. Unlike with [`run`](crate::run), the
/// closure may capture.
///
/// # Panics
/// If a rank fails or panics.
pub fn world<T: Send>(
    ranks: usize,
    body: impl Fn(&Communicator<'_>) -> river_core::Result<T> + Sync,
) -> Vec<T> {
    match try_world(ranks, body) {
        Ok(results) => results,
        Err(error) => panic!("{error}"),
    }
}

/// Like [`world`], but returns the error of the job.
///
/// # Errors
/// The error of the rank that failed first.
///
/// # Panics
/// If a rank panics.
pub fn try_world<T: Send>(
    ranks: usize,
    body: impl Fn(&Communicator<'_>) -> river_core::Result<T> + Sync,
) -> Result<Vec<T>> {
    launch::run_threads(ranks, false, body)?.into_iter().collect()
}

/// Like [`world`], but the other ranks continue when one fails; returns the result or the error of each.
///
/// # Errors
/// If all ranks wait for each other.
///
/// # Panics
/// If a rank panics.
pub fn surviving_world<T: Send>(
    ranks: usize,
    body: impl Fn(&Communicator<'_>) -> river_core::Result<T> + Sync,
) -> Result<Vec<Result<T>>> {
    launch::run_threads(ranks, true, body)
}
