//! `PageRank`: each iteration is a job whose input is the output of the previous one, on the same VMs.
//!
//! ```text
//! cargo run --release --example mr_pagerank -- --pages 100000
//! ```

use std::path::Path;

use clap::Parser;
use river::ExitCode;
use river::mapreduce::{
    Cluster, Input, Job, JobError, MapContext, MapReduce, Output, ReduceContext, Serde, Values,
};
use river::prelude::*;
use river_examples::mr::Options;
use river_examples::print::print;
use serde::{Deserialize, Serialize};

/// Rank the pages of a random web, in which a few pages have most of the links.
#[derive(Parser)]
#[command(after_help = "\
Example:
  mr_pagerank --pages 1000000 --memory 100   a million pages, with 100 MiB for all VMs together")]
struct Args {
    #[command(flatten)]
    options: Options,
    /// How many pages the web has
    #[arg(long, default_value = "10000", value_parser = clap::value_parser!(u32).range(1..))]
    pages: u32,
    /// Stop when the sum of all changes is less than this
    #[arg(long, default_value = "0.001")]
    tolerance: f64,
    /// Stop after this many iterations
    #[arg(long, default_value = "50")]
    iterations: u32,
}

/// The probability that the random surfer follows a link (Brin and Page, 1998).
const DAMPING: f64 = 0.85;
/// Counters are integers, so ranks are counted in units of one over this.
const PARTS: f64 = 1e12;
const CHANGE: &str = "change of ranks (1e-12)";
const DANGLING: &str = "rank of pages without links (1e-12)";

/// A page: its rank, and the pages that it links to.
type Page = (f64, Serde<Vec<u32>>);

/// A message to a page in an iteration.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Message {
    /// From the page itself: its rank so far and its links.
    Page(f64, Vec<u32>),
    /// From a page that links to it: a share of that page's rank.
    Rank(f64),
}

/// Generates the web.
#[derive(Serialize, Deserialize)]
struct Web {
    pages: u32,
}

impl MapReduce for Web {
    type Input = u64;
    type Key = u32;
    type Value = Serde<Vec<u32>>;
    type OutKey = u32;
    type OutValue = Page;

    fn map(&self, page: u64, out: &mut MapContext<'_, u32, Serde<Vec<u32>>>) {
        let mut random = page.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let links = (0..page % 11).map(|_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let uniform = (random >> 11) as f64 / (1_u64 << 53) as f64;
            (uniform.powi(3) * f64::from(self.pages)) as u32
        });
        out.emit(page as u32, Serde(links.collect()));
    }

    fn reduce(
        &self,
        page: u32,
        links: &mut Values<'_, Serde<Vec<u32>>>,
        out: &mut ReduceContext<'_, u32, Page>,
    ) {
        for links in links {
            out.emit(page, (1.0 / f64::from(self.pages), links));
        }
    }
}

/// One iteration.
#[derive(Serialize, Deserialize)]
struct PageRank {
    pages: u32,
    /// The total rank of the pages without links, which is distributed to all pages.
    dangling: f64,
}

impl MapReduce for PageRank {
    type Input = (u32, Page);
    type Key = u32;
    type Value = Serde<Message>;
    type OutKey = u32;
    type OutValue = Page;

    fn map(
        &self,
        (page, (rank, Serde(links))): (u32, (f64, Serde<Vec<u32>>)),
        out: &mut MapContext<'_, u32, Serde<Message>>,
    ) {
        for &link in &links {
            out.emit(link, Serde(Message::Rank(rank / links.len() as f64)));
        }
        out.emit(page, Serde(Message::Page(rank, links)));
    }

    fn reduce(
        &self,
        page: u32,
        told: &mut Values<'_, Serde<Message>>,
        out: &mut ReduceContext<'_, u32, Page>,
    ) {
        let (mut before, mut links, mut inbound) = (0.0, Vec::new(), 0.0);
        for message in told {
            match message.0 {
                Message::Page(rank, to) => (before, links) = (rank, to),
                Message::Rank(rank) => inbound += rank,
            }
        }
        let pages = f64::from(self.pages);
        let rank = (1.0 - DAMPING) / pages + DAMPING * (inbound + self.dangling / pages);
        out.count(CHANGE, ((rank - before).abs() * PARTS) as u64);
        if links.is_empty() {
            out.count(DANGLING, (rank * PARTS) as u64);
        }
        out.emit(page, (rank, Serde(links)));
    }
}

fn program(vr: &Vr, args: &Args) -> river::Result {
    let cluster = args.options.cluster(vr)?;
    let scratch = tempfile::tempdir()?;
    let directory = |iteration: u32| scratch.path().join(iteration.to_string());
    let web = Job::new(Web { pages: args.pages }, Input::generate(args.pages.into()));
    args.options.apply(web).output(Output::records(directory(0))).run(&cluster)?;

    // Every eleventh page has no links.
    let mut dangling = f64::from(args.pages.div_ceil(11)) / f64::from(args.pages);
    let (mut iterations, mut change) = (0, f64::MAX);
    while iterations < args.iterations && change > args.tolerance {
        let job = Job::new(PageRank { pages: args.pages, dangling }, Input::records([directory(iterations)]));
        iterations += 1;
        let outcome = args.options.apply(job).output(Output::records(directory(iterations))).run(&cluster)?;
        std::fs::remove_dir_all(directory(iterations - 1))?;
        change = outcome.counters().get(CHANGE) as f64 / PARTS;
        dangling = outcome.counters().get(DANGLING) as f64 / PARTS;
        eprintln!("iteration {iterations}: the ranks changed by {change:.6}");
    }
    let best = best(&cluster, &directory(iterations))?;
    Ok(print(|out| {
        best.iter().try_for_each(|(page, rank)| writeln!(out, "{rank:.6}  page {page}"))?;
        writeln!(out, "{} pages, {iterations} iterations", args.pages)
    })?)
}

/// The ten pages with the highest ranks.
fn best(cluster: &Cluster<'_>, pages: &Path) -> Result<Vec<(u32, f64)>, JobError> {
    let highest_first = river::mapreduce::job(
        |(page, (rank, _)): (u32, (f64, Serde<Vec<u32>>)),
         out: &mut MapContext<'_, std::cmp::Reverse<f64>, u32>| {
            out.emit(std::cmp::Reverse(rank), page);
        },
        |rank: std::cmp::Reverse<f64>, pages: &mut Values<'_, u32>, out: &mut ReduceContext<'_, u32, f64>| {
            pages.for_each(|page| out.emit(page, rank.0));
        },
    );
    let job = Job::new(highest_first, Input::<(u32, Page)>::records([pages]));
    let mut ranked = job.reducers(1).run(cluster)?.collect()?;
    ranked.truncate(10);
    Ok(ranked)
}

fn main() -> ExitCode {
    river::become_host_if_asked();
    let args = Args::parse();
    river::run(|vr| program(vr, &args))
}
