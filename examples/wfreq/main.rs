//! Word frequency, Example 7 of the Trickle paper: which words occur in many files, and how often, counted on all
//! virtual machines that can be found.
//!
//! ```text
//! cargo run --release --example wfreq -- --top 10 /usr/share/doc
//! ```

mod report;

use std::ffi::OsString;
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use river::prelude::*;
use river::{ExitCode, VrError};
use river_examples::{farm, files};

/// Larger files are cut into pieces of this size, so that all VMs get a share of them.
const SPLIT: u64 = 8 << 20;

/// Count the words of files on all virtual machines that can be found; if none is found, start some.
///
/// Words are separated by white space, byte for byte, whatever the encoding. Directories are walked; symbolic links are
/// not followed.
#[derive(Parser)]
#[command(after_help = "\
Examples:
  wfreq /usr/share/doc                        a directory and all below it
  wfreq --vms 2 --top 5 README.md docs        exactly two VMs
  wfreq --json 'logs/**/*.log' | jq .words    a pattern, quoted so that the shell leaves it alone

Exit status: 0 if all was counted, 1 if some file could not be read or nothing could be counted, 2 if the command
line is invalid.")]
struct Args {
    /// How many VMs to use [default: all that are found; if none is, one local VM per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    vms: Option<u16>,
    /// How many files to give a VM at a time
    #[arg(long, value_name = "FILES", default_value = "100", value_parser = clap::value_parser!(u32).range(1..))]
    chunk: u32,
    /// How many of the most frequent words to show
    #[arg(long, value_name = "WORDS", default_value = "20")]
    top: usize,
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
    /// Log what happens to VMs and images (-vv: everything)
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Files, directories, or patterns such as 'src/**/*.rs'
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<OsString>,
}

fn program(vr: &Vr, args: &Args) -> river::Result<ExitCode> {
    river::log_to_stderr(args.verbose);
    let start = Instant::now();
    let found = files::find(&args.paths, SPLIT);
    if found.files == 0 {
        report::problems(&found.unmatched, &found.unreadable);
        return Err(VrError::msg(
            "no file to count: name files, directories that have some, or quoted patterns",
        ));
    }
    let vms = trickle::connect_or_start(vr, args.vms.map(usize::from))?;
    let bar = progress_bar(found.pieces.len() as u64);
    let mut lost = 0;
    let counted = farm::count(&vms, found.pieces, args.chunk as usize, |progress| {
        bar.set_position(progress.done_items);
        lost = progress.lost;
    })?;
    bar.finish_and_clear();
    let mut problems = found.unreadable;
    let mut unread: Vec<_> = counted.unreadable.iter().map(|problem| &problem.path).collect();
    unread.dedup();
    let result = report::Report {
        vms: vms.len(),
        lost,
        files: found.files - unread.len(),
        bytes: counted.bytes,
        words: counted.counts.total(),
        distinct: counted.counts.distinct(),
        top: counted.counts.top(args.top),
        seconds: start.elapsed().as_secs_f64(),
    };
    problems.extend(counted.unreadable);
    problems.sort_unstable();
    problems.dedup();
    if args.json {
        result.print_json(&found.unmatched, &problems)?;
    } else {
        result.print_tables()?;
        report::problems(&found.unmatched, &problems);
    }
    let all = problems.is_empty() && found.unmatched.is_empty();
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Shows the progress of the count on a terminal; silent otherwise.
fn progress_bar(pieces: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("counting {wide_bar} {percent}%  {per_sec} files  {eta} left");
    let bar = ProgressBar::new(pieces).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn main() -> ExitCode {
    river::become_host_if_asked();
    let args = Args::parse();
    river::run(|vr| program(vr, &args))
}
