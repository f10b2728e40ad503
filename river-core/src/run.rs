//! The start of a program.

use std::panic::{self, AssertUnwindSafe};
use std::process::{ExitCode, Termination};

use crate::discovery::Reach;
use crate::error::Result;
use crate::host;
use crate::id::VrId;
use crate::program::Program;
use crate::vr::Vr;

/// Runs a program: `body` becomes its initiator, on the calling thread, and everything that it has started is gone
/// when this returns.
///
/// Call it first thing in `main`: in a process that a VM has started to run this program's VRs it never returns.
///
/// ```no_run
/// use river_core::{ExitCode, Result, Vr};
///
/// fn main() -> ExitCode {
///     river_core::run(program)
/// }
///
/// fn program(vr: &Vr) -> Result {
///     println!("I am VR {} on {}", vr.id(), vr.vm());
///     Ok(())
/// }
/// ```
///
/// The exit code is that of `body`; an error is printed to stderr and gives 1.
pub fn run<T: Termination>(body: impl FnOnce(&Vr) -> Result<T>) -> ExitCode {
    match try_run(body) {
        Ok(value) => value.report(),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Like [`run`], but returns what `body` returns. For programs that do more than be a River program, and for tests.
///
/// # Errors
/// What `body` returns, or why the program could not be started.
pub fn try_run<T>(body: impl FnOnce(&Vr) -> Result<T>) -> Result<T> {
    host::become_host_if_asked();
    let reach = Reach::from_env()?;
    let program = Program::start(reach.key()?, reach)?;
    let id = VrId::fresh();
    let inbox = program.node.add(id);
    program.register(id);
    let result = {
        let vr = Vr::new(id, None, program.node.clone(), inbox);
        panic::catch_unwind(AssertUnwindSafe(|| body(&vr)))
    };
    program.finish();
    result.unwrap_or_else(|panic| panic::resume_unwind(panic))
}
