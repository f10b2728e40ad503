//! The dissemination barrier of the slides, by sends and receives: in step k every rank signals the rank 2^k after it,
//! and waits for the rank 2^k before it. After ceil(log2 p) steps every rank has heard from all others, directly or
//! indirectly.
//!
//! ```text
//! cargo run --release --example mpi_barrier -- -n 6
//! ```

use std::time::Instant;

use clap::Parser;
use river::mpi::{self, Communicator};

/// Cross a barrier many times; print the time per barrier of the slides' code and of the library.
#[derive(Parser)]
struct Args {
    /// How many ranks [default: as many as `river run -n` says, or VMs can be found, or there are cores]
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    ranks: Option<u16>,
    /// How many times
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..))]
    times: u32,
}

const TAG: i32 = 1;

fn barrier(comm: &Communicator) -> mpi::Result {
    let (i, p) = (comm.rank(), comm.size());
    let mut recvbuf = [0_u8];
    let mut distance = 1;
    while distance < p {
        let (dest, src) = ((i + distance) % p, (i + p - distance) % p);
        comm.send(&[1_u8], dest, TAG)?;
        comm.recv_into(&mut recvbuf, src, TAG)?;
        distance *= 2;
    }
    Ok(())
}

/// Microseconds per barrier: by hand, and by the library.
fn rank(world: &Communicator) -> river::Result<(f64, f64)> {
    let times = Args::parse().times;
    let measure = |cross: &dyn Fn() -> mpi::Result| -> river::Result<f64> {
        cross()?;
        let start = Instant::now();
        for _ in 0..times {
            cross()?;
        }
        Ok(start.elapsed().as_secs_f64() * 1e6 / f64::from(times))
    };
    Ok((measure(&|| barrier(world))?, measure(&|| world.barrier())?))
}

fn program(args: &Args) -> river::Result {
    let results = mpi::try_run(args.ranks.map(usize::from), rank)?;
    let (by_hand, library) = results[0];
    println!("{} ranks: {by_hand:.2} us by hand, {library:.2} us by the library", results.len());
    Ok(())
}

fn main() -> river::ExitCode {
    river::become_host_if_asked();
    match program(&Args::parse()) {
        Ok(()) => river::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            river::ExitCode::FAILURE
        }
    }
}
