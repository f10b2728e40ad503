//! Other implementations of MPI, which are measured if they are installed.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// One of them, with the names under which Debian installs several beside each other.
#[derive(Debug)]
pub struct Mpi {
    /// Its name.
    pub name: &'static str,
    /// Its C compiler.
    pub c: &'static str,
    /// Its Fortran compiler.
    pub fortran: &'static str,
    runner: &'static str,
    options: &'static [&'static str],
}

/// Those that we know.
pub static ALL: [Mpi; 2] = [
    Mpi {
        name: "Open MPI",
        c: "mpicc.openmpi",
        fortran: "mpif90.openmpi",
        runner: "mpirun.openmpi",
        options: &["--allow-run-as-root", "--oversubscribe"],
    },
    Mpi { name: "MPICH", c: "mpicc.mpich", fortran: "mpif90.mpich", runner: "mpirun.mpich", options: &[] },
];

impl Mpi {
    /// Compiles one of the C programs in `benches/peers`.
    ///
    /// # Errors
    /// If the compiler is not there or does not like it.
    pub fn compile(&self, source: &str, program: &Path) -> io::Result<()> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(source);
        let status = Command::new(self.c).args(["-O3", "-w", "-o"]).arg(program).arg(source).status();
        match status.map_err(|error| io::Error::other(format!("{}: {error}", self.c)))? {
            status if status.success() => Ok(()),
            status => Err(io::Error::other(format!("{} failed: {status}", self.c))),
        }
    }

    /// Runs a program on so many ranks and returns what it prints.
    ///
    /// # Errors
    /// If it cannot be run or fails.
    pub fn run(&self, ranks: usize, program: &Path, args: &[String]) -> io::Result<String> {
        let output = Command::new(self.runner)
            .args(self.options)
            .args(["-n", &ranks.to_string()])
            .arg(program)
            .args(args)
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| io::Error::other(format!("{}: {error}", self.runner)))?;
        if !output.status.success() {
            return Err(io::Error::other(format!("{} failed: {}", self.runner, output.status)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
