//! Point-to-point communication of values of any serde type.
//!
//! A value is sent as its postcard encoding, so the receiver must ask for the type that was sent. Numbers are better sent as
//! slices.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::communicator::Communicator;
use crate::error::Result;
use crate::exchange::{decode, encode};
use crate::peer::{Peer, Tag};
use crate::request::{Receive, Request};
use crate::status::Status;

impl<'v> Communicator<'v> {
    /// Sends a value, or a reference to one, of any type that serde can encode.
    ///
    /// ```
    /// # river_mpi::testing::world(2, |world| {
    /// if world.rank() == 0 {
    ///     world.send_value(&("hello", vec![Some(1.5), None]), 1, 0)?;
    /// } else {
    ///     let (greeting, numbers): (String, Vec<Option<f64>>) = world.recv_value(0, 0)?.0;
    ///     assert_eq!((greeting.as_str(), numbers.len()), ("hello", 2));
    /// }
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// Those of [`send`](Self::send), and [`MpiError::Value`](crate::MpiError::Value) if serde cannot encode it.
    ///
    /// # Blocking
    /// Like [`send`](Self::send).
    pub fn send_value<T: Serialize + ?Sized>(&self, value: &T, dest: impl Into<Peer>, tag: i32) -> Result {
        let bytes = self.guard(encode(&value))?;
        self.send(&bytes, dest, tag)
    }

    /// Starts a send of a value.
    ///
    /// # Errors
    /// Those of [`send_value`](Self::send_value).
    pub fn isend_value<T: Serialize + ?Sized>(
        &self,
        value: &T,
        dest: impl Into<Peer>,
        tag: i32,
    ) -> Result<Request<'v>> {
        let bytes = self.guard(encode(&value))?;
        self.isend_vec(bytes, dest, tag)
    }

    /// Receives a value.
    ///
    /// # Errors
    /// [`MpiError::Value`](crate::MpiError::Value) if the message is not such a value, and for a receive from
    /// [`PROC_NULL`](crate::PROC_NULL); [`MpiError::ProcFailed`](crate::MpiError::ProcFailed) if every rank that could send
    /// it is gone.
    ///
    /// # Blocking
    /// Until a matching message has arrived.
    pub fn recv_value<T: DeserializeOwned>(
        &self,
        source: impl Into<Peer>,
        tag: impl Into<Tag>,
    ) -> Result<(T, Status)> {
        let (bytes, status) = self.recv::<u8>(source, tag)?;
        Ok((self.guard(decode(&bytes))?, status))
    }

    /// Posts a receive of a value, which [`ReceiveValue::wait`] returns.
    ///
    /// # Errors
    /// Those of [`irecv`](Self::irecv).
    pub fn irecv_value<T: DeserializeOwned>(
        &self,
        source: impl Into<Peer>,
        tag: impl Into<Tag>,
    ) -> Result<ReceiveValue<'v, T>> {
        let receive = self.irecv::<u8>(source, tag)?;
        Ok(ReceiveValue { comm: self.clone(), receive, kind: std::marker::PhantomData })
    }
}

/// A receive of a value in progress.
#[must_use = "a receive that is dropped is taken back"]
#[derive(Debug)]
pub struct ReceiveValue<'a, T> {
    comm: Communicator<'a>,
    receive: Receive<'a, u8>,
    kind: std::marker::PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> ReceiveValue<'_, T> {
    /// Waits for the value.
    ///
    /// # Errors
    /// Those of [`recv_value`](Communicator::recv_value).
    ///
    /// # Blocking
    /// Until it has arrived.
    pub fn wait(self) -> Result<(T, Status)> {
        let (bytes, status) = self.receive.wait()?;
        Ok((self.comm.guard(decode(&bytes))?, status))
    }

    /// Returns the value if it has arrived. Does not block.
    ///
    /// # Errors
    /// Those of [`wait`](Self::wait).
    pub fn test(&mut self) -> Result<Option<(T, Status)>> {
        match self.receive.test()? {
            Some((bytes, status)) => Ok(Some((self.comm.guard(decode(&bytes))?, status))),
            None => Ok(None),
        }
    }
}
