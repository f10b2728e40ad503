//! Tables as the benchmarks print them, with the information needed to compare them; and the same as JSON for `report`.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// The environment variable that names a file to which every printed [`Table`] is appended, as a line of JSON.
pub const RECORD: &str = "RIVER_BENCH_RECORD";

/// The extension of a file beside [`RECORD`], to which every line of [`left_out`] is appended.
pub const LEFT_OUT: &str = "left-out";

/// Prints that something is not measured, and why; `report` puts it on the page.
pub fn left_out(what: &str, why: impl std::fmt::Display) {
    let line = format!("{what}: {why}\n");
    eprint!("left out: {line}");
    let Some(file) = std::env::var_os(RECORD) else { return };
    let file = Path::new(&file).with_extension(LEFT_OUT);
    let written = OpenOptions::new().append(true).create(true).open(file);
    if let Err(error) = written.and_then(|mut file| file.write_all(line.as_bytes())) {
        eprintln!("that cannot be recorded: {error}");
    }
}

/// Median and spread (smallest, largest) of some numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The smallest.
    pub min: f64,
    /// The median.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Computes them for these numbers; all zero if there are none.
    #[must_use]
    pub fn of(mut numbers: Vec<f64>) -> Self {
        numbers.sort_by(f64::total_cmp);
        let at = |index: usize| numbers.get(index).copied().unwrap_or_default();
        let last = numbers.len().saturating_sub(1);
        // Of an even count, halfway between the two in the middle.
        let median = f64::midpoint(at(last / 2), at(last.div_ceil(2)));
        Self { min: at(0), median, max: at(last) }
    }
}

impl std::fmt::Display for Spread {
    /// Formats as `median (min..max)`, with the precision of the formatter, 2 by default.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = f.precision().unwrap_or(2);
        write!(f, "{:.digits$} ({:.digits$}..{:.digits$})", self.median, self.min, self.max)
    }
}

impl From<f64> for Spread {
    /// The spread of a single number.
    fn from(number: f64) -> Self {
        Self { min: number, median: number, max: number }
    }
}

/// A table: what was measured in columns, what it was measured of in rows.
///
/// ```
/// use river_benches::table::{Spread, Table};
///
/// let mut table = Table::new("latency, one way", "size").column("River", "us", 2).column("ratio", "", 1);
/// table.sized(8, [Some(Spread::of(vec![0.5, 0.7, 0.6])), Some(2.0.into())]);
/// table.sized(1024, [Some(1.5.into()), None]);
/// assert_eq!(
///     table.to_string(),
///     "latency, one way\n\
///      size           River, us  ratio\n\
///      8 B    0.60 (0.50..0.70)    2.0\n\
///      1 KiB               1.50      -\n"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// The subject of the whole table: constant from run to run, as files are named after it.
    pub title: String,
    /// Further information, such as how much was measured; may be empty.
    #[serde(default)]
    pub note: String,
    /// The heading of the rows, such as `size`; may be empty.
    pub rows_are: String,
    /// The quantities that were measured.
    pub columns: Vec<Column>,
    /// The things that they were measured of.
    pub rows: Vec<Row>,
}

/// A column of a [`Table`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Its heading.
    pub name: String,
    /// `us`, `GB/s`; empty for a ratio.
    pub unit: String,
    /// The number of digits after the decimal point.
    pub digits: usize,
}

/// A row of a [`Table`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its heading.
    pub name: String,
    /// The number that the heading stands for, if any: a size in bytes.
    pub x: Option<f64>,
    /// The measurement in each column, if there is one.
    pub cells: Vec<Option<Spread>>,
}

impl Table {
    /// A table without columns and rows.
    #[must_use]
    pub fn new(title: impl Into<String>, rows_are: &str) -> Self {
        Self {
            title: title.into(),
            note: String::new(),
            rows_are: rows_are.into(),
            columns: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Sets the note.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// Adds a column. A ratio has no unit.
    #[must_use]
    pub fn column(mut self, name: impl Into<String>, unit: &str, digits: usize) -> Self {
        self.columns.push(Column { name: name.into(), unit: unit.into(), digits });
        self
    }

    /// Adds a row with a name.
    pub fn row(&mut self, name: impl Into<String>, cells: impl IntoIterator<Item = Option<Spread>>) {
        self.rows.push(Row { name: name.into(), x: None, cells: cells.into_iter().collect() });
    }

    /// Adds a row for a size in bytes.
    pub fn sized(&mut self, size: usize, cells: impl IntoIterator<Item = Option<Spread>>) {
        self.rows.push(Row { name: bytes(size), x: Some(size as f64), cells: cells.into_iter().collect() });
    }

    /// Prints the table to stdout; if [`RECORD`] names a file, also appends it there.
    ///
    /// # Errors
    /// If it cannot be written to that file.
    pub fn print(&self) -> io::Result<()> {
        println!("\n{self}");
        let Some(file) = std::env::var_os(RECORD) else { return Ok(()) };
        let line = serde_json::to_string(self)? + "\n";
        OpenOptions::new().append(true).create(true).open(file)?.write_all(line.as_bytes())
    }

    /// All cells as text, including the headings.
    #[must_use]
    pub fn texts(&self) -> Vec<Vec<String>> {
        let headings = std::iter::once(self.rows_are.clone()).chain(self.columns.iter().map(Column::heading));
        let row = |row: &Row| {
            let cell = |(index, column): (usize, &Column)| match row.cells.get(index) {
                Some(Some(spread)) if spread.min < spread.max => format!("{spread:.*}", column.digits),
                Some(Some(spread)) => format!("{:.*}", column.digits, spread.median),
                _ => "-".into(),
            };
            std::iter::once(row.name.clone()).chain(self.columns.iter().enumerate().map(cell)).collect()
        };
        std::iter::once(headings.collect()).chain(self.rows.iter().map(row)).collect()
    }
}

impl Column {
    /// The column's name with its unit.
    #[must_use]
    pub fn heading(&self) -> String {
        if self.unit.is_empty() { self.name.clone() } else { format!("{}, {}", self.name, self.unit) }
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let texts = self.texts();
        let mut widths = vec![0; self.columns.len() + 1];
        for row in &texts {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        writeln!(f, "{}", self.title)?;
        if !self.note.is_empty() {
            writeln!(f, "{}", self.note)?;
        }
        for row in &texts {
            let mut line = String::new();
            for (index, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                // Writing to a `String` cannot fail.
                let _ = if index == 0 {
                    write!(line, "{cell:<width$}")
                } else {
                    write!(line, "  {cell:>width$}")
                };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// The machine's load average over the last minute, to be printed with the results; 0 if unknown.
#[must_use]
pub fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or_default()
}

/// Formats a number of bytes: 8 B, 64 KiB.
#[must_use]
pub fn bytes(count: usize) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..0x10_0000 => format!("{} KiB", count >> 10),
        _ => format!("{} MiB", count >> 20),
    }
}

/// One line about the machine and the measured version: processor, cores, commit.
#[must_use]
pub fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {cores} cores, commit {}", model.map_or("unknown processor", str::trim), commit())
}

/// The commit that is checked out, according to git; "unknown" without it.
#[must_use]
pub fn commit() -> String {
    let commit = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let commit = commit.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    commit.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "unknown".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_count_is_halfway_between_the_two_in_the_middle() {
        for (numbers, median) in [
            (vec![], 0.0),
            (vec![3.0], 3.0),
            (vec![4.0, 1.0], 2.5),
            (vec![9.0, 1.0, 2.0], 2.0),
            (vec![8.0, 1.0, 2.0, 4.0], 3.0),
        ] {
            assert_eq!(Spread::of(numbers.clone()).median, median, "{numbers:?}");
        }
    }
}
