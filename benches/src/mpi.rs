//! Other implementations of MPI, which are measured if they are installed.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// An MPI implementation, with the names under which Debian installs several side by side.
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
    /// The arguments that make messages within a machine go over TCP.
    over_tcp: &'static [&'static str],
}

/// The time limit of a run: with more ranks than cores, all of which spin, it may take forever.
const LIMIT: &str = "120";
/// The exit code of `timeout` in that case.
const TIMED_OUT: i32 = 124;

/// The implementations that are known.
pub static ALL: [Mpi; 2] = [
    Mpi {
        name: "Open MPI",
        c: "mpicc.openmpi",
        fortran: "mpif90.openmpi",
        runner: "mpirun.openmpi",
        options: &["--allow-run-as-root", "--oversubscribe"],
        over_tcp: &["--mca", "btl", "self,tcp", "--mca", "pml", "ob1"],
    },
    Mpi {
        name: "MPICH",
        c: "mpicc.mpich",
        fortran: "mpif90.mpich",
        runner: "mpirun.mpich",
        options: &[],
        // Debian's device uses shared memory of its own if MPICH's is switched off.
        over_tcp: &["-genv", "MPIR_CVAR_NOLOCAL", "1", "-genv", "UCX_TLS", "tcp,self"],
    },
];

impl Mpi {
    /// Compiles one of the C programs in `benches/peers`.
    ///
    /// # Errors
    /// If the compiler is missing or fails.
    pub fn compile(&self, source: &str, program: &Path) -> io::Result<()> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(source);
        let status = Command::new(self.c).args(["-O3", "-w", "-o"]).arg(program).arg(source).status();
        match status.map_err(|error| io::Error::other(format!("{}: {error}", self.c)))? {
            status if status.success() => Ok(()),
            status => Err(io::Error::other(format!("{} failed: {status}", self.c))),
        }
    }

    /// Runs a program on this many ranks and returns its output.
    ///
    /// # Errors
    /// If it cannot be run, fails, or takes more than two minutes.
    pub fn run(&self, ranks: usize, program: &Path, args: &[String]) -> io::Result<String> {
        self.run_with(&[], ranks, program, args)
    }

    /// Like [`run`](Self::run), with messages over TCP.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_over_tcp(&self, ranks: usize, program: &Path, args: &[String]) -> io::Result<String> {
        self.run_with(self.over_tcp, ranks, program, args)
    }

    fn run_with(
        &self,
        options: &[&str],
        ranks: usize,
        program: &Path,
        args: &[String],
    ) -> io::Result<String> {
        let output = Command::new("timeout")
            .args([LIMIT, self.runner])
            .args(self.options)
            .args(options)
            .args(["-n", &ranks.to_string()])
            .arg(program)
            .args(args)
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| io::Error::other(format!("{}: {error}", self.runner)))?;
        match output.status {
            status if status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            status if status.code() == Some(TIMED_OUT) => Err(io::Error::other(format!(
                "{} -n {ranks} {} did not end within {LIMIT} s",
                self.runner,
                program.display()
            ))),
            status => Err(io::Error::other(format!("{} failed: {status}", self.runner))),
        }
    }
}
