//! A calculator for other programs: functions and objects that are exported by name, and served until standard input
//! ends. `rai_client` is such a program; the two share nothing but the key of their user.
//!
//! ```text
//! $ cargo run --release --example rai_server          # until Ctrl-D
//! [serving "calculator", until standard input ends]
//! ```
//!
//! In another terminal (a shell stops a background program that reads the terminal):
//!
//! ```text
//! $ cargo run --release --example rai_client -- "add 1 2" "mean 1 2 6" "push A" "push B" "pop"
//! 3
//! 3
//! 1
//! 2
//! B
//! ```

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use clap::Parser;
use river::prelude::*;
use river::rai::{Exports, RaiServer};

/// Serve a few functions and objects to other programs of the same user.
#[derive(Parser)]
#[command(after_help = "Example, in another terminal: rai_client \"add 1 2\" \"push A\" len")]
struct Args {
    /// The name under which other programs find the server
    #[arg(long, value_name = "NAME", default_value = "calculator")]
    name: String,
    /// Serve on a virtual machine, found or started, not in this process
    #[arg(long)]
    vm: bool,
    /// How many calls to serve at a time
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..))]
    concurrent: u16,
}

/// The number of existing stacks.
static STACKS: AtomicUsize = AtomicUsize::new(0);

/// An object that lives on the server and is held by clients.
#[derive(Default)]
struct Stack(Vec<String>);

impl Stack {
    fn new() -> Self {
        STACKS.fetch_add(1, Ordering::Relaxed);
        Self::default()
    }

    fn push(&mut self, item: String) -> usize {
        self.0.push(item);
        self.0.len()
    }

    fn pop(&mut self) -> Option<String> {
        self.0.pop()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        STACKS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns when its result is no longer wanted.
fn wait() {
    while !river::rai::current::is_cancelled() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What clients can call. Nothing else in this program can be called.
fn exports() -> Exports {
    Exports::new()
        .function("add", |a: f64, b: f64| a + b)
        .function("mean", |numbers: Vec<f64>| numbers.iter().sum::<f64>() / numbers.len() as f64)
        .function("sqrt", |x: f64| if x < 0.0 { panic!("{x} has no square root") } else { x.sqrt() })
        .function("wait", wait)
        .function("stacks", || STACKS.load(Ordering::Relaxed))
        .constructor("stack", Stack::new)
        .method("push", Stack::push)
        .method("pop", Stack::pop)
        .method("len", |stack: &Stack| stack.0.len())
}

/// Waits until the other end of standard input is closed.
fn until_input_ends() -> river::Result {
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn program(vr: &Vr, args: &Args) -> river::Result {
    let server = RaiServer::restricted(exports()).published(&args.name);
    let server = if args.concurrent > 1 { server.concurrent(args.concurrent.into()) } else { server };
    if args.vm {
        let idle = Query { idle_only: true, count: Some(1), ..Query::default() };
        let vms = match vr.discover(idle)? {
            found if found.is_empty() => vr.start_local(1)?,
            found => vr.allocate(found, 1)?,
        };
        let mut server = Some(server);
        vr.deploy(&vms, |_| server.take().expect("it is one VM"))?;
        println!("[serving {:?} on VM {}, until standard input ends]", args.name, vms[0].name);
        return until_input_ends();
    }
    // The server ends with this VR.
    let input = vr.spawn("standard input", |_| until_input_ends())?;
    println!("[serving {:?}, until standard input ends]", args.name);
    server.ends_with(input).main(vr)
}

fn main() -> river::ExitCode {
    river::become_host_if_asked();
    let args = Args::parse();
    river::run(|vr| program(vr, &args))
}
