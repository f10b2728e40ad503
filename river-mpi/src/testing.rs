//! Help for tests and documentation: worlds without VMs.

use crate::communicator::Communicator;
use crate::error::Result;
use crate::launch;

/// Runs ranks as threads of this process, without VMs, and returns what each of them returned. Unlike that of
/// [`run`](crate::run), the closure may capture.
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
/// That of the rank that failed first.
///
/// # Panics
/// If a rank panics.
pub fn try_world<T: Send>(
    ranks: usize,
    body: impl Fn(&Communicator<'_>) -> river_core::Result<T> + Sync,
) -> Result<Vec<T>> {
    launch::run_threads(ranks, false, body)?.into_iter().collect()
}

/// Like [`world`], but the others go on when a rank fails; says of each how it ended.
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
