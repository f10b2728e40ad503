//! Output that is longer than a screen.

use std::io::{self, BufWriter, Write};

/// Prints to stdout what the function writes. It is no error if the reader stops reading, as `head` does.
///
/// # Errors
/// Any other error of stdout or of the function.
pub fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
