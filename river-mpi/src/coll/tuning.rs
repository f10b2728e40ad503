//! Which algorithm an operation uses: by a table, by name, or whatever the program says.
//!
//! The tables know nothing but facts that are equal on all ranks: how many ranks there are and which of them
//! share a host, how many bytes there are, whether the operator commutes. They follow what `cargo bench -p
//! river-benches --bench mpi_coll` proposes, which measures every algorithm and prints where one becomes
//! faster than another.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::algorithm::{Algorithm, Operation};
use super::shape::Shape;
use super::{
    Allgather, Allgatherv, Allreduce, Alltoall, Alltoallv, Barrier, Bcast, Exscan, Gather, Gatherv, Reduce,
    ReduceScatter, Scan, Scatter, Scatterv, allgather, allreduce, alltoall, barrier, bcast, gather, reduce,
    reduce_scatter, scan, scatter,
};
use crate::error::{MpiError, Result};

/// Prefix of the environment variables that choose an algorithm; the operation's name in capitals follows.
const VARIABLE: &str = "RIVER_MPI_";

/// One row of a table: the first one that fits, and whose algorithm can do it, is taken.
struct Row<O: Operation> {
    place: Place,
    /// Up to so many ranks.
    ranks: usize,
    /// Up to so many bytes, of what [`Shape::bytes`] counts.
    bytes: usize,
    algorithm: &'static dyn Algorithm<O>,
}

/// Where the ranks are.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// All on one host.
    Together,
    /// Several hosts, and several ranks on some.
    TwoLevel,
    /// Several hosts, all on one machine.
    Machine,
    Anywhere,
}

use Place::{Anywhere, Machine, Together, TwoLevel};

const ANY: usize = usize::MAX;

const fn row<O: Operation>(
    place: Place,
    ranks: usize,
    bytes: usize,
    algorithm: &'static dyn Algorithm<O>,
) -> Row<O> {
    Row { place, ranks, bytes, algorithm }
}

static BARRIER: &[Row<Barrier>] = &[
    row(TwoLevel, ANY, ANY, &barrier::TwoLevel),
    row(Anywhere, 2, ANY, &barrier::Dissemination),
    row(Together, 4, ANY, &barrier::AllToAll),
    row(Together, 16, ANY, &barrier::Linear),
    row(Machine, 4, ANY, &barrier::AllToAll),
    row(Machine, 8, ANY, &barrier::Linear),
    row(Anywhere, ANY, ANY, &barrier::Dissemination),
];

static BCAST: &[Row<Bcast>] = &[
    row(TwoLevel, ANY, 128 << 10, &bcast::TwoLevel),
    row(Together, 8, ANY, &bcast::Linear),
    row(Together, ANY, ANY, &bcast::Binomial),
    row(Machine, 8, ANY, &bcast::Linear),
    row(Machine, ANY, ANY, &bcast::Binomial),
    row(Anywhere, ANY, 128 << 10, &bcast::Binomial),
    row(Anywhere, 3, ANY, &bcast::Binomial),
    row(Anywhere, 16, ANY, &bcast::Chain { segment: 64 << 10 }),
    row(Anywhere, ANY, ANY, &bcast::ScatterAllgather),
];

static GATHER: &[Row<Gather>] = &[
    row(Together, ANY, ANY, &gather::Linear),
    row(Machine, 4, 4 << 10, &gather::Binomial),
    row(Machine, 8, ANY, &gather::Linear),
    row(Anywhere, ANY, 4 << 10, &gather::Binomial),
    row(Anywhere, ANY, ANY, &gather::Linear),
];

static GATHERV: &[Row<Gatherv>] = &[row(Anywhere, ANY, ANY, &gather::Linear)];

static SCATTER: &[Row<Scatter>] = &[
    row(Together, ANY, ANY, &scatter::Linear),
    row(Machine, 8, ANY, &scatter::Linear),
    row(Anywhere, ANY, 4 << 10, &scatter::Binomial),
    row(Anywhere, ANY, ANY, &scatter::Linear),
];

static SCATTERV: &[Row<Scatterv>] = &[row(Anywhere, ANY, ANY, &scatter::Linear)];

static ALLGATHER: &[Row<Allgather>] = &[
    row(Together, 8, ANY, &allgather::Linear),
    row(Machine, 4, ANY, &allgather::Linear),
    row(Anywhere, 4, 64 << 10, &allgather::Linear),
    row(Anywhere, ANY, 8 << 10, &allgather::RecursiveDoubling),
    row(Anywhere, ANY, 8 << 10, &allgather::Bruck),
    row(Anywhere, ANY, ANY, &allgather::Ring),
];

static ALLGATHERV: &[Row<Allgatherv>] = &[row(Anywhere, ANY, ANY, &allgather::Ring)];

static ALLTOALL: &[Row<Alltoall>] = &[
    row(Machine, 4, ANY, &alltoall::Linear),
    row(Anywhere, 8, 64 << 10, &alltoall::Linear),
    row(Anywhere, ANY, 256, &alltoall::Bruck),
    row(Anywhere, ANY, 32 << 10, &alltoall::Linear),
    row(Anywhere, ANY, ANY, &alltoall::Pairwise),
];

static ALLTOALLV: &[Row<Alltoallv>] =
    &[row(Anywhere, 16, ANY, &alltoall::Linear), row(Anywhere, ANY, ANY, &alltoall::Pairwise)];

static REDUCE: &[Row<Reduce>] = &[
    row(TwoLevel, ANY, ANY, &reduce::TwoLevel),
    row(Anywhere, 4, 2 << 10, &reduce::Binomial),
    row(Anywhere, 2, 512 << 10, &reduce::Binomial),
    row(Anywhere, 2, ANY, &reduce::Rabenseifner),
    row(Together, 4, 1 << 20, &reduce::Linear),
    row(Anywhere, 4, 512 << 10, &reduce::Binomial),
    row(Anywhere, 4, ANY, &reduce::Rabenseifner),
    row(Together, ANY, 4 << 20, &reduce::Binomial),
    row(Anywhere, ANY, 64 << 10, &reduce::Binomial),
    row(Anywhere, ANY, ANY, &reduce::Rabenseifner),
];

static ALLREDUCE: &[Row<Allreduce>] = &[
    row(TwoLevel, ANY, 64 << 10, &allreduce::TwoLevel),
    row(Machine, 2, 64 << 10, &allreduce::RecursiveDoubling),
    row(Machine, 4, 1 << 10, &allreduce::AllToAll),
    row(Machine, 4, 64 << 10, &allreduce::RecursiveDoubling),
    row(Machine, 4, ANY, &allreduce::Direct),
    row(Machine, 8, 64, &allreduce::AllToAll),
    row(Machine, 8, 16 << 10, &allreduce::RecursiveDoubling),
    row(Machine, 8, 512 << 10, &allreduce::ReduceBcast),
    row(Machine, 8, 2 << 20, &allreduce::Direct),
    row(Anywhere, 2, 64 << 10, &allreduce::RecursiveDoubling),
    row(Together, 2, 512 << 10, &allreduce::RecursiveDoubling),
    row(Together, 8, 1 << 10, &allreduce::AllToAll),
    row(Together, 4, 128 << 10, &allreduce::RecursiveDoubling),
    row(Together, ANY, 64 << 10, &allreduce::TwoLevel),
    row(Anywhere, ANY, 16 << 10, &allreduce::RecursiveDoubling),
    row(Together, 16, ANY, &allreduce::Direct),
    row(Anywhere, 4, ANY, &allreduce::Direct),
    row(Anywhere, ANY, 1 << 20, &allreduce::Rabenseifner),
    row(Anywhere, ANY, ANY, &allreduce::Ring),
    row(Anywhere, ANY, ANY, &allreduce::Rabenseifner),
];

static REDUCE_SCATTER: &[Row<ReduceScatter>] = &[
    row(Together, 16, ANY, &reduce_scatter::Pairwise),
    row(Machine, 4, ANY, &reduce_scatter::Pairwise),
    row(Machine, 8, 8 << 10, &reduce_scatter::RecursiveHalving),
    row(Machine, 8, ANY, &reduce_scatter::Pairwise),
    row(Anywhere, 4, ANY, &reduce_scatter::Pairwise),
    row(Anywhere, ANY, 64 << 10, &reduce_scatter::RecursiveHalving),
    row(Anywhere, ANY, ANY, &reduce_scatter::Pairwise),
];

static SCAN: &[Row<Scan>] = &[
    row(Together, 16, ANY, &scan::Linear),
    row(Machine, 8, ANY, &scan::Linear),
    row(Anywhere, 4, ANY, &scan::Linear),
    row(Anywhere, ANY, ANY, &scan::RecursiveDoubling),
];

static EXSCAN: &[Row<Exscan>] = &[
    row(Together, 16, ANY, &scan::Linear),
    row(Machine, 8, ANY, &scan::Linear),
    row(Anywhere, 4, ANY, &scan::Linear),
    row(Anywhere, ANY, ANY, &scan::RecursiveDoubling),
];

impl<O: Operation> Row<O> {
    fn fits(&self, shape: &Shape) -> bool {
        let hosts = shape.hosts();
        let there = match self.place {
            Together => hosts.count() == 1,
            TwoLevel => hosts.is_two_level(),
            Machine => hosts.count() > 1 && hosts.is_one_machine(),
            Anywhere => true,
        };
        there
            && shape.size() <= self.ranks
            && shape.bytes() <= self.bytes
            && self.algorithm.supports(shape).is_ok()
    }
}

/// Who chooses.
enum Choice<O: Operation> {
    Table,
    Fixed(Arc<dyn Algorithm<O>>),
    Named(&'static dyn Algorithm<O>),
}

impl<O: Operation> Clone for Choice<O> {
    fn clone(&self) -> Self {
        match self {
            Choice::Table => Choice::Table,
            Choice::Fixed(algorithm) => Choice::Fixed(algorithm.clone()),
            Choice::Named(algorithm) => Choice::Named(*algorithm),
        }
    }
}

/// An operation whose algorithm a [`Tuning`] chooses: each operation of this library.
pub trait Tuned: Operation + private::Sealed {
    #[doc(hidden)]
    fn choose<'a>(tuning: &'a Tuning, shape: &Shape) -> Result<&'a dyn Algorithm<Self>>;
}

mod private {
    pub trait Sealed {}
}

macro_rules! operations {
    ($($(#[$doc:meta])* $field:ident: $Operation:ident, $TABLE:ident;)*) => {
        /// Which algorithms a communicator uses. For an operation that is not named here, a table chooses by the number of
        /// ranks and bytes.
        ///
        /// ```
        /// use river_mpi::coll::{Tuning, allreduce};
        ///
        /// let tuning = Tuning::default().allreduce(allreduce::Ring);
        /// let the_same = Tuning::default().with_named("allreduce", "ring")?;
        /// assert_eq!(tuning.to_string(), the_same.to_string());
        /// let error = Tuning::default().with_named("allreduce", "rings").unwrap_err();
        /// assert!(error.to_string().contains("recursive_doubling"));
        /// # Ok::<(), river_mpi::MpiError>(())
        /// ```
        ///
        /// All ranks of a communicator must have the same.
        #[derive(Clone)]
        pub struct Tuning {
            $($field: Choice<$Operation>,)*
        }

        impl Default for Tuning {
            fn default() -> Self {
                Self { $($field: Choice::Table,)* }
            }
        }

        impl Tuning {
            $(
                $(#[$doc])*
                #[must_use]
                pub fn $field(mut self, algorithm: impl Algorithm<$Operation> + 'static) -> Self {
                    self.$field = Choice::Fixed(Arc::new(algorithm));
                    self
                }
            )*

            /// Uses an algorithm of this library by name.
            ///
            /// # Errors
            /// [`MpiError::Arg`] if there is no such operation, or no such algorithm for it; it says which
            /// there are.
            pub fn with_named(mut self, operation: &str, algorithm: &str) -> Result<Self> {
                match operation {
                    $($Operation::NAME => self.$field = Choice::Named(named(algorithm)?),)*
                    _ => {
                        let all = [$($Operation::NAME),*].join(", ");
                        return Err(MpiError::Arg(format!("there is no operation `{operation}`, but {all}")));
                    }
                }
                Ok(self)
            }
        }

        impl Names {
            /// Those that the environment has: `RIVER_MPI_ALLREDUCE=ring`.
            #[must_use]
            pub fn from_env() -> Self {
                let mut names = Self::default();
                for operation in [$($Operation::NAME),*] {
                    if let Ok(name) = std::env::var(format!("{VARIABLE}{}", operation.to_uppercase())) {
                        names.0.insert(operation.to_owned(), name);
                    }
                }
                names
            }
        }

        /// What was not left to the tables.
        impl fmt::Display for Tuning {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let said: Vec<String> = [
                    $(self.$field.name().map(|name| format!("{}={name}", $Operation::NAME)),)*
                ].into_iter().flatten().collect();
                f.write_str(&said.join(" "))
            }
        }

        $(
            impl private::Sealed for $Operation {}

            impl Tuned for $Operation {
                fn choose<'a>(tuning: &'a Tuning, shape: &Shape) -> Result<&'a dyn Algorithm<Self>> {
                    tuning.$field.choose(shape, $TABLE)
                }
            }
        )*
    };
}

operations! {
    /// Replaces the barrier.
    barrier: Barrier, BARRIER;
    /// Replaces the bcast.
    bcast: Bcast, BCAST;
    /// Replaces the gather.
    gather: Gather, GATHER;
    /// Replaces the gatherv.
    gatherv: Gatherv, GATHERV;
    /// Replaces the scatter.
    scatter: Scatter, SCATTER;
    /// Replaces the scatterv.
    scatterv: Scatterv, SCATTERV;
    /// Replaces the allgather.
    allgather: Allgather, ALLGATHER;
    /// Replaces the allgatherv.
    allgatherv: Allgatherv, ALLGATHERV;
    /// Replaces the alltoall.
    alltoall: Alltoall, ALLTOALL;
    /// Replaces the alltoallv.
    alltoallv: Alltoallv, ALLTOALLV;
    /// Replaces the reduce.
    reduce: Reduce, REDUCE;
    /// Replaces the allreduce.
    allreduce: Allreduce, ALLREDUCE;
    /// Replaces the `reduce_scatter`.
    reduce_scatter: ReduceScatter, REDUCE_SCATTER;
    /// Replaces the scan.
    scan: Scan, SCAN;
    /// Replaces the exscan.
    exscan: Exscan, EXSCAN;
}

impl Tuning {
    /// With all algorithms that are named.
    ///
    /// # Errors
    /// As [`with_named`](Self::with_named).
    pub fn with_names(self, names: &Names) -> Result<Self> {
        names
            .0
            .iter()
            .try_fold(self, |tuning, (operation, algorithm)| tuning.with_named(operation, algorithm))
    }
}

impl fmt::Debug for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tuning({self})")
    }
}

/// Names of algorithms by operation, as the environment of who starts a program has them. They travel to all
/// ranks, whose own environments may differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names(BTreeMap<String, String>);

impl<O: Operation> Choice<O> {
    fn name(&self) -> Option<&str> {
        match self {
            Choice::Table => None,
            Choice::Fixed(algorithm) => Some(algorithm.name()),
            Choice::Named(algorithm) => Some(algorithm.name()),
        }
    }

    fn choose(&self, shape: &Shape, table: &'static [Row<O>]) -> Result<&dyn Algorithm<O>> {
        let algorithm: &dyn Algorithm<O> = match self {
            Choice::Table => {
                // The last row fits everything: a test sees to it.
                let row = table.iter().find(|row| row.fits(shape)).or(table.last());
                return row
                    .map(|row| row.algorithm)
                    .ok_or_else(|| MpiError::Arg(format!("there is no algorithm for {}", O::NAME)));
            }
            Choice::Fixed(algorithm) => &**algorithm,
            Choice::Named(algorithm) => *algorithm,
        };
        match algorithm.supports(shape) {
            Ok(()) => Ok(algorithm),
            Err(needs) => Err(MpiError::Arg(format!(
                "the algorithm `{}`, which was chosen for {}, needs {needs}",
                algorithm.name(),
                O::NAME
            ))),
        }
    }
}

fn named<O: Operation>(name: &str) -> Result<&'static dyn Algorithm<O>> {
    O::algorithms().iter().copied().find(|algorithm| algorithm.name() == name).ok_or_else(|| {
        let all: Vec<&str> = O::algorithms().iter().map(|algorithm| algorithm.name()).collect();
        MpiError::Arg(format!(
            "{} has no algorithm `{name}` ({VARIABLE}{}), but {}",
            O::NAME,
            O::NAME.to_uppercase(),
            all.join(", ")
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coll::Hosts;

    fn fits_everything<O: Tuned>() {
        for size in [1, 2, 3, 8, 100] {
            for count in [0, 1, 1 << 30] {
                for commutative in [true, false] {
                    let apart = Hosts::apart(size);
                    let machine = apart.clone().on_one_machine(true);
                    for hosts in [apart, machine, Hosts::new((0..size).map(|rank| rank % 2))] {
                        let shape = Shape::new(size, count, 8)
                            .with_commutative(commutative)
                            .with_hosts(Arc::new(hosts));
                        let tuning = Tuning::default();
                        O::choose(&tuning, &shape).unwrap().supports(&shape).unwrap();
                    }
                }
            }
        }
    }

    #[test]
    fn the_tables_have_a_row_for_everything() {
        fits_everything::<Barrier>();
        fits_everything::<Bcast>();
        fits_everything::<Gather>();
        fits_everything::<Gatherv>();
        fits_everything::<Scatter>();
        fits_everything::<Scatterv>();
        fits_everything::<Allgather>();
        fits_everything::<Allgatherv>();
        fits_everything::<Alltoall>();
        fits_everything::<Alltoallv>();
        fits_everything::<Reduce>();
        fits_everything::<Allreduce>();
        fits_everything::<ReduceScatter>();
        fits_everything::<Scan>();
        fits_everything::<Exscan>();
    }

    #[test]
    fn a_forced_algorithm_that_cannot_do_it_is_an_error_that_says_why() {
        let tuning = Tuning::default().with_named("allreduce", "ring").unwrap();
        let shape = Shape::new(4, 100, 8).with_commutative(false);
        let error = Allreduce::choose(&tuning, &shape).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the algorithm `ring`, which was chosen for allreduce, needs an operator that commutes"
        );
        assert!(Allreduce::choose(&tuning, &Shape::new(4, 100, 8)).is_ok());
    }
}
