//! Collective operations on values of any serde type.
//!
//! Their encodings are sent, whose lengths are told first. Numbers are better sent as slices.

use std::ops::Range;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::coll::consecutive;
use crate::communicator::Communicator;
use crate::consensus::{decode, encode};
use crate::error::{MpiError, Result};

/// # Collective operations on values
///
/// For values of any type that serde can encode, of whatever length. Errors and blocking are those of the
/// operations on slices, and [`MpiError::Value`] if a value cannot be encoded or is not of the type that was
/// asked for.
impl Communicator<'_> {
    /// The root's value to all ranks.
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
        let mut bytes = if self.rank() == root { self.guard(encode(value))? } else { Vec::new() };
        let mut len = [bytes.len() as u64];
        self.bcast(&mut len, root)?;
        bytes.resize(self.guard(length(len[0]))?, 0);
        self.bcast(&mut bytes, root)?;
        if self.rank() != root {
            *value = self.guard(decode(&bytes))?;
        }
        Ok(())
    }

    /// The values of all ranks to the root, in their order; `None` on the others.
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
        let bytes = self.guard(encode(value))?;
        let mut lens = vec![0; if self.rank() == root { self.size() } else { 0 }];
        self.gather(&[bytes.len() as u64], &mut lens, root)?;
        let blocks = self.guard(blocks(&lens))?;
        let mut all = vec![0; blocks.last().map_or(0, |block| block.end)];
        self.gatherv(&bytes, &mut all, &blocks, root)?;
        (self.rank() == root).then(|| self.guard(decode_all(&all, &blocks))).transpose()
    }

    /// The root's values, one for each rank; the other ranks' argument is ignored.
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
        let (mut bytes, mut lens) = (Vec::new(), Vec::new());
        if self.rank() == root {
            (bytes, lens) = self.guard(encode_all(values))?;
        }
        let mut len = [0];
        self.scatter(&lens, &mut len, root)?;
        let mut mine = vec![0; self.guard(length(len[0]))?];
        self.scatterv(&bytes, &self.guard(blocks(&lens))?, &mut mine, root)?;
        self.guard(decode(&mine))
    }

    /// The values of all ranks to all, in their order.
    ///
    /// # Errors
    /// As [`allgather`](Self::allgather), and [`MpiError::Value`].
    pub fn allgather_values<T: Serialize + DeserializeOwned>(&self, value: &T) -> Result<Vec<T>> {
        let bytes = self.guard(encode(value))?;
        let mut lens = vec![0; self.peers().size()];
        self.allgather(&[bytes.len() as u64], &mut lens)?;
        let blocks = self.guard(blocks(&lens))?;
        let mut all = vec![0; blocks.last().map_or(0, |block| block.end)];
        self.allgatherv(&bytes, &mut all, &blocks)?;
        self.guard(decode_all(&all, &blocks))
    }

    /// The `i`-th value of each rank to rank `i`: what each rank has for this one, in their order.
    ///
    /// # Errors
    /// As [`alltoall`](Self::alltoall), and [`MpiError::Value`].
    pub fn alltoall_values<T: Serialize + DeserializeOwned>(&self, values: &[T]) -> Result<Vec<T>> {
        let (bytes, lens) = self.guard(encode_all(values))?;
        let mut incoming = vec![0; lens.len()];
        self.alltoall(&lens, &mut incoming)?;
        let (outgoing, incoming) = (self.guard(blocks(&lens))?, self.guard(blocks(&incoming))?);
        let mut all = vec![0; incoming.last().map_or(0, |block| block.end)];
        self.alltoallv(&bytes, &outgoing, &mut all, &incoming)?;
        self.guard(decode_all(&all, &incoming))
    }

    /// The values of all ranks, combined in the order of the ranks, to all.
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
        let all = self.allgather_values(&value)?;
        Ok(all.into_iter().reduce(combine).unwrap_or(value))
    }
}

/// The encodings of all, one after the other, and the length of each.
fn encode_all<T: Serialize>(values: &[T]) -> Result<(Vec<u8>, Vec<u64>)> {
    let (mut bytes, mut lens) = (Vec::new(), Vec::new());
    for value in values {
        let value = encode(value)?;
        lens.push(value.len() as u64);
        bytes.extend_from_slice(&value);
    }
    Ok((bytes, lens))
}

fn decode_all<T: DeserializeOwned>(bytes: &[u8], blocks: &[Range<usize>]) -> Result<Vec<T>> {
    blocks.iter().map(|block| decode(&bytes[block.clone()])).collect()
}

fn blocks(lens: &[u64]) -> Result<Vec<Range<usize>>> {
    let lens = lens.iter().map(|&len| length(len)).collect::<Result<Vec<_>>>()?;
    Ok(consecutive(&lens))
}

/// A length that another rank has told, if there can be such a value.
fn length(len: u64) -> Result<usize> {
    usize::try_from(len)
        .ok()
        .filter(|&len| len <= isize::MAX as usize)
        .ok_or_else(|| MpiError::Arg(format!("another rank tells of a value of {len} bytes")))
}
