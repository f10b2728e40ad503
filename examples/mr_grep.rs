//! Distributed grep: the lines that match a pattern, with file and position, in order.
//!
//! ```text
//! cargo run --release --example mr_grep -- 'fn main' examples
//! ```

use std::path::PathBuf;

use clap::Parser;
use regex::bytes::Regex;
use river::mapreduce::{Input, Job, MapContext, MapReduce, ReduceContext, Values};
use river::prelude::*;
use river::{ExitCode, VrError};
use river_examples::mr::Options;
use river_examples::print::print;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Print the lines that match a regular expression, with file and byte offset.
#[derive(Parser)]
#[command(after_help = "\
Examples:
  mr_grep 'fn main' examples            all lines with `fn main` below `examples`
  mr_grep '(?i)error' '/var/log/*.gz'   compressed files, upper and lower case")]
struct Args {
    #[command(flatten)]
    options: Options,
    /// The regular expression
    pattern: String,
    /// Files (also .gz and .zst), directories, or patterns such as 'src/**/*.rs'
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// The key of a line is its position, so the output has the order of the files.
#[derive(Serialize, Deserialize)]
struct Grep {
    /// Sent as text and compiled at the receiver.
    #[serde(serialize_with = "write", deserialize_with = "read")]
    pattern: Regex,
}

fn write<S: Serializer>(pattern: &Regex, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(pattern.as_str())
}

fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Regex, D::Error> {
    Regex::new(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

type Place = (String, u64);

impl MapReduce for Grep {
    type Input = Vec<u8>;
    type Key = Place;
    type Value = Vec<u8>;
    type OutKey = Place;
    type OutValue = Vec<u8>;

    fn map(&self, line: &[u8], out: &mut MapContext<'_, Place, Vec<u8>>) {
        if self.pattern.is_match(line) {
            let file = out.file().map(|file| file.to_string_lossy().into_owned()).unwrap_or_default();
            let offset = out.offset();
            out.emit((&file, offset), line);
            out.count("matching lines", 1);
        }
    }

    fn reduce(
        &self,
        place: (&str, u64),
        lines: &mut Values<'_, Vec<u8>>,
        out: &mut ReduceContext<'_, Place, Vec<u8>>,
    ) {
        while let Some(line) = lines.next_view() {
            out.emit(place, line);
        }
    }
}

fn program(vr: &Vr, args: &Args) -> river::Result {
    let pattern = Regex::new(&args.pattern).map_err(|error| VrError::msg(error.to_string()))?;
    let cluster = args.options.cluster(vr)?;
    let job = args.options.apply(Job::new(Grep { pattern }, Input::lines(&args.paths)));
    let outcome = job.reducers(1).run(&cluster)?;
    let found = outcome.collect()?;
    print(|out| {
        found.iter().try_for_each(|((file, offset), line)| {
            writeln!(out, "{file}:{offset}:{}", String::from_utf8_lossy(line))
        })
    })?;
    eprint!("{}", outcome.report());
    Ok(())
}

fn main() -> ExitCode {
    river::become_host_if_asked();
    let args = Args::parse();
    river::run(|vr| program(vr, &args))
}
