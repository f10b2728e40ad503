//! `river vm`.

use std::io;
use std::net::Ipv4Addr;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;

use clap::builder::NonEmptyStringValueParser;
use river::VrError;
use river::core::{HostLimits, Query, Vm, VmConfig, VmState, drain};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::stop::{choose, order_each};
use super::{count, print, search, signals, size};

/// Lend this machine: run virtual machines until Ctrl-C or `river stop`
///
/// A virtual machine waits to be found by the programs of the same user (of all who share the key file), lends itself
/// to one of them at a time, and runs what that program sends, in a process called the program's host. It needs no copy of
/// the program: the executable is sent to it, and cached.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  river vm                          one virtual machine
  river vm -n 4 --name lab          four: lab-0, lab-1, lab-2, lab-3
  river vm --label gpu --label big  one that programs can ask for by label
  river vm --memory 4G              one whose programs get at most 4 GiB of address space
  river vm --drain lab-0            stop lab-0 once its program has released it, without losing work

Environment:
  RIVER_PORT         UDP port of searches, the same for VMs and programs [default: 7484]
  RIVER_KEY_FILE     the key; whoever has it can run code here [default: ~/.config/river/key]
  RIVER_CACHE        where executables are cached [default: ~/.cache/river/images]
  RIVER_CACHE_LIMIT  how many bytes to cache [default: 2147483648, which is 2 GiB]

Exit status:
  0  all VMs were told to stop, as by `river stop`; with --drain: all those named know
  1  an error, reported on stderr
  2  the command line is invalid
  130, 143  it was ended by Ctrl-C or SIGTERM")]
pub(crate) struct Args {
    /// How many virtual machines to run
    #[arg(short = 'n', long, value_name = "COUNT", default_value = "1", value_parser = count)]
    count: NonZeroUsize,
    /// The name that people see; numbered if there are several [default: the machine's name and the process id]
    #[arg(long)]
    name: Option<String>,
    /// A word by which programs can choose this machine; can be given several times
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// TCP port on which it accepts programs (with -n 1 only) [default: any free one]
    #[arg(long, value_name = "PORT", value_parser = listening_port)]
    listen: Option<u16>,
    /// UDP port on which it answers searches [default: `RIVER_PORT`, or 7484]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Lend it to other machines, too: listen on ADDRESS, or on all interfaces. Needs the key of the cluster
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "0.0.0.0")]
    network: Option<Ipv4Addr>,
    /// Start nothing, but tell running VMs to end: idle ones at once, the others when their programs have released them.
    /// Recoverable programs do so at once, by moving their VRs to other VMs; others are asked to. `river stop` does not wait
    /// for that
    #[arg(long, value_name = "NAME|ID", num_args = 1.., value_parser = NonEmptyStringValueParser::new(), exclusive = true)]
    drain: Vec<String>,
    /// How much memory each VM lends for checkpoints of programs that use it (`river run --checkpoint memory`), such as 512M
    /// or 4G [default: all VMs of this command together lend an eighth of the machine's]
    #[arg(long, value_name = "BYTES", value_parser = size::bytes)]
    checkpoint_memory: Option<u64>,
    #[command(flatten)]
    limits: Limits,
}

/// What the host of a program may use.
#[derive(clap::Args)]
#[command(next_help_heading = "Limits for a program's host, enforced by the system")]
struct Limits {
    /// Address space, such as 512M or 4G
    #[arg(long, value_name = "BYTES", value_parser = size::bytes)]
    memory: Option<u64>,
    /// Open files, connections included
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    open_files: Option<u64>,
    /// Seconds of processor time, all threads together
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    cpu_seconds: Option<u64>,
}

impl Limits {
    /// Checks that a host, which is a child of this process, can be given these limits: only root can raise what the system
    /// allows, and only so far. Otherwise every host would fail.
    fn check(&self) -> river::Result {
        let limits = [
            ("--memory", Resource::As, self.memory),
            ("--open-files", Resource::Nofile, self.open_files),
            ("--cpu-seconds", Resource::Cpu, self.cpu_seconds),
        ];
        for (option, resource, wanted) in limits {
            let Rlimit { current, maximum } = getrlimit(resource);
            let (Some(wanted), Some(most)) = (wanted, maximum) else { continue };
            let raised = Rlimit { current, maximum: Some(wanted) };
            if wanted > most && setrlimit(resource, raised).is_err() {
                return Err(VrError::msg(format!(
                    "{option} {wanted}: the system allows a process at most {most} (see `ulimit -aH`)"
                )));
            }
        }
        Ok(())
    }
}

/// Parses a port. Other programs accept an address here; this one does not.
fn listening_port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "it must be a port number, without an address (see --network)".into())
}

impl Args {
    fn config(&self) -> river::Result<VmConfig> {
        if self.listen.is_some() && self.count.get() > 1 {
            return Err(VrError::msg(
                "--listen names one port, and each VM needs one of its own: drop -n or --listen",
            ));
        }
        self.limits.check()?;
        let Limits { memory, open_files, cpu_seconds } = self.limits;
        let mut config = VmConfig::default().limits(HostLimits { memory, open_files, cpu_seconds });
        if let Some(bytes) = self.checkpoint_memory {
            config = config.checkpoint_memory(bytes);
        }
        if let Some(name) = &self.name {
            config = config.name(name);
        }
        for label in &self.labels {
            config = config.label(label);
        }
        if let Some(port) = self.listen {
            config = config.listen(port);
        }
        if let Some(port) = self.port {
            config = config.discovery_port(port);
        }
        if let Some(address) = self.network {
            config = config.network(address);
        }
        Ok(config)
    }
}

fn drain_all(names: &[String]) -> river::Result {
    let vms = search(&Query::default())?.vms;
    order_each(&choose(&vms, names)?, "drained", |vm| {
        drain(vm)?;
        Ok(match &vm.state {
            VmState::Idle => format!("VM {} ends now\n", vm.name),
            VmState::Leased { name, .. } => format!("VM {} ends when {name} has released it\n", vm.name),
        })
    })
}

pub(crate) fn run(args: &Args) -> river::Result {
    if !args.drain.is_empty() {
        return drain_all(&args.drain);
    }
    let vms = Vm::start_many(&args.config()?, args.count.get())?;
    let vms: Vec<Arc<Vm>> = vms.into_iter().map(Arc::new).collect();
    let ended_by = stop_at_a_signal(vms.iter().map(Arc::downgrade).collect())?;
    let mut text = String::new();
    for vm in &vms {
        let info = vm.info();
        text += &format!("VM {} waits for programs on {}\n", info.name, info.address);
    }
    text += if vms.len() == 1 { "Ctrl-C ends it\n" } else { "Ctrl-C ends them\n" };
    // Serve even if nobody reads this.
    let _ = print(&text);
    let waiting = vms.into_iter().map(|vm| {
        let name = vm.info().name;
        // One thread per VM, so that a stopped VM is gone at once even if others go on.
        thread::Builder::new().name("river-vm-wait".into()).spawn(move || {
            vm.wait();
            drop(vm);
            let _ = print(&format!("VM {name} was stopped\n"));
        })
    });
    for thread in waiting.collect::<Result<Vec<_>, _>>()? {
        let _ = thread.join();
    }
    match ended_by.get() {
        // The parent process must see which signal ended this one.
        Some(signal) => Ok(signal_hook::low_level::emulate_default_handler(*signal)?),
        None => Ok(()),
    }
}

/// Stops the VMs when a signal ends this process, so that the programs that use them learn why. A second signal ends it at
/// once. Returns the first signal.
fn stop_at_a_signal(vms: Vec<Weak<Vm>>) -> io::Result<Arc<OnceLock<i32>>> {
    let signals = [SIGINT, SIGTERM, SIGHUP];
    let again = Arc::new(AtomicBool::new(false));
    for signal in signals::heeded(&signals) {
        signal_hook::flag::register_conditional_default(signal, again.clone())?;
    }
    let (mut taken, ended_by) = (signals::take(&signals)?, Arc::new(OnceLock::new()));
    let first = ended_by.clone();
    thread::Builder::new().name("river-vm-signals".into()).spawn(move || {
        for signal in taken.forever() {
            again.store(true, Relaxed);
            let _ = first.set(signal);
            vms.iter().filter_map(Weak::upgrade).for_each(|vm| vm.stop());
        }
    })?;
    Ok(ended_by)
}
