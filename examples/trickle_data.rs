//! Example 3 of the Trickle paper: remote data is read and changed in place.
//!
//! ```text
//! $ cargo run --release --example trickle_data -- --vms 4
//! [trickle: found no VMs, started 4 local ones]
//! ['*NONE*', 'Sami', 'Greg', 'Peter']
//! ['Alex', '*NONE*', 'Greg', 'Peter']
//! ['Alex', 'Sami', '*NONE*', 'Peter']
//! ['Alex', 'Sami', 'Greg', '*NONE*']
//! ```

use clap::Parser;
use river::prelude::*;

/// Inject a list of names into every virtual machine and strike out another one on each
#[derive(Parser)]
struct Args {
    /// How many virtual machines to use [default: all that are found, or one per core if none is]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    vms: Option<u16>,
}

fn program(vr: &Vr, args: &Args) -> river::Result {
    let vms = trickle::connect_or_start(vr, args.vms.map(usize::from))?;
    let names = ["Alex", "Sami", "Greg", "Peter"].map(String::from).to_vec();
    for (i, names) in vms.inject("names", names)?.iter().enumerate().take(4) {
        names.set_item(i, "*NONE*".into())?;
        // As Python prints a list.
        println!("{}", format!("{:?}", names.get()?).replace('"', "'"));
    }
    Ok(())
}

fn main() -> river::ExitCode {
    river::become_host_if_asked();
    let args = Args::parse();
    river::run(|vr| program(vr, &args))
}
