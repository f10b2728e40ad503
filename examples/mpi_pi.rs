//! Pi by numerical integration of 4 / (1 + x^2) from 0 to 1, the first program of many MPI courses: every rank sums its
//! share of the rectangles, and a reduction adds the sums.
//!
//! ```text
//! cargo run --release --example mpi_pi -- -n 4 --intervals 10000000
//! ```

use clap::Parser;
use river::mpi::{self, Communicator, SUM};

/// Compute pi on several ranks.
#[derive(Parser)]
struct Args {
    /// How many ranks [default: as many as `river run -n` says, or VMs can be found, or there are cores]
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    ranks: Option<u16>,
    /// How many rectangles to use
    #[arg(long, value_name = "N", default_value = "1000000", value_parser = clap::value_parser!(u64).range(1..))]
    intervals: u64,
}

fn pi(world: &Communicator) -> river::Result {
    let n = Args::parse().intervals;
    let width = 1.0 / n as f64;
    let mine = (world.rank() as u64..n).step_by(world.size());
    let sum: f64 = mine.map(|i| (i as f64 + 0.5) * width).map(|x| 4.0 / (1.0 + x * x)).sum();
    let mut total = [0.0];
    world.reduce(&[sum * width], &mut total, &SUM, 0)?;
    if world.rank() == 0 {
        let error = (total[0] - std::f64::consts::PI).abs();
        println!("pi is about {:.12}, off by {error:.1e}", total[0]);
    }
    Ok(())
}

fn main() -> river::ExitCode {
    river::become_host_if_asked();
    let ranks = Args::parse().ranks.map(usize::from);
    mpi::run(ranks, pi)
}
