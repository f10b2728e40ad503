//! What an algorithm is, and what it is for.

use std::fmt::Debug;

use super::plan::Plan;
use super::shape::Shape;

/// An operation of all ranks of a communicator. Its type says what its plans are about: see the implementors.
pub trait Operation: Sized + 'static {
    /// Its name in lower case, as in the name of the MPI function.
    const NAME: &'static str;

    /// All algorithms of this library for it.
    fn algorithms() -> &'static [&'static dyn Algorithm<Self>];

    /// How many elements rank `rank` has as input and as output.
    fn buffers(rank: usize, shape: &Shape) -> (usize, usize);

    /// Whether there is an operator.
    const REDUCES: bool = false;

    /// Whether the contents of the output matter before the operation.
    const UPDATES: bool = false;

    /// Whether the input may lie in the output, so that one buffer serves for both.
    const IN_PLACE: bool = Self::REDUCES;

    /// Where in the output it begins then.
    fn in_place(_rank: usize, _shape: &Shape) -> usize {
        0
    }
}

/// A way to do an operation: a function from a rank and a shape to a plan.
///
/// All ranks make their plans with the same algorithm and the same shape, so their sends and receives fit
/// together. The dissemination barrier, whole:
///
/// ```
/// use river_mpi::coll::{Algorithm, Barrier, NOTHING, Plan, Shape, check, log2_ceil};
///
/// #[derive(Debug)]
/// struct Mine;
///
/// impl Algorithm<Barrier> for Mine {
///     fn name(&self) -> &str {
///         "mine"
///     }
///
///     fn plan(&self, i: usize, shape: &Shape, plan: &mut Plan) {
///         let p = shape.size();
///         for k in 0..log2_ceil(p) {
///             let dest = (i + (1 << k)) % p;
///             let src = (i + p - (1 << k)) % p;
///             plan.send(NOTHING, dest);
///             plan.recv(NOTHING, src);
///         }
///     }
/// }
///
/// // All that can go wrong is found without a network.
/// check(&Mine).unwrap();
/// ```
pub trait Algorithm<O: Operation>: Debug + Send + Sync {
    /// The name by which it is chosen.
    fn name(&self) -> &str;

    /// Whether it can do this; if not, what it needs, as the end of a sentence that begins with "needs".
    ///
    /// # Errors
    /// What it needs.
    fn supports(&self, _shape: &Shape) -> Result<(), &'static str> {
        Ok(())
    }

    /// Writes what rank `rank` does.
    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan);
}

/// The plan of a rank.
#[must_use]
pub fn plan_of<O: Operation>(algorithm: &(impl Algorithm<O> + ?Sized), rank: usize, shape: &Shape) -> Plan {
    let mut plan = Plan::new();
    algorithm.plan(rank, shape, &mut plan);
    plan
}

/// What the `supports` of several algorithms asks for.
pub(super) mod needs {
    use super::Shape;

    pub(crate) fn power_of_two(shape: &Shape) -> Result<(), &'static str> {
        if shape.size().is_power_of_two() { Ok(()) } else { Err("a number of ranks that is a power of two") }
    }

    pub(crate) fn commutative(shape: &Shape) -> Result<(), &'static str> {
        if shape.commutative() { Ok(()) } else { Err("an operator that commutes") }
    }

    /// What combines the results of each host needs.
    pub(crate) fn order_of_hosts(shape: &Shape) -> Result<(), &'static str> {
        if shape.commutative() || shape.hosts().is_consecutive() {
            Ok(())
        } else {
            Err("an operator that commutes, or ranks of a host that follow one another")
        }
    }
}
