//! `river vm`.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::thread;

use river::core::{Vm, VmConfig};

/// Lend this machine: run virtual machines until Ctrl-C
///
/// A virtual machine waits to be found by the programs of the same user (of all who share the key file), lends itself
/// to one of them at a time, and runs what that program sends. It needs nothing of the program: the executable
/// travels, and is kept in a cache.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  river vm                          one virtual machine
  river vm -n 4 --name lab          four: lab-0, lab-1, lab-2, lab-3
  river vm --label gpu --label big  one that programs can ask for by label

Environment:
  RIVER_PORT      UDP port on which VMs are searched for, the same for VMs and programs [default: 7484]
  RIVER_KEY_FILE  the key; who has it can run code here [default: ~/.config/river/key, made at first use]
  RIVER_CACHE     directory of the executables received [default: ~/.cache/river/images]")]
pub(crate) struct Args {
    /// How many virtual machines to run
    #[arg(short = 'n', long, value_name = "COUNT", default_value = "1")]
    count: NonZeroUsize,
    /// The name that people see; numbered if there are several [default: the machine's name and the process id]
    #[arg(long)]
    name: Option<String>,
    /// A word by which programs may choose this machine; may be given several times
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// TCP port on which programs talk to it (with -n 1 only) [default: any free one]
    #[arg(long, value_name = "PORT")]
    listen: Option<u16>,
    /// UDP port on which it is searched for [default: `RIVER_PORT`, or 7484]
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
}

pub(crate) fn run(args: &Args) -> river::Result {
    if args.listen.is_some() && args.count.get() > 1 {
        return Err(river::VrError::msg(
            "--listen names one port, and each VM needs one of its own: drop -n or --listen",
        ));
    }
    let mut config = VmConfig::default();
    if let Some(name) = &args.name {
        config = config.name(name);
    }
    for label in &args.labels {
        config = config.label(label);
    }
    if let Some(port) = args.listen {
        config = config.listen(port);
    }
    if let Some(port) = args.port {
        config = config.discovery_port(port);
    }
    let vms = Vm::start_many(&config, args.count.get())?;
    let mut text = String::new();
    for vm in &vms {
        let info = vm.info();
        text += &format!("VM {} waits for programs on {}\n", info.name, info.address);
    }
    text += if vms.len() == 1 { "Ctrl-C ends it\n" } else { "Ctrl-C ends them\n" };
    // That nobody reads this is no reason not to serve.
    let _ = io::stdout().write_all(text.as_bytes());
    loop {
        thread::park();
    }
}
