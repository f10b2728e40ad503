//! Example 4 of the Trickle paper: functions of the program and of the standard library are called remotely.
//!
//! ```text
//! $ cargo run --release --example trickle_functions -- --vms 4
//! [trickle: found no VMs, started 4 local ones]
//! [0] 1
//! [0, 1] 1
//! [0, 1, 2] 2
//! [0, 1, 2, 3] 6
//! ```

use clap::Parser;
use river::prelude::*;

/// Call `factorial` and a range on every virtual machine
#[derive(Parser)]
struct Args {
    /// How many virtual machines to use [default: all that are found, or one per core if none is]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    vms: Option<u16>,
}

fn factorial(x: u64) -> u64 {
    if x == 0 { 1 } else { x * factorial(x - 1) }
}

fn program(vr: &Vr, args: &Args) -> river::Result {
    let vms = trickle::connect_or_start(vr, args.vms.map(usize::from))?;
    // The factorial of 21 is more than a `u64` holds.
    for (i, vm) in (0..=20).zip(&vms) {
        println!("{:?} {}", vm.call(|n: u64| Vec::from_iter(0..n), (i + 1,))?, vm.call(factorial, (i,))?);
    }
    Ok(())
}

fn main() -> river::ExitCode {
    river::become_host_if_asked();
    let args = Args::parse();
    river::run(|vr| program(vr, &args))
}
