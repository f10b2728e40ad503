//! Functions that a farm can call: of one item, or of a whole chunk.

use std::time::Duration;

use river_core::{Panic, catch_traced};

/// How often a running chunk checks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(1);

/// A function that can be farmed out over items of type `T`.
///
/// Implemented for every `Fn(T) -> R`, called once per item ([`PerItem`]), and for every `Fn(Vec<T>) -> R`, called once
/// per chunk ([`PerChunk`]). Which of the two applies is inferred. Like everything that is called remotely, the
/// function must capture nothing:
///
/// ```compile_fail,E0080
/// fn scaled(vms: &river_trickle::Vms<'_>) -> Result<Vec<i64>, river_trickle::TrickleError> {
///     let factor = 3;
///     vms.forkwork(move |x: i64| x * factor, 0..100, 10) // pass `(factor, x)` as the item instead
/// }
/// # fn main() { let _: fn(&river_trickle::Vms<'_>) -> _ = scaled; }
/// ```
pub trait Work<T, Mode>: Copy + Send + 'static {
    /// The result of one call.
    type Output;

    /// Whether there is one result per item.
    const PER_ITEM: bool;

    /// Works on a chunk. A panic becomes an error in place of the result.
    fn run(&self, chunk: Vec<T>) -> Vec<Result<Self::Output, Panic>>;
}

/// The [`Work`] takes one item.
#[derive(Debug)]
pub enum PerItem {}

/// The [`Work`] takes a chunk of items.
#[derive(Debug)]
pub enum PerChunk {}

/// The clock of the serving VR: the measurements are sent, so a recoverable VR must get the same ones in a replay.
pub(crate) fn uptime() -> Duration {
    river_rai::current::with_vr(river_core::Vr::uptime).unwrap_or_default()
}

impl<F, T, R> Work<T, PerItem> for F
where
    F: Fn(T) -> R + Copy + Send + 'static,
{
    type Output = R;
    const PER_ITEM: bool = true;

    fn run(&self, chunk: Vec<T>) -> Vec<Result<R, Panic>> {
        let mut last_look = uptime();
        let mut results = Vec::with_capacity(chunk.len());
        for item in chunk {
            // A long chunk need not be finished if its result is no longer wanted.
            if uptime().saturating_sub(last_look) > LOOK {
                if river_rai::current::is_cancelled() {
                    break;
                }
                last_look = uptime();
            }
            results.push(catch_traced(|| self(item)));
        }
        results
    }
}

impl<F, T, R> Work<T, PerChunk> for F
where
    F: Fn(Vec<T>) -> R + Copy + Send + 'static,
{
    type Output = R;
    const PER_ITEM: bool = false;

    fn run(&self, chunk: Vec<T>) -> Vec<Result<R, Panic>> {
        vec![catch_traced(|| self(chunk))]
    }
}
