//! Collective operations as programs call them: all of them, with every algorithm, on all topologies.

mod between;
mod between_shaped;
mod errors;
mod every;
mod fast_path;
mod shaped;
mod shm;
mod started;
mod tuning;
mod values;

use river_mpi::{Communicator, Operator};

/// What a test's ranks return.
type Result<T = ()> = river_core::Result<T>;

/// An element of rank `rank`: all are different.
fn number(rank: usize, at: usize) -> u64 {
    (rank * 1_000_003 + at * 7 + 1) as u64
}

fn numbers(rank: usize, count: usize) -> Vec<u64> {
    (0..count).map(|at| number(rank, at)).collect()
}

/// Compositions of `x -> a x + b`: associative, and the order matters.
#[derive(Clone, Copy)]
struct Compose;

impl Operator<[u64; 2]> for Compose {
    fn apply(&self, f: [u64; 2], g: [u64; 2]) -> [u64; 2] {
        [f[0].wrapping_mul(g[0]), f[0].wrapping_mul(g[1]).wrapping_add(f[1])]
    }

    fn is_commutative(&self) -> bool {
        false
    }
}

fn maps(rank: usize, count: usize) -> Vec<[u64; 2]> {
    (0..count).map(|at| [number(rank, at) | 1, number(at, rank)]).collect()
}

/// The maps of these ranks, composed one after the other.
fn composed(ranks: std::ops::Range<usize>, count: usize) -> Vec<[u64; 2]> {
    let mut ranks = ranks.map(|rank| maps(rank, count));
    let mut all = ranks.next().unwrap_or_default();
    for maps in ranks {
        Compose.fold_right(&mut all, &maps);
    }
    all
}

/// Ends a rank with a message that says where it was.
#[track_caller]
fn same<T: PartialEq + std::fmt::Debug>(world: &Communicator, found: &[T], expected: &[T], what: &str) {
    if found != expected {
        let at = found.iter().zip(expected).position(|(found, expected)| found != expected);
        panic!(
            "{what} on rank {} of {}: {} elements, expected {}, first difference at {at:?}",
            world.rank(),
            world.size(),
            found.len(),
            expected.len()
        );
    }
}
