//! Example 2 of the Trickle paper: data, functions and objects are injected into every virtual machine.
//!
//! ```text
//! $ cargo run --release --example trickle_inject -- --vms 4
//! [trickle: found no VMs, started 4 local ones]
//! Some(1) b [(1, 2), (1, 2), (1, 2), (1, 2)]
//! ```

use std::collections::BTreeMap;

use clap::Parser;
use river::prelude::*;

/// Inject data, functions and objects, and use them
#[derive(Parser)]
struct Args {
    /// How many virtual machines to use [default: all that are found, or one per core if none is]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    vms: Option<u16>,
}

fn find(name: String, namelist: Vec<String>) -> Option<usize> {
    namelist.iter().position(|n| *n == name)
}

#[derive(Default)]
struct Foo {
    x: i64,
    y: i64,
}

impl Foo {
    fn update(&mut self, x: i64, y: i64) {
        (self.x, self.y) = (x, y);
    }
}

fn program(vr: &Vr, args: &Args) -> river::Result {
    let vms = trickle::connect_or_start(vr, args.vms.map(usize::from))?;
    vms.inject("table", BTreeMap::from([(1, 'a'), (2, 'b')]))?;
    vms.inject_fn("find", find)?;
    let foos = vms.inject_object("foo", Foo::default, ())?;

    let names = ["Alex", "Sami"].map(String::from).to_vec();
    let found: Option<usize> = vms[0].call_named("find", ("Sami".to_string(), names))?;
    let letter = vms[0].named::<BTreeMap<i32, char>>("table").get_item(2)?;
    for object in &foos {
        object.call(Foo::update, (1, 2))?;
    }
    let foos = foos
        .iter()
        .map(|object| object.call(|object: &Foo| (object.x, object.y), ()))
        .collect::<Result<Vec<_>, _>>()?;
    println!("{found:?} {letter} {foos:?}");
    Ok(())
}

fn main() -> river::ExitCode {
    river::become_host_if_asked();
    let args = Args::parse();
    river::run(|vr| program(vr, &args))
}
