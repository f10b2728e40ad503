//! The conjugate gradient kernel of the NAS Parallel Benchmarks: `examples/cg` compared with NPB's own in Fortran.
//!
//! ```text
//! cargo bench -p river-benches --bench mpi_cg
//! cargo bench -p river-benches --bench mpi_cg -- --npb "$PWD/NPB3.4.3/NPB3.4-MPI" --class A --ranks 2
//! ```
//!
//! How to get NPB is described in `benches/peers/README.md`. It is built in a temporary copy, with each MPI that is
//! installed, with `-O3` and the flags that gfortran needs, from version 10 on, to accept it. The numbers are Mop/s, as
//! both count them: the median over the rounds, in which all take turns. `processes` are ranks with a process each,
//! `threads` are ranks in one process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use clap::Parser;
use river::mpi::{Communicator, Launch};
use river_benches::mpi::{self, Mpi};
use river_benches::process;
use river_benches::table::{Spread, Table, left_out, load, machine};
use river_examples::cg::{self, Class};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Measure CG.
#[derive(Parser)]
struct Args {
    /// How many times everything is measured
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// This class (may be repeated)
    #[arg(long, value_enum, ignore_case = true, default_values = ["S", "W", "A"])]
    class: Vec<Class>,
    /// On this many ranks (may be repeated)
    #[arg(long, default_values = ["1", "2", "4"])]
    ranks: Vec<usize>,
    /// The directory of NPB's MPI version, to be measured as well
    #[arg(long, value_name = "DIR")]
    npb: Option<PathBuf>,
    /// Passed by `cargo bench`; ignored
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    process::main(run_case, tables)
}

fn tables(args: &Args) -> Result {
    println!("{}; {} rounds; median (min..max)", machine(), args.rounds);
    let before = load();
    let mut builds = Vec::new();
    if args.npb.is_none() {
        left_out("NPB", "its sources were not given (--npb)");
    }
    if let Some(npb) = &args.npb {
        for peer in &mpi::ALL {
            match Npb::build(peer, npb, &args.class) {
                Ok(build) => builds.push(build),
                Err(error) => left_out(&format!("NPB on {}", peer.name), error),
            }
        }
    }
    for &class in &args.class {
        let mut table = Table::new(format!("CG, class {class}"), "ranks")
            .column("threads", "Mop/s", 0)
            .column("processes", "Mop/s", 0);
        for build in &builds {
            table = table.column(format!("NPB, {}", build.mpi.name), "Mop/s", 0);
        }
        if !builds.is_empty() {
            table = table.column("threads / best NPB", "", 2);
        }
        for &ranks in &args.ranks {
            let mut speeds = vec![Vec::new(); 2 + builds.len()];
            for _ in 0..args.rounds {
                let (ours, theirs) = speeds.split_at_mut(2);
                for (speeds, place) in ours.iter_mut().zip(["threads", "processes"]) {
                    speeds.push(process::run::<f64>(&format!("{place} {ranks} {class}"), &[])?);
                }
                for (speeds, build) in theirs.iter_mut().zip(&builds) {
                    speeds.push(build.run(class, ranks)?);
                }
            }
            let spreads: Vec<Spread> = speeds.into_iter().map(Spread::of).collect();
            let best = spreads[2..].iter().map(|spread| spread.median).max_by(f64::total_cmp);
            let ratio = best.map(|best| Some(Spread::of(vec![spreads[0].median / best])));
            table.row(ranks.to_string(), spreads.iter().copied().map(Some).chain(ratio));
        }
        table.print()?;
    }
    println!("\nload average {before:.2} before, {:.2} after", load());
    Ok(())
}

/// Runs our version; returns the speed, if the result is the published one.
fn run_case(case: &str) -> Result {
    let (place, ranks, class) = parts(case)?;
    let per_vm = if place == "threads" { ranks } else { 1 };
    let outcomes = Launch::new(ranks).per_vm(per_vm).try_run(rank).map_err(|error| error.to_string())?;
    let first = outcomes.first().ok_or("there is no rank")?;
    if !first.is_verified(class) {
        return Err(format!("CG class {class} on {ranks} ranks: zeta is {}", first.zeta()).into());
    }
    Ok(process::report(&first.mops(class))?)
}

fn rank(world: &Communicator) -> river::Result<cg::Outcome> {
    let case = process::case().unwrap_or_default();
    let (_, _, class) = parts(&case).map_err(|error| river::VrError::msg(error.to_string()))?;
    Ok(cg::parallel(class, world, |_| {})?)
}

fn parts(case: &str) -> Result<(&str, usize, Class)> {
    let [place, ranks, class] = case.split(' ').collect::<Vec<_>>()[..] else {
        return Err(format!("`{case}` is no case").into());
    };
    Ok((place, ranks.parse()?, <Class as clap::ValueEnum>::from_str(class, true)?))
}

/// NPB, built with one MPI.
struct Npb {
    mpi: &'static Mpi,
    directory: tempfile::TempDir,
}

impl Npb {
    fn build(mpi: &'static Mpi, source: &Path, classes: &[Class]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        for part in ["CG", "common", "sys", "config"] {
            copy(&source.join(part), &directory.path().join(part))?;
        }
        fs::create_dir(directory.path().join("bin"))?;
        let (fortran, c) = (mpi.fortran, mpi.c);
        let settings = format!(
            "MPIFC = {fortran}\nFLINK = {fortran}\nFFLAGS = -O3 -fallow-argument-mismatch -fallow-invalid-boz\n\
             FLINKFLAGS = -O3\nMPICC = {c}\nCLINK = {c}\nCFLAGS = -O3\nCLINKFLAGS = -O3\n\
             CC = cc -g\nBINDIR = ../bin\nRAND = randi8\n"
        );
        fs::write(directory.path().join("config/make.def"), settings)?;
        for class in classes {
            let make = Command::new("make")
                .current_dir(directory.path().join("CG"))
                .arg(format!("CLASS={class}"))
                .stdout(Stdio::null())
                .status()
                .map_err(|error| format!("make: {error}"))?;
            if !make.success() {
                return Err(format!("make failed: {make}").into());
            }
        }
        Ok(Self { mpi, directory })
    }

    fn run(&self, class: Class, ranks: usize) -> Result<f64> {
        let program = self.directory.path().join(format!("bin/cg.{class}.x"));
        let said = self.mpi.run(ranks, &program, &[])?;
        let value =
            |name: &str| said.lines().find_map(|line| line.trim().strip_prefix(name)?.split('=').nth(1));
        if value("Verification").map(str::trim) != Some("SUCCESSFUL") {
            return Err(format!("NPB's CG class {class} on {ranks} ranks was not verified:\n{said}").into());
        }
        let speed = value("Mop/s total").ok_or("NPB says no speed")?;
        Ok(speed.trim().parse()?)
    }
}

/// Copies a directory's files.
fn copy(from: &Path, to: &Path) -> Result {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from).map_err(|error| format!("{}: {error}", from.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
