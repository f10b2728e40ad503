//! How a job is sent to the workers: as a code pointer, which leads to a function that makes the job, and the bytes of
//! its parameters.

use std::any::{Any, type_name};
use std::marker::PhantomData;
use std::sync::Arc;

use river_core::catch_panic;
use river_core::code::{CodePtr, Trampoline, code_ptr};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::counters::Counters;
use crate::datum::{Datum, Key};
use crate::failure::Failure;
use crate::job::{Closures, CombineBy, MapFn, MapReduce, Mapped, ReduceFn};
use crate::output::OutputBuffer;
use crate::sort::Source;
use crate::task::{self, Check, MapTask, MapTotals, ReduceTotals, Scratch};

/// A job that can be sent to VMs: a [`MapReduce`] type that serde can encode, or one made of closures.
pub trait Travel: MapReduce {
    /// Returns code and parameters.
    #[doc(hidden)]
    fn pack(&self) -> Result<Packed, String>;
}

/// A job in encoded form.
#[derive(Debug)]
#[doc(hidden)]
pub struct Packed {
    pub(crate) code: CodePtr,
    pub(crate) state: Vec<u8>,
}

impl<M: MapReduce + Serialize + DeserializeOwned> Travel for M {
    fn pack(&self) -> Result<Packed, String> {
        let state = postcard::to_stdvec(self)
            .map_err(|error| format!("the job {} cannot travel: {error}", type_name::<M>()))?;
        Ok(Packed { code: code_ptr::<FromBytes<M>, ()>(()), state })
    }
}

impl<I, K, V, OK, OV, M, R, C> Travel for Closures<I, K, V, OK, OV, M, R, C>
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
    fn pack(&self) -> Result<Packed, String> {
        Ok(Packed { code: code_ptr::<FromCode, Self>(*self), state: Vec::new() })
    }
}

/// A job with its types erased.
pub(crate) trait AnyJob: Send + Sync {
    fn map(
        &self,
        task: &MapTask<'_>,
        scratch: &mut Scratch,
        check: Check<'_>,
    ) -> Result<(Mapped, MapTotals), Failure>;

    fn reduce(
        &self,
        source: &mut dyn Source<Error = Failure>,
        segments: usize,
        output: OutputBuffer<'_>,
    ) -> Result<(ReduceTotals, Counters), Failure>;

    /// Used instead of `reduce` for a sample: returns the keys only.
    fn keys(
        &self,
        source: &mut dyn Source<Error = Failure>,
        segments: usize,
        output: OutputBuffer<'_>,
    ) -> Result<ReduceTotals, Failure>;
}

impl<M: MapReduce> AnyJob for M {
    fn map(
        &self,
        task: &MapTask<'_>,
        scratch: &mut Scratch,
        check: Check<'_>,
    ) -> Result<(Mapped, MapTotals), Failure> {
        task::map(self, task, scratch, check)
    }

    fn reduce(
        &self,
        source: &mut dyn Source<Error = Failure>,
        segments: usize,
        output: OutputBuffer<'_>,
    ) -> Result<(ReduceTotals, Counters), Failure> {
        task::reduce(self, source, segments, output)
    }

    fn keys(
        &self,
        source: &mut dyn Source<Error = Failure>,
        segments: usize,
        output: OutputBuffer<'_>,
    ) -> Result<ReduceTotals, Failure> {
        task::keys::<M>(source, segments, output)
    }
}

/// The context of the trampolines.
struct Unpacking {
    state: Vec<u8>,
    job: Option<Result<Arc<dyn AnyJob>, String>>,
}

/// Restores the job.
pub(crate) fn unpack(code: CodePtr, state: Vec<u8>) -> Result<Arc<dyn AnyJob>, String> {
    let mut unpacking = Unpacking { state, job: None };
    let enter = code.resolve().map_err(|error| error.to_string())?;
    catch_panic(|| enter(&mut unpacking))
        .map_err(|panic| format!("the job cannot be made again: {panic}"))?;
    unpacking.job.unwrap_or_else(|| Err("the code pointer leads to something that is no job".into()))
}

/// Decodes an `M`.
struct FromBytes<M>(PhantomData<fn() -> M>);

impl<M: MapReduce + DeserializeOwned> Trampoline<()> for FromBytes<M> {
    fn enter((): (), context: &mut dyn Any) {
        if let Some(unpacking) = context.downcast_mut::<Unpacking>() {
            let job = postcard::from_bytes::<M>(&unpacking.state);
            unpacking.job =
                Some(job.map(|job| Arc::new(job) as Arc<dyn AnyJob>).map_err(|error| error.to_string()));
        }
    }
}

/// Makes a job that consists of code only.
struct FromCode;

impl<M: MapReduce> Trampoline<M> for FromCode {
    fn enter(job: M, context: &mut dyn Any) {
        if let Some(unpacking) = context.downcast_mut::<Unpacking>() {
            unpacking.job = Some(Ok(Arc::new(job)));
        }
    }
}
