//! The expected result of each operation, and the check of algorithms against it.

use std::cell::OnceCell;
use std::ops::Range;
use std::sync::Arc;

use super::algorithm::{Algorithm, Operation};
use super::shape::{Hosts, Shape};
use super::simulate::{Cost, simulate};
use super::{
    Allgather, Allgatherv, Allreduce, Alltoall, Alltoallv, Barrier, Bcast, Exscan, Gather, Gatherv, Reduce,
    ReduceScatter, Scan, Scatter, Scatterv,
};
use crate::op::{self, Operator};

/// The elements of the checked operations: maps `x -> a x + b`. Their composition is associative but not commutative.
type Map = [u32; 2];

/// The length of pieces. It is small, so that messages of several pieces need not be long.
const PIECE: usize = 4096;

/// Fills the parts of outputs that must not be written.
const UNTOUCHED: Map = [u32::MAX; 2];

/// An operation whose expected result [`check`] can compute.
pub trait Checked: Operation {
    /// The output of rank `rank`, given the inputs of all ranks and their outputs before the operation.
    #[doc(hidden)]
    fn result(rank: usize, call: &Call<'_>) -> Vec<Map>;

    /// The layout of blocks if this is a `v` operation, and which ranks know it.
    #[doc(hidden)]
    const BLOCKS: Blocks = Blocks::Equal;

    /// Whether no rank may finish before all have begun.
    #[doc(hidden)]
    const SYNCHRONISES: bool = false;

    /// Whether the operation has a root.
    #[doc(hidden)]
    const ROOTED: bool = false;
}

/// How blocks are laid out in the shapes that are tried.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocks {
    Equal,
    /// Blocks of different lengths, one after the other; all ranks know the lengths.
    Consecutive,
    /// Blocks of different lengths; all ranks know the lengths, but each has its own layout.
    Anywhere,
    /// Blocks of different lengths, which only the root knows.
    Root,
    /// A different length for each pair of ranks.
    Pairs,
}

/// A call with its inputs and outputs on all ranks.
#[doc(hidden)]
#[derive(Debug)]
pub struct Call<'a> {
    shapes: &'a [Shape],
    inputs: &'a [Vec<Map>],
    outputs: &'a [Vec<Map>],
    commutative: bool,
    /// The combination of all inputs, once it was needed.
    combined: OnceCell<Vec<Map>>,
}

impl Call<'_> {
    fn combined(&self) -> &[Map] {
        self.combined.get_or_init(|| self.reduced(0..self.inputs.len()))
    }

    fn reduced(&self, ranks: Range<usize>) -> Vec<Map> {
        let mut inputs = self.inputs[ranks].iter().cloned();
        let mut result = inputs.next().unwrap_or_default();
        for input in inputs {
            operator(self.commutative).fold_right(&mut result, &input);
        }
        result
    }

    fn before(&self, rank: usize) -> Vec<Map> {
        self.outputs[rank].clone()
    }
}

fn operator(commutative: bool) -> &'static dyn Operator<Map> {
    if commutative {
        &op::SUM
    } else {
        const COMPOSE: op::Function<fn(Map, Map) -> Map> = op::function(compose, false);
        &COMPOSE
    }
}

fn compose(f: Map, g: Map) -> Map {
    [f[0].wrapping_mul(g[0]), f[0].wrapping_mul(g[1]).wrapping_add(f[1])]
}

impl Checked for Barrier {
    const SYNCHRONISES: bool = true;

    fn result(_: usize, _: &Call<'_>) -> Vec<Map> {
        Vec::new()
    }
}

impl Checked for Bcast {
    const ROOTED: bool = true;

    fn result(_: usize, call: &Call<'_>) -> Vec<Map> {
        call.before(call.shapes[0].root())
    }
}

impl Checked for Reduce {
    const ROOTED: bool = true;

    fn result(rank: usize, call: &Call<'_>) -> Vec<Map> {
        if rank == call.shapes[0].root() { call.combined().to_vec() } else { Vec::new() }
    }
}

impl Checked for Allreduce {
    fn result(_: usize, call: &Call<'_>) -> Vec<Map> {
        call.combined().to_vec()
    }
}

impl Checked for Scan {
    fn result(rank: usize, call: &Call<'_>) -> Vec<Map> {
        call.reduced(0..rank + 1)
    }
}

impl Checked for Exscan {
    fn result(rank: usize, call: &Call<'_>) -> Vec<Map> {
        if rank == 0 { call.before(0) } else { call.reduced(0..rank) }
    }
}

impl Checked for ReduceScatter {
    const BLOCKS: Blocks = Blocks::Consecutive;

    fn result(rank: usize, call: &Call<'_>) -> Vec<Map> {
        call.combined()[call.shapes[rank].block(rank)].to_vec()
    }
}

macro_rules! gathers {
    ($($Operation:ty, $blocks:ident, $rooted:literal;)*) => { $(
        impl Checked for $Operation {
            const BLOCKS: Blocks = Blocks::$blocks;
            const ROOTED: bool = $rooted;

            fn result(rank: usize, call: &Call<'_>) -> Vec<Map> {
                let mut all = call.before(rank);
                if !$rooted || rank == call.shapes[rank].root() {
                    for (from, input) in call.inputs.iter().enumerate() {
                        all[call.shapes[rank].block(from)].copy_from_slice(input);
                    }
                }
                all
            }
        }
    )* };
}

gathers! {
    Gather, Equal, true;
    Gatherv, Root, true;
    Allgather, Equal, false;
    Allgatherv, Anywhere, false;
}

macro_rules! scatters {
    ($($Operation:ty, $blocks:ident;)*) => { $(
        impl Checked for $Operation {
            const BLOCKS: Blocks = Blocks::$blocks;
            const ROOTED: bool = true;

            fn result(rank: usize, call: &Call<'_>) -> Vec<Map> {
                let root = call.shapes[rank].root();
                call.inputs[root][call.shapes[root].block(rank)].to_vec()
            }
        }
    )* };
}

scatters! {
    Scatter, Equal;
    Scatterv, Root;
}

macro_rules! exchanges {
    ($($Operation:ty, $blocks:ident;)*) => { $(
        impl Checked for $Operation {
            const BLOCKS: Blocks = Blocks::$blocks;

            fn result(rank: usize, call: &Call<'_>) -> Vec<Map> {
                let mut all = call.before(rank);
                for (from, input) in call.inputs.iter().enumerate() {
                    all[call.shapes[rank].incoming(from)].copy_from_slice(&input[call.shapes[from].block(rank)]);
                }
                all
            }
        }
    )* };
}

exchanges! {
    Alltoall, Equal;
    Alltoallv, Pairs;
}

/// Checks an algorithm against the expected results of its operation, without a network: for 1 to 17 ranks and some larger
/// numbers, for several roots, for counts from 0 to many, for operators that commute or not, for ranks that share hosts in
/// several ways, in place or not.
///
/// All algorithms of this library are tested with it. It takes about a second in an unoptimised build.
///
/// # Errors
/// The first mistake: which call was tried, and what went wrong. For a deadlock, which rank waits for which.
pub fn check<O: Checked>(algorithm: &(impl Algorithm<O> + 'static)) -> Result<(), String> {
    check_dyn(algorithm)
}

/// Runs [`check`] on a trait object.
///
/// # Errors
/// Those of [`check`].
pub fn check_dyn<O: Checked>(algorithm: &dyn Algorithm<O>) -> Result<(), String> {
    let mut tried = 0;
    for size in (1..=17).chain([31, 32, 33]) {
        let mut counts = vec![0, 1, size - 1, size, size + 1, 3 * size + 2];
        if size > 17 {
            counts = vec![1, size + 1];
        }
        if [1, 2, 3, 5, 8].contains(&size) {
            // Long enough for messages of several pieces.
            counts.push(1500);
        }
        let roots = if O::ROOTED { vec![0, size / 2, size - 1] } else { vec![0] };
        for (index, &count) in counts.iter().enumerate() {
            for &root in &roots {
                for commutative in if O::REDUCES { vec![true, false] } else { vec![true] } {
                    for hosts in host_patterns(size, index) {
                        let shape = Shape::new(size, count, size_of::<Map>())
                            .with_root(root)
                            .with_commutative(commutative)
                            .with_hosts(hosts);
                        if algorithm.supports(&shape).is_ok() {
                            tried += 1;
                            check_shape(algorithm, &shape).map_err(|error| {
                                let hosts: Vec<usize> =
                                    (0..size).map(|rank| shape.hosts().of(rank)).collect();
                                let commutes = if commutative { "commutes" } else { "does not commute" };
                                format!(
                                    "{}/{}, {size} ranks on hosts {hosts:?}, count {count}, root {root}, \
                                     operator {commutes}: {error}",
                                    O::NAME,
                                    algorithm.name()
                                )
                            })?;
                        }
                    }
                }
            }
        }
    }
    if tried == 0 { Err(format!("{}/{} supports nothing", O::NAME, algorithm.name())) } else { Ok(()) }
}

/// The patterns of hosts for a count, some of these: every rank on its own host, all on one, consecutive groups of three,
/// dealt out to three hosts in turn.
fn host_patterns(size: usize, index: usize) -> Vec<Arc<Hosts>> {
    let all = [
        Hosts::apart(size),
        Hosts::new((0..size).map(|rank| rank / 3)),
        Hosts::new((0..size).map(|_| 0)),
        Hosts::new((0..size).map(|rank| rank % 3)),
    ];
    let [first, second] = [index % 2, 2 + index % 2].map(|i| Arc::new(all[i].clone()));
    vec![first, second]
}

fn check_shape<O: Checked>(algorithm: &dyn Algorithm<O>, shape: &Shape) -> Result<(), String> {
    let size = shape.size();
    let shapes = shapes_of::<O>(shape);
    let number = |rank: usize, i: usize| (rank * 7919 + i * 2 + 1) as u32;
    let map = |rank: usize, i: usize| [number(rank, i) | 1, number(i, rank)];
    let inputs: Vec<Vec<Map>> = (0..size)
        .map(|rank| (0..O::buffers(rank, &shapes[rank]).0).map(|i| map(rank, i)).collect())
        .collect();
    let mut outputs: Vec<Vec<Map>> = (0..size)
        .map(|rank| {
            let len = O::buffers(rank, &shapes[rank]).1;
            if O::UPDATES { (0..len).map(|i| map(size + rank, i)).collect() } else { vec![UNTOUCHED; len] }
        })
        .collect();
    let before = outputs.clone();
    let call = Call {
        shapes: &shapes,
        inputs: &inputs,
        outputs: &before,
        commutative: shape.commutative(),
        combined: OnceCell::new(),
    };
    let expected: Vec<Vec<Map>> = (0..size).map(|rank| O::result(rank, &call)).collect();
    let operator = operator(shape.commutative());
    let outcome = simulate(algorithm, &shapes, &inputs, &mut outputs, operator, Cost::ROUNDS, PIECE)?;
    if O::SYNCHRONISES && !outcome.synchronised {
        return Err("a rank is done before all have begun".into());
    }
    compare(&outputs, &expected)?;
    if !O::IN_PLACE {
        return Ok(());
    }

    // Once more with the input where the output will be, if the plans of all ranks allow it.
    let offsets: Vec<usize> = (0..size).map(|rank| O::in_place(rank, &shapes[rank])).collect();
    let mut outputs = before;
    let mut apart = inputs.clone();
    for rank in 0..size {
        let plan = super::plan_of(algorithm, rank, &shapes[rank]);
        let place = offsets[rank]..offsets[rank] + inputs[rank].len();
        if place.end <= outputs[rank].len() && plan.allows_input_in_output(offsets[rank]) {
            outputs[rank][place].copy_from_slice(&inputs[rank]);
            apart[rank].clear();
        }
    }
    let mut expected = expected;
    if O::NAME == "exscan" {
        expected[0].clone_from(&outputs[0]);
    }
    simulate(algorithm, &shapes, &apart, &mut outputs, operator, Cost::ROUNDS, PIECE)?;
    compare(&outputs, &expected).map_err(|error| format!("in place: {error}"))
}

fn compare(found: &[Vec<Map>], expected: &[Vec<Map>]) -> Result<(), String> {
    for (rank, (found, expected)) in found.iter().zip(expected).enumerate() {
        if let Some(at) = (0..expected.len()).find(|&at| found[at] != expected[at]) {
            return Err(format!("rank {rank} has {:?} at {at}, expected {:?}", found[at], expected[at]));
        }
    }
    Ok(())
}

/// The shapes that the ranks know.
fn shapes_of<O: Checked>(shape: &Shape) -> Vec<Shape> {
    let (size, count) = (shape.size(), shape.count());
    // Some are empty, some are longer than others.
    let len = |rank: usize| (count * (rank % 3)).div_ceil(2);
    let consecutive = |len: &dyn Fn(usize) -> usize, gap: usize| -> Vec<Range<usize>> {
        let mut end = 0;
        let blocks = (0..size).map(|rank| {
            let start = end + gap;
            end = start + len(rank);
            start..end
        });
        blocks.collect()
    };
    let reversed = |len: &dyn Fn(usize) -> usize| -> Vec<Range<usize>> {
        let mut end = 0;
        let mut blocks: Vec<Range<usize>> = (0..size)
            .rev()
            .map(|rank| {
                let start = end + 1;
                end = start + len(rank);
                start..end
            })
            .collect();
        blocks.reverse();
        blocks
    };
    let each = |shape_of: &dyn Fn(usize, Shape) -> Shape| {
        (0..size).map(|rank| shape_of(rank, Shape { count: 0, ..shape.clone() })).collect()
    };
    match O::BLOCKS {
        Blocks::Equal => vec![shape.clone(); size],
        Blocks::Consecutive => each(&|_, shape| shape.with_blocks(consecutive(&len, 0))),
        Blocks::Anywhere => each(&|rank, shape| {
            shape.with_blocks(if rank % 2 == 0 { consecutive(&len, rank) } else { reversed(&len) })
        }),
        Blocks::Root => each(&|rank, of_rank| {
            if rank == shape.root() {
                of_rank.with_blocks(reversed(&len))
            } else {
                of_rank.with_blocks((0..size).map(|other| 0..if other == rank { len(rank) } else { 0 }))
            }
        }),
        Blocks::Pairs => each(&|rank, shape| {
            let pair = |from: usize, to: usize| len(from + 2 * to);
            shape
                .with_blocks(consecutive(&|to| pair(rank, to), 1))
                .with_incoming(reversed(&|from| pair(from, rank)))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Idle;

    impl<O: Operation> Algorithm<O> for Idle {
        fn name(&self) -> &str {
            "idle"
        }

        fn plan(&self, _: usize, _: &Shape, _: &mut crate::coll::Plan) {}
    }

    #[test]
    fn who_does_nothing_is_found_out() {
        assert!(check::<Barrier>(&Idle).unwrap_err().ends_with("a rank is done before all have begun"));
        assert!(check::<Bcast>(&Idle).is_err());
        assert!(check::<Gatherv>(&Idle).is_err());
        assert!(check::<Allreduce>(&Idle).unwrap_err().contains("rank 0 has"));
        assert!(check::<Scan>(&Idle).is_err());
        assert!(check::<Alltoallv>(&Idle).is_err());
    }

    fn check_all<O: Checked>() {
        for algorithm in O::algorithms() {
            if let Err(error) = check_dyn(*algorithm) {
                panic!("{error}");
            }
        }
    }

    #[test]
    fn barrier() {
        check_all::<Barrier>();
    }
    #[test]
    fn bcast() {
        check_all::<Bcast>();
    }
    #[test]
    fn gather() {
        check_all::<Gather>();
        check_all::<Gatherv>();
    }
    #[test]
    fn scatter() {
        check_all::<Scatter>();
        check_all::<Scatterv>();
    }
    #[test]
    fn allgather() {
        check_all::<Allgather>();
        check_all::<Allgatherv>();
    }
    #[test]
    fn alltoall() {
        check_all::<Alltoall>();
        check_all::<Alltoallv>();
    }
    #[test]
    fn reduce() {
        check_all::<Reduce>();
    }
    #[test]
    fn allreduce() {
        check_all::<Allreduce>();
    }
    #[test]
    fn reduce_scatter() {
        check_all::<ReduceScatter>();
    }
    #[test]
    fn scan() {
        check_all::<Scan>();
        check_all::<Exscan>();
    }
}
