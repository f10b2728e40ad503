//! The definition of a job: user code for map, combine, partition and reduce, and its arguments.

mod closures;
mod map_context;
mod reduce_context;

pub use closures::{Closures, CombineBy, CombineFn, CombineWith, MapFn, NoCombiner, ReduceFn, job};
pub use map_context::MapContext;
pub(crate) use map_context::{Collector, MapSettings, Mapped};
pub use reduce_context::{ReduceContext, Values};

use crate::datum::{Datum, Key, Ref};
pub use crate::sort::{Combiner, ValueOrder};

/// The code of a MapReduce job ("MapReduce: Simplified Data Processing on Large Clusters", Dean and Ghemawat, 2004).
///
/// The fields of the implementing type are the job's parameters; they are sent to the VMs by serde. The code is there
/// already. For small jobs without parameters there is [`job`], which takes closures.
///
/// **Deterministic**: a task may run more than once, because a VM died or to overtake a straggler, so `map` and
/// `reduce` must emit the same for the same records. Then the output is the same whichever VMs die and however many
/// there are: the values of a key come in the order of the input.
///
/// ```
/// use river_mapreduce::{Combiner, Input, Job, MapContext, MapReduce, ReduceContext, Values};
///
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct WordCount;
///
/// impl MapReduce for WordCount {
///     type Input = String;
///     type Key = String;
///     type Value = u64;
///     type OutKey = String;
///     type OutValue = u64;
///
///     fn map(&self, line: &str, out: &mut MapContext<'_, String, u64>) {
///         for word in line.split_whitespace() {
///             out.emit(word, 1);
///         }
///     }
///
///     fn combiner(&self) -> Option<Combiner<'_, u64>> {
///         Some(&|sum, n| *sum += n)
///     }
///
///     fn reduce(&self, word: &str, counts: &mut Values<'_, u64>, out: &mut ReduceContext<'_, String, u64>) {
///         out.emit(word, counts.sum());
///     }
/// }
///
/// # fn main() -> Result<(), river_mapreduce::JobError> {
/// let lines = ["to be or not", "to be"].map(String::from);
/// let counts = Job::new(WordCount, Input::items(lines)).reducers(1).run_serial()?.collect()?;
/// assert_eq!(counts, [("be".into(), 2), ("not".into(), 1), ("or".into(), 1), ("to".into(), 2)]);
/// # Ok(())
/// # }
/// ```
pub trait MapReduce: Send + Sync + 'static {
    /// A record of the input, as [`Input`](crate::Input) reads it from files or items.
    type Input: Datum;
    /// The type by which records are grouped and sorted.
    type Key: Key;
    /// The type of the values of a key.
    type Value: Datum;
    /// The first part of an output record.
    type OutKey: Datum;
    /// The second part of an output record; `()` if there is none.
    type OutValue: Datum;

    /// Emits any number of records for one record of the input.
    fn map(&self, record: Ref<'_, Self::Input>, out: &mut MapContext<'_, Self::Key, Self::Value>);

    /// Returns a combiner, which combines values of a key where they are emitted, so that fewer are sent: `Some(&|sum,
    /// n| *sum += n)`. `reduce` must have the same result with and without it.
    fn combiner(&self) -> Option<Combiner<'_, Self::Value>> {
        None
    }

    /// Returns the reducer for a key, below `reducers`. `None`, the default: by a hash of the key, or by range if the
    /// job is [sorted](crate::Job::sorted). All values of a key must go to the same reducer.
    fn partition(&self, _key: &Ref<'_, Self::Key>, _reducers: usize) -> Option<usize> {
        None
    }

    /// Returns the order of the values of a key, by their encodings: `Some(u64::compare)`. `None`, the default: the
    /// order of the input.
    fn value_order(&self) -> Option<ValueOrder> {
        None
    }

    /// Emits any number of records for a key and all its values. Called for the keys in order.
    fn reduce(
        &self,
        key: Ref<'_, Self::Key>,
        values: &mut Values<'_, Self::Value>,
        out: &mut ReduceContext<'_, Self::OutKey, Self::OutValue>,
    );
}
