//! The progress bar.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// The progress of a job.
pub(crate) enum Stage {
    Map { done: usize, of: usize, records: u64 },
    Reduce { done: usize, of: usize },
}

/// A bar for each stage, on a terminal; silent otherwise.
#[derive(Debug)]
pub(crate) struct Bar {
    bar: ProgressBar,
}

impl Bar {
    pub(crate) fn new(shown: bool) -> Self {
        let bar = if shown { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{prefix:<15} {wide_bar} {pos}/{len} tasks  {msg}");
        let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        if shown {
            bar.enable_steady_tick(Duration::from_millis(100));
        }
        Self { bar }
    }

    pub(crate) fn is_hidden(&self) -> bool {
        self.bar.is_hidden()
    }

    pub(crate) fn show(&self, stage: &Stage, vms: usize) {
        let (name, done, of, more) = match stage {
            Stage::Map { done, of, records } => ("map", done, of, format!("{records} records, ")),
            Stage::Reduce { done, of } => ("shuffle, reduce", done, of, String::new()),
        };
        self.bar.set_prefix(name);
        self.bar.set_length(*of as u64);
        self.bar.set_position(*done as u64);
        self.bar.set_message(format!("{more}{vms} VMs"));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
