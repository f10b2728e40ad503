//! The rMPI hello world of the slides: every rank greets, and sends a number to rank 0.
//!
//! ```text
//! cargo run --release --example mpi_hello
//! river run -n 4 target/release/examples/mpi_hello
//! ```

use clap::Parser;
use river::mpi::{self, Communicator};

/// Greet from every rank of an MPI program; rank 0 prints what the others send to it.
#[derive(Parser)]
struct Args {
    /// How many ranks [default: as many as `river run -n` says, or VMs can be found, or there are cores]
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    ranks: Option<u16>,
}

fn hello(world: &Communicator) -> river::Result {
    let (rank, np) = (world.rank(), world.size());
    println!("Hello from rank {rank}");
    let sendbuf = [rank as f32 * 100.0];
    if rank == 0 {
        let mut recvbuf = [0.0_f32];
        for i in 1..np {
            world.recv_into(&mut recvbuf, i, 0)?;
            println!("From rank {i}: {}", recvbuf[0]);
        }
    } else {
        println!("Rank {rank} sending {}", sendbuf[0]);
        world.send(&sendbuf, 0, 0)?;
    }
    Ok(())
}

fn main() -> river::ExitCode {
    river::become_host_if_asked();
    let ranks = Args::parse().ranks.map(usize::from);
    mpi::run(ranks, hello)
}
