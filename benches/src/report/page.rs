//! Writes everything as Markdown, with its pictures: files that depend only on the records.

use std::fmt::Write as _;

use super::host::Host;
use super::plot::plots;
use super::record::Record;
use crate::table::Table;

/// A file of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its name.
    pub name: String,
    /// Its content.
    pub text: String,
}

const HEAD: &str = "\
# What was measured

Written by `cargo run --release -p river-benches --bin report`, which runs every benchmark, with the peers that are installed, and
makes all that is here of what they print: do not edit it. The documentation of each benchmark, in `benches/benches`, says what it
does.

Numbers are medians, with the smallest and the largest in brackets. A *ratio* is the number of the first column divided by that of
the column before the ratio, except where rows are compared: in `farm` it is how many times slower than River through shared memory
a row is, and *ratio to rayon*, in `mapreduce` and `wfreq`, is a row's time divided by that of rayon. In `mpi_coll`, the column
*table* is what River does by default (it chooses an algorithm by a table), the columns before the peers are its algorithms, and
*times faster* is the time of the fastest peer divided by that of *table*.
";

/// Makes the whole report from all records: `README.md`, and its pictures.
///
/// # Errors
/// If a picture cannot be drawn.
pub fn pages(records: &[Record]) -> Result<Vec<Page>, Box<dyn std::error::Error>> {
    let (mut text, mut pages) = (HEAD.to_owned(), Vec::new());
    let mut hosts: Vec<&Host> = Vec::new();
    for record in records {
        if !hosts.contains(&&record.host) {
            hosts.push(&record.host);
        }
    }
    for (index, host) in hosts.iter().enumerate() {
        let title = if hosts.len() > 1 { format!("Machine {}", index + 1) } else { "The machine".into() };
        text += &format!("\n## {title}\n\n{}", describe(host));
    }
    for record in records {
        let on = match hosts.iter().position(|host| **host == record.host) {
            Some(index) if hosts.len() > 1 => format!(" on machine {}", index + 1),
            _ => String::new(),
        };
        let Record { bench, command, commit, day, seconds, load, .. } = record;
        let _ = write!(
            text,
            "\n## {bench}\n\n```text\n{command}\n```\n\nCommit {commit}, {day}{on}; it took {seconds} s; load average {:.2} \
             before, {:.2} after.\n",
            load.0, load.1
        );
        if !record.left_out.is_empty() {
            text += &format!("\nLeft out: {}.\n", record.left_out.join("; "));
        }
        for table in &record.tables {
            let note = if table.note.is_empty() { String::new() } else { format!("{}\n\n", table.note) };
            let _ = write!(text, "\n### {}\n\n{note}{}", table.title, markdown(table));
            for plot in plots(bench, table)? {
                let name = format!("{}.svg", slug(&format!("{bench} {} {}", table.title, plot.unit)));
                let _ = write!(text, "\n![{}, {}]({name})\n", table.title, plot.unit);
                pages.push(Page { name, text: plot.svg });
            }
        }
    }
    pages.push(Page { name: "README.md".into(), text });
    Ok(pages)
}

fn describe(host: &Host) -> String {
    let versions: Vec<String> =
        host.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    format!(
        "{}, {} cores, {} MiB of memory; {}.\n\n{}.\n",
        host.processor,
        host.cores,
        host.memory,
        host.system,
        versions.join(", ")
    )
}

fn markdown(table: &Table) -> String {
    let mut text = String::new();
    for (index, row) in table.texts().iter().enumerate() {
        // A name like `Vec<i64>` must not become a tag or several cells.
        let cells: Vec<String> =
            row.iter().map(|cell| cell.replace('<', "&lt;").replace('|', "\\|")).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
        if index == 0 {
            let _ = writeln!(text, "|---|{}", "--:|".repeat(row.len() - 1));
        }
    }
    text
}

/// A file name: lower-case letters and digits, separated by dashes.
fn slug(text: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;
    use crate::report::load_all;

    #[test]
    fn what_was_left_out_is_on_the_page() {
        let mut record =
            load_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/results/data")).unwrap().remove(0);
        record.left_out = vec!["Spark: python3 has no pyspark".into(), "Dask: it failed".into()];
        let pages = pages(&[record]).unwrap();
        let text = &pages.iter().find(|page| page.name == "README.md").unwrap().text;
        assert!(text.contains("\nLeft out: Spark: python3 has no pyspark; Dask: it failed.\n"), "{text}");
    }

    #[test]
    fn names_of_files_are_plain() {
        assert_eq!(slug("links Shm: latency, one way us"), "links-shm-latency-one-way-us");
        assert_eq!(slug("farm 1 MiB/s"), "farm-1-mib-s");
    }

    /// Nothing in `docs/results` is typed by hand, and nothing is left of an earlier report.
    #[test]
    fn the_report_in_the_repository_is_what_the_records_say() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/results");
        let pages = pages(&load_all(&directory.join("data")).unwrap()).unwrap();
        for page in &pages {
            let there = std::fs::read_to_string(directory.join(&page.name)).unwrap();
            assert!(
                there == page.text,
                "{}: run `cargo run -p river-benches --bin report -- --no-run`",
                page.name
            );
        }
        let names: BTreeSet<String> = pages.into_iter().map(|page| page.name).collect();
        let files = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name());
        let files: BTreeSet<String> = files.map(|name| name.into_string().unwrap()).collect();
        let others: Vec<&String> = files.difference(&names).filter(|name| *name != "data").collect();
        assert!(others.is_empty(), "{others:?}");
    }
}
