//! Sends and receives that are started, and completed by their requests (MPI 1.3, section 3.7).

use crate::communicator::Communicator;
use crate::element::{self, Element};
use crate::engine::{Mode, OpId, Sending};
use crate::error::Result;
use crate::peer::{Peer, Tag};
use crate::request::{Receive, Request};
use crate::target::Target;

impl<'v> Communicator<'v> {
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
    /// [`MpiError::Rank`](crate::MpiError::Rank) or [`MpiError::Tag`](crate::MpiError::Tag) if the rank or tag is invalid.
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
}
