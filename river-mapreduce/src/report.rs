//! Statistics of a job.

use std::fmt;
use std::time::Duration;

use crate::counters::Counters;

/// The statistics of a job. `Display` formats them as a table.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// The number of map tasks.
    pub maps: usize,
    /// Records read.
    pub input_records: u64,
    /// Bytes of these records.
    pub input_bytes: u64,
    /// Records that the map functions emitted.
    pub emitted: u64,
    /// Records that were sent to the reducers: fewer than emitted, if there is a combiner.
    pub shuffled_records: u64,
    /// Bytes of these records.
    pub shuffled_bytes: u64,
    /// Bytes that did not fit into memory and were spilled to temporary files.
    pub spilled_bytes: u64,
    /// The input of each reducer.
    pub reducers: Vec<Reducer>,
    /// Records of the output.
    pub output_records: u64,
    /// Bytes of the output.
    pub output_bytes: u64,
    /// The time from the start until the last map task was done for the first time.
    pub map_time: Duration,
    /// The time from then until the end: shuffle, merge and reduce.
    pub reduce_time: Duration,
    /// Records that were skipped because they are malformed or user code panicked on them: position and reason.
    pub skipped: Vec<(String, String)>,
    /// Second attempts at stragglers.
    pub reissued: u64,
    /// VMs that were lost: name and reason.
    pub lost: Vec<(String, String)>,
    /// The counters of user code.
    pub counters: Counters,
    /// Settings of the job that could not be kept, as text.
    pub warnings: Vec<String>,
}

/// The input of a reducer.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Reducer {
    /// Records.
    pub records: u64,
    /// Distinct keys.
    pub keys: u64,
    /// The key with the most records, as text, truncated if it is long.
    pub largest_key: String,
    /// The number of its records.
    pub largest_records: u64,
}

impl Report {
    /// A key with so many records that it keeps one reducer busy while others are idle: the key, and its share of all
    /// records. `None` for small jobs.
    #[must_use]
    pub fn dominating_key(&self) -> Option<(&str, f64)> {
        const SMALL: u64 = 10_000;
        let all: u64 = self.reducers.iter().map(|reducer| reducer.records).sum();
        let largest = self.reducers.iter().max_by_key(|reducer| reducer.largest_records)?;
        let fair = 2.0 / self.reducers.len() as f64;
        let share = largest.largest_records as f64 / all.max(1) as f64;
        let dominates = all >= SMALL && share > fair.clamp(0.1, 0.5);
        (dominates && self.reducers.len() > 1).then_some((largest.largest_key.as_str(), share))
    }

    /// The number of records of the largest reducer relative to the average: 1 means even.
    #[must_use]
    pub fn skew(&self) -> f64 {
        let all: u64 = self.reducers.iter().map(|reducer| reducer.records).sum();
        let most = self.reducers.iter().map(|reducer| reducer.records).max().unwrap_or_default();
        if all == 0 { 1.0 } else { most as f64 * self.reducers.len() as f64 / all as f64 }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>,
                   name: &str,
                   tasks: String,
                   records: u64,
                   bytes: u64,
                   rest: String| {
            writeln!(f, "{name:<9}{tasks:>7}{records:>15}{:>11}  {rest}", human(bytes))
        };
        writeln!(f, "{:<9}{:>7}{:>15}{:>11}", "", "tasks", "records", "bytes")?;
        let maps = format!("{:.3} s, {} emitted", self.map_time.as_secs_f64(), self.emitted);
        row(f, "map", self.maps.to_string(), self.input_records, self.input_bytes, maps)?;
        let spilled = match self.spilled_bytes {
            0 => "nothing spilled".to_owned(),
            bytes => format!("{} spilled", human(bytes)),
        };
        row(f, "shuffle", String::new(), self.shuffled_records, self.shuffled_bytes, spilled)?;
        let reduce = format!("{:.3} s, skew {:.2}", self.reduce_time.as_secs_f64(), self.skew());
        row(f, "reduce", self.reducers.len().to_string(), self.output_records, self.output_bytes, reduce)?;
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        if let Some((key, share)) = self.dominating_key() {
            writeln!(f, "warning: the key {key:?} has {:.0} % of all records", share * 100.0)?;
        }
        for (vm, why) in &self.lost {
            writeln!(f, "lost VM {vm}: {why}")?;
        }
        if self.reissued > 0 {
            writeln!(f, "second attempts at slow tasks: {}", self.reissued)?;
        }
        if let Some((place, why)) = self.skipped.first() {
            writeln!(f, "skipped records: {}; the first at {place}: {why}", self.skipped.len())?;
        }
        if !self.counters.is_empty() {
            write!(f, "counters\n{}", self.counters)?;
        }
        Ok(())
    }
}

/// Formats a number of bytes with a unit.
pub(crate) fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reducer(records: u64, largest_records: u64) -> Reducer {
        Reducer { records, keys: 10, largest_key: "the".into(), largest_records }
    }

    #[test]
    fn one_key_with_most_records_is_named() {
        let even = Report { reducers: vec![reducer(50_000, 100); 4], ..Report::default() };
        assert_eq!((even.dominating_key(), even.skew()), (None, 1.0));
        let mut skewed = even.clone();
        skewed.reducers.push(reducer(800_000, 790_000));
        assert_eq!(skewed.dominating_key(), Some(("the", 0.79)));
        assert!(skewed.to_string().contains("warning: the key \"the\" has 79 % of all records"), "{skewed}");
        assert!(skewed.skew() > 3.9);
    }

    #[test]
    fn bytes_are_readable() {
        assert_eq!([0, 1023, 1536, 5 << 30].map(human), ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
    }
}
