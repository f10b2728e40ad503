//! The iteration. Rows are divided into one range per rank; a vector by which the matrix is multiplied is gathered on
//! all ranks, everything else stays with its rows.

use std::ops::Range;
use std::time::Duration;

use river::mpi::{self, Communicator, SUM};
use serde::{Deserialize, Serialize};

use super::matrix::Matrix;
use super::{Class, Outcome};

/// The number of steps of the inner iteration.
const INNER: usize = 25;

/// The members that work together on the vectors.
pub trait Team {
    /// The error of communication.
    type Error;

    /// Returns this member's part of `n` elements.
    fn part(&self, n: usize) -> Range<usize>;

    /// Sums the contributions of all members; every member gets the result.
    ///
    /// # Errors
    /// If a member is gone.
    fn sum<const N: usize>(&self, mine: [f64; N]) -> Result<[f64; N], Self::Error>;

    /// Fills a vector of which each member has set its part.
    ///
    /// # Errors
    /// If a member is gone.
    fn gather(&self, vector: &mut [f64]) -> Result<(), Self::Error>;
}

/// One thread.
#[derive(Clone, Copy, Debug)]
pub struct Serial;

impl Team for Serial {
    type Error = std::convert::Infallible;

    fn part(&self, n: usize) -> Range<usize> {
        0..n
    }

    fn sum<const N: usize>(&self, mine: [f64; N]) -> Result<[f64; N], Self::Error> {
        Ok(mine)
    }

    fn gather(&self, _: &mut [f64]) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// The ranks of a communicator.
#[derive(Debug)]
pub struct World<'a, 'v> {
    comm: &'a Communicator<'v>,
}

impl<'a, 'v> World<'a, 'v> {
    /// Called by all ranks of the communicator.
    #[must_use]
    pub fn new(comm: &'a Communicator<'v>) -> Self {
        Self { comm }
    }

    fn part_of(&self, rank: usize, n: usize) -> Range<usize> {
        let p = self.comm.size();
        rank * n / p..(rank + 1) * n / p
    }
}

impl Team for World<'_, '_> {
    type Error = mpi::MpiError;

    fn part(&self, n: usize) -> Range<usize> {
        self.part_of(self.comm.rank(), n)
    }

    fn sum<const N: usize>(&self, mut mine: [f64; N]) -> mpi::Result<[f64; N]> {
        self.comm.allreduce_in_place(&mut mine, &SUM)?;
        Ok(mine)
    }

    fn gather(&self, vector: &mut [f64]) -> mpi::Result<()> {
        let parts: Vec<_> = (0..self.comm.size()).map(|rank| self.part_of(rank, vector.len())).collect();
        self.comm.allgatherv_in_place(vector, &parts)
    }
}

/// The state of a member between two steps: all that it needs to continue, besides what it can compute again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Progress {
    /// Its part of the vector.
    x: Vec<f64>,
    /// The residual and the estimate after each step.
    pub(super) steps: Vec<(f64, f64)>,
    /// When the first step began.
    start: Duration,
}

/// Runs the whole benchmark: builds the matrix, and performs an untimed step and the timed ones, the first of which may
/// have been done before. `between` is called with the progress before each timed step, and at the end.
pub(super) fn run<T: Team>(
    class: Class,
    team: &T,
    clock: impl Fn() -> Duration,
    before: Option<Progress>,
    mut between: impl FnMut(&Progress) -> Result<(), T::Error>,
) -> Result<Outcome, T::Error> {
    let n = class.rows();
    let part = team.part(n);
    let mut solver = Solver::new(Matrix::rows(class, part.clone()), n, part.clone());
    let mut progress = match before {
        Some(progress) => progress,
        None => {
            let mut x = vec![1.0; part.len()];
            solver.step(team, &mut x, class.shift())?;
            x.fill(1.0);
            // A barrier: all members begin together.
            team.sum([0.0])?;
            Progress { x, steps: Vec::with_capacity(class.steps()), start: clock() }
        }
    };
    loop {
        between(&progress)?;
        if progress.steps.len() >= class.steps() {
            return Ok(Outcome { time: clock() - progress.start, steps: progress.steps });
        }
        let step = solver.step(team, &mut progress.x, class.shift())?;
        progress.steps.push(step);
    }
}

/// The vectors of the inner iteration: `p` as a whole, this member's part of the others.
struct Solver {
    matrix: Matrix,
    part: Range<usize>,
    p: Vec<f64>,
    q: Vec<f64>,
    r: Vec<f64>,
    z: Vec<f64>,
}

impl Solver {
    fn new(matrix: Matrix, n: usize, part: Range<usize>) -> Self {
        let zeros = || vec![0.0; part.len()];
        Self { matrix, p: vec![0.0; n], q: zeros(), r: zeros(), z: zeros(), part }
    }

    /// Performs one step of the inverse iteration; returns the residual and the estimate.
    fn step<T: Team>(&mut self, team: &T, x: &mut [f64], shift: f64) -> Result<(f64, f64), T::Error> {
        let residual = self.conjugate_gradients(team, x)?;
        let [xz, zz] = team.sum([dot(x, &self.z), dot(&self.z, &self.z)])?;
        let scale = 1.0 / zz.sqrt();
        x.iter_mut().zip(&self.z).for_each(|(x, z)| *x = scale * z);
        Ok((residual, shift + 1.0 / xz))
    }

    /// Solves A z = x approximately; returns the norm of the residual.
    fn conjugate_gradients<T: Team>(&mut self, team: &T, x: &[f64]) -> Result<f64, T::Error> {
        let Self { matrix, part, p, q, r, z } = self;
        z.fill(0.0);
        r.copy_from_slice(x);
        p[part.clone()].copy_from_slice(x);
        let [mut rho] = team.sum([dot(r, r)])?;
        for _ in 0..INNER {
            team.gather(p)?;
            matrix.multiply(p, q);
            let mine = &mut p[part.clone()];
            let [d] = team.sum([dot(mine, q)])?;
            let alpha = rho / d;
            for (((z, r), p), q) in z.iter_mut().zip(r.iter_mut()).zip(&*mine).zip(&*q) {
                *z += alpha * p;
                *r -= alpha * q;
            }
            let before = rho;
            [rho] = team.sum([dot(r, r)])?;
            let beta = rho / before;
            mine.iter_mut().zip(&*r).for_each(|(p, r)| *p = r + beta * *p);
        }
        p[part.clone()].copy_from_slice(z);
        team.gather(p)?;
        matrix.multiply(p, q);
        let [sum] = team.sum([x.iter().zip(&*q).map(|(x, q)| (x - q) * (x - q)).sum()])?;
        Ok(sum.sqrt())
    }
}

/// As in the matrix, eight partial sums.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let ((a_chunks, a_last), (b_chunks, b_last)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    a_last.iter().zip(b_last).map(|(a, b)| a * b).sum::<f64>() + sums.iter().sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::super::{Class, parallel, serial};

    #[test]
    fn class_s_has_the_published_result_on_any_number_of_ranks() {
        assert!(serial(Class::S).is_verified(Class::S));
        for ranks in [1, 2, 3, 5] {
            let outcomes = river::mpi::testing::world(ranks, |world| Ok(parallel(Class::S, world, |_| {})?));
            assert!(outcomes.iter().all(|outcome| outcome.is_verified(Class::S)));
        }
    }

    #[test]
    fn the_same_number_of_ranks_gives_the_same_bits_on_each_and_every_time() {
        let bits = |(residual, zeta): (f64, f64)| (residual.to_bits(), zeta.to_bits());
        for ranks in [2, 3, 4] {
            let run = || river::mpi::testing::world(ranks, |world| Ok(parallel(Class::S, world, |_| {})?));
            let all: Vec<Vec<_>> = run()
                .into_iter()
                .chain(run())
                .map(|outcome| outcome.steps.into_iter().map(bits).collect())
                .collect();
            assert!(all.iter().all(|steps| *steps == all[0]));
        }
    }
}
