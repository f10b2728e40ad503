//! Operations that combine data which datatypes describe, element by element.

use bytemuck::Pod;

use crate::communicator::Communicator;
use crate::datatype::Committed;
use crate::element::Element;
use crate::error::Result;
use crate::op::Operator;
use crate::request::Request;

use super::super::prepare::Blocks;
use super::super::root::Root;
use super::{Call, Layout};

/// What a rank gives and gets: so many of a datatype.
type Each<'a> = (usize, &'a Committed);

/// # Reductions on datatypes
///
/// The operator combines the elements `T` that the datatype is made of, in the order of the datatype. Otherwise as
/// [all operations on datatypes](#collective-operations-on-datatypes); it is [`MpiError::Type`](crate::MpiError::Type)
/// too if the datatype's size is no whole number of elements.
impl<'v> Communicator<'v> {
    fn reduce_call<'a, T: Element + Pod>(
        &self,
        send: &[T],
        recv: &'a mut [T],
        each: Each<'_>,
        commutative: bool,
        root: Root,
    ) -> Result<Call<'a, T>> {
        let given = Layout::equal(1, each).only_if(root.is_rank());
        let got = Layout::equal(1, each).only_if(self.is_root(root));
        Call::new((send, &given), (recv, got), |len| self.prepare_reduce::<T>(len, commutative, root))
    }

    fn allreduce_call<'a, T: Element + Pod>(
        &self,
        send: &[T],
        recv: &'a mut [T],
        each: Each<'_>,
        commutative: bool,
    ) -> Result<Call<'a, T>> {
        let given = Layout::equal(1, each);
        let got = given.clone();
        Call::new((send, &given), (recv, got), |len| self.prepare_allreduce::<T>(len, commutative))
    }

    fn reduce_scatter_call<'a, T: Element + Pod>(
        &self,
        send: &[T],
        recv: &'a mut [T],
        (counts, datatype): (&[usize], &Committed),
        commutative: bool,
    ) -> Result<Call<'a, T>> {
        let blocks = crate::coll::consecutive(counts);
        let given = Layout::of((&blocks, datatype));
        let own = counts.get(self.rank()).copied().unwrap_or(0);
        let (got, counts) = (Layout::equal(1, (own, datatype)), given.counts::<T>()?);
        Call::new((send, &given), (recv, got), |len| {
            self.prepare_reduce_scatter::<T>(len, Blocks::Counts(&counts), commutative)
        })
    }

    fn scan_call<'a, T: Element + Pod>(
        &self,
        send: &[T],
        recv: &'a mut [T],
        each: Each<'_>,
        commutative: bool,
    ) -> Result<Call<'a, T>> {
        let given = Layout::equal(1, each);
        let got = given.clone();
        Call::new((send, &given), (recv, got), |len| self.prepare_scan::<T>(len, commutative, false))
    }

    fn exscan_call<'a, T: Element + Pod>(
        &self,
        send: &[T],
        recv: &'a mut [T],
        each: Each<'_>,
        commutative: bool,
    ) -> Result<Call<'a, T>> {
        let given = Layout::equal(1, each);
        let mut call = Call::new((send, &given), (recv, given.clone()), |len| {
            self.prepare_scan::<T>(len, commutative, true)
        })?;
        if self.rank() == 0 {
            // It gets nothing: what it has stays as it is.
            call.deliver = Box::new(|_| Ok(()));
        }
        Ok(call)
    }

    /// As [`reduce`](Self::reduce). `recv` is significant only at the root.
    ///
    /// # Errors
    /// [Those of all](#reductions-on-datatypes).
    pub fn reduce_as<T: Element + Pod>(
        &self,
        send: &[T],
        recv: &mut [T],
        each: (usize, &Committed),
        operator: &impl Operator<T>,
        root: impl Into<Root>,
    ) -> Result {
        let call = self.reduce_call(send, recv, each, operator.is_commutative(), root.into());
        self.carry_out_packed(call, operator)
    }

    /// Starts a [`reduce_as`](Self::reduce_as).
    ///
    /// # Errors
    /// [Those of all](#reductions-on-datatypes).
    pub fn ireduce_as<'a, T: Element + Pod>(
        &self,
        send: &[T],
        recv: &'a mut [T],
        each: (usize, &Committed),
        operator: impl Operator<T> + 'static,
        root: impl Into<Root>,
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        let call = self.reduce_call(send, recv, each, operator.is_commutative(), root.into());
        self.start_packed(call, operator)
    }

    /// As [`allreduce`](Self::allreduce).
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
    /// [Those of all](#reductions-on-datatypes).
    pub fn allreduce_as<T: Element + Pod>(
        &self,
        send: &[T],
        recv: &mut [T],
        each: (usize, &Committed),
        operator: &impl Operator<T>,
    ) -> Result {
        let call = self.allreduce_call(send, recv, each, operator.is_commutative());
        self.carry_out_packed(call, operator)
    }

    /// Starts an [`allreduce_as`](Self::allreduce_as).
    ///
    /// # Errors
    /// [Those of all](#reductions-on-datatypes).
    pub fn iallreduce_as<'a, T: Element + Pod>(
        &self,
        send: &[T],
        recv: &'a mut [T],
        each: (usize, &Committed),
        operator: impl Operator<T> + 'static,
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        let call = self.allreduce_call(send, recv, each, operator.is_commutative());
        self.start_packed(call, operator)
    }

    /// As [`reduce_scatter`](Self::reduce_scatter): `counts[i]` of the datatype to rank `i`, which gets them at the
    /// beginning of `recv`.
    ///
    /// # Errors
    /// [Those of all](#reductions-on-datatypes).
    pub fn reduce_scatter_as<T: Element + Pod>(
        &self,
        send: &[T],
        recv: &mut [T],
        each: (&[usize], &Committed),
        operator: &impl Operator<T>,
    ) -> Result {
        let call = self.reduce_scatter_call(send, recv, each, operator.is_commutative());
        self.carry_out_packed(call, operator)
    }

    /// Starts a [`reduce_scatter_as`](Self::reduce_scatter_as).
    ///
    /// # Errors
    /// [Those of all](#reductions-on-datatypes).
    pub fn ireduce_scatter_as<'a, T: Element + Pod>(
        &self,
        send: &[T],
        recv: &'a mut [T],
        each: (&[usize], &Committed),
        operator: impl Operator<T> + 'static,
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        let call = self.reduce_scatter_call(send, recv, each, operator.is_commutative());
        self.start_packed(call, operator)
    }

    /// As [`scan`](Self::scan).
    ///
    /// # Errors
    /// [Those of all](#reductions-on-datatypes).
    pub fn scan_as<T: Element + Pod>(
        &self,
        send: &[T],
        recv: &mut [T],
        each: (usize, &Committed),
        operator: &impl Operator<T>,
    ) -> Result {
        let call = self.scan_call(send, recv, each, operator.is_commutative());
        self.carry_out_packed(call, operator)
    }

    /// Starts a [`scan_as`](Self::scan_as).
    ///
    /// # Errors
    /// [Those of all](#reductions-on-datatypes).
    pub fn iscan_as<'a, T: Element + Pod>(
        &self,
        send: &[T],
        recv: &'a mut [T],
        each: (usize, &Committed),
        operator: impl Operator<T> + 'static,
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        let call = self.scan_call(send, recv, each, operator.is_commutative());
        self.start_packed(call, operator)
    }

    /// As [`exscan`](Self::exscan). On rank 0 `recv` stays as it is.
    ///
    /// # Errors
    /// [Those of all](#reductions-on-datatypes).
    pub fn exscan_as<T: Element + Pod>(
        &self,
        send: &[T],
        recv: &mut [T],
        each: (usize, &Committed),
        operator: &impl Operator<T>,
    ) -> Result {
        let call = self.exscan_call(send, recv, each, operator.is_commutative());
        self.carry_out_packed(call, operator)
    }

    /// Starts an [`exscan_as`](Self::exscan_as).
    ///
    /// # Errors
    /// [Those of all](#reductions-on-datatypes).
    pub fn iexscan_as<'a, T: Element + Pod>(
        &self,
        send: &[T],
        recv: &'a mut [T],
        each: (usize, &Committed),
        operator: impl Operator<T> + 'static,
    ) -> Result<Request<'a>>
    where
        'v: 'a,
    {
        let call = self.exscan_call(send, recv, each, operator.is_commutative());
        self.start_packed(call, operator)
    }
}
