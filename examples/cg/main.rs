//! The conjugate gradient kernel of the NAS Parallel Benchmarks, by MPI.
//!
//! ```text
//! cargo run --release --example cg -- --class A --ranks 2
//! ```
//!
//! With `--checkpoint-every 5 state` it can be killed at any time, with everything that it has started: `river restore
//! state` continues from the last checkpoint, and prints what would have been printed.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueHint};
use river::mpi::{Communicator, Launch};
use river::{ExitCode, VrError};
use river_examples::cg::{self, Class, Outcome};
use river_examples::print::print;

/// Estimate the smallest eigenvalue of a sparse matrix, and compare it with the published one.
#[derive(Parser)]
#[command(after_help = "\
Examples:
  cg                                 class S on as many ranks as there are cores
  cg --class B --ranks 4             larger, on four
  cg --class A --serial              without MPI, to compare with
  river run -n 4 cg --class A        on four VMs
  cg --class B --checkpoint-every 5 state
                                     survives kill -9: `river restore state` goes on

Exit status: 0 if the result is the published one to 1e-10, 1 if it is not or a rank failed, 2 if the
command line is invalid.")]
struct Args {
    /// How large the matrix is
    #[arg(long, value_enum, ignore_case = true, default_value = "S")]
    class: Class,
    /// How many ranks [default: as many as `river run -n` says, or VMs can be found, or there are cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    ranks: Option<u16>,
    /// Give every rank a process of its own, if no VM is found
    #[arg(long)]
    processes: bool,
    /// One thread, without MPI
    #[arg(long, conflicts_with_all = ["ranks", "processes"])]
    serial: bool,
    /// Write a checkpoint of all ranks to a directory every this many steps
    #[arg(long, num_args = 2, value_names = ["STEPS", "DIRECTORY"], value_hint = ValueHint::DirPath, conflicts_with = "serial")]
    checkpoint_every: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Args {
    /// The number of steps between checkpoints, and the directory for them.
    fn checkpoints(&self) -> river::Result<Option<(usize, PathBuf)>> {
        let [steps, directory] = &self.checkpoint_every[..] else { return Ok(None) };
        match steps.parse() {
            Ok(every) if every > 0 => Ok(Some((every, directory.into()))),
            _ => Err(VrError::msg(format!("--checkpoint-every {steps}: STEPS is a number above zero"))),
        }
    }
}

/// Runs on every rank; all ranks have the same command line.
fn rank(world: &Communicator) -> river::Result<Outcome> {
    let args = Args::parse();
    let Some((every, directory)) = args.checkpoints()? else {
        return Ok(cg::parallel(args.class, world, |_| {})?);
    };
    let outcome = cg::with_safepoints(args.class, world, every, |step| {
        // The other ranks may be on any machine.
        if world.rank() == 0
            && let Err(error) = world.vr().checkpoint(&directory)
        {
            eprintln!("no checkpoint after step {step}: {error}");
        }
    });
    Ok(outcome?)
}

fn program(args: &Args) -> river::Result<bool> {
    let recoverable = args.checkpoints()?.is_some();
    let (outcome, ranks) = if args.serial {
        (cg::serial(args.class), 1)
    } else {
        let mut launch = Launch::new(args.ranks.map(usize::from));
        if args.processes {
            launch = launch.per_vm(1);
        }
        if recoverable {
            launch = launch.recoverable();
        }
        let outcomes = launch.try_run(rank)?;
        let ranks = outcomes.len();
        let first = outcomes.into_iter().next();
        (first.ok_or_else(|| VrError::msg("there is no rank"))?, ranks)
    };
    let class = args.class;
    let (zeta, verified) = (outcome.zeta(), outcome.is_verified(class));
    let (seconds, mops) = (outcome.time.as_secs_f64(), outcome.mops(class));
    if args.json {
        let report = serde_json::json!({
            "class": class, "ranks": ranks, "zeta": zeta, "verified": verified, "seconds": seconds, "mops": mops,
        });
        print(|out| writeln!(out, "{report}"))?;
        return Ok(verified);
    }
    print(|out| {
        writeln!(
            out,
            "NAS CG, class {class}: {} rows, {} steps, {ranks} ranks",
            class.rows(),
            class.steps()
        )?;
        writeln!(out, "{:>5} {:>12} {:>20}", "step", "||r||", "zeta")?;
        for (step, (residual, zeta)) in outcome.steps.iter().enumerate() {
            writeln!(out, "{:>5} {residual:>12.4e} {zeta:>20.13}", step + 1)?;
        }
        writeln!(out, "zeta     {zeta:.13} (published: {:.13})", class.zeta())?;
        writeln!(out, "time     {seconds:.3} s")?;
        writeln!(out, "speed    {mops:.1} Mop/s")?;
        writeln!(out, "verified {}", if verified { "yes" } else { "no" })
    })?;
    Ok(verified)
}

fn main() -> ExitCode {
    river::become_host_if_asked();
    let args = Args::parse();
    if let Err(error) = args.checkpoints() {
        Args::command().error(ErrorKind::ValueValidation, error).exit();
    }
    match program(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
