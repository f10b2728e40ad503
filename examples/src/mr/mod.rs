//! Code that the MapReduce programs share: the jobs of `mr_wordcount` and `mr_sort`, and the options of all of them.

mod sort;
mod wordcount;

pub use sort::{Checked, RECORD, Sort, check, generate};
pub use wordcount::WordCount;

use clap::Args;
use river::core::Vr;
use river::mapreduce::{Cluster, Job, JobError, MapReduce};

/// Where and how a job runs.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// How many VMs to use [default: all that are found; if none is, one local VM per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub vms: Option<u16>,
    /// How much memory all VMs may use together; data that does not fit is spilled to temporary files. A VM needs 16
    /// MiB [default: half of what their machines have]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
    pub memory: Option<u64>,
    /// How many reduce tasks there are, and files in an output directory
    #[arg(long, value_name = "N", default_value = "16", value_parser = clap::value_parser!(u16).range(1..))]
    pub reducers: u16,
    /// Skip up to this many records that cannot be processed, and list them
    #[arg(long, value_name = "N", default_value = "0")]
    pub skip_bad_records: u64,
    /// Log what happens to VMs and images (-vv: everything)
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

impl Options {
    /// Connects to the VMs.
    ///
    /// # Errors
    /// If there are too few.
    pub fn cluster<'v>(&self, vr: &'v Vr) -> Result<Cluster<'v>, JobError> {
        river::log_to_stderr(self.verbose);
        Cluster::connect_or_start(vr, self.vms.map(usize::from))
    }

    /// Applies these options to a job.
    pub fn apply<M: MapReduce>(&self, job: Job<M>) -> Job<M> {
        let job = job.reducers(self.reducers.into()).skip_bad_records(self.skip_bad_records).show_progress();
        match self.memory {
            Some(mebibytes) => job.memory(mebibytes << 20),
            None => job,
        }
    }
}
