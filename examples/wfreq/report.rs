//! The output of `wfreq`.

use std::ffi::OsString;
use std::io::{self, Write};

use river_examples::files::Problem;
use river_examples::print::print;
use serde::Serialize;

/// The result of a count.
pub(crate) struct Report {
    /// VMs at the beginning.
    pub(crate) vms: usize,
    /// Those of them that were lost.
    pub(crate) lost: usize,
    /// Files that were counted.
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    pub(crate) words: u64,
    pub(crate) distinct: usize,
    /// The most frequent words, most frequent first.
    pub(crate) top: Vec<(Vec<u8>, u64)>,
    pub(crate) seconds: f64,
}

#[derive(Serialize)]
struct Json<'a> {
    vms: usize,
    lost: usize,
    files: usize,
    bytes: u64,
    words: u64,
    distinct: usize,
    seconds: f64,
    top: Vec<(String, u64)>,
    unreadable: Vec<Unreadable<'a>>,
}

#[derive(Serialize)]
struct Unreadable<'a> {
    path: String,
    why: &'a str,
}

const NO_MATCH: &str = "no such file or directory, and no file matches it as a pattern";

impl Report {
    /// Prints tables for people.
    pub(crate) fn print_tables(&self) -> io::Result<()> {
        print(|out| self.write_tables(out))
    }

    fn write_tables(&self, out: &mut dyn Write) -> io::Result<()> {
        let width = self.top.first().map_or(0, |(_, count)| thousands(*count).len());
        for (word, count) in &self.top {
            writeln!(out, "{:>width$}  {}", thousands(*count), printable(word))?;
        }
        if !self.top.is_empty() {
            writeln!(out)?;
        }
        let rate = self.bytes as f64 / 1e6 / self.seconds.max(1e-9);
        let vms = if self.lost > 0 { format!("VMs ({} lost)", self.lost) } else { "VMs".into() };
        let totals = [
            ("files", thousands(self.files as u64)),
            ("bytes", thousands(self.bytes)),
            ("words", thousands(self.words)),
            ("distinct words", thousands(self.distinct as u64)),
            (vms.as_str(), self.vms.to_string()),
            ("seconds", format!("{:.3}", self.seconds)),
            ("MB/s", format!("{rate:.0}")),
        ];
        let width = totals.iter().map(|(_, value)| value.len()).max().unwrap_or(0);
        for (name, value) in totals {
            writeln!(out, "{value:>width$}  {name}")?;
        }
        Ok(())
    }

    /// Prints one JSON object. Bytes that are not UTF-8 are shown as U+FFFD.
    pub(crate) fn print_json(&self, unmatched: &[OsString], problems: &[Problem]) -> io::Result<()> {
        let unmatched =
            unmatched.iter().map(|path| Unreadable { path: path.to_string_lossy().into(), why: NO_MATCH });
        let unread = problems
            .iter()
            .map(|problem| Unreadable { path: problem.path.to_string_lossy().into(), why: &problem.why });
        let json = Json {
            vms: self.vms,
            lost: self.lost,
            files: self.files,
            bytes: self.bytes,
            words: self.words,
            distinct: self.distinct,
            seconds: self.seconds,
            top: self.top.iter().map(|(word, n)| (String::from_utf8_lossy(word).into(), *n)).collect(),
            unreadable: unmatched.chain(unread).collect(),
        };
        print(|out| {
            serde_json::to_writer(&mut *out, &json)?;
            writeln!(out)
        })
    }
}

/// Lists on stderr what could not be counted.
pub(crate) fn problems(unmatched: &[OsString], unreadable: &[Problem]) {
    for path in unmatched {
        eprintln!("not counted: {}: {NO_MATCH}", path.to_string_lossy());
    }
    for problem in unreadable {
        eprintln!("not counted: {problem}");
    }
}

/// A word in a form that is safe for a terminal: control characters and bytes that are not UTF-8 are escaped.
fn printable(word: &[u8]) -> String {
    const LONGEST: usize = 60;
    let mut text = String::new();
    for chunk in word.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
        }
        chunk.invalid().iter().for_each(|byte| text += &format!("\\x{byte:02x}"));
        if text.len() > LONGEST {
            text.truncate(text.floor_char_boundary(LONGEST));
            text += "…";
            break;
        }
    }
    text
}

/// Formats 1234567 as 1,234,567.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    let mut text = digits[..first].to_owned();
    for group in digits.as_bytes()[first..].chunks(3) {
        if !text.is_empty() {
            text.push(',');
        }
        text.extend(group.iter().map(|digit| char::from(*digit)));
    }
    text
}
