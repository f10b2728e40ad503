//! What can go wrong with a job.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

use river_core::DeployError;

use crate::input::InputError;

/// How a VM was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// The VM.
    pub vm: String,
    /// The reason, such as "signal 9 (SIGKILL)".
    pub why: String,
}

/// Why a job failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// The input cannot be found, or cannot be split as requested.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The output directory cannot be used.
    #[error("output {}: {error}", path.display())]
    Output {
        /// The directory.
        path: PathBuf,
        /// The cause.
        error: Arc<std::io::Error>,
    },
    /// No VMs were available.
    #[error(transparent)]
    Deploy(#[from] DeployError),
    /// The settings of the job are invalid.
    #[error("{0}")]
    Settings(String),
    /// The program is recorded for checkpoints, which a cluster does not support.
    #[error(
        "a recoverable program cannot have a cluster: its workers share memory and files, which no record has. A job goes on \
         by itself when a VM dies: run the program without `--recoverable` and `--checkpoint`, or the job in one thread, as \
         vr.effect(|| job.run_serial()...)"
    )]
    Recoverable,
    /// A task failed in a way that a retry cannot help, or too often.
    #[error("{task} failed on VM {vm}: {why}")]
    Failed {
        /// The task, such as "map task 3".
        task: String,
        /// The VM on which it ran.
        vm: String,
        /// The reason, with the position of the record if there is one.
        why: String,
    },
    /// More records failed than may be skipped.
    #[error("{skipped} records were skipped, at most {allowed} may be; the first was {first}")]
    TooManySkipped {
        /// The number of records.
        skipped: u64,
        /// The number that the job allows.
        allowed: u64,
        /// Position and reason of the first.
        first: String,
    },
    /// VMs died whenever they ran this task.
    #[error("{task} was given up, every VM that ran it died:{}", list(deaths))]
    Deadly {
        /// The task.
        task: String,
        /// How they died.
        deaths: Vec<Death>,
    },
    /// All VMs are lost.
    #[error("no VM is left:{}", list(deaths))]
    NoVmLeft {
        /// How they were lost.
        deaths: Vec<Death>,
    },
    /// The records were written to a directory.
    #[error("the records were not collected: they are in {}", .0.display())]
    NotCollected(PathBuf),
    /// The program is ending.
    #[error("the program is ending")]
    Stopped,
}

impl JobError {
    /// Whether VMs were lost, so that the job may succeed on others.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        matches!(self, JobError::NoVmLeft { .. } | JobError::Deadly { .. })
    }
}

fn list(deaths: &[Death]) -> String {
    deaths.iter().fold(String::new(), |mut text, death| {
        let _ = write!(text, "\n  {}: {}", death.vm, death.why);
        text
    })
}
