//! The simple River program of the slides: VRs on all machines tell the initiator where they run.
//!
//! ```text
//! cargo run --release --example simple
//! ```

use clap::Parser;
use river::prelude::*;
use serde::{Deserialize, Serialize};

/// Print the name of every virtual machine that can be found, as told by a virtual resource that runs there.
#[derive(Parser)]
struct Args {
    /// How many VMs to start in this program if none is found
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u16).range(1..))]
    vms: u16,
}

#[derive(Serialize, Deserialize)]
struct Simple;

impl VirtualResource for Simple {
    fn main(&mut self, vr: &Vr) -> river::Result {
        let parent = vr.parent().expect("a deployed VR has a parent");
        vr.send(parent, msg! { myname: vr.vm() })?;
        Ok(())
    }
}

fn program(vr: &Vr, args: &Args) -> river::Result {
    let discovered = vr.discover(Query { idle_only: true, ..Query::default() })?;
    let allocated =
        if discovered.is_empty() { vr.start_local(args.vms.into())? } else { vr.allocate(discovered, ..)? };
    let deployed = vr.deploy(&allocated, |_| Simple)?;
    for id in deployed.iter() {
        let m = vr.recv(pat! { src: id })?;
        println!("{}", m.get::<String>("myname")?);
    }
    Ok(())
}

fn main() -> river::ExitCode {
    river::become_host_if_asked();
    let args = Args::parse();
    river::run(|vr| program(vr, &args))
}
