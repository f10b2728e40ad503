//! Remote invocation, as the slides show it: a function is called on a server, which has all that the program has.
//!
//! ```text
//! $ cargo run --release --example rai_simple
//! 6
//! ```

use clap::Parser;
use river::prelude::*;
use river::rai::{Rai, RaiServer};

/// Call a function on a virtual machine, which is started for it
#[derive(Parser)]
struct Args {}

fn add(a: i64, b: i64, c: i64) -> i64 {
    a + b + c
}

fn program(vr: &Vr) -> river::Result {
    let servers = vr.deploy(&vr.start_local(1)?, |_| RaiServer::unrestricted())?;
    let r = Rai::connect(vr, servers[0]);
    println!("{}", r.call(add, (1, 2, 3))?);
    Ok(())
}

fn main() -> river::ExitCode {
    river::become_host_if_asked();
    let Args {} = Args::parse();
    river::run(program)
}
