//! Point-to-point communication of typed slices (MPI 1.3, chapter 3).

use crate::communicator::Communicator;
use crate::element::{self, Element};
use crate::engine::{Mode, OpId, Sending};
use crate::error::{MpiError, Result};
use crate::peer::{Peer, Tag};
use crate::request::{Receive, Request, land_all, to_vec};
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

    /// Starts a standard send. The slice can be reused at once: it is copied, unless it is long and a receive matches it
    /// within about the time that the copy would have taken. [`isend_from`](Self::isend_from) and
    /// [`isend_vec`](Self::isend_vec) do not copy long messages.
    ///
    /// # Errors
    /// Those of [`send`](Self::send).
    ///
    /// # Blocking
    /// Never for a receive; for at most about half a millisecond until a receiver that lags far behind has made room.
    ///
    /// # Standard section
    /// 3.7.2
    pub fn isend<T: Element>(&self, data: &[T], dest: impl Into<Peer>, tag: i32) -> Result<Request<'v>> {
        self.start_send(data, dest.into(), tag, Mode::Standard)
    }

    /// Starts a standard send of a slice that the request borrows until it is completed or dropped, as in C. Within a machine
    /// the sender does not copy a long slice: the receiver reads it directly. To another machine it is sent without a copy if
    /// this rank is waiting for the request when the receiver's clear-to-send arrives, and from a copy if this rank is in
    /// another operation at that time.
    ///
    /// Dropping the request copies the slice if it has not been read yet, or sends it if the receiver has asked for it.
    /// *Leaking* the request ([`std::mem::forget`]) does neither: the receiver gets whatever that memory contains by then, or
    /// waits forever, which ends the job as a deadlock.
    ///
    /// ```
    /// # river_mpi::testing::world(2, |world| {
    /// # use river_mpi::wait_all;
    /// let other = 1 - world.rank();
    /// let mine = vec![world.rank(); 10_000];
    /// let mut theirs = vec![0; 10_000];
    /// wait_all(&mut [world.irecv_into(&mut theirs, other, 0)?, world.isend_from(&mine, other, 0)?])?;
    /// assert_eq!(theirs[9_999], other);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// Those of [`send`](Self::send).
    ///
    /// # Standard section
    /// 3.7.2
    // Functions that this is not inlined into copy its result: see `Engine::send_at_once`.
    #[inline(always)]
    pub fn isend_from<'a, T: Element>(
        &self,
        data: &'a [T],
        dest: impl Into<Peer>,
        tag: i32,
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        let bytes = element::bytes_of(data);
        let dest = dest.into();
        if let Some(gone) = self.send_at_once(bytes, dest, tag) {
            return Ok(Request::new(self, Some(gone), Target::Nothing));
        }
        Ok(Request::new(self, self.start_lent(bytes, dest, tag)?, Target::Source(bytes)))
    }

    /// Starts a synchronous send, which completes when a receive has matched it. The slice is copied.
    ///
    /// # Errors
    /// Those of [`send`](Self::send).
    ///
    /// # Standard section
    /// 3.7.2
    pub fn issend<T: Element>(&self, data: &[T], dest: impl Into<Peer>, tag: i32) -> Result<Request<'v>> {
        self.start_send(data, dest.into(), tag, Mode::Synchronous)
    }

    /// Starts a ready send: see [`rsend`](Self::rsend).
    ///
    /// # Errors
    /// Those of [`send`](Self::send).
    ///
    /// # Standard section
    /// 3.7.2
    pub fn irsend<T: Element>(&self, data: &[T], dest: impl Into<Peer>, tag: i32) -> Result<Request<'v>> {
        self.isend(data, dest, tag)
    }

    /// Starts a buffered send: see [`bsend`](Self::bsend). It is complete at once.
    ///
    /// # Errors
    /// Those of [`bsend`](Self::bsend).
    ///
    /// # Standard section
    /// 3.7.2
    pub fn ibsend<T: Element>(&self, data: &[T], dest: impl Into<Peer>, tag: i32) -> Result<Request<'v>> {
        let started = self.start_buffered(element::bytes_of(data), dest.into(), tag);
        Ok(Request::new(self, self.guard(started)?, Target::Nothing))
    }

    /// Starts a standard send of a vector, whose memory is sent without a copy.
    ///
    /// # Errors
    /// Those of [`send`](Self::send).
    ///
    /// # Standard section
    /// 3.7.2
    pub fn isend_vec<T: Element>(
        &self,
        data: Vec<T>,
        dest: impl Into<Peer>,
        tag: i32,
    ) -> Result<Request<'v>> {
        let start = || {
            let Some(to) = self.destination(dest.into())? else { return Ok(None) };
            self.engine().isend(to, self.key(tag)?, element::into_bytes(data), Mode::Standard).map(Some)
        };
        Ok(Request::new(self, self.guard(start())?, Target::Nothing))
    }

    /// Posts a receive into a slice, which the request borrows until it is completed or dropped.
    ///
    /// ```
    /// # river_mpi::testing::world(2, |world| {
    /// let other = 1 - world.rank();
    /// let mut theirs = [0; 3];
    /// let request = world.irecv_into(&mut theirs, other, 0)?;
    /// world.send(&[1, 2, 3], other, 0)?;
    /// request.wait()?;
    /// assert_eq!(theirs, [1, 2, 3]);
    /// # Ok(()) });
    /// ```
    ///
    /// The slice cannot be accessed before that:
    ///
    /// ```compile_fail,E0503
    /// # fn f(world: &river_mpi::Communicator) -> river_mpi::Result {
    /// let mut theirs = [0; 3];
    /// let request = world.irecv_into(&mut theirs, 0, 0)?;
    /// theirs[0] = 1; // error: it is borrowed
    /// request.wait()?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`MpiError::Rank`] or [`MpiError::Tag`] if the rank or tag is invalid.
    ///
    /// # Standard section
    /// 3.7.2
    pub fn irecv_into<'a, T: Element>(
        &self,
        buffer: &'a mut [T],
        source: impl Into<Peer>,
        tag: impl Into<Tag>,
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        let op = self.post(source.into(), tag.into())?;
        Ok(Request::new(self, op, Target::slice(buffer)))
    }

    /// Posts a receive of a message of any length.
    ///
    /// # Errors
    /// Those of [`irecv_into`](Self::irecv_into).
    pub fn irecv<T: Element>(&self, source: impl Into<Peer>, tag: impl Into<Tag>) -> Result<Receive<'v, T>> {
        Ok(Receive::new(self, self.post(source.into(), tag.into())?))
    }

    #[inline]
    pub(crate) fn post(&self, source: Peer, tag: Tag) -> Result<Option<OpId>> {
        let post = || self.ask(source, tag)?.map(|ask| self.engine().post(&ask)).transpose();
        self.guard(post())
    }

    pub(crate) fn send_mode(&self, data: &[u8], dest: Peer, tag: i32, mode: Mode) -> Result {
        match self.destination(dest)? {
            Some(to) => self.engine().send(to, self.key(tag)?, data, mode),
            None => Ok(()),
        }
    }

    fn start_send<T: Element>(&self, data: &[T], dest: Peer, tag: i32, mode: Mode) -> Result<Request<'v>> {
        let bytes = element::bytes_of(data);
        if mode == Mode::Standard
            && let Some(gone) = self.send_at_once(bytes, dest, tag)
        {
            return Ok(Request::new(self, Some(gone), Target::Nothing));
        }
        let start = || {
            let Some(to) = self.destination(dest)? else { return Ok(None) };
            self.engine().isend_slice(to, self.key(tag)?, bytes, mode).map(Some)
        };
        Ok(Request::new(self, self.guard(start())?, Target::Nothing))
    }

    /// Starts a buffered send. A message that cannot leave yet is in the attached buffer, so there is nothing to wait for.
    pub(crate) fn start_buffered(&self, data: &[u8], dest: Peer, tag: i32) -> Result<Option<Sending>> {
        let Some(to) = self.destination(dest)? else { return Ok(None) };
        match self.engine().send_buffered(to, self.key(tag)?, data)? {
            Sending::UnderWay(op) => {
                self.engine().detach(op);
                Ok(None)
            }
            gone => Ok(Some(gone)),
        }
    }

    // Neither of these two is inlined, because their caller always is; the second returns in registers: see
    // `Engine::send_at_once`.
    #[inline(never)]
    fn start_lent(&self, bytes: &[u8], dest: Peer, tag: i32) -> Result<Option<Sending>> {
        let start = || {
            let Some(to) = self.destination(dest)? else { return Ok(None) };
            self.engine().isend_lent(to, self.key(tag)?, bytes, Mode::Standard).map(Some)
        };
        self.guard(start())
    }

    #[inline(never)]
    fn send_at_once(&self, bytes: &[u8], dest: Peer, tag: i32) -> Option<Sending> {
        let to = self.destination(dest).ok()??;
        self.engine().send_at_once(to, self.key(tag).ok()?, bytes)
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
