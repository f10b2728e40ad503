//! Example 6 of the Trickle paper: functions run at the same time, and their results are joined. At the end, from the slides, work
//! is given to whichever machine is free.
//!
//! ```text
//! $ cargo run --release --example trickle_fork -- --vms 4
//! [trickle: found no VMs, started 4 local ones]
//! 11 22
//! [11, 22]
//! [10, 11, 12, 13]
//! 4950
//! ```

use clap::Parser;
use river::prelude::*;
use river::trickle::{each, fork, join};

/// Fork functions on virtual machines (at least two) and join them
#[derive(Parser)]
struct Args {
    /// How many virtual machines to use [default: all that are found, or one per core if none is]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    vms: Option<u16>,
}

fn foo(x: i64) -> i64 {
    x + 10
}

fn bar(x: i64) -> i64 {
    x + 20
}

fn sum(numbers: Vec<i64>) -> i64 {
    numbers.into_iter().sum()
}

fn program(vr: &Vr, args: &Args) -> river::Result {
    let vms = trickle::connect_or_start(vr, args.vms.map(usize::from))?;
    if vms.len() < 2 {
        return Err(river::VrError::msg(
            "this example needs two VMs: use --vms 2, or start more with `river vm`",
        ));
    }
    let (h0, h1) = (fork(&vms[0], foo, (1,))?, fork(&vms[1], bar, (2,))?);
    let (r0, r1) = (join(h0)?, join(h1)?);
    println!("{r0} {r1}");

    let hlist = fork(&vms[0..2], (foo, bar), each(((1,), (2,))))?;
    let rlist = join(hlist)?;
    println!("{:?}", <[i64; 2]>::from(rlist));

    let hlist = fork(&vms, foo, each((0..vms.len() as i64).map(|i| (i,))))?;
    println!("{:?}", join(hlist)?);

    let results = vms.forkwork(sum, 0..100, 10)?;
    println!("{}", results.iter().sum::<i64>());
    Ok(())
}

fn main() -> river::ExitCode {
    river::become_host_if_asked();
    let args = Args::parse();
    river::run(|vr| program(vr, &args))
}
