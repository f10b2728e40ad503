//! The benchmarks, and the arguments with which they are run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A benchmark to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bench {
    /// Its name: `cargo bench --bench NAME`.
    pub name: String,
    /// Its arguments.
    pub args: Vec<String>,
}

/// Benchmarks with other arguments than the default (none, or three rounds in a quick report): the full arguments, the
/// quick ones.
const ARGS: [(&str, &str, &str); 8] = [
    ("farm", "--peers", "--rounds 3 --peers"),
    (
        "links",
        "",
        "--rounds 3 --size 8 --size 64 --size 1024 --size 8192 --size 65536 --size 1048576 --size 16777216",
    ),
    ("machines", "", "--rounds 5"),
    ("mapreduce", "--peers", "--rounds 2 --megabytes 100 --peers"),
    ("mpi_cg", "", "--rounds 3 --class S --class W"),
    (
        "mpi_coll",
        "--peers",
        "--peers --rounds 3 --ranks 4 --link shm --operation barrier --operation bcast --operation allreduce --operation alltoall",
    ),
    ("sfm", "", "--quick"),
    ("wfreq", "--rounds 9", "--rounds 3 --files 20000"),
];

/// Where peers are that are not found by themselves.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// The Python that has them.
    pub python: Option<PathBuf>,
    /// The sources of NPB's MPI version.
    pub npb: Option<PathBuf>,
}

impl Places {
    /// The option of this benchmark that says so, if it has one.
    fn option(&self, bench: &str) -> Option<[String; 2]> {
        let (option, place) = match bench {
            "farm" | "mapreduce" => ("--python", &self.python),
            "mpi_cg" => ("--npb", &self.npb),
            _ => return None,
        };
        Some([option.to_owned(), place.as_ref()?.display().to_string()])
    }
}

/// Finds all benchmarks in this directory, by name; new ones are found automatically.
///
/// # Errors
/// If the directory cannot be read.
pub fn benches(directory: &Path, quick: bool, places: &Places) -> io::Result<Vec<Bench>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    let bench = |name: String| {
        let special = ARGS.iter().find(|(special, ..)| *special == name);
        let args = match (special, quick) {
            (Some((_, whole, _)), false) => whole,
            (Some((.., short)), true) => short,
            (None, false) => "",
            (None, true) => "--rounds 3",
        };
        let args = args.split_whitespace().map(str::to_owned);
        Bench { args: args.chain(places.option(&name).into_iter().flatten()).collect(), name }
    };
    Ok(names.into_iter().map(bench).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_benchmark_is_found_and_every_argument_is_somebody_s() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
        let places = Places { python: Some("/py".into()), npb: Some("/npb".into()) };
        let all = benches(&directory, true, &places).unwrap();
        for (name, ..) in ARGS {
            assert!(all.iter().any(|bench| bench.name == name), "there is no benchmark {name}");
        }
        assert!(all.iter().all(|bench| !bench.args.is_empty()), "a quick run is told to be: {all:?}");
        for (name, option) in
            [("farm", "--python /py"), ("mapreduce", "--python /py"), ("mpi_cg", "--npb /npb")]
        {
            let bench = all.iter().find(|bench| bench.name == name).unwrap();
            assert!(bench.args.join(" ").ends_with(option), "{bench:?}");
        }
    }
}
