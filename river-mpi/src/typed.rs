//! Point-to-point communication of data that datatypes describe (MPI 1.3, section 3.12).

use bytemuck::Pod;

use crate::communicator::Communicator;
use crate::datatype::Committed;
use crate::engine::Mode;
use crate::error::{MpiError, Result};
use crate::peer::{Peer, Tag};
use crate::request::Request;
use crate::status::Status;
use crate::target::{Fill, Target};

impl<'v> Communicator<'v> {
    /// Sends `count` copies of a datatype from a buffer. The receive may use another layout for the same data.
    ///
    /// ```
    /// # river_mpi::testing::world(2, |world| {
    /// use river_mpi::Datatype;
    ///
    /// // The upper left corner of a matrix of 4 by 4, as 2 by 2.
    /// let corner = Datatype::of::<i32>().vector(2, 2, 4).commit();
    /// if world.rank() == 0 {
    ///     let matrix: Vec<i32> = (0..16).collect();
    ///     world.send_as(&matrix, 1, &corner, 1, 0)?;
    /// } else {
    ///     assert_eq!(world.recv::<i32>(0, 0)?.0, [0, 1, 4, 5]);
    /// }
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// Those of [`send`](Self::send), and [`MpiError::Type`] if the datatype reaches beyond the buffer.
    ///
    /// # Blocking
    /// Like [`send`](Self::send).
    pub fn send_as<T: Pod>(
        &self,
        buffer: &[T],
        count: usize,
        datatype: &Committed,
        dest: impl Into<Peer>,
        tag: i32,
    ) -> Result {
        let send = || self.send_mode(&datatype.pack(buffer, count)?, dest.into(), tag, Mode::Standard);
        self.guard(send())
    }

    /// Like [`send_as`](Self::send_as), in synchronous mode.
    ///
    /// # Errors
    /// Those of [`send_as`](Self::send_as).
    ///
    /// # Blocking
    /// Until a receive has matched it.
    pub fn ssend_as<T: Pod>(
        &self,
        buffer: &[T],
        count: usize,
        datatype: &Committed,
        dest: impl Into<Peer>,
        tag: i32,
    ) -> Result {
        let send = || self.send_mode(&datatype.pack(buffer, count)?, dest.into(), tag, Mode::Synchronous);
        self.guard(send())
    }

    /// Like [`send_as`](Self::send_as), in buffered mode.
    ///
    /// # Errors
    /// Those of [`send_as`](Self::send_as), and [`MpiError::Buffer`].
    pub fn bsend_as<T: Pod>(
        &self,
        buffer: &[T],
        count: usize,
        datatype: &Committed,
        dest: impl Into<Peer>,
        tag: i32,
    ) -> Result {
        let packed = self.guard(datatype.pack(buffer, count))?;
        self.bsend(&packed, dest, tag)
    }

    /// Like [`send_as`](Self::send_as), in ready mode.
    ///
    /// # Errors
    /// Those of [`send_as`](Self::send_as).
    ///
    /// # Blocking
    /// Like [`rsend`](Self::rsend).
    pub fn rsend_as<T: Pod>(
        &self,
        buffer: &[T],
        count: usize,
        datatype: &Committed,
        dest: impl Into<Peer>,
        tag: i32,
    ) -> Result {
        let packed = self.guard(datatype.pack(buffer, count))?;
        self.rsend(&packed, dest, tag)
    }

    /// Like [`isend_as`](Self::isend_as), in synchronous mode.
    ///
    /// # Errors
    /// Those of [`send_as`](Self::send_as).
    pub fn issend_as<T: Pod>(
        &self,
        buffer: &[T],
        count: usize,
        datatype: &Committed,
        dest: impl Into<Peer>,
        tag: i32,
    ) -> Result<Request<'v>> {
        let packed = self.guard(datatype.pack(buffer, count))?;
        self.issend(&packed, dest, tag)
    }

    /// Like [`isend_as`](Self::isend_as), in buffered mode.
    ///
    /// # Errors
    /// Those of [`bsend_as`](Self::bsend_as).
    pub fn ibsend_as<T: Pod>(
        &self,
        buffer: &[T],
        count: usize,
        datatype: &Committed,
        dest: impl Into<Peer>,
        tag: i32,
    ) -> Result<Request<'v>> {
        let packed = self.guard(datatype.pack(buffer, count))?;
        self.ibsend(&packed, dest, tag)
    }

    /// Like [`isend_as`](Self::isend_as), in ready mode.
    ///
    /// # Errors
    /// Those of [`send_as`](Self::send_as).
    pub fn irsend_as<T: Pod>(
        &self,
        buffer: &[T],
        count: usize,
        datatype: &Committed,
        dest: impl Into<Peer>,
        tag: i32,
    ) -> Result<Request<'v>> {
        let packed = self.guard(datatype.pack(buffer, count))?;
        self.irsend(&packed, dest, tag)
    }

    /// Like [`sendrecv`](Self::sendrecv), with `(count, &datatype)` on each side.
    ///
    /// ```
    /// # river_mpi::testing::world(2, |world| {
    /// use river_mpi::Datatype;
    ///
    /// // My first column for the other's second.
    /// let column = Datatype::of::<i32>().vector(2, 1, 2).commit();
    /// let mine = [1, 0, 2, 0].map(|x| x * (world.rank() as i32 + 1));
    /// let (other, mut matrix) = (1 - world.rank(), mine);
    /// world.sendrecv_as(&mine, (1, &column), other, 0, &mut matrix[1..], (1, &column), other, 0)?;
    /// assert_eq!(matrix, if world.rank() == 0 { [1, 2, 2, 4] } else { [2, 1, 4, 2] });
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// Those of [`sendrecv`](Self::sendrecv), and [`MpiError::Type`] if a datatype reaches beyond its buffer.
    ///
    /// # Blocking
    /// Like [`sendrecv`](Self::sendrecv).
    #[expect(clippy::too_many_arguments, reason = "MPI's")]
    pub fn sendrecv_as<S: Pod, R: Pod>(
        &self,
        data: &[S],
        (send_count, send_type): (usize, &Committed),
        dest: impl Into<Peer>,
        send_tag: i32,
        buffer: &mut [R],
        (recv_count, recv_type): (usize, &Committed),
        source: impl Into<Peer>,
        recv_tag: impl Into<Tag>,
    ) -> Result<Status> {
        let request = self.irecv_as(buffer, recv_count, recv_type, source, recv_tag)?;
        self.send_as(data, send_count, send_type, dest, send_tag)?;
        request.wait()
    }

    /// Like [`sendrecv_replace`](Self::sendrecv_replace), with `(count, &datatype)`.
    ///
    /// # Errors
    /// Those of [`sendrecv_as`](Self::sendrecv_as).
    ///
    /// # Blocking
    /// Like [`sendrecv_replace`](Self::sendrecv_replace).
    pub fn sendrecv_replace_as<T: Pod>(
        &self,
        buffer: &mut [T],
        (count, datatype): (usize, &Committed),
        dest: impl Into<Peer>,
        send_tag: i32,
        source: impl Into<Peer>,
        recv_tag: impl Into<Tag>,
    ) -> Result<Status> {
        // Checked before anything is sent.
        self.guard(datatype.check_receive(size_of_val(buffer), std::slice::from_ref(&(0..count))))?;
        let sent = self.isend_as(buffer, count, datatype, dest, send_tag)?;
        let status = self.recv_as(buffer, count, datatype, source, recv_tag)?;
        sent.wait()?;
        Ok(status)
    }

    /// Starts a standard send of `count` copies of a datatype. The data is copied out of the buffer at once.
    ///
    /// # Errors
    /// Those of [`send_as`](Self::send_as).
    pub fn isend_as<T: Pod>(
        &self,
        buffer: &[T],
        count: usize,
        datatype: &Committed,
        dest: impl Into<Peer>,
        tag: i32,
    ) -> Result<Request<'v>> {
        let packed = self.guard(datatype.pack(buffer, count))?;
        self.isend_vec(packed, dest, tag)
    }

    /// Receives at most `count` copies of a datatype into a buffer; the rest of the buffer is unchanged.
    ///
    /// # Errors
    /// Those of [`recv_into`](Self::recv_into), and [`MpiError::Type`] if the datatype reaches beyond the buffer, or contains
    /// one of its bytes twice.
    ///
    /// # Blocking
    /// Until a matching message has arrived.
    pub fn recv_as<T: Pod>(
        &self,
        buffer: &mut [T],
        count: usize,
        datatype: &Committed,
        source: impl Into<Peer>,
        tag: impl Into<Tag>,
    ) -> Result<Status> {
        let mut target = self.guard(shaped(buffer, count, datatype))?;
        self.guard(self.receive(&mut target, 0, source.into(), tag.into()))
    }

    /// Posts a receive of at most `count` copies of a datatype into a buffer.
    ///
    /// # Errors
    /// Those of [`recv_as`](Self::recv_as).
    pub fn irecv_as<'a, T: Pod>(
        &self,
        buffer: &'a mut [T],
        count: usize,
        datatype: &Committed,
        source: impl Into<Peer>,
        tag: impl Into<Tag>,
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        let target = self.guard(shaped(buffer, count, datatype))?;
        let op = self.post(source.into(), tag.into())?;
        Ok(Request::new(self, op, target))
    }
}

/// A buffer whose layout a datatype describes.
struct Shaped<'a, T> {
    buffer: &'a mut [T],
    count: usize,
    datatype: Committed,
}

fn shaped<'a, T: Pod>(buffer: &'a mut [T], count: usize, datatype: &Committed) -> Result<Target<'a>> {
    datatype.check_receive(size_of_val(buffer), std::slice::from_ref(&(0..count)))?;
    Ok(Target::Other(Box::new(Shaped { buffer, count, datatype: datatype.clone() })))
}

impl<T: Pod> Fill for Shaped<'_, T> {
    fn room(&self) -> usize {
        self.datatype.pack_size(self.count)
    }

    fn size(&self) -> usize {
        0
    }

    fn fill(&mut self, bytes: &[u8]) -> Result {
        let taken = self.datatype.unpack(bytes, self.buffer, self.count)?;
        if taken == bytes.len() {
            Ok(())
        } else {
            Err(MpiError::Type("a message was not unpacked whole".into()))
        }
    }
}
