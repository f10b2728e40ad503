//! Collective operations on what datatypes describe: it is packed, moved in one piece, and unpacked.

use bytemuck::Pod;

use crate::communicator::Communicator;
use crate::datatype::Committed;
use crate::element;
use crate::error::Result;
use crate::op::Operator;

use super::root::Root;

/// # Collective operations on datatypes
///
/// A buffer is given with a count and a datatype, `(count, &datatype)`: that of what one rank gives or gets.
/// Where there are several ranks' data, they follow one another by the datatype's extent. Errors are those of
/// the operations on slices, and
/// [`MpiError::Type`](crate::MpiError::Type) if a datatype reaches beyond its buffer.
impl Communicator<'_> {
    /// As [`bcast`](Self::bcast).
    ///
    /// ```
    /// # river_mpi::testing::world(3, |world| {
    /// use river_mpi::Datatype;
    ///
    /// // The second column of a matrix of 3 by 3.
    /// let column = Datatype::of::<i32>().vector(3, 1, 3).commit();
    /// let mut matrix = if world.rank() == 0 { [0, 1, 2, 3, 4, 5, 6, 7, 8] } else { [0; 9] };
    /// world.bcast_as(&mut matrix[1..], (1, &column), 0)?;
    /// if world.rank() > 0 {
    ///     assert_eq!(matrix, [0, 1, 0, 0, 4, 0, 0, 7, 0]);
    /// }
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [Those of all](#collective-operations-on-datatypes).
    pub fn bcast_as<T: Pod>(
        &self,
        buffer: &mut [T],
        (count, datatype): (usize, &Committed),
        root: impl Into<Root>,
    ) -> Result {
        let root = root.into();
        let gives = root == Root::Here || (!self.is_inter() && root == Root::Rank(self.rank()));
        let mut packed = if gives {
            self.guard(datatype.pack(buffer, count))?
        } else {
            vec![0; datatype.pack_size(count)]
        };
        self.bcast(&mut packed, root)?;
        if gives || root == Root::Elsewhere {
            return Ok(());
        }
        self.guard(datatype.unpack(&packed, buffer, count)).map(drop)
    }

    /// As [`gather`](Self::gather); `recv` and what it says counts on the root only.
    ///
    /// # Errors
    /// [Those of all](#collective-operations-on-datatypes).
    pub fn gather_as<S: Pod, R: Pod>(
        &self,
        send: &[S],
        (send_count, send_type): (usize, &Committed),
        recv: &mut [R],
        (recv_count, recv_type): (usize, &Committed),
        root: usize,
    ) -> Result {
        let mine = self.guard(send_type.pack(send, send_count))?;
        let all = if self.rank() == root { self.size() * recv_count } else { 0 };
        let mut packed = vec![0; recv_type.pack_size(all)];
        self.gather(&mine, &mut packed, root)?;
        self.guard(recv_type.unpack(&packed, recv, all)).map(drop)
    }

    /// As [`scatter`](Self::scatter); `send` and what it says counts on the root only.
    ///
    /// # Errors
    /// [Those of all](#collective-operations-on-datatypes).
    pub fn scatter_as<S: Pod, R: Pod>(
        &self,
        send: &[S],
        (send_count, send_type): (usize, &Committed),
        recv: &mut [R],
        (recv_count, recv_type): (usize, &Committed),
        root: usize,
    ) -> Result {
        let all = if self.rank() == root { self.size() * send_count } else { 0 };
        let given = self.guard(send_type.pack(send, all))?;
        let mut packed = vec![0; recv_type.pack_size(recv_count)];
        self.scatter(&given, &mut packed, root)?;
        self.guard(recv_type.unpack(&packed, recv, recv_count)).map(drop)
    }

    /// As [`allgather`](Self::allgather).
    ///
    /// # Errors
    /// [Those of all](#collective-operations-on-datatypes).
    pub fn allgather_as<S: Pod, R: Pod>(
        &self,
        send: &[S],
        (send_count, send_type): (usize, &Committed),
        recv: &mut [R],
        (recv_count, recv_type): (usize, &Committed),
    ) -> Result {
        let mine = self.guard(send_type.pack(send, send_count))?;
        let all = self.peers().size() * recv_count;
        let mut packed = vec![0; recv_type.pack_size(all)];
        self.allgather(&mine, &mut packed)?;
        self.guard(recv_type.unpack(&packed, recv, all)).map(drop)
    }

    /// As [`alltoall`](Self::alltoall).
    ///
    /// ```
    /// # river_mpi::testing::world(2, |world| {
    /// use river_mpi::Datatype;
    ///
    /// // Rows of a matrix of 2 by 2, one on each rank, become its columns.
    /// let number = Datatype::of::<i32>().commit();
    /// let row = [2 * world.rank() as i32, 2 * world.rank() as i32 + 1];
    /// let mut column = [0; 2];
    /// world.alltoall_as(&row, (1, &number), &mut column, (1, &number))?;
    /// assert_eq!(column, [world.rank() as i32, world.rank() as i32 + 2]);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [Those of all](#collective-operations-on-datatypes).
    pub fn alltoall_as<S: Pod, R: Pod>(
        &self,
        send: &[S],
        (send_count, send_type): (usize, &Committed),
        recv: &mut [R],
        (recv_count, recv_type): (usize, &Committed),
    ) -> Result {
        let p = self.peers().size();
        let given = self.guard(send_type.pack(send, p * send_count))?;
        let mut packed = vec![0; recv_type.pack_size(p * recv_count)];
        self.alltoall(&given, &mut packed)?;
        self.guard(recv_type.unpack(&packed, recv, p * recv_count)).map(drop)
    }

    /// As [`allreduce`](Self::allreduce), of the elements `T` that the datatype is made of.
    ///
    /// ```
    /// # river_mpi::testing::world(3, |world| {
    /// use river_mpi::{Datatype, SUM};
    ///
    /// // Every second number.
    /// let every_second = Datatype::of::<i32>().vector(2, 1, 2).commit();
    /// let mut sums = [0; 4];
    /// world.allreduce_as(&[1, 2, 3, 4], &mut sums, (1, &every_second), &SUM)?;
    /// assert_eq!(sums, [3, 0, 9, 0]);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [Those of all](#collective-operations-on-datatypes), and [`MpiError::Type`](crate::MpiError::Type) if
    /// it is not made of them.
    pub fn allreduce_as<T: Pod + Send + Sync>(
        &self,
        send: &[T],
        recv: &mut [T],
        (count, datatype): (usize, &Committed),
        operator: &impl Operator<T>,
    ) -> Result {
        let mut packed =
            self.guard(datatype.pack(send, count).and_then(|bytes| element::elements::<T>(&bytes)))?;
        self.allreduce_in_place(&mut packed, operator)?;
        self.guard(datatype.unpack(element::bytes_of(&packed), recv, count)).map(drop)
    }

    /// As [`reduce`](Self::reduce), of the elements `T` that the datatype is made of. `recv` counts on the
    /// root only.
    ///
    /// # Errors
    /// As [`allreduce_as`](Self::allreduce_as).
    pub fn reduce_as<T: Pod + Send + Sync>(
        &self,
        send: &[T],
        recv: &mut [T],
        (count, datatype): (usize, &Committed),
        operator: &impl Operator<T>,
        root: usize,
    ) -> Result {
        let mut packed =
            self.guard(datatype.pack(send, count).and_then(|bytes| element::elements::<T>(&bytes)))?;
        self.reduce_in_place(&mut packed, operator, root)?;
        if self.rank() != root {
            return Ok(());
        }
        self.guard(datatype.unpack(element::bytes_of(&packed), recv, count)).map(drop)
    }
}
