//! The progress of a farm.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// The argument of a progress callback, which is called whenever items were finished or a VM joined or was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// How many items are done. May decrease in a `forkfold`, when a VM dies with the items that it had folded.
    pub done_items: u64,
    /// How many items there are, if known.
    pub total_items: Option<u64>,
    /// How many VMs are working.
    pub vms: usize,
    /// How many VMs were lost.
    pub lost: usize,
    /// How long the farm has been working.
    pub elapsed: Duration,
}

impl Progress {
    /// Items per second, on average.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.done_items as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// How long the rest will take at that rate; `None` if the total is unknown, or nothing is done yet.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        let left = self.total_items?.saturating_sub(self.done_items);
        (self.done_items > 0)
            .then(|| Duration::try_from_secs_f64(left as f64 / self.rate()).unwrap_or(Duration::MAX))
    }
}

/// A progress bar on stderr, for `on_progress`: items done, rate, remaining time and VMs. Silent if stderr is not a
/// terminal, and removed when the farm ends.
///
/// ```no_run
/// # fn example(vms: river_trickle::Vms<'_>) -> river_core::Result {
/// use river_trickle::progress_bar;
///
/// let squares = vms.forkgen(|x: u64| x * x, 0..1_000_000, 100).on_progress(progress_bar("squaring")).in_order()?;
/// # Ok(()) }
/// ```
pub fn progress_bar(title: &'static str) -> impl FnMut(Progress) {
    let mut bar: Option<Bar> = None;
    move |progress| bar.get_or_insert_with(|| Bar::new(title, progress.total_items)).show(progress)
}

struct Bar(ProgressBar);

impl Bar {
    fn new(title: &'static str, total: Option<u64>) -> Self {
        let template = if total.is_some() {
            "{prefix} [{bar:30}] {human_pos}/{human_len}, {per_sec}, {eta} left{msg}"
        } else {
            "{prefix} {spinner} {human_pos}, {per_sec}{msg}"
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
        Self(bar.with_style(style.progress_chars("#>-")).with_prefix(title))
    }

    fn show(&mut self, progress: Progress) {
        self.0.set_position(progress.done_items);
        self.0.set_message(format!(", {} {}", progress.vms, if progress.vms == 1 { "VM" } else { "VMs" }));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Prints a notice to stderr. It is no error if stderr is closed.
pub(crate) fn say(text: fmt::Arguments<'_>) {
    let _ = io::stderr().write_all(format!("[trickle: {text}]\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_takes_as_long_as_what_is_done_suggests() {
        let elapsed = Duration::from_secs(10);
        let progress = Progress { done_items: 50, total_items: Some(200), vms: 2, lost: 0, elapsed };
        assert_eq!((progress.rate(), progress.remaining()), (5.0, Some(Duration::from_secs(30))));
        assert_eq!(Progress { total_items: None, ..progress }.remaining(), None);
        assert_eq!(Progress { done_items: 0, ..progress }.remaining(), None);
    }
}
