//! The second family: values of any serde type, as messages.
//!
//! A value is its postcard encoding, so the receiver asks for the type that was sent; a message of numbers is better
//! sent as a slice.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::communicator::Communicator;
use crate::error::Result;
use crate::exchange::{decode, encode};
use crate::peer::{Peer, Tag};
use crate::request::{Receive, Request};
use crate::status::Status;

impl<'v> Communicator<'v> {
    /// Sends a value of any type that serde can encode; a reference will do.
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
    /// As [`send`](Self::send), and [`MpiError::Value`](crate::MpiError::Value) if serde cannot encode it.
    ///
    /// # Blocking
    /// As [`send`](Self::send).
    pub fn send_value<T: Serialize + ?Sized>(&self, value: &T, dest: impl Into<Peer>, tag: i32) -> Result {
        let bytes = self.guard(encode(&value))?;
        self.send(&bytes, dest, tag)
    }

    /// Starts to send a value.
    ///
    /// # Errors
    /// As [`send_value`](Self::send_value).
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
    /// [`MpiError::Value`](crate::MpiError::Value) if what came is no such value, and from
    /// [`PROC_NULL`](crate::PROC_NULL); [`MpiError::ProcFailed`](crate::MpiError::ProcFailed) if nobody who could send
    /// it is left.
    ///
    /// # Blocking
    /// Until a message that matches has come.
    pub fn recv_value<T: DeserializeOwned>(
        &self,
        source: impl Into<Peer>,
        tag: impl Into<Tag>,
    ) -> Result<(T, Status)> {
        let (bytes, status) = self.recv::<u8>(source, tag)?;
        Ok((self.guard(decode(&bytes))?, status))
    }

    /// Posts a receive of a value; [`ReceiveValue::wait`] gives it.
    ///
    /// # Errors
    /// As [`irecv`](Self::irecv).
    pub fn irecv_value<T: DeserializeOwned>(
        &self,
        source: impl Into<Peer>,
        tag: impl Into<Tag>,
    ) -> Result<ReceiveValue<'v, T>> {
        let receive = self.irecv::<u8>(source, tag)?;
        Ok(ReceiveValue { comm: self.clone(), receive, kind: std::marker::PhantomData })
    }
}

/// A receive of a value, under way.
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
    /// As [`recv_value`](Communicator::recv_value).
    ///
    /// # Blocking
    /// Until it has come.
    pub fn wait(self) -> Result<(T, Status)> {
        let (bytes, status) = self.receive.wait()?;
        Ok((self.comm.guard(decode(&bytes))?, status))
    }

    /// The value, if it has come. Does not block.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn test(&mut self) -> Result<Option<(T, Status)>> {
        match self.receive.test()? {
            Some((bytes, status)) => Ok(Some((self.comm.guard(decode(&bytes))?, status))),
            None => Ok(None),
        }
    }
}
