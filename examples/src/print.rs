//! Output that is longer than a screen.

use std::io::{self, BufWriter, Write};

/// Prints to stdout what the function writes. That the reader has read enough, as `head` does, is no error.
///
/// # Errors
/// What else goes wrong with stdout or the function.
pub fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
