//! Counts how often each word occurs: the first example of the MapReduce paper.
//!
//! ```text
//! cargo run --release --example mr_wordcount -- --top 10 README.md docs
//! ```

use std::path::PathBuf;

use clap::Parser;
use river::ExitCode;
use river::mapreduce::{Input, Job, Output};
use river::prelude::*;
use river_examples::mr::{Options, WordCount};
use river_examples::print::print;

/// Count words on all virtual machines that can be found; if none is found, start some.
#[derive(Parser)]
#[command(after_help = "\
Examples:
  mr_wordcount README.md docs                   a file, and a directory with all below it
  mr_wordcount --output counts 'logs/**/*.gz'   compressed files; the counts go to counts/part-*
  mr_wordcount --vms 2 --memory 100 /usr/share  two VMs that use no more than 100 MiB together")]
struct Args {
    #[command(flatten)]
    options: Options,
    /// How many of the most frequent words to show
    #[arg(long, value_name = "WORDS", default_value = "20")]
    top: usize,
    /// Write all counts to this directory, which must be new or empty, and show none
    #[arg(long, value_name = "DIRECTORY")]
    output: Option<PathBuf>,
    /// Files (also .gz and .zst), directories, or patterns such as 'src/**/*.rs'
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

fn program(vr: &Vr, args: &Args) -> river::Result {
    let cluster = args.options.cluster(vr)?;
    let mut job = args.options.apply(Job::new(WordCount, Input::blocks(&args.paths)));
    if let Some(directory) = &args.output {
        job = job.output(Output::text(directory));
    }
    let outcome = job.run(&cluster)?;
    eprint!("{}", outcome.report());
    if args.output.is_none() {
        let mut counts = outcome.collect()?;
        counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let mut top = counts.iter().take(args.top);
        print(|out| {
            top.try_for_each(|(word, n)| writeln!(out, "{n:>12}  {}", String::from_utf8_lossy(word)))
        })?;
    }
    Ok(())
}

fn main() -> ExitCode {
    river::become_host_if_asked();
    let args = Args::parse();
    river::run(|vr| program(vr, &args))
}
