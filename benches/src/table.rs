//! Tables as the benchmarks print them, with what a reader needs to compare them.

use std::process::Command;

/// Median and spread (smallest, largest) of some numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The median: half are below.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of these numbers; all zero if there are none.
    #[must_use]
    pub fn of(mut numbers: Vec<f64>) -> Self {
        numbers.sort_by(f64::total_cmp);
        let at = |index: usize| numbers.get(index).copied().unwrap_or_default();
        Self { min: at(0), median: at(numbers.len() / 2), max: at(numbers.len().saturating_sub(1)) }
    }
}

impl std::fmt::Display for Spread {
    /// `median (min..max)`, with the precision of the formatter, 2 by default.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = f.precision().unwrap_or(2);
        let text = format!("{:.digits$} ({:.digits$}..{:.digits$})", self.median, self.min, self.max);
        // Not `pad`, which would take the precision for a length.
        write!(f, "{text:>width$}", width = f.width().unwrap_or_default())
    }
}

/// The machine's load average over the last minute, to be printed beside what was measured; 0 if it does not say.
#[must_use]
pub fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or_default()
}

/// A number of bytes as people write it: 8 B, 64 KiB.
#[must_use]
pub fn bytes(count: usize) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..0x10_0000 => format!("{} KiB", count >> 10),
        _ => format!("{} MiB", count >> 20),
    }
}

/// One line about where and what was measured: processor, cores, commit.
#[must_use]
pub fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let commit = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    format!(
        "{}, {cores} cores, commit {}",
        model.map_or("unknown processor", str::trim),
        commit.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".into())
    )
}
