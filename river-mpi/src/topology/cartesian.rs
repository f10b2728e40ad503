//! Cartesian topologies: grids.

use std::ops::Deref;

use super::{first, reordered};
use crate::communicator::Communicator;
use crate::error::{MpiError, Result};
use crate::peer::{PROC_NULL, Peer};

/// A communicator whose ranks are the points of a grid, in row-major order. It dereferences to a communicator.
///
/// ```
/// # river_mpi::testing::world(6, |world| {
/// let grid = world.cart_create(&[2, 3], &[false, true], false)?.unwrap();
/// let (left, right) = grid.shift(1, 1)?;
/// let mut theirs = [0];
/// grid.sendrecv(&[grid.rank()], right, 0, &mut theirs, left, 0)?;
/// assert_eq!(grid.coords(theirs[0])?[1], (grid.coords(grid.rank())?[1] + 2) % 3);
/// # Ok(()) });
/// ```
#[derive(Clone, Debug)]
pub struct Cartesian<'v> {
    comm: Communicator<'v>,
    dims: Vec<usize>,
    periods: Vec<bool>,
}

impl<'v> Communicator<'v> {
    /// Creates a grid with the given dimensions; returns `None` on the ranks that are left over. All ranks call it.
    ///
    /// With `reorder`, ranks may be renumbered so that ranks that share a process are neighbours.
    ///
    /// # Errors
    /// [`MpiError::Dims`] if there are too few ranks or `dims` and `periods` differ in length.
    ///
    /// # Blocking
    /// Until all ranks have called it.
    ///
    /// # Standard section
    /// 6.5.1
    pub fn cart_create(
        &self,
        dims: &[usize],
        periods: &[bool],
        reorder: bool,
    ) -> Result<Option<Cartesian<'v>>> {
        let points = self.guard(self.points(dims, periods))?;
        let comm = first(self, points, reorder)?;
        Ok(comm.map(|comm| Cartesian { comm, dims: dims.to_vec(), periods: periods.to_vec() }))
    }

    /// The rank that [`cart_create`](Self::cart_create) with `reorder` would give this rank in such a grid; `None` if it
    /// would be left over (`MPI_Cart_map`). Does not block.
    ///
    /// # Errors
    /// Those of [`cart_create`](Self::cart_create).
    ///
    /// # Standard section
    /// 6.5.6
    pub fn cart_map(&self, dims: &[usize], periods: &[bool]) -> Result<Option<usize>> {
        let points = self.guard(self.points(dims, periods))?;
        self.guard(reordered(self, points))
    }

    fn points(&self, dims: &[usize], periods: &[bool]) -> Result<usize> {
        if dims.len() != periods.len() {
            return Err(MpiError::Dims(format!(
                "a grid of {} dimensions was given periods for {}",
                dims.len(),
                periods.len()
            )));
        }
        let points = dims.iter().try_fold(1_usize, |points, &dim| points.checked_mul(dim));
        points.filter(|points| (1..=self.size()).contains(points)).ok_or_else(|| {
            MpiError::Dims(format!(
                "{} has {} ranks, not enough for a grid {dims:?}",
                self.name(),
                self.size()
            ))
        })
    }
}

impl<'v> Cartesian<'v> {
    /// The number of points in each dimension.
    #[must_use]
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Which dimensions are periodic.
    #[must_use]
    pub fn periods(&self) -> &[bool] {
        &self.periods
    }

    /// The coordinates of a rank.
    ///
    /// # Errors
    /// [`MpiError::Rank`] if there is no such rank.
    ///
    /// # Standard section
    /// 6.5.4
    pub fn coords(&self, rank: usize) -> Result<Vec<usize>> {
        self.comm.guard(self.comm.place_of(rank))?;
        let mut rest = rank;
        let mut coords = vec![0; self.dims.len()];
        for (coord, dim) in coords.iter_mut().zip(&self.dims).rev() {
            (*coord, rest) = (rest % dim, rest / dim);
        }
        Ok(coords)
    }

    /// The rank at the given coordinates. In periodic dimensions any coordinate is valid.
    ///
    /// # Errors
    /// [`MpiError::Arg`] if the coordinates are outside of the grid.
    ///
    /// # Standard section
    /// 6.5.4
    pub fn rank_at(&self, coords: &[isize]) -> Result<usize> {
        let outside = || MpiError::Arg(format!("{coords:?} is outside of the grid {:?}", self.dims));
        self.comm.guard(self.find(coords).ok_or_else(outside))
    }

    /// The ranks to receive from and to send to in order to shift data by `by` positions along a dimension; [`PROC_NULL`]
    /// beyond the border.
    ///
    /// # Errors
    /// [`MpiError::Dims`] if there is no such dimension.
    ///
    /// # Standard section
    /// 6.5.5
    pub fn shift(&self, dimension: usize, by: isize) -> Result<(Peer, Peer)> {
        if dimension >= self.dims.len() {
            let text = format!("there is no dimension {dimension} in the grid {:?}", self.dims);
            return self.comm.guard(Err(MpiError::Dims(text)));
        }
        let here: Vec<isize> = self.coords(self.rank())?.into_iter().map(usize::cast_signed).collect();
        let there = |by: isize| {
            let mut coords = here.clone();
            coords[dimension] = coords[dimension].saturating_add(by);
            self.find(&coords).map_or(PROC_NULL, Peer::Rank)
        };
        Ok((there(by.saturating_neg()), there(by)))
    }

    /// Divides the grid into slices along the dimensions that are kept, each a grid of its own, and returns this rank's
    /// slice. All ranks call it.
    ///
    /// # Errors
    /// [`MpiError::Dims`] if the length of `keep` is not the number of dimensions.
    ///
    /// # Blocking
    /// Until all ranks have called it.
    ///
    /// # Standard section
    /// 6.5.6
    pub fn sub(&self, keep: &[bool]) -> Result<Self> {
        if keep.len() != self.dims.len() {
            let text = format!("{} dimensions were named of a grid that has {}", keep.len(), self.dims.len());
            return self.comm.guard(Err(MpiError::Dims(text)));
        }
        let coords = self.coords(self.rank())?;
        let number = |kept: bool| {
            let chosen = keep.iter().zip(&self.dims).zip(&coords).filter(|((keep, _), _)| **keep == kept);
            chosen.fold(0, |number, ((_, dim), coord)| number * dim + coord)
        };
        let comm = self.split(Some(number(false)), i64::try_from(number(true)).unwrap_or(i64::MAX))?;
        let comm = comm.ok_or(MpiError::Stopped)?;
        let kept = || keep.iter().enumerate().filter(|(_, keep)| **keep).map(|(dimension, _)| dimension);
        let dims = kept().map(|dimension| self.dims[dimension]).collect();
        let periods = kept().map(|dimension| self.periods[dimension]).collect();
        Ok(Self { comm, dims, periods })
    }

    /// Creates a grid of the same shape with a communicator of its own: see [`Communicator::dup`].
    ///
    /// # Errors
    /// Those of [`Communicator::dup`].
    ///
    /// # Blocking
    /// Until all ranks have called it.
    pub fn dup(&self) -> Result<Self> {
        Ok(Self { comm: self.comm.dup()?, dims: self.dims.clone(), periods: self.periods.clone() })
    }

    fn find(&self, coords: &[isize]) -> Option<usize> {
        if coords.len() != self.dims.len() {
            return None;
        }
        let mut places = coords.iter().zip(&self.dims).zip(&self.periods);
        places.try_fold(0, |rank, ((&coord, &dim), &closed)| {
            let coord = if closed { coord.rem_euclid(dim.cast_signed()) } else { coord };
            let coord = usize::try_from(coord).ok().filter(|&coord| coord < dim)?;
            Some(rank * dim + coord)
        })
    }
}

impl<'v> Deref for Cartesian<'v> {
    type Target = Communicator<'v>;

    fn deref(&self) -> &Communicator<'v> {
        &self.comm
    }
}
