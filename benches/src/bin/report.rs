//! Runs every benchmark, with the peers that are installed, and writes `docs/results`: tables, plots, machine, versions and
//! commands.
//!
//! ```text
//! cargo run --release -p river-benches --bin report               # an hour or two
//! cargo run --release -p river-benches --bin report -- --quick    # less than ten minutes
//! cargo run --release -p river-benches --bin report -- --quick --only links --only mpi
//! ```

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;
use river_benches::report::{Host, Places, benches, load_all, pages, run};

/// Run every benchmark, and write the results as Markdown with plots
///
/// The numbers of each benchmark are kept in DIRECTORY/data; those of benchmarks that are not run now stay as they are.
/// Peers that are not installed are left out, and the page says so.
#[derive(Parser)]
struct Args {
    /// Fewer rounds, sizes and cases: for a first look
    #[arg(long)]
    quick: bool,
    /// Only this benchmark (may be repeated)
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Run none, and write the pages again from the kept numbers
    #[arg(long, conflicts_with = "only")]
    no_run: bool,
    /// The Python that has the peers [default: python3]
    #[arg(long, value_name = "PATH", value_parser = program)]
    python: Option<PathBuf>,
    /// The unpacked sources of NPB's MPI version, as `mpi_cg` takes them; without them, CG is not compared
    #[arg(long, value_name = "DIRECTORY", value_parser = directory)]
    npb: Option<PathBuf>,
    /// Where to write
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/results"))]
    directory: PathBuf,
}

/// Parses the path of a program, as benchmarks run in another directory. A name without a slash is searched for in `PATH`.
fn program(text: &str) -> std::io::Result<PathBuf> {
    if text.contains('/') { directory(text) } else { Ok(text.into()) }
}

/// Parses the path of a directory, as benchmarks run in another one.
fn directory(text: &str) -> std::io::Result<PathBuf> {
    std::path::absolute(text)
}

fn main() -> ExitCode {
    match report(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn report(args: &Args) -> Result<(), Box<dyn Error>> {
    let data = args.directory.join("data");
    fs::create_dir_all(&data)?;
    let mut failed = Vec::new();
    if !args.no_run {
        let places = Places { python: args.python.clone(), npb: args.npb.clone() };
        let all = benches(&Path::new(env!("CARGO_MANIFEST_DIR")).join("benches"), args.quick, &places)?;
        if let Some(unknown) = args.only.iter().find(|name| all.iter().all(|bench| bench.name != **name)) {
            let names: Vec<&str> = all.iter().map(|bench| bench.name.as_str()).collect();
            return Err(format!("there is no benchmark {unknown}; there are {}", names.join(", ")).into());
        }
        // Compilation is not part of any number, and should not disturb one either.
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo)
            .args(["bench", "-p", "river-benches", "--benches", "--no-run"])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()?;
        if !status.success() {
            return Err(format!("the benchmarks do not compile: {status}").into());
        }
        let host = Host::this(args.python.as_deref().unwrap_or(Path::new("python3")));
        for bench in all.iter().filter(|bench| args.only.is_empty() || args.only.contains(&bench.name)) {
            eprintln!("=== {} {}", bench.name, bench.args.join(" "));
            // A benchmark that fails must not affect the others.
            match run(bench, &host) {
                Ok(record) => record.save(&data)?,
                Err(error) => {
                    eprintln!("error: {error}");
                    failed.push(bench.name.clone());
                }
            }
        }
    }
    write(&args.directory, &data)?;
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", ")).into()) }
}

/// Writes all pages, and removes pictures that no page uses any more.
fn write(directory: &Path, data: &Path) -> Result<(), Box<dyn Error>> {
    let pages = pages(&load_all(data)?)?;
    let names: BTreeSet<&str> = pages.iter().map(|page| page.name.as_str()).collect();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension().is_some_and(|extension| extension == "svg") && !names.contains(name.as_str()) {
            fs::remove_file(path)?;
        }
    }
    for page in &pages {
        fs::write(directory.join(&page.name), &page.text)?;
    }
    println!("{} files are in {}", pages.len(), directory.display());
    Ok(())
}
