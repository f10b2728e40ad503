//! An inverted index: for each word, the files that contain it, and how often.
//!
//! ```text
//! cargo run --release --example mr_index -- README.md docs
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Parser;
use river::ExitCode;
use river::mapreduce::{Input, Job, MapContext, Output, ReduceContext, Values, job};
use river::prelude::*;
use river_examples::mr::Options;
use river_examples::print::print;

/// Make an index of files: a line for each word, with the files that contain it and how often.
#[derive(Parser)]
#[command(after_help = "\
Examples:
  mr_index README.md docs                 print the index
  mr_index --output index /usr/share/doc  write it to index/part-*, sorted as a whole")]
struct Args {
    #[command(flatten)]
    options: Options,
    /// Write the index to this directory, which must be new or empty, instead of printing it
    #[arg(long, value_name = "DIRECTORY")]
    output: Option<PathBuf>,
    /// Files (also .gz and .zst), directories, or patterns such as 'src/**/*.rs'
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// A record is a whole file.
fn map(text: &[u8], out: &mut MapContext<'_, String, (String, u64)>) {
    let text = String::from_utf8_lossy(text);
    let mut counts = BTreeMap::new();
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        *counts.entry(word.to_lowercase()).or_insert(0) += 1;
    }
    let file = out.file().map(|file| file.to_string_lossy().into_owned()).unwrap_or_default();
    for (word, count) in counts {
        out.emit(&word, (&file, count));
    }
}

/// Files come in the order of the input, which is sorted by name.
fn reduce(word: &str, files: &mut Values<'_, (String, u64)>, out: &mut ReduceContext<'_, String, String>) {
    let places: Vec<String> = files.map(|(file, count)| format!("{file}:{count}")).collect();
    out.emit(word, &places.join(" "));
}

fn program(vr: &Vr, args: &Args) -> river::Result {
    let cluster = args.options.cluster(vr)?;
    let index = Job::new(job(map, reduce), Input::<Vec<u8>>::whole_files(&args.paths)).sorted();
    let mut index = args.options.apply(index);
    if let Some(directory) = &args.output {
        index = index.output(Output::text(directory));
    }
    let outcome = index.run(&cluster)?;
    if args.output.is_none() {
        let index = outcome.collect()?;
        print(|out| index.iter().try_for_each(|(word, files)| writeln!(out, "{word}\t{files}")))?;
    }
    eprint!("{}", outcome.report());
    Ok(())
}

fn main() -> ExitCode {
    river::become_host_if_asked();
    let args = Args::parse();
    river::run(|vr| program(vr, &args))
}
