//! The `river` command.

mod command;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Lend this machine to River programs, list machines that are lent, and run programs on them.
#[derive(Parser)]
#[command(
    name = "river",
    bin_name = "river",
    version = env!("RIVER_VERSION"),
    after_help = "\
Terms: a program consists of VRs (virtual resources), which run on VMs (virtual machines).

Examples:
  river vm -n 4               lend this machine as four virtual machines, until Ctrl-C
  river ls                    show the virtual machines that can be found
  river run -n 4 ./pi 1000    run a program on four: idle ones, or four started for it
  river trace -o run.html ./pi 1000
                              the same, and draw what happened
  river top                   watch virtual machines and programs
  river stop --all            stop all virtual machines
  river checkpoint pi state   write a checkpoint of a running program
  river restore state         continue it from there
  river migrate pi 5f3a lab-3 move a VR of a running program to another VM
  river record -o tape ./pi   run it and record all its VRs
  river replay tape --vr 5f   replay one of them, alone
  river doctor                check that River works on this machine
  river key show              print the fingerprint of the key, to compare machines

Exit status:
  0  success
  1  an error, reported on stderr
  2  the command line is invalid
  `river run`, `trace`, `record` and `restore` return the exit status of the
  program, or 125 if River failed, as `river replay` does: see their --help."
)]
struct Args {
    #[command(subcommand)]
    command: Command,
    /// Log more: once for what happens to VMs and images, twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    Vm(command::vm::Args),
    Ls(command::ls::Args),
    Run(command::run::Args),
    Trace(command::trace::Args),
    Top(command::top::Args),
    Stop(command::stop::Args),
    Checkpoint(command::checkpoint::Args),
    Restore(command::restore::Args),
    Record(command::record::Args),
    Replay(command::replay::Args),
    States(command::states::Args),
    Migrate(command::migrate::Args),
    Key(command::key::Args),
    Doctor(command::doctor::Args),
    Completions(command::completions::Args),
    Man(command::man::Args),
}

fn main() -> ExitCode {
    let args = Args::parse();
    if !matches!(&args.command, Command::Top(top) if top.draws_on_stderr()) {
        river::log_to_stderr(args.verbose);
    }
    let result = match args.command {
        Command::Vm(args) => command::vm::run(&args),
        Command::Ls(args) => command::ls::run(&args),
        Command::Run(args) => return command::run::run(&args),
        Command::Top(args) => command::top::run(&args),
        Command::Trace(args) => return command::trace::run(&args),
        Command::Stop(args) => command::stop::run(&args),
        Command::Checkpoint(args) => command::checkpoint::run(&args),
        Command::Restore(args) => return command::restore::run(&args),
        Command::Record(args) => return command::record::run(&args),
        Command::Replay(args) => return command::replay::run(&args),
        Command::States(args) => command::states::run(&args),
        Command::Migrate(args) => command::migrate::run(&args),
        Command::Key(args) => command::key::run(&args),
        Command::Doctor(args) => command::doctor::run(&args),
        Command::Man(args) => command::man::run::<Args>(&args),
        Command::Completions(args) => command::completions::run::<Args>(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            command::tell(format_args!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}
