//! Point-to-point communication of typed slices (MPI 1.3, chapter 3).

mod nonblocking;

use crate::communicator::Communicator;
use crate::element::{self, Element};
use crate::engine::Mode;
use crate::error::{MpiError, Result};
use crate::peer::{Peer, Tag};
use crate::request::{land_all, to_vec};
use crate::status::Status;
use crate::target::{Target, whole};

impl<'v> Communicator<'v> {
    /// Sends a slice in standard mode. A short message is sent eagerly: the call returns at once. A long one (more than 4 KiB
    /// within a process, 8 KiB within a machine, 64 KiB between machines) waits until a receive has matched it.
    ///
    /// ```
    /// # river_mpi::testing::world(2, |world| {
    /// if world.rank() == 0 {
    ///     world.send(&[1.0, 2.0, 3.0], 1, 0)?;
    /// } else {
    ///     let mut buffer = [0.0; 5];
    ///     let status = world.recv_into(&mut buffer, 0, 0)?;
    ///     assert_eq!(status.count::<f64>(), Some(3));
    /// }
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [`MpiError::Rank`] or [`MpiError::Tag`] if the rank or tag is invalid, [`MpiError::ProcFailed`] if the destination is
    /// gone.
    ///
    /// # Blocking
    /// Until a receive has matched the message, if it is long.
    ///
    /// # Standard section
    /// 3.2.1
    pub fn send<T: Element>(&self, data: &[T], dest: impl Into<Peer>, tag: i32) -> Result {
        self.guard_sent(self.send_mode(element::bytes_of(data), dest.into(), tag, Mode::Standard))
    }

    /// Sends a slice in synchronous mode: returns when a receive has matched it.
    ///
    /// # Errors
    /// Those of [`send`](Self::send).
    ///
    /// # Blocking
    /// Until a receive has matched it.
    ///
    /// # Standard section
    /// 3.4
    pub fn ssend<T: Element>(&self, data: &[T], dest: impl Into<Peer>, tag: i32) -> Result {
        self.guard_sent(self.send_mode(element::bytes_of(data), dest.into(), tag, Mode::Synchronous))
    }

    /// Sends a slice in ready mode: the program promises that the receive is already posted. This is implemented as a
    /// standard send, which MPI permits.
    ///
    /// # Errors
    /// Those of [`send`](Self::send).
    ///
    /// # Blocking
    /// Like [`send`](Self::send).
    ///
    /// # Standard section
    /// 3.4
    pub fn rsend<T: Element>(&self, data: &[T], dest: impl Into<Peer>, tag: i32) -> Result {
        self.send(data, dest, tag)
    }

    /// Sends a slice in buffered mode: never waits for a receive, but the message must fit into the buffer that was provided
    /// by [`buffer_attach`](Self::buffer_attach).
    ///
    /// # Errors
    /// Those of [`send`](Self::send), and [`MpiError::Buffer`] if there is not enough room.
    ///
    /// # Blocking
    /// Like [`isend`](Self::isend).
    ///
    /// # Standard section
    /// 3.4
    pub fn bsend<T: Element>(&self, data: &[T], dest: impl Into<Peer>, tag: i32) -> Result {
        self.ibsend(data, dest, tag).map(drop)
    }

    /// Provides this many bytes for buffered sends of this rank, on all communicators.
    ///
    /// # Errors
    /// [`MpiError::BufferAttached`] if there is a buffer already.
    ///
    /// # Standard section
    /// 3.6
    pub fn buffer_attach(&self, bytes: usize) -> Result {
        let size = self.engine().buffer_size();
        if size > 0 {
            return self.guard(Err(MpiError::BufferAttached(size)));
        }
        self.engine().attach_buffer(bytes);
        Ok(())
    }

    /// Removes the buffer for buffered sends once all of them have been sent; returns its size.
    ///
    /// # Errors
    /// [`MpiError::ProcFailed`] if a receiver is gone: the messages to it are dropped, and calling this again waits for the
    /// others.
    ///
    /// # Blocking
    /// Until all buffered messages have been sent.
    ///
    /// # Standard section
    /// 3.6
    pub fn buffer_detach(&self) -> Result<usize> {
        self.guard(self.engine().drain_buffer())?;
        Ok(self.engine().attach_buffer(0))
    }

    /// Receives a message into the beginning of a slice.
    ///
    /// # Errors
    /// [`MpiError::Truncated`] if the message is longer than the slice, [`MpiError::Type`] if it is not a whole number of
    /// elements; the message is lost then. [`MpiError::ProcFailed`] if every rank that could send the message is gone.
    ///
    /// # Blocking
    /// Until a matching message has arrived.
    ///
    /// # Standard section
    /// 3.2.4
    pub fn recv_into<T: Element>(
        &self,
        buffer: &mut [T],
        source: impl Into<Peer>,
        tag: impl Into<Tag>,
    ) -> Result<Status> {
        self.guard(self.receive(&mut Target::slice(buffer), size_of::<T>(), source.into(), tag.into()))
    }

    /// Receives a message of any length.
    ///
    /// ```
    /// # river_mpi::testing::world(2, |world| {
    /// # use river_mpi::{ANY_SOURCE, ANY_TAG};
    /// if world.rank() == 0 {
    ///     world.send(&['a', 'b'], 1, 7)?;
    /// } else {
    ///     let (letters, status) = world.recv::<char>(ANY_SOURCE, ANY_TAG)?;
    ///     assert_eq!((&letters[..], status.source(), status.tag()), (&['a', 'b'][..], Some(0), Some(7)));
    /// }
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// Those of [`recv_into`](Self::recv_into).
    ///
    /// # Blocking
    /// Until a matching message has arrived.
    pub fn recv<T: Element>(&self, source: impl Into<Peer>, tag: impl Into<Tag>) -> Result<(Vec<T>, Status)> {
        let receive = || {
            let Some(ask) = self.ask(source.into(), tag.into())? else {
                return Ok((Vec::new(), Status::EMPTY));
            };
            match self.engine().receive(&ask, None)? {
                (_, Some(arrival)) => to_vec(&arrival),
                (header, None) => Ok((Vec::new(), Status::of(&header))),
            }
        };
        self.guard(receive())
    }

    /// Sends one slice and receives into another, in whichever order the peers proceed.
    ///
    /// # Errors
    /// Those of [`send`](Self::send) and [`recv_into`](Self::recv_into).
    ///
    /// # Blocking
    /// Until both are complete.
    ///
    /// # Standard section
    /// 3.10
    pub fn sendrecv<S: Element, R: Element>(
        &self,
        data: &[S],
        dest: impl Into<Peer>,
        send_tag: i32,
        buffer: &mut [R],
        source: impl Into<Peer>,
        recv_tag: impl Into<Tag>,
    ) -> Result<Status> {
        let request = self.irecv_into(buffer, source, recv_tag)?;
        let dest = dest.into();
        let borrows = |to| self.engine().borrows(to, size_of_val(data));
        if !self.guard(self.destination(dest))?.is_some_and(borrows) {
            self.send(data, dest, send_tag)?;
            return request.wait();
        }
        // Waits for both at once: the received message is written to its place while the sent one is being read.
        let mut both = [request, self.isend_from(data, dest, send_tag)?];
        land_all(&mut both);
        let [request, sent] = both;
        let status = request.wait()?;
        sent.wait()?;
        Ok(status)
    }

    /// Sends a slice and receives a message of at most the same length into it.
    ///
    /// # Errors
    /// Those of [`sendrecv`](Self::sendrecv).
    ///
    /// # Blocking
    /// Like [`sendrecv`](Self::sendrecv).
    ///
    /// # Standard section
    /// 3.10
    pub fn sendrecv_replace<T: Element>(
        &self,
        buffer: &mut [T],
        dest: impl Into<Peer>,
        send_tag: i32,
        source: impl Into<Peer>,
        recv_tag: impl Into<Tag>,
    ) -> Result<Status> {
        let sent = self.isend(buffer, dest, send_tag)?;
        let status = self.recv_into(buffer, source, recv_tag)?;
        sent.wait()?;
        Ok(status)
    }

    /// Waits until there is a message that a receive with these arguments would match, and returns its status.
    ///
    /// # Errors
    /// [`MpiError::ProcFailed`] if every rank that could send such a message is gone.
    ///
    /// # Blocking
    /// Until there is such a message.
    ///
    /// # Standard section
    /// 3.8
    pub fn probe(&self, source: impl Into<Peer>, tag: impl Into<Tag>) -> Result<Status> {
        let probe = || match self.ask(source.into(), tag.into())? {
            Some(ask) => Ok(Status::of(&self.engine().probe_wait(&ask)?)),
            None => Ok(Status::EMPTY),
        };
        self.guard(probe())
    }

    /// Like [`probe`](Self::probe), but does not block: returns `None` if there is no such message.
    ///
    /// # Errors
    /// Those of [`probe`](Self::probe), but a rank that has ended normally is no error: then there is no message.
    ///
    /// # Standard section
    /// 3.8
    pub fn iprobe(&self, source: impl Into<Peer>, tag: impl Into<Tag>) -> Result<Option<Status>> {
        let probe = || match self.ask(source.into(), tag.into())? {
            Some(ask) => Ok(self.engine().probe(&ask)?.map(|header| Status::of(&header))),
            None => Ok(Some(Status::EMPTY)),
        };
        self.guard(probe())
    }

    pub(crate) fn send_mode(&self, data: &[u8], dest: Peer, tag: i32, mode: Mode) -> Result {
        match self.destination(dest)? {
            Some(to) => self.engine().send(to, self.key(tag)?, data, mode),
            None => Ok(()),
        }
    }

    /// Receives into a target whose elements have `size` bytes.
    pub(crate) fn receive(
        &self,
        target: &mut Target<'_>,
        size: usize,
        source: Peer,
        tag: Tag,
    ) -> Result<Status> {
        let Some(ask) = self.ask(source, tag)? else { return Ok(Status::EMPTY) };
        let out = match target {
            Target::Bytes(bytes, _) => Some(&mut **bytes),
            _ => None,
        };
        let (header, arrival) = self.engine().receive(&ask, out)?;
        match arrival {
            Some(arrival) => target.take(&arrival)?,
            None => whole(header.receipt(), size)?,
        }
        Ok(Status::of(&header))
    }
}
