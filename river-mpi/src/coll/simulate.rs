//! Simulates all ranks of an operation in one thread, without a network: checks that their plans fit together, and measures
//! the time they take.
//!
//! The simulation uses the same executor as real operations.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;

use super::algorithm::{Algorithm, Operation, plan_of};
use super::execute::{Execution, Mismatch, Progress};
use super::memory::{Input, Memory};
use super::shape::Shape;
use super::wire::{Message, Wire};
use crate::element::Element;
use crate::lend::Region;
use crate::op::Operator;

/// The cost of communication in the simulation: a message of `n` bytes takes `latency + n * per_byte`, during which its
/// sender sends nothing else and its receiver receives nothing else.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// The cost of any message: alpha in the literature.
    pub latency: f64,
    /// The cost of a byte: beta in the literature.
    pub per_byte: f64,
}

impl Cost {
    /// Counts rounds: each message costs 1, whatever its length.
    pub const ROUNDS: Self = Self { latency: 1.0, per_byte: 0.0 };
    /// Counts bytes on the critical path.
    pub const BYTES: Self = Self { latency: 0.0, per_byte: 1.0 };
}

/// The result of a simulation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// When the last rank finished.
    pub time: f64,
    /// The number of messages sent.
    pub messages: usize,
    /// The number of bytes sent.
    pub bytes: usize,
    /// Whether each rank has heard from all others, directly or not, so that none finished before all had begun.
    pub synchronised: bool,
}

/// Returns the time, the number of messages and the bytes of an operation whose elements are bytes.
///
/// ```
/// use river_mpi::coll::{Cost, Shape, allreduce, cost};
///
/// // Eight ranks, a million bytes: recursive doubling sends all of it three times, the ring twice, in fourteen rounds.
/// let shape = Shape::new(8, 1_000_000, 1);
/// assert_eq!(cost(&allreduce::RecursiveDoubling, &shape, Cost::ROUNDS)?.time, 3.0);
/// assert_eq!(cost(&allreduce::Ring, &shape, Cost::ROUNDS)?.time, 14.0);
/// assert_eq!(cost(&allreduce::RecursiveDoubling, &shape, Cost::BYTES)?.time, 3_000_000.0);
/// assert_eq!(cost(&allreduce::Ring, &shape, Cost::BYTES)?.time, 1_750_000.0);
/// # Ok::<(), String>(())
/// ```
///
/// # Errors
/// A description of what is wrong with the plans.
pub fn cost<O: Operation>(
    algorithm: &dyn Algorithm<O>,
    shape: &Shape,
    cost: Cost,
) -> Result<Outcome, String> {
    let buffers: Vec<(usize, usize)> = (0..shape.size()).map(|rank| O::buffers(rank, shape)).collect();
    let inputs: Vec<Vec<u8>> = buffers.iter().map(|&(input, _)| vec![0; input]).collect();
    let mut outputs: Vec<Vec<u8>> = buffers.iter().map(|&(_, output)| vec![0; output]).collect();
    let shapes = vec![shape.clone(); shape.size()];
    simulate(algorithm, &shapes, &inputs, &mut outputs, &crate::op::BXOR, cost, usize::MAX)
}

/// Runs all ranks, with messages in pieces of `piece` bytes. `shapes[rank]` is the shape as that rank knows it. If a rank's
/// input is empty although it should not be, its output contains it.
pub(super) fn simulate<O: Operation, T: Element>(
    algorithm: &dyn Algorithm<O>,
    shapes: &[Shape],
    inputs: &[Vec<T>],
    outputs: &mut [Vec<T>],
    operator: &dyn Operator<T>,
    cost: Cost,
    piece: usize,
) -> Result<Outcome, String> {
    let size = shapes.len();
    let network = RefCell::new(Network::new(size, cost));
    let mut ranks = Vec::new();
    for (rank, shape) in shapes.iter().enumerate() {
        let plan = plan_of(algorithm, rank, shape);
        let (input, output) = O::buffers(rank, shape);
        plan.check(size, input, output, O::REDUCES).map_err(|wrong| format!("rank {rank}: {wrong}"))?;
        let in_place = inputs[rank].len() < input;
        if in_place && !plan.allows_input_in_output(O::in_place(rank, shape)) {
            return Err(format!("rank {rank}: reads input after it has overwritten it\n{plan}"));
        }
        let Some(&filler) = inputs[rank].first().or(outputs[rank].first()) else {
            ranks.push((Execution::new(Rc::new(plan), 0).with_pieces_of(piece), Vec::new(), false));
            continue;
        };
        let scratch = vec![filler; plan.scratch_len()];
        ranks.push((Execution::new(Rc::new(plan), 0).with_pieces_of(piece), scratch, in_place));
    }
    let mut states = vec![Progress::Waits { from: 0 }; size];
    loop {
        let before = network.borrow().events;
        for (rank, (execution, scratch, in_place)) in ranks.iter_mut().enumerate() {
            if states[rank] == Progress::Done {
                continue;
            }
            let input = if *in_place {
                Input::InOutput(O::in_place(rank, &shapes[rank]))
            } else {
                Input::Apart(Region::read_only(&inputs[rank]))
            };
            let (output, scratch) = (Region::new(&mut outputs[rank]), Region::new(scratch));
            let mut memory = Memory { input, output, scratch };
            let port = Port { rank, network: &network };
            states[rank] = execution.advance(&port, &mut memory, operator).map_err(|error| {
                let Mismatch { from, sent, expected } = error;
                format!("rank {rank} expected {expected} bytes from rank {from}, which sent {sent}")
            })?;
            if states[rank] == Progress::Done {
                network.borrow_mut().events += 1;
            }
        }
        if states.iter().all(|&state| state == Progress::Done) {
            break;
        }
        if network.borrow().events == before {
            let waits = states.iter().enumerate().filter_map(|(rank, state)| match state {
                Progress::Waits { from } => Some(format!("rank {rank} waits for rank {from}")),
                Progress::Done => None,
            });
            return Err(format!("deadlock: {}", waits.collect::<Vec<_>>().join(", ")));
        }
    }
    let mut network = network.into_inner();
    network.outcome.synchronised = network.heard.iter().flatten().all(|&heard| heard);
    for (from, queues) in network.queues.iter().enumerate() {
        if let Some(to) = queues.iter().position(|queue| !queue.is_empty()) {
            return Err(format!("rank {to} never received what rank {from} sent"));
        }
    }
    Ok(network.outcome)
}

/// Messages in flight, and the simulated time at each rank.
struct Network {
    cost: Cost,
    /// `queues[from][to]`
    queues: Vec<Vec<VecDeque<Sent>>>,
    clocks: Vec<Clock>,
    /// Which ranks each rank has heard from.
    heard: Vec<Vec<bool>>,
    events: usize,
    outcome: Outcome,
}

#[derive(Clone)]
struct Sent {
    bytes: Bytes,
    arrives: f64,
    heard: Vec<bool>,
}

#[derive(Clone, Copy, Default)]
struct Clock {
    /// When the rank has everything that it has received so far.
    ready: f64,
    /// When it can send again.
    sends: f64,
    /// When it can receive again.
    receives: f64,
}

impl Network {
    fn new(size: usize, cost: Cost) -> Self {
        Self {
            cost,
            queues: vec![vec![VecDeque::new(); size]; size],
            clocks: vec![Clock::default(); size],
            heard: (0..size).map(|rank| (0..size).map(|other| other == rank).collect()).collect(),
            events: 0,
            outcome: Outcome::default(),
        }
    }

    fn duration(&self, bytes: usize) -> f64 {
        self.cost.latency + self.cost.per_byte * bytes as f64
    }

    fn send(&mut self, from: usize, to: usize, bytes: Bytes) {
        let duration = self.duration(bytes.len());
        let clock = &mut self.clocks[from];
        clock.sends = clock.ready.max(clock.sends) + duration;
        let arrives = clock.sends;
        self.outcome.messages += 1;
        self.outcome.bytes += bytes.len();
        self.outcome.time = self.outcome.time.max(arrives);
        self.queues[from][to].push_back(Sent { bytes, arrives, heard: self.heard[from].clone() });
        self.events += 1;
    }

    fn receive(&mut self, from: usize, to: usize) -> Option<Bytes> {
        let Sent { bytes, arrives, heard } = self.queues[from][to].pop_front()?;
        let duration = self.duration(bytes.len());
        let clock = &mut self.clocks[to];
        clock.receives = arrives.max(clock.receives + duration);
        clock.ready = clock.ready.max(clock.receives);
        self.outcome.time = self.outcome.time.max(clock.ready);
        for (known, told) in self.heard[to].iter_mut().zip(heard) {
            *known |= told;
        }
        self.events += 1;
        Some(bytes)
    }
}

/// One rank's connection to the network.
struct Port<'a> {
    rank: usize,
    network: &'a RefCell<Network>,
}

impl Wire for Port<'_> {
    type Error = Mismatch;

    fn send(&self, to: usize, tag: i32, bytes: &[u8]) -> Result<(), Mismatch> {
        self.send_shared(to, tag, Bytes::copy_from_slice(bytes))
    }

    fn send_shared(&self, to: usize, _: i32, bytes: Bytes) -> Result<(), Mismatch> {
        self.network.borrow_mut().send(self.rank, to, bytes);
        Ok(())
    }

    fn try_receive(&self, from: usize, _: i32) -> Result<Option<Message>, Mismatch> {
        Ok(self.network.borrow_mut().receive(from, self.rank).map(Message::Whole))
    }

    fn receive(&self, from: usize, tag: i32) -> Result<Message, Mismatch> {
        // The simulation only calls `advance`, which never waits.
        self.try_receive(from, tag)?.ok_or(Mismatch { from, sent: 0, expected: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coll::{Barrier, Bcast, NOTHING, Plan, output};

    #[derive(Debug)]
    struct Wrong(fn(usize, &mut Plan));

    impl<O: Operation> Algorithm<O> for Wrong {
        fn name(&self) -> &str {
            "wrong"
        }

        fn plan(&self, rank: usize, _: &Shape, plan: &mut Plan) {
            (self.0)(rank, plan);
        }
    }

    fn error<O: Operation>(write: fn(usize, &mut Plan)) -> String {
        cost::<O>(&Wrong(write), &Shape::new(3, 10, 1), Cost::ROUNDS).unwrap_err()
    }

    /// Checks the costs stated in the algorithms' docs.
    #[test]
    fn rounds_are_as_many_as_the_literature_says() {
        use crate::coll::{allgather, allreduce, alltoall, barrier, bcast, log2_ceil, reduce, scan};

        fn rounds<O: Operation>(algorithm: impl Algorithm<O>, p: usize) -> usize {
            cost(&algorithm, &Shape::new(p, 64 * p, 1), Cost::ROUNDS).unwrap().time as usize
        }
        for p in 1..=17 {
            let log = log2_ceil(p) as usize;
            let folded = p.ilog2() as usize + if p.is_power_of_two() { 0 } else { 2 };
            assert_eq!(rounds(barrier::Linear, p), 2 * (p - 1));
            assert_eq!(rounds(barrier::Dissemination, p), log);
            assert_eq!(rounds(barrier::RecursiveDoubling, p), folded);
            assert_eq!(rounds(bcast::Binomial, p), log);
            assert_eq!(rounds(bcast::Linear, p), p - 1);
            assert_eq!(rounds(bcast::Chain { segment: 16 * p }, p), if p > 1 { p - 2 + 4 } else { 0 });
            assert_eq!(rounds(reduce::Binomial, p), log);
            assert_eq!(rounds(allreduce::RecursiveDoubling, p), folded);
            assert_eq!(rounds(allreduce::Ring, p), 2 * (p - 1));
            assert_eq!(rounds::<allgather::Allgather>(allgather::Ring, p), p - 1);
            assert_eq!(rounds::<allgather::Allgather>(allgather::Bruck, p), log);
            assert_eq!(rounds::<alltoall::Alltoall>(alltoall::Bruck, p), log);
            assert_eq!(rounds::<alltoall::Alltoall>(alltoall::Pairwise, p), p - 1);
            assert_eq!(rounds::<scan::Scan>(scan::RecursiveDoubling, p), log);
        }
    }

    #[test]
    fn mistakes_are_found_and_named() {
        let circle = error::<Barrier>(|rank, plan| plan.recv(NOTHING, (rank + 1) % 3));
        assert_eq!(
            circle,
            "deadlock: rank 0 waits for rank 1, rank 1 waits for rank 2, rank 2 waits for rank 0"
        );
        let lost = error::<Barrier>(|rank, plan| {
            if rank == 2 {
                plan.send(NOTHING, 1);
            }
        });
        assert_eq!(lost, "rank 1 never received what rank 2 sent");
        let short = error::<Bcast>(|rank, plan| match rank {
            0 => plan.send(output(0..10), 1),
            1 => plan.recv(output(0..9), 0),
            _ => {}
        });
        assert_eq!(short, "rank 1 expected 9 bytes from rank 0, which sent 10");
        let beyond = error::<Bcast>(|_, plan| plan.recv(output(0..11), 1));
        assert!(
            beyond.starts_with("rank 0: step 0, receive output[0..11] from rank 1, reaches beyond"),
            "{beyond}"
        );
    }
}
