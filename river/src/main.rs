//! The `river` command.

mod command;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Lend this machine to River programs, and see who else does.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Examples:
  river vm            lend this machine as one virtual machine, until Ctrl-C
  river vm -n 4       as four
  river ls            show the virtual machines that can be found

Exit status: 0 if all went well, 1 on an error, 2 if the command line makes no sense."
)]
struct Args {
    #[command(subcommand)]
    command: Command,
    /// Say more: once for what happens to VMs and images, twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    Vm(command::vm::Args),
    Ls(command::ls::Args),
}

fn main() -> ExitCode {
    let args = Args::parse();
    river::log_to_stderr(args.verbose);
    let result = match args.command {
        Command::Vm(args) => command::vm::run(&args),
        Command::Ls(args) => command::ls::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
