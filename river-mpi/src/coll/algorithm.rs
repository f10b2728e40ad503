//! Operations and their algorithms.

use std::fmt::Debug;

use super::plan::Plan;
use super::shape::Shape;

/// An operation of all ranks of a communicator. The implementors' docs say which buffers its plans read and write.
pub trait Operation: Sized + 'static {
    /// Its name in lower case, as in the name of the MPI function.
    const NAME: &'static str;

    /// All algorithms that this library has for the operation.
    fn algorithms() -> &'static [&'static dyn Algorithm<Self>];

    /// The lengths of the input and of the output of rank `rank`, in elements.
    fn buffers(rank: usize, shape: &Shape) -> (usize, usize);

    /// Whether the operation has an operator.
    const REDUCES: bool = false;

    /// Whether the operation reads what the output contains before it.
    const UPDATES: bool = false;

    /// Whether the input may lie in the output, so that one buffer serves for both.
    const IN_PLACE: bool = Self::REDUCES;

    /// The element of the output at which the input begins then.
    fn in_place(_rank: usize, _shape: &Shape) -> usize {
        0
    }
}

/// A way to carry out an operation: a function from a rank and a shape to a plan.
///
/// All ranks make their plans with the same algorithm and the same shape, so their sends and receives match. This is the
/// whole dissemination barrier:
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
    /// The name by which the algorithm is chosen.
    fn name(&self) -> &str;

    /// Checks whether the algorithm can be used for this shape.
    ///
    /// # Errors
    /// What it requires, as the end of a sentence that begins with "needs".
    fn supports(&self, _shape: &Shape) -> Result<(), &'static str> {
        Ok(())
    }

    /// Writes the plan of rank `rank`.
    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan);
}

/// Returns the plan of a rank.
#[must_use]
pub fn plan_of<O: Operation>(algorithm: &(impl Algorithm<O> + ?Sized), rank: usize, shape: &Shape) -> Plan {
    let mut plan = Plan::new();
    algorithm.plan(rank, shape, &mut plan);
    plan
}

/// Requirements that several algorithms check in `supports`.
pub(super) mod needs {
    use super::Shape;

    pub(crate) fn power_of_two(shape: &Shape) -> Result<(), &'static str> {
        if shape.size().is_power_of_two() { Ok(()) } else { Err("a number of ranks that is a power of two") }
    }

    pub(crate) fn commutative(shape: &Shape) -> Result<(), &'static str> {
        if shape.commutative() { Ok(()) } else { Err("an operator that commutes") }
    }

    /// The requirement of algorithms that combine the results of each host.
    pub(crate) fn order_of_hosts(shape: &Shape) -> Result<(), &'static str> {
        if shape.commutative() || shape.hosts().is_consecutive() {
            Ok(())
        } else {
            Err("an operator that commutes, or ranks of a host that follow one another")
        }
    }
}
