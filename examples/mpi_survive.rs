//! A solver that survives the death of ranks: a linear system by Jacobi's method, in the middle of which the process of a rank
//! ends. The other ranks revoke the communicator, shrink it, divide the rows among those that are left, and continue.
//!
//! ```text
//! cargo run --release --example mpi_survive -- -n 4 --kill 2 --at 10
//! ```

use std::ops::Range;

use clap::Parser;
use river::mpi::{Communicator, ErrorClass, ErrorHandler, Launch, Located, MAX, MAXLOC, Result};

/// Solve a linear system on several ranks, one of which dies meanwhile.
#[derive(Parser)]
struct Args {
    /// How many ranks, each of which has a process of its own
    #[arg(long, short = 'n', value_name = "N", default_value = "4", value_parser = clap::value_parser!(u16).range(2..))]
    ranks: u16,
    /// How many unknowns
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..))]
    size: u32,
    /// The rank that dies; not rank 0, whose result is the exit code
    #[arg(long, value_name = "RANK", default_value = "2", value_parser = clap::value_parser!(u16).range(1..))]
    kill: u16,
    /// The step in which it dies
    #[arg(long, value_name = "STEP", default_value = "10")]
    at: u32,
}

/// The system `4 x[i] - x[i - 1] - x[i + 1] = b[i]`. Its solution is known, and determines the right-hand side.
struct System {
    size: usize,
}

impl System {
    /// Element `i` of the solution; zero outside.
    fn solution(&self, i: isize) -> f64 {
        if (0..self.size.cast_signed()).contains(&i) { (i as f64).sin() } else { 0.0 }
    }

    /// One row of Jacobi's method: what `x[i]` would be if its neighbours were right.
    fn relax(&self, x: &[f64], i: usize) -> f64 {
        let at = i.cast_signed();
        let b = 4.0 * self.solution(at) - self.solution(at - 1) - self.solution(at + 1);
        let left = i.checked_sub(1).map_or(0.0, |left| x[left]);
        let right = x.get(i + 1).copied().unwrap_or(0.0);
        (b + left + right) / 4.0
    }

    /// The largest error of these rows.
    fn error(&self, x: &[f64], rows: Range<usize>) -> f64 {
        rows.map(|i| (x[i] - self.solution(i.cast_signed())).abs()).fold(0.0, f64::max)
    }
}

/// What a rank knows: the whole vector, after this many steps.
struct State {
    x: Vec<f64>,
    steps: u32,
}

/// The rows of each rank.
fn rows(size: usize, ranks: usize) -> Vec<Range<usize>> {
    (0..ranks).map(|rank| rank * size / ranks..(rank + 1) * size / ranks).collect()
}

/// Continues from the latest state that a rank has: one may have completed a step in which another saw a failure.
fn resume(comm: &Communicator, state: &mut State) -> Result {
    let mine = Located { value: state.steps, index: comm.rank() as u32 };
    let mut latest = [mine];
    comm.allreduce_in_place(&mut latest, &MAXLOC)?;
    comm.bcast(&mut state.x, latest[0].index as usize)?;
    state.steps = latest[0].value;
    Ok(())
}

/// Solves the system on the ranks of a communicator, from this state on; `die` is called before each step. Returns the largest
/// error. If it fails, the state is that after the last step that this rank has completed.
fn solve(comm: &Communicator, system: &System, state: &mut State, die: impl Fn(u32)) -> Result<f64> {
    resume(comm, state)?;
    let blocks = rows(system.size, comm.size());
    let mine = blocks[comm.rank()].clone();
    let mut change = f64::MAX;
    while change > 1e-13 {
        die(state.steps);
        let mut next = state.x.clone();
        for i in mine.clone() {
            next[i] = system.relax(&state.x, i);
        }
        comm.allgatherv_in_place(&mut next, &blocks)?;
        change = next.iter().zip(&state.x).map(|(new, old)| (new - old).abs()).fold(0.0, f64::max);
        state.x = next;
        state.steps += 1;
    }
    let mut error = [system.error(&state.x, mine)];
    comm.allreduce_in_place(&mut error, &MAX)?;
    Ok(error[0])
}

/// Runs on every rank.
fn rank(world: &Communicator) -> river::Result {
    let args = Args::parse();
    world.set_error_handler(ErrorHandler::Return);
    let system = System { size: args.size as usize };
    let mut state = State { x: vec![0.0; system.size], steps: 0 };
    let dies = world.rank() == usize::from(args.kill);
    let die = |step| {
        if dies && step == args.at {
            // The process, without a word to anyone.
            std::process::abort();
        }
    };
    // The communicator that is shrunk inherits the error handler.
    let mut comm = world.clone();
    loop {
        let solved = solve(&comm, &system, &mut state, die);
        match &solved {
            Ok(_) => {}
            Err(error) if matches!(error.class(), ErrorClass::ProcFailed | ErrorClass::Revoked) => {
                // The others may be waiting for this rank, in an operation that it has left.
                comm.revoke();
            }
            Err(error) => return Err(error.clone().into()),
        }
        // A rank may die after some have finished; they are still needed then.
        if comm.agree(u64::from(solved.is_ok()))? == 1 {
            report(&comm, world, state.steps, solved?);
            return Ok(());
        }
        comm = comm.shrink()?;
    }
}

fn report(comm: &Communicator, world: &Communicator, steps: u32, error: f64) {
    if comm.rank() == 0 {
        let right = if error < 1e-12 { "right" } else { "wrong" };
        println!(
            "{} of {} ranks are left; after {steps} steps the solution is {right}",
            comm.size(),
            world.size()
        );
    }
}

fn main() -> river::ExitCode {
    river::become_host_if_asked();
    Launch::new(usize::from(Args::parse().ranks)).per_vm(1).survive_failures().run(rank)
}
