//! A bag of tasks in a tuple space: active tuples take ranges of numbers from it and put back the number of primes in
//! each, without knowing of each other.
//!
//! ```text
//! cargo run --release --example linda_primes -- --below 1000000
//! ```

use clap::Parser;
use linda::Space;
use river_core::{Query, Result, Vr};
use river_sfm::{ANY, Message, msg, pat};

/// Count the primes below a number on virtual machines: those that can be found, or some started here.
#[derive(Parser)]
#[command(after_help = "Example:\n  linda_primes --below 1000000 --vms 4")]
struct Args {
    /// Count the primes below this number
    #[arg(long, value_name = "N", default_value = "200000")]
    below: u64,
    /// How many VMs to start in this program if none is found
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u16).range(1..))]
    vms: u16,
}

/// The number of candidates in a task.
const CHUNK: u64 = 5_000;

/// An active tuple: works as long as there are tasks, and then becomes a tuple that holds the number of tasks it did.
fn worker(space: &Space<'_>, index: usize) -> Result<Message> {
    let mut done = 0;
    while let Some(task) = space.inp(pat! { tag: "task" })? {
        let (from, to): (u64, u64) = (task.get("from")?, task.get("to")?);
        let primes = (from..to).filter(|&n| is_prime(n)).count();
        space.out(msg! { tag: "primes", from: from, count: primes })?;
        done += 1;
    }
    Ok(msg! { tag: "worker", index: index, done: done })
}

fn is_prime(n: u64) -> bool {
    n > 1 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d))
}

fn program(vr: &Vr, args: &Args) -> Result {
    let found = vr.discover(Query { idle_only: true, ..Query::default() })?;
    let vms = if found.is_empty() { vr.start_local(args.vms.into())? } else { vr.allocate(found, ..)? };
    let space = Space::create(vr, &vms[0])?;

    let tasks = args.below.div_ceil(CHUNK);
    for from in (0..tasks).map(|task| task * CHUNK) {
        space.out(msg! { tag: "task", from: from, to: args.below.min(from + CHUNK) })?;
    }
    for (index, vm) in vms.iter().enumerate() {
        space.eval(vm, worker, index)?;
    }
    let mut primes = 0;
    for _ in 0..tasks {
        primes += space.in_(pat! { tag: "primes", from: ANY })?.get::<u64>("count")?;
    }
    for (index, vm) in vms.iter().enumerate() {
        let done: u64 = space.in_(pat! { tag: "worker", index: index })?.get("done")?;
        println!("{}: {done} of {tasks} tasks", vm.name);
    }
    println!("{primes} primes below {}", args.below);
    Ok(())
}

fn main() -> river_core::ExitCode {
    river_core::become_host_if_asked();
    let args = Args::parse();
    river_core::run(|vr| program(vr, &args))
}
