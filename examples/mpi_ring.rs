//! A token goes round a ring of ranks: each adds its rank and passes it on.
//!
//! ```text
//! cargo run --release --example mpi_ring -- -n 5 --rounds 3
//! ```

use clap::Parser;
use river::mpi::{self, Communicator};

/// Pass a token round a ring of ranks; print what it has collected.
#[derive(Parser)]
struct Args {
    /// How many ranks [default: as many as `river run -n` says, or VMs can be found, or there are cores]
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    ranks: Option<u16>,
    /// How many times it goes round
    #[arg(long, value_name = "N", default_value = "1")]
    rounds: u64,
}

const TAG: i32 = 0;

fn ring(world: &Communicator) -> river::Result {
    let (rank, p) = (world.rank(), world.size());
    let rounds = Args::parse().rounds;
    let (next, previous) = ((rank + 1) % p, (rank + p - 1) % p);
    let mut token = [0_u64];
    for round in 0..rounds {
        // Rank 0 begins, and gets the token back at the end of a round.
        if rank > 0 || round > 0 {
            world.recv_into(&mut token, previous, TAG)?;
        }
        token[0] += rank as u64;
        world.send(&token, next, TAG)?;
    }
    if rank == 0 && rounds > 0 {
        world.recv_into(&mut token, previous, TAG)?;
        println!("{p} ranks, {rounds} rounds: the token says {}", token[0]);
    }
    Ok(())
}

fn main() -> river::ExitCode {
    river::become_host_if_asked();
    let ranks = Args::parse().ranks.map(usize::from);
    mpi::run(ranks, ring)
}
