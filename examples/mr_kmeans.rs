//! k-means (Lloyd's algorithm): each iteration is a job that carries the centres, on the same VMs.
//!
//! ```text
//! cargo run --release --example mr_kmeans -- --points 1000000 --clusters 5
//! ```

use std::path::PathBuf;

use clap::Parser;
use river::mapreduce::{Combiner, Input, Job, MapContext, MapReduce, ReduceContext, Serde, Values};
use river::prelude::*;
use river::{ExitCode, VrError};
use river_examples::mr::Options;
use river_examples::print::print;
use serde::{Deserialize, Serialize};

/// Find clusters of points in the plane: from a file with two numbers per line, or of random points.
#[derive(Parser)]
#[command(after_help = "\
Examples:
  mr_kmeans --points 1000000             random points around five places
  mr_kmeans --clusters 3 points.txt      points of a file: `1.5 2.25`, one a line; or `1.5,2.25`")]
struct Args {
    #[command(flatten)]
    options: Options,
    /// How many clusters to look for
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u32).range(1..))]
    clusters: u32,
    /// How many random points to use if no file is given
    #[arg(long, default_value = "100000")]
    points: u64,
    /// Stop when no centre moves further than this
    #[arg(long, default_value = "0.001")]
    tolerance: f64,
    /// Stop after this many iterations
    #[arg(long, default_value = "50")]
    iterations: u32,
    /// A file with two numbers per line
    file: Option<PathBuf>,
}

type Point = (f64, f64);

/// The sum of a cluster's points, and their number.
type Sum = Serde<(f64, f64, u64)>;

/// One iteration: each point is assigned to the nearest centre; the mean of its points becomes the new centre.
#[derive(Serialize, Deserialize)]
struct KMeans {
    centres: Vec<Point>,
}

impl MapReduce for KMeans {
    type Input = Point;
    type Key = u32;
    type Value = Sum;
    type OutKey = u32;
    type OutValue = Sum;

    fn map(&self, (x, y): Point, out: &mut MapContext<'_, u32, Sum>) {
        let distance = |&(a, b): &Point| (a - x).powi(2) + (b - y).powi(2);
        let nearest = (0..).zip(&self.centres).min_by(|a, b| distance(a.1).total_cmp(&distance(b.1)));
        if let Some((cluster, _)) = nearest {
            out.emit(cluster, Serde((x, y, 1)));
        }
    }

    fn combiner(&self) -> Option<Combiner<'_, Sum>> {
        Some(&|sum, more| add(sum, &more))
    }

    fn reduce(&self, cluster: u32, sums: &mut Values<'_, Sum>, out: &mut ReduceContext<'_, u32, Sum>) {
        let mut total = Serde((0.0, 0.0, 0));
        sums.for_each(|sum| add(&mut total, &sum));
        out.emit(cluster, total);
    }
}

fn add(sum: &mut Sum, more: &Sum) {
    sum.0 = (sum.0.0 + more.0.0, sum.0.1 + more.0.1, sum.0.2 + more.0.2);
}

fn parse(line: &str) -> Option<Point> {
    let mut numbers = line.split([' ', '\t', ',']).filter(|word| !word.is_empty()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Random points around places on a circle.
fn random(count: u64, clusters: u32) -> Vec<Point> {
    let mut state = 0x5eed_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    let point = |n: u64| {
        let angle = (n % u64::from(clusters)) as f64 * std::f64::consts::TAU / f64::from(clusters);
        let mut noise = || (0..4).map(|_| uniform() - 0.5).sum::<f64>();
        (10.0 * angle.cos() + noise(), 10.0 * angle.sin() + noise())
    };
    (0..count).map(point).collect()
}

fn program(vr: &Vr, args: &Args) -> river::Result {
    let points = match &args.file {
        None => random(args.points, args.clusters),
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .map_err(|error| VrError::msg(format!("{}: {error}", file.display())))?;
            let point = |(number, line): (usize, &str)| {
                let what = || format!("{}, line {number}: not two numbers: {line:?}", file.display());
                parse(line).ok_or_else(|| VrError::msg(what()))
            };
            (1..).zip(text.lines()).map(point).collect::<Result<_, _>>()?
        }
    };
    if points.len() < args.clusters as usize {
        return Err(VrError::msg("there are fewer points than clusters"));
    }
    let cluster = args.options.cluster(vr)?;
    // Spread over the input, as a substitute for a random choice.
    let step = points.len() / args.clusters as usize;
    let mut centres: Vec<Point> = (0..args.clusters as usize).map(|i| points[i * step + i % step]).collect();
    let input = Input::items(points);
    let mut iterations = 0;
    loop {
        let job = Job::new(KMeans { centres: centres.clone() }, input.clone());
        let sums = args.options.apply(job).run(&cluster)?.collect()?;
        iterations += 1;
        let mut moved = 0.0_f64;
        for (index, Serde((x, y, count))) in &sums {
            let new = (x / *count as f64, y / *count as f64);
            let old = std::mem::replace(&mut centres[*index as usize], new);
            moved = moved.max((new.0 - old.0).hypot(new.1 - old.1));
        }
        eprintln!("iteration {iterations}: the centres moved by at most {moved:.6}");
        if moved <= args.tolerance || iterations >= args.iterations {
            return Ok(print(|out| {
                for (index, sum) in sums {
                    let (x, y) = centres[index as usize];
                    writeln!(out, "cluster {index}: centre ({x:.3}, {y:.3}), {} points", sum.2)?;
                }
                writeln!(out, "{iterations} iterations")
            })?);
        }
    }
}

fn main() -> ExitCode {
    river::become_host_if_asked();
    let args = Args::parse();
    river::run(|vr| program(vr, &args))
}
