//! Example 5 of the Trickle paper: an object lives on a virtual machine, and its methods are called there.
//!
//! ```text
//! $ cargo run --release --example trickle_objects -- --vms 4
//! [trickle: found no VMs, started 4 local ones]
//! ['A', 'B']
//! ```

use clap::Parser;
use river::prelude::*;

/// Create a stack on a virtual machine, and use it
#[derive(Parser)]
struct Args {
    /// How many virtual machines to use [default: all that are found, or one per core if none is]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    vms: Option<u16>,
}

#[derive(Default)]
struct Stack {
    stack: Vec<String>,
}

impl Stack {
    fn push(&mut self, x: String) {
        self.stack.push(x);
    }

    fn pop(&mut self) -> Option<String> {
        self.stack.pop()
    }

    /// As Python prints a list.
    fn show(&self) -> String {
        format!("{:?}", self.stack).replace('"', "'")
    }
}

fn program(vr: &Vr, args: &Args) -> river::Result {
    let vms = trickle::connect_or_start(vr, args.vms.map(usize::from))?;
    let s = vms[0].create(Stack::default, ())?;
    for x in ["A", "B", "C"] {
        s.call(Stack::push, (x.to_string(),))?;
    }
    s.call(Stack::pop, ())?;
    println!("{}", s.call(Stack::show, ())?);
    Ok(())
}

fn main() -> river::ExitCode {
    river::become_host_if_asked();
    let args = Args::parse();
    river::run(|vr| program(vr, &args))
}
