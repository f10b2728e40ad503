//! Logging to stderr.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// Logs what River does to stderr: with `verbosity` 0 only warnings, with 1 also what happens to VMs and images, with 2 or
/// more everything. The variable `RIVER_LOG` (`warn`, `river_core=debug`, ...) overrides it. Only the first call in a
/// process has an effect.
pub fn log_to_stderr(verbosity: u8) {
    let default = ["warn", "info", "trace"][usize::from(verbosity.min(2))];
    let filter = EnvFilter::try_from_env("RIVER_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .without_time()
        // They would go to stderr too, and panic if it is closed.
        .log_internal_errors(false)
        .try_init();
}
