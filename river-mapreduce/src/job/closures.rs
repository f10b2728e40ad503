//! Jobs made of closures.

use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;

use crate::datum::{Datum, Key, Ref};
use crate::job::{Combiner, MapContext, MapReduce, ReduceContext, Values};

/// A job made of closures by [`job`].
pub struct Closures<I, K, V, OK, OV, M, R, C = NoCombiner> {
    map: M,
    reduce: R,
    combine: C,
    kind: Kinds<I, K, V, OK, OV>,
}

type Kinds<I, K, V, OK, OV> = PhantomData<fn() -> (I, K, V, OK, OV)>;

/// A map function: anything that implements `Fn(record, &mut MapContext<..>)` and captures nothing.
///
/// A trait of its own, so that the types of a closure are those that its author writes: types derived from a bound such
/// as `Fn(<I as Datum>::Ref<'_>, ..)` crash rustc 1.95 when the job is captured by another closure.
pub trait MapFn<I: Datum, K: Key, V: Datum>: Copy + Send + Sync + 'static {
    /// Calls the function.
    fn map(&self, record: Ref<'_, I>, out: &mut MapContext<'_, K, V>);
}

impl<I, K, V, F> MapFn<I, K, V> for F
where
    I: Datum,
    K: Key,
    V: Datum,
    F: Fn(Ref<'_, I>, &mut MapContext<'_, K, V>) + Copy + Send + Sync + 'static,
{
    fn map(&self, record: Ref<'_, I>, out: &mut MapContext<'_, K, V>) {
        self(record, out);
    }
}

/// A reduce function: anything that implements `Fn(key, &mut Values<..>, &mut ReduceContext<..>)` and captures nothing.
pub trait ReduceFn<K: Key, V: Datum, OK: Datum, OV: Datum>: Copy + Send + Sync + 'static {
    /// Calls the function.
    fn reduce(&self, key: Ref<'_, K>, values: &mut Values<'_, V>, out: &mut ReduceContext<'_, OK, OV>);
}

impl<K, V, OK, OV, F> ReduceFn<K, V, OK, OV> for F
where
    K: Key,
    V: Datum,
    OK: Datum,
    OV: Datum,
    F: Fn(Ref<'_, K>, &mut Values<'_, V>, &mut ReduceContext<'_, OK, OV>) + Copy + Send + Sync + 'static,
{
    fn reduce(&self, key: Ref<'_, K>, values: &mut Values<'_, V>, out: &mut ReduceContext<'_, OK, OV>) {
        self(key, values, out);
    }
}

/// A combining function: anything that implements `Fn(&mut value, value)` and captures nothing.
pub trait CombineFn<V: Datum>: Copy + Send + Sync + 'static {
    /// Returns the function as a [`Combiner`].
    fn combiner(&self) -> Combiner<'_, V>;
}

impl<V: Datum, F: Fn(&mut V, Ref<'_, V>) + Copy + Send + Sync + 'static> CombineFn<V> for F {
    fn combiner(&self) -> Combiner<'_, V> {
        self
    }
}

/// Marks a job of closures without a combiner.
#[derive(Clone, Copy, Debug)]
pub struct NoCombiner;

/// The combining function of a job of closures.
#[derive(Clone, Copy)]
pub struct CombineWith<F>(F);

/// The combiner of a job of closures: [`NoCombiner`] or [`CombineWith`].
pub trait CombineBy<V: Datum>: Copy + Send + Sync + 'static {
    /// The combiner, if there is one.
    fn combiner(&self) -> Option<Combiner<'_, V>>;
}

impl<V: Datum> CombineBy<V> for NoCombiner {
    fn combiner(&self) -> Option<Combiner<'_, V>> {
        None
    }
}

impl<V: Datum, F: CombineFn<V>> CombineBy<V> for CombineWith<F> {
    fn combiner(&self) -> Option<Combiner<'_, V>> {
        Some(self.0.combiner())
    }
}

/// Makes a job of two closures (or functions), whose argument types must be written out. They must capture nothing, as
/// only code is sent; a job with parameters is a [`MapReduce`] type.
///
/// ```
/// use river_mapreduce::{Input, Job, MapContext, ReduceContext, Values, job};
///
/// # fn main() -> Result<(), river_mapreduce::JobError> {
/// let lengths = job(
///     |line: &str, out: &mut MapContext<'_, u64, u64>| out.emit(line.len() as u64, 1),
///     |length: u64, counts: &mut Values<'_, u64>, out: &mut ReduceContext<'_, u64, u64>| {
///         out.emit(length, counts.sum());
///     },
/// )
/// .combine(|sum: &mut u64, n: u64| *sum += n);
/// let lines = ["one", "two", "three"].map(String::from);
/// let counts = Job::new(lengths, Input::items(lines)).reducers(1).run_serial()?.collect()?;
/// assert_eq!(counts, [(3, 2), (5, 1)]);
/// # Ok(())
/// # }
/// ```
pub fn job<I, K, V, OK, OV, M, R>(map: M, reduce: R) -> Closures<I, K, V, OK, OV, M, R>
where
    I: Datum,
    K: Key,
    V: Datum,
    OK: Datum,
    OV: Datum,
    M: MapFn<I, K, V>,
    R: ReduceFn<K, V, OK, OV>,
{
    Closures { map, reduce, combine: NoCombiner, kind: PhantomData }
}

impl<I, K, V: Datum, OK, OV, M, R> Closures<I, K, V, OK, OV, M, R> {
    /// Combines the values of a key where they are emitted, so that fewer are sent: the second is folded into the
    /// first. The function must be associative.
    pub fn combine<F: CombineFn<V>>(self, combine: F) -> Closures<I, K, V, OK, OV, M, R, CombineWith<F>> {
        Closures { map: self.map, reduce: self.reduce, combine: CombineWith(combine), kind: PhantomData }
    }
}

impl<I, K, V, OK, OV, M, R, C> MapReduce for Closures<I, K, V, OK, OV, M, R, C>
where
    I: Datum,
    K: Key,
    V: Datum,
    OK: Datum,
    OV: Datum,
    M: MapFn<I, K, V>,
    R: ReduceFn<K, V, OK, OV>,
    C: CombineBy<V>,
{
    type Input = I;
    type Key = K;
    type Value = V;
    type OutKey = OK;
    type OutValue = OV;

    fn map(&self, record: Ref<'_, I>, out: &mut MapContext<'_, K, V>) {
        self.map.map(record, out);
    }

    fn combiner(&self) -> Option<Combiner<'_, V>> {
        self.combine.combiner()
    }

    fn reduce(&self, key: Ref<'_, K>, values: &mut Values<'_, V>, out: &mut ReduceContext<'_, OK, OV>) {
        self.reduce.reduce(key, values, out);
    }
}

impl<I, K, V, OK, OV, M: Copy, R: Copy, C: Copy> Clone for Closures<I, K, V, OK, OV, M, R, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<I, K, V, OK, OV, M: Copy, R: Copy, C: Copy> Copy for Closures<I, K, V, OK, OV, M, R, C> {}

impl<I, K, V, OK, OV, M, R, C> fmt::Debug for Closures<I, K, V, OK, OV, M, R, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Closures({}, {})", type_name::<M>(), type_name::<R>())
    }
}

impl<F> fmt::Debug for CombineWith<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(type_name::<F>())
    }
}
