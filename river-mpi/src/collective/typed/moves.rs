//! Operations that move data which datatypes describe.

use std::ops::Range;

use bytemuck::Pod;

use crate::coll::NoOperator;
use crate::communicator::Communicator;
use crate::datatype::Committed;
use crate::error::Result;
use crate::request::Request;

use super::super::root::Root;
use super::{Call, Layout};

/// What one rank gives or gets: so many of a datatype.
type Each<'a> = (usize, &'a Committed);
/// What every rank gives or gets: some copies of a datatype, counted in the buffer from its beginning on.
type Blocks<'a> = (&'a [Range<usize>], &'a Committed);

/// # Collective operations on datatypes
///
/// A buffer is described by `(count, &datatype)`: what one rank sends or receives. The data of several ranks lie one after
/// the other, at multiples of the datatype's extent. In the `v` operations `(&blocks, &datatype)` says for each rank which
/// copies of the datatype are its own: `3..5` means the fourth and the fifth. Errors
/// are those of the operations on slices, and [`MpiError::Type`](crate::MpiError::Type) if a datatype reaches beyond its
/// buffer, or what is received would go to one byte twice. Started operations take their data out of the buffer at once.
/// Buffers are of `Pod` types, any bytes of which are values: not of `bool` and `char`.
impl<'v> Communicator<'v> {
    fn bcast_call<'a, T: Pod>(
        &self,
        buffer: &'a mut [T],
        each: Each<'_>,
        root: Root,
    ) -> Result<Call<'a, u8>> {
        let gives = self.is_root(root);
        let layout = Layout::equal(1, each).only_if(root != Root::Elsewhere);
        let packed = if gives { layout.pack(buffer)? } else { layout.room(buffer)? };
        let prepared = self.prepare_bcast::<u8>(packed.len(), root)?;
        let (blocks, datatype) = layout.only_if(!gives).into_owned();
        let deliver = move |packed: &[u8]| Layout::of((&blocks, &datatype)).unpack(packed, buffer);
        Ok(Call { prepared, send: Vec::new(), recv: packed, deliver: Box::new(deliver) })
    }

    /// Whether this rank is the root, which the buffers that count on the root only are for.
    pub(super) fn is_root(&self, root: Root) -> bool {
        root == Root::Here || (!self.is_inter() && root == Root::Rank(self.rank()))
    }

    fn gather_call<'a, S: Pod, R: Pod>(
        &self,
        send: &[S],
        given: Each<'_>,
        recv: &'a mut [R],
        got: Each<'_>,
        root: Root,
    ) -> Result<Call<'a, u8>> {
        let given = Layout::equal(1, given).only_if(root.is_rank());
        let got = Layout::equal(self.peers().size(), got).only_if(self.is_root(root));
        Call::new((send, &given), (recv, got), |len| self.prepare_gather::<u8>(len, root))
    }

    fn gatherv_call<'a, S: Pod, R: Pod>(
        &self,
        send: &[S],
        given: Each<'_>,
        recv: &'a mut [R],
        got: Blocks<'_>,
        root: Root,
    ) -> Result<Call<'a, u8>> {
        let given = Layout::equal(1, given).only_if(root.is_rank());
        let got = Layout::of(got).only_if(self.is_root(root));
        let blocks = got.packed::<u8>()?;
        Call::new((send, &given), (recv, got), |len| self.prepare_gatherv::<u8>(len, &blocks, root))
    }

    fn scatter_call<'a, S: Pod, R: Pod>(
        &self,
        send: &[S],
        given: Each<'_>,
        recv: &'a mut [R],
        got: Each<'_>,
        root: Root,
    ) -> Result<Call<'a, u8>> {
        let given = Layout::equal(self.peers().size(), given).only_if(self.is_root(root));
        let got = Layout::equal(1, got).only_if(root.is_rank());
        Call::new((send, &given), (recv, got), |len| self.prepare_scatter::<u8>(len, root))
    }

    fn scatterv_call<'a, S: Pod, R: Pod>(
        &self,
        send: &[S],
        given: Blocks<'_>,
        recv: &'a mut [R],
        got: Each<'_>,
        root: Root,
    ) -> Result<Call<'a, u8>> {
        let given = Layout::of(given).only_if(self.is_root(root));
        let got = Layout::equal(1, got).only_if(root.is_rank());
        let blocks = given.packed::<u8>()?;
        Call::new((send, &given), (recv, got), |len| self.prepare_scatterv::<u8>(len, &blocks, root))
    }

    fn allgather_call<'a, S: Pod, R: Pod>(
        &self,
        send: &[S],
        given: Each<'_>,
        recv: &'a mut [R],
        got: Each<'_>,
    ) -> Result<Call<'a, u8>> {
        let (given, got) = (Layout::equal(1, given), Layout::equal(self.peers().size(), got));
        Call::new((send, &given), (recv, got), |len| self.prepare_allgather::<u8>(len))
    }

    fn allgatherv_call<'a, S: Pod, R: Pod>(
        &self,
        send: &[S],
        given: Each<'_>,
        recv: &'a mut [R],
        got: Blocks<'_>,
    ) -> Result<Call<'a, u8>> {
        let (given, got) = (Layout::equal(1, given), Layout::of(got));
        let blocks = got.packed::<u8>()?;
        Call::new((send, &given), (recv, got), |len| self.prepare_allgatherv::<u8>(len, &blocks))
    }

    fn alltoall_call<'a, S: Pod, R: Pod>(
        &self,
        send: &[S],
        given: Each<'_>,
        recv: &'a mut [R],
        got: Each<'_>,
    ) -> Result<Call<'a, u8>> {
        let (given, got) =
            (Layout::equal(self.peers().size(), given), Layout::equal(self.peers().size(), got));
        Call::new((send, &given), (recv, got), |len| self.prepare_alltoall::<u8>(len))
    }

    fn alltoallv_call<'a, S: Pod, R: Pod>(
        &self,
        send: &[S],
        given: Blocks<'_>,
        recv: &'a mut [R],
        got: Blocks<'_>,
    ) -> Result<Call<'a, u8>> {
        let (given, got) = (Layout::of(given), Layout::of(got));
        let (outgoing, incoming) = (given.packed::<u8>()?, got.packed::<u8>()?);
        Call::new((send, &given), (recv, got), |len| self.prepare_alltoallv::<u8>(len, &outgoing, &incoming))
    }

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
        each: (usize, &Committed),
        root: impl Into<Root>,
    ) -> Result {
        self.carry_out_packed(self.bcast_call(buffer, each, root.into()), &NoOperator)
    }

    /// Starts a [`bcast_as`](Self::bcast_as).
    ///
    /// # Errors
    /// [Those of all](#collective-operations-on-datatypes).
    pub fn ibcast_as<'a, T: Pod>(
        &self,
        buffer: &'a mut [T],
        each: (usize, &Committed),
        root: impl Into<Root>,
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        self.start_packed(self.bcast_call(buffer, each, root.into()), NoOperator)
    }

    /// As [`gather`](Self::gather); `recv` and `got` are significant only at the root.
    ///
    /// # Errors
    /// [Those of all](#collective-operations-on-datatypes).
    pub fn gather_as<S: Pod, R: Pod>(
        &self,
        send: &[S],
        given: (usize, &Committed),
        recv: &mut [R],
        got: (usize, &Committed),
        root: impl Into<Root>,
    ) -> Result {
        self.carry_out_packed(self.gather_call(send, given, recv, got, root.into()), &NoOperator)
    }

    /// Starts a [`gather_as`](Self::gather_as).
    ///
    /// # Errors
    /// [Those of all](#collective-operations-on-datatypes).
    pub fn igather_as<'a, S: Pod, R: Pod>(
        &self,
        send: &[S],
        given: (usize, &Committed),
        recv: &'a mut [R],
        got: (usize, &Committed),
        root: impl Into<Root>,
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        self.start_packed(self.gather_call(send, given, recv, got, root.into()), NoOperator)
    }

    /// As [`gatherv`](Self::gatherv); `recv` and `got` are significant only at the root.
    ///
    /// ```
    /// # river_mpi::testing::world(2, |world| {
    /// use river_mpi::Datatype;
    ///
    /// // Columns of a matrix of 3 by 3: one of rank 0, two of rank 1.
    /// let number = Datatype::of::<i32>();
    /// let column = number.vector(3, 1, 3).with_bounds(0, 4).commit();
    /// let mine = vec![world.rank() as i32 + 1; 3 * (world.rank() + 1)];
    /// let mut matrix = [0; 9];
    /// world.gatherv_as(&mine, (mine.len(), &number.commit()), &mut matrix, (&[0..1, 1..3], &column), 0)?;
    /// if world.rank() == 0 {
    ///     assert_eq!(matrix, [1, 2, 2, 1, 2, 2, 1, 2, 2]);
    /// }
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// [Those of all](#collective-operations-on-datatypes).
    pub fn gatherv_as<S: Pod, R: Pod>(
        &self,
        send: &[S],
        given: (usize, &Committed),
        recv: &mut [R],
        got: (&[Range<usize>], &Committed),
        root: impl Into<Root>,
    ) -> Result {
        self.carry_out_packed(self.gatherv_call(send, given, recv, got, root.into()), &NoOperator)
    }

    /// Starts a [`gatherv_as`](Self::gatherv_as).
    ///
    /// # Errors
    /// [Those of all](#collective-operations-on-datatypes).
    pub fn igatherv_as<'a, S: Pod, R: Pod>(
        &self,
        send: &[S],
        given: (usize, &Committed),
        recv: &'a mut [R],
        got: (&[Range<usize>], &Committed),
        root: impl Into<Root>,
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        self.start_packed(self.gatherv_call(send, given, recv, got, root.into()), NoOperator)
    }

    /// As [`scatter`](Self::scatter); `send` and `given` are significant only at the root.
    ///
    /// # Errors
    /// [Those of all](#collective-operations-on-datatypes).
    pub fn scatter_as<S: Pod, R: Pod>(
        &self,
        send: &[S],
        given: (usize, &Committed),
        recv: &mut [R],
        got: (usize, &Committed),
        root: impl Into<Root>,
    ) -> Result {
        self.carry_out_packed(self.scatter_call(send, given, recv, got, root.into()), &NoOperator)
    }

    /// Starts a [`scatter_as`](Self::scatter_as).
    ///
    /// # Errors
    /// [Those of all](#collective-operations-on-datatypes).
    pub fn iscatter_as<'a, S: Pod, R: Pod>(
        &self,
        send: &[S],
        given: (usize, &Committed),
        recv: &'a mut [R],
        got: (usize, &Committed),
        root: impl Into<Root>,
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        self.start_packed(self.scatter_call(send, given, recv, got, root.into()), NoOperator)
    }

    /// As [`scatterv`](Self::scatterv); `send` and `given` are significant only at the root.
    ///
    /// # Errors
    /// [Those of all](#collective-operations-on-datatypes).
    pub fn scatterv_as<S: Pod, R: Pod>(
        &self,
        send: &[S],
        given: (&[Range<usize>], &Committed),
        recv: &mut [R],
        got: (usize, &Committed),
        root: impl Into<Root>,
    ) -> Result {
        self.carry_out_packed(self.scatterv_call(send, given, recv, got, root.into()), &NoOperator)
    }

    /// Starts a [`scatterv_as`](Self::scatterv_as).
    ///
    /// # Errors
    /// [Those of all](#collective-operations-on-datatypes).
    pub fn iscatterv_as<'a, S: Pod, R: Pod>(
        &self,
        send: &[S],
        given: (&[Range<usize>], &Committed),
        recv: &'a mut [R],
        got: (usize, &Committed),
        root: impl Into<Root>,
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        self.start_packed(self.scatterv_call(send, given, recv, got, root.into()), NoOperator)
    }

    /// As [`allgather`](Self::allgather).
    ///
    /// # Errors
    /// [Those of all](#collective-operations-on-datatypes).
    pub fn allgather_as<S: Pod, R: Pod>(
        &self,
        send: &[S],
        given: (usize, &Committed),
        recv: &mut [R],
        got: (usize, &Committed),
    ) -> Result {
        self.carry_out_packed(self.allgather_call(send, given, recv, got), &NoOperator)
    }

    /// Starts an [`allgather_as`](Self::allgather_as).
    ///
    /// # Errors
    /// [Those of all](#collective-operations-on-datatypes).
    pub fn iallgather_as<'a, S: Pod, R: Pod>(
        &self,
        send: &[S],
        given: (usize, &Committed),
        recv: &'a mut [R],
        got: (usize, &Committed),
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        self.start_packed(self.allgather_call(send, given, recv, got), NoOperator)
    }

    /// As [`allgatherv`](Self::allgatherv).
    ///
    /// # Errors
    /// [Those of all](#collective-operations-on-datatypes).
    pub fn allgatherv_as<S: Pod, R: Pod>(
        &self,
        send: &[S],
        given: (usize, &Committed),
        recv: &mut [R],
        got: (&[Range<usize>], &Committed),
    ) -> Result {
        self.carry_out_packed(self.allgatherv_call(send, given, recv, got), &NoOperator)
    }

    /// Starts an [`allgatherv_as`](Self::allgatherv_as).
    ///
    /// # Errors
    /// [Those of all](#collective-operations-on-datatypes).
    pub fn iallgatherv_as<'a, S: Pod, R: Pod>(
        &self,
        send: &[S],
        given: (usize, &Committed),
        recv: &'a mut [R],
        got: (&[Range<usize>], &Committed),
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        self.start_packed(self.allgatherv_call(send, given, recv, got), NoOperator)
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
        given: (usize, &Committed),
        recv: &mut [R],
        got: (usize, &Committed),
    ) -> Result {
        self.carry_out_packed(self.alltoall_call(send, given, recv, got), &NoOperator)
    }

    /// Starts an [`alltoall_as`](Self::alltoall_as).
    ///
    /// # Errors
    /// [Those of all](#collective-operations-on-datatypes).
    pub fn ialltoall_as<'a, S: Pod, R: Pod>(
        &self,
        send: &[S],
        given: (usize, &Committed),
        recv: &'a mut [R],
        got: (usize, &Committed),
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        self.start_packed(self.alltoall_call(send, given, recv, got), NoOperator)
    }

    /// As [`alltoallv`](Self::alltoallv).
    ///
    /// # Errors
    /// [Those of all](#collective-operations-on-datatypes).
    pub fn alltoallv_as<S: Pod, R: Pod>(
        &self,
        send: &[S],
        given: (&[Range<usize>], &Committed),
        recv: &mut [R],
        got: (&[Range<usize>], &Committed),
    ) -> Result {
        self.carry_out_packed(self.alltoallv_call(send, given, recv, got), &NoOperator)
    }

    /// Starts an [`alltoallv_as`](Self::alltoallv_as).
    ///
    /// # Errors
    /// [Those of all](#collective-operations-on-datatypes).
    pub fn ialltoallv_as<'a, S: Pod, R: Pod>(
        &self,
        send: &[S],
        given: (&[Range<usize>], &Committed),
        recv: &'a mut [R],
        got: (&[Range<usize>], &Committed),
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        self.start_packed(self.alltoallv_call(send, given, recv, got), NoOperator)
    }
}
