//! The conjugate gradient kernel of the NAS Parallel Benchmarks: the smallest eigenvalue of a large sparse matrix, by
//! inverse iteration, whose linear systems are solved by conjugate gradients.
//!
//! * this module: the problem's classes, and the published results
//! * `matrix`: the matrix, as NPB makes it
//! * `solve`: the iteration, serial or parallel
//!
//! D. Bailey et al., *The NAS Parallel Benchmarks*, RNR-94-007, 1994, section 2.4; NPB 3.4.

mod matrix;
mod solve;

use std::fmt;
use std::time::{Duration, Instant};

use river::mpi::Communicator;
use serde::{Deserialize, Serialize};

pub use solve::{Serial, Team, World};

/// The size of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum Class {
    /// Small, for tests: 1,400 rows.
    S,
    /// For a workstation of 1994: 7,000 rows.
    W,
    /// 14,000 rows.
    A,
    /// 75,000 rows.
    B,
}

impl Class {
    /// Rows of the matrix (NPB's `na`).
    #[must_use]
    pub fn rows(self) -> usize {
        [1400, 7000, 14_000, 75_000][self as usize]
    }

    /// Nonzero elements of the vectors that the matrix is made of (`nonzer`).
    #[must_use]
    pub fn nonzeros(self) -> usize {
        [7, 8, 11, 13][self as usize]
    }

    /// Steps of the inverse iteration (`niter`).
    #[must_use]
    pub fn steps(self) -> usize {
        [15, 15, 15, 75][self as usize]
    }

    /// The shift of the matrix's eigenvalues.
    #[must_use]
    pub fn shift(self) -> f64 {
        [10.0, 12.0, 20.0, 60.0][self as usize]
    }

    /// The published result.
    #[must_use]
    pub fn zeta(self) -> f64 {
        [8.597_177_507_864_8, 10.362_595_087_124, 17.130_235_054_029, 22.712_745_482_631][self as usize]
    }

    /// Floating point operations of the timed part, as NPB counts them.
    #[must_use]
    pub fn operations(self) -> f64 {
        let per_row = (self.nonzeros() * (self.nonzeros() + 1)) as f64;
        2.0 * (self.steps() * self.rows()) as f64 * (3.0 + per_row + 25.0 * (5.0 + per_row) + 3.0)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The result of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// The residual and the estimate after each step.
    pub steps: Vec<(f64, f64)>,
    /// How long the steps took.
    pub time: Duration,
}

impl Outcome {
    /// The last estimate.
    #[must_use]
    pub fn zeta(&self) -> f64 {
        self.steps.last().map_or(f64::NAN, |step| step.1)
    }

    /// Whether it is the published result, to a relative error of 1e-10.
    #[must_use]
    pub fn is_verified(&self, class: Class) -> bool {
        ((self.zeta() - class.zeta()) / class.zeta()).abs() <= 1e-10
    }

    /// 10^6 operations a second.
    #[must_use]
    pub fn mops(&self, class: Class) -> f64 {
        class.operations() / self.time.as_secs_f64() / 1e6
    }
}

/// Runs the kernel on one thread, without MPI.
#[must_use]
pub fn serial(class: Class) -> Outcome {
    let start = Instant::now();
    // There is no communication, so nothing can fail.
    solve::run(class, &Serial, || start.elapsed(), None, |_| Ok(()))
        .unwrap_or(Outcome { steps: Vec::new(), time: Duration::ZERO })
}

/// Runs the kernel on all ranks of a communicator, which must all call it. `each` is called with 1, 2, ... after each
/// step.
///
/// # Errors
/// If a rank is gone.
pub fn parallel(
    class: Class,
    world: &Communicator,
    mut each: impl FnMut(usize),
) -> river::mpi::Result<Outcome> {
    // The rank's own clock, which continues where it was when the rank is restored from a checkpoint.
    solve::run(
        class,
        &World::new(world),
        || world.vr().uptime(),
        None,
        |progress| {
            if !progress.steps.is_empty() {
                each(progress.steps.len());
            }
            Ok(())
        },
    )
}

/// Like [`parallel`], with a safepoint on each rank every this many steps, from which a restored rank continues. `each`
/// is called after the safepoint.
///
/// # Errors
/// As [`parallel`], and if a safepoint cannot be made.
pub fn with_safepoints(
    class: Class,
    world: &Communicator,
    every: usize,
    mut each: impl FnMut(usize),
) -> river::mpi::Result<Outcome> {
    let before = world.resumed()?;
    solve::run(
        class,
        &World::new(world),
        || world.vr().uptime(),
        before,
        |progress| {
            let step = progress.steps.len();
            if step > 0 && step.is_multiple_of(every) {
                world.safepoint(progress)?;
                each(step);
            }
            Ok(())
        },
    )
}
