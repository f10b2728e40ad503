//! `river man`.

use std::fs;
use std::path::PathBuf;

use clap::CommandFactory;
use river::VrError;

/// Write manual pages, one for each command
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  river man ~/.local/share/man/man1    then `man river`, `man river-vm`, ...")]
pub(crate) struct Args {
    /// The directory; created if it does not exist
    directory: PathBuf,
}

pub(crate) fn run<River: CommandFactory>(args: &Args) -> river::Result {
    let directory = &args.directory;
    fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(River::command(), directory))
        .map_err(|error| {
            VrError::msg(format!("cannot write manual pages to {}: {error}", directory.display()))
        })
}
