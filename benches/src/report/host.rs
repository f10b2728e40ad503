//! The machine on which something was measured, and the software installed on it. Its name is private, and not
//! recorded.

use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// The machine of a measurement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The model of the processor.
    pub processor: String,
    /// The number of cores that are available.
    pub cores: usize,
    /// Its memory, in MiB.
    pub memory: u64,
    /// Distribution and kernel.
    pub system: String,
    /// The names and versions of the benchmarked software and its peers.
    pub versions: Vec<(String, String)>,
}

/// Programs that print their versions themselves.
const PROGRAMS: [(&str, &str, &[&str]); 4] = [
    ("rustc", "rustc", &["--version"]),
    ("MPICH", "mpichversion", &["--version"]),
    ("Open MPI", "mpirun.openmpi", &["--version"]),
    ("Java", "java", &["--version"]),
];

/// Prints the versions of those packages that Python has.
const PYTHON: &str = "import importlib.metadata as m, platform
print('Python', platform.python_version())
for name in ['joblib', 'ipyparallel', 'dask', 'distributed', 'ray', 'Pyro5', 'rpyc', 'pyspark', 'mpi4py']:
    try: print(name, m.version(name))
    except m.PackageNotFoundError: pass
";

impl Host {
    /// Describes this machine, with the peers that this Python has.
    #[must_use]
    pub fn this(python: &Path) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str, separator: char| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_prefix(separator));
            line.map(|value| value.trim().trim_matches('"').to_owned())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal", ':');
        let memory = memory.and_then(|text| text.trim_end_matches("kB").trim().parse::<u64>().ok());
        let distribution = field(&read("/etc/os-release"), "PRETTY_NAME", '=').unwrap_or_default();
        let kernel = read("/proc/sys/kernel/osrelease");
        let mut versions: Vec<(String, String)> = PROGRAMS
            .iter()
            .filter_map(|(name, program, args)| Some(((*name).to_owned(), first_version(program, args)?)))
            .collect();
        let said = output(Command::new(python).args(["-c", PYTHON])).unwrap_or_default();
        versions.extend(said.lines().filter_map(|line| {
            let (name, version) = line.split_once(' ')?;
            Some((name.to_owned(), version.to_owned()))
        }));
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name", ':').unwrap_or_else(|| "unknown".into()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory: memory.unwrap_or_default() >> 10,
            system: format!("{distribution}, Linux {}", kernel.split('-').next().unwrap_or_default().trim()),
            versions,
        }
    }
}

/// The first word of a program's output that looks like a version.
fn first_version(program: &str, args: &[&str]) -> Option<String> {
    let said = output(Command::new(program).args(args))?;
    let looks_like = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    said.split_whitespace().find(looks_like).map(str::to_owned)
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}
