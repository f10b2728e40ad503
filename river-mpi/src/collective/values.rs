//! Collective operations on values of any serde type.
//!
//! They are the plans of the operations on slices, whose elements are the values' encodings: see
//! [`parcels`](crate::coll). Numbers are better sent as slices.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::coll::Parcels;
use crate::communicator::Communicator;
use crate::error::{MpiError, Result};
use crate::exchange::{decode, encode};
use crate::request::Request;

use super::prepare::{Lengths, Prepared};
use super::root::Root;

/// Algorithms are chosen as if every value had this size, since no rank knows the lengths of the others' values.
type Value = [u64; 8];

/// A call that can be carried out, with what it gives and how many values it gets.
struct Call {
    prepared: Prepared,
    given: Vec<Bytes>,
    got: usize,
}

/// # Collective operations on values
///
/// For values of any type that serde can encode, of whatever length. Errors and blocking are those of the
/// operations on slices, and [`MpiError::Value`] if a value cannot be encoded or is not of the type that was
/// asked for. Those with a root are for communicators with one group.
impl<'v> Communicator<'v> {
    fn root_of_values(&self, root: usize) -> Result<Root> {
        if self.is_inter() {
            return Err(MpiError::Comm("values have no root between two groups".into()));
        }
        Ok(Root::Rank(root))
    }

    fn bcast_value_call<T: Serialize>(&self, value: &T, root: usize) -> Result<Call> {
        let prepared = self.prepare_bcast::<Value>(1, self.root_of_values(root)?)?;
        let given = if self.rank() == root { vec![encode(value)?.into()] } else { Vec::new() };
        Ok(Call { prepared, given, got: 1 })
    }

    fn gather_values_call<T: Serialize>(&self, value: &T, root: usize) -> Result<Call> {
        let got = if self.rank() == root { self.size() } else { 0 };
        let prepared =
            self.prepare_gather::<Value>(Lengths { send: 1, recv: got }, self.root_of_values(root)?)?;
        Ok(Call { prepared, given: vec![encode(value)?.into()], got })
    }

    fn scatter_values_call<T: Serialize>(&self, values: &[T], root: usize) -> Result<Call> {
        let len = Lengths { send: if self.rank() == root { values.len() } else { 0 }, recv: 1 };
        let prepared = self.prepare_scatter::<Value>(len, self.root_of_values(root)?)?;
        let given = if self.rank() == root { encode_all(values)? } else { Vec::new() };
        Ok(Call { prepared, given, got: 1 })
    }

    fn allgather_values_call<T: Serialize>(&self, value: &T) -> Result<Call> {
        let got = self.peers().size();
        let prepared = self.prepare_allgather::<Value>(Lengths { send: 1, recv: got })?;
        Ok(Call { prepared, given: vec![encode(value)?.into()], got })
    }

    fn alltoall_values_call<T: Serialize>(&self, values: &[T]) -> Result<Call> {
        let got = self.peers().size();
        let prepared = self.prepare_alltoall::<Value>(Lengths { send: values.len(), recv: got })?;
        Ok(Call { prepared, given: encode_all(values)?, got })
    }

    /// Carries a call out.
    fn carry_out_values(&self, call: Result<Call>) -> Result<Vec<Bytes>> {
        let (tag, Call { prepared: Prepared { team, planned }, given, got }) = self.numbered(call)?;
        let run = || {
            let (given, output) = buffers(&given, got);
            let mut parcels = Parcels::new(planned.plan.clone(), tag, given, output);
            self.engine().enter(planned.operation);
            let port = self.port(&team);
            parcels.run(&port).map_err(|error| port.explain(error))?;
            Ok(parcels.output().to_vec())
        };
        self.guard(run())
    }

    /// Starts a call.
    fn start_values<'a>(
        &self,
        call: Result<Call>,
        deliver: impl FnMut(&[Bytes]) -> Result + 'a,
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        let (tag, Call { prepared: Prepared { team, planned }, given, got }) = self.numbered(call)?;
        let (given, output) = buffers(&given, got);
        let parcels = Parcels::new(planned.plan.clone(), tag, given, output);
        Ok(self.go(planned.operation, team, parcels, deliver))
    }

    /// Starts a call whose result its request gives.
    fn start_result<'a, R: 'a>(
        &self,
        call: Result<Call>,
        mut make: impl FnMut(&[Bytes]) -> Result<R> + 'a,
    ) -> Result<RequestValue<'a, R>>
    where
        'v: 'a,
    {
        let result = Rc::new(Cell::new(None));
        let place = result.clone();
        let deliver = move |values: &[Bytes]| {
            place.set(Some(make(values)?));
            Ok(())
        };
        Ok(RequestValue { request: self.start_values(call, deliver)?, result })
    }

    /// Broadcasts the root's value to all ranks.
    ///
    /// ```
    /// # river_mpi::testing::world(3, |world| {
    /// let mut name = if world.rank() == 0 { "river".to_owned() } else { String::new() };
    /// world.bcast_value(&mut name, 0)?;
    /// assert_eq!(name, "river");
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// As [`bcast`](Self::bcast), and [`MpiError::Value`].
    pub fn bcast_value<T: Serialize + DeserializeOwned>(&self, value: &mut T, root: usize) -> Result {
        let got = self.carry_out_values(self.bcast_value_call(value, root))?;
        if self.rank() != root {
            *value = self.guard(decode_one(&got))?;
        }
        Ok(())
    }

    /// Starts a [`bcast_value`](Self::bcast_value). The value is replaced when the request completes.
    ///
    /// # Errors
    /// As [`bcast_value`](Self::bcast_value).
    pub fn ibcast_value<'a, T: Serialize + DeserializeOwned>(
        &self,
        value: &'a mut T,
        root: usize,
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        let (call, is_root) = (self.bcast_value_call(value, root), self.rank() == root);
        self.start_values(call, move |got| {
            if !is_root {
                *value = decode_one(got)?;
            }
            Ok(())
        })
    }

    /// Gathers the values of all ranks at the root, in rank order; returns `None` on the other ranks.
    ///
    /// ```
    /// # river_mpi::testing::world(3, |world| {
    /// let names = world.gather_values(&format!("rank {}", world.rank()), 0)?;
    /// assert_eq!(names.map(|names| names[2].clone()), (world.rank() == 0).then(|| "rank 2".into()));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// As [`gather`](Self::gather), and [`MpiError::Value`].
    pub fn gather_values<T: Serialize + DeserializeOwned>(
        &self,
        value: &T,
        root: usize,
    ) -> Result<Option<Vec<T>>> {
        let got = self.carry_out_values(self.gather_values_call(value, root))?;
        (self.rank() == root).then(|| self.guard(decode_all(&got))).transpose()
    }

    /// Starts a [`gather_values`](Self::gather_values).
    ///
    /// # Errors
    /// As [`gather_values`](Self::gather_values).
    pub fn igather_values<'a, T: Serialize + DeserializeOwned + 'a>(
        &self,
        value: &T,
        root: usize,
    ) -> Result<RequestValue<'a, Option<Vec<T>>>>
    where
        'v: 'a,
    {
        let is_root = self.rank() == root;
        let make = move |got: &[Bytes]| is_root.then(|| decode_all(got)).transpose();
        self.start_result(self.gather_values_call(value, root), make)
    }

    /// Scatters the root's values, one to each rank; the argument of the other ranks is ignored.
    ///
    /// ```
    /// # river_mpi::testing::world(2, |world| {
    /// let words = ["one".to_owned(), "three".to_owned()];
    /// let mine: String = world.scatter_values(if world.rank() == 0 { &words } else { &[] }, 0)?;
    /// assert_eq!(mine, words[world.rank()]);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// As [`scatter`](Self::scatter), and [`MpiError::Value`].
    pub fn scatter_values<T: Serialize + DeserializeOwned>(&self, values: &[T], root: usize) -> Result<T> {
        let got = self.carry_out_values(self.scatter_values_call(values, root))?;
        self.guard(decode_one(&got))
    }

    /// Starts a [`scatter_values`](Self::scatter_values).
    ///
    /// # Errors
    /// As [`scatter_values`](Self::scatter_values).
    pub fn iscatter_values<'a, T: Serialize + DeserializeOwned + 'a>(
        &self,
        values: &[T],
        root: usize,
    ) -> Result<RequestValue<'a, T>>
    where
        'v: 'a,
    {
        self.start_result(self.scatter_values_call(values, root), decode_one)
    }

    /// Gathers the values of all ranks on every rank, in rank order.
    ///
    /// # Errors
    /// As [`allgather`](Self::allgather), and [`MpiError::Value`].
    pub fn allgather_values<T: Serialize + DeserializeOwned>(&self, value: &T) -> Result<Vec<T>> {
        let got = self.carry_out_values(self.allgather_values_call(value))?;
        self.guard(decode_all(&got))
    }

    /// Starts an [`allgather_values`](Self::allgather_values).
    ///
    /// ```
    /// # river_mpi::testing::world(3, |world| {
    /// let names = world.iallgather_values(&format!("rank {}", world.rank()))?;
    /// // ... something that does not need the names ...
    /// assert_eq!(names.wait()?[2], "rank 2");
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// As [`allgather_values`](Self::allgather_values).
    pub fn iallgather_values<'a, T: Serialize + DeserializeOwned + 'a>(
        &self,
        value: &T,
    ) -> Result<RequestValue<'a, Vec<T>>>
    where
        'v: 'a,
    {
        self.start_result(self.allgather_values_call(value), decode_all)
    }

    /// Sends the `i`-th value to rank `i`, and returns what each rank has sent to this one, in rank order.
    ///
    /// # Errors
    /// As [`alltoall`](Self::alltoall), and [`MpiError::Value`].
    pub fn alltoall_values<T: Serialize + DeserializeOwned>(&self, values: &[T]) -> Result<Vec<T>> {
        let got = self.carry_out_values(self.alltoall_values_call(values))?;
        self.guard(decode_all(&got))
    }

    /// Starts an [`alltoall_values`](Self::alltoall_values).
    ///
    /// # Errors
    /// As [`alltoall_values`](Self::alltoall_values).
    pub fn ialltoall_values<'a, T: Serialize + DeserializeOwned + 'a>(
        &self,
        values: &[T],
    ) -> Result<RequestValue<'a, Vec<T>>>
    where
        'v: 'a,
    {
        self.start_result(self.alltoall_values_call(values), decode_all)
    }

    /// Combines the values of all ranks in rank order; every rank gets the result.
    ///
    /// ```
    /// # river_mpi::testing::world(3, |world| {
    /// let all = world.allreduce_value(format!("{}", world.rank()), |left, right| left + &right)?;
    /// assert_eq!(all, "012");
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// As [`allreduce`](Self::allreduce), and [`MpiError::Value`].
    pub fn allreduce_value<T: Serialize + DeserializeOwned>(
        &self,
        value: T,
        combine: impl FnMut(T, T) -> T,
    ) -> Result<T> {
        let got = self.carry_out_values(self.allgather_values_call(&value))?;
        self.guard(combine_all(&got, combine))
    }

    /// Starts an [`allreduce_value`](Self::allreduce_value).
    ///
    /// # Errors
    /// As [`allreduce_value`](Self::allreduce_value).
    pub fn iallreduce_value<'a, T: Serialize + DeserializeOwned + 'a>(
        &self,
        value: &T,
        mut combine: impl FnMut(T, T) -> T + 'a,
    ) -> Result<RequestValue<'a, T>>
    where
        'v: 'a,
    {
        self.start_result(self.allgather_values_call(value), move |got| combine_all(got, &mut combine))
    }
}

/// An operation under way whose result is a value.
#[must_use = "the result is got by `wait`"]
pub struct RequestValue<'a, R> {
    request: Request<'a>,
    result: Rc<Cell<Option<R>>>,
}

impl<R> RequestValue<'_, R> {
    /// Waits for the result.
    ///
    /// # Errors
    /// Those of the operation.
    ///
    /// # Blocking
    /// As the blocking form.
    pub fn wait(self) -> Result<R> {
        let Self { request, result } = self;
        request.wait()?;
        result.take().ok_or_else(|| MpiError::Request("the result was handed out already".into()))
    }

    /// The result, if it is there. Does not block. After it was handed out there is nothing any more.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn test(&mut self) -> Result<Option<R>> {
        self.request.test()?;
        Ok(self.result.take())
    }
}

impl<R> fmt::Debug for RequestValue<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.request.fmt(f)
    }
}

/// The buffers of a call. What a bcast's root gives is what it has as output.
fn buffers(given: &[Bytes], got: usize) -> (Vec<Bytes>, Vec<Bytes>) {
    let mut output = vec![Bytes::new(); got];
    if let ([value], [place]) = (given, &mut output[..]) {
        *place = value.clone();
    }
    (given.to_vec(), output)
}

fn encode_all<T: Serialize>(values: &[T]) -> Result<Vec<Bytes>> {
    values.iter().map(|value| Ok(encode(value)?.into())).collect()
}

fn decode_all<T: DeserializeOwned>(values: &[Bytes]) -> Result<Vec<T>> {
    values.iter().map(|value| decode(value)).collect()
}

fn decode_one<T: DeserializeOwned>(values: &[Bytes]) -> Result<T> {
    decode(values.first().map_or(&[][..], |value| &value[..]))
}

fn combine_all<T: DeserializeOwned>(values: &[Bytes], combine: impl FnMut(T, T) -> T) -> Result<T> {
    let all = decode_all(values)?.into_iter().reduce(combine);
    all.ok_or_else(|| MpiError::Arg("there are no values to combine".into()))
}
