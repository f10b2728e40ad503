//! Example 1 of the Trickle paper: one function, called on every virtual machine.
//!
//! ```text
//! $ cargo run --release --example trickle_simple -- --vms 4
//! [trickle: found no VMs, started 4 local ones]
//! [20, 20, 20, 20]
//! ```

use clap::Parser;
use river::prelude::*;

/// Call a function on every virtual machine.
#[derive(Parser)]
struct Args {
    /// How many VMs to use [default: all that are found, or one per core if none is]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    vms: Option<u16>,
}

fn foo(x: i64) -> i64 {
    x + 10
}

fn program(vr: &Vr, args: &Args) -> river::Result {
    let vms = trickle::connect_or_start(vr, args.vms.map(usize::from))?;
    let results = vms.iter().map(|vm| vm.call(foo, (10,))).collect::<Result<Vec<i64>, _>>()?;
    println!("{results:?}");
    Ok(())
}

fn main() -> river::ExitCode {
    river::become_host_if_asked();
    let args = Args::parse();
    river::run(|vr| program(vr, &args))
}
