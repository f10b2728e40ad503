//! Sorts records of 100 bytes by their first ten, after the sort benchmark; with a generator and a validator.
//!
//! ```text
//! cargo run --release --example mr_sort -- check 1000000
//! ```

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Parser, Subcommand};
use river::mapreduce::{Input, Job, Output};
use river::prelude::*;
use river::{ExitCode, VrError};
use river_examples::mr::{Options, RECORD, Sort, check, generate};

/// Sort records of 100 bytes by their first ten on virtual machines.
#[derive(Parser)]
#[command(after_help = "\
Examples:
  mr_sort generate 10000000 records           10 million records, 1 GB
  mr_sort sort records sorted                 into the directory `sorted`
  mr_sort --vms 2 --memory 100 sort records sorted
                                              with 100 MiB of memory for all VMs together, 16 at least for each
  mr_sort validate sorted                     whether it is sorted, and the checksum of its records
  mr_sort check 1000000                       all of that, in a temporary directory

Exit status: 0 if all is well, 1 if something went wrong or is not sorted, 2 if the command line is invalid.")]
struct Args {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write random records to a file, the same ones each time
    Generate {
        /// How many records
        records: u64,
        /// The file
        file: PathBuf,
    },
    /// Sort the records of files into a directory
    Sort {
        /// The file with the records
        input: PathBuf,
        /// The directory, which must be new or empty
        output: PathBuf,
    },
    /// Check whether the records of a file or directory are sorted, and print their checksum
    Validate {
        /// The file or directory
        path: PathBuf,
    },
    /// Generate, sort and validate in a temporary directory
    Check {
        /// How many records
        records: u64,
    },
}

fn program(vr: &Vr, args: &Args) -> river::Result {
    match &args.command {
        Command::Generate { records, file } => generate(file, *records).map_err(|error| at(file, &error))?,
        Command::Sort { input, output } => sort(vr, &args.options, input, output)?,
        Command::Validate { path } => {
            validate(path)?;
        }
        Command::Check { records } => {
            let scratch = tempfile::tempdir()?;
            let (input, output) = (scratch.path().join("records"), scratch.path().join("sorted"));
            generate(&input, *records)?;
            let expected = check(&input)?.checksum;
            sort(vr, &args.options, &input, &output)?;
            if validate(&output)? != expected {
                return Err(VrError::msg("the sorted records are not those that were generated"));
            }
        }
    }
    Ok(())
}

fn sort(vr: &Vr, options: &Options, input: &Path, output: &Path) -> river::Result {
    let cluster = options.cluster(vr)?;
    let start = Instant::now();
    let job = Job::new(Sort, Input::fixed([input], RECORD)).sorted().output(Output::raw(output));
    let outcome = options.apply(job).run(&cluster)?;
    eprint!("{}", outcome.report());
    eprintln!("sorted in {:.3} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// An error with the file that it concerns.
fn at(path: &Path, error: &io::Error) -> VrError {
    VrError::msg(format!("{}: {error}", path.display()))
}

/// Validates the records; returns their checksum.
fn validate(path: &Path) -> river::Result<u64> {
    let checked = check(path).map_err(|error| at(path, &error))?;
    println!("records: {}, checksum: {:016x}, sorted: {}", checked.records, checked.checksum, checked.sorted);
    if checked.sorted { Ok(checked.checksum) } else { Err(VrError::msg("the records are not sorted")) }
}

fn main() -> ExitCode {
    river::become_host_if_asked();
    let args = Args::parse();
    river::run(|vr| program(vr, &args))
}
