//! Converts criterion's results to tables: one for each of its groups.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::table::{Spread, Table};

/// `benchmark.json`.
#[derive(Deserialize)]
struct Benchmark {
    group_id: String,
    function_id: Option<String>,
    value_str: Option<String>,
}

/// `estimates.json`, in nanoseconds.
#[derive(Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Deserialize)]
struct Estimate {
    point_estimate: f64,
    confidence_interval: Interval,
}

#[derive(Deserialize)]
struct Interval {
    lower_bound: f64,
    upper_bound: f64,
}

/// Returns the tables; none if criterion was not run.
///
/// # Errors
/// If its files cannot be read or decoded.
pub(super) fn tables(home: &Path) -> io::Result<Vec<Table>> {
    let mut found = Vec::new();
    if home.exists() {
        find(home, &mut found)?;
    }
    // Sorted by name, as a directory has no order.
    found.sort();
    let mut groups: BTreeMap<String, Table> = BTreeMap::new();
    for directory in found {
        let benchmark: Benchmark = read(&directory.join("benchmark.json"))?;
        let Estimates { median } = read(&directory.join("estimates.json"))?;
        let table = groups
            .entry(benchmark.group_id.clone())
            .or_insert_with(|| Table::new(benchmark.group_id, "").column("time (95 % confidence)", "us", 3));
        let name: Vec<String> = [benchmark.function_id, benchmark.value_str].into_iter().flatten().collect();
        let interval = median.confidence_interval;
        let spread = Spread {
            min: interval.lower_bound / 1e3,
            median: median.point_estimate / 1e3,
            max: interval.upper_bound / 1e3,
        };
        table.row(name.join(", "), [Some(spread)]);
    }
    Ok(groups.into_values().collect())
}

/// The directories of the latest results below this one.
fn find(directory: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            if path.ends_with("new") && path.join("benchmark.json").exists() {
                found.push(path);
            } else {
                find(&path, found)?;
            }
        }
    }
    Ok(())
}

fn read<T: serde::de::DeserializeOwned>(file: &Path) -> io::Result<T> {
    let wrong = |error| io::Error::other(format!("{}: {error}", file.display()));
    serde_json::from_str(&fs::read_to_string(file)?).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_criterion_become_rows() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("queue/by tag/10/new");
        fs::create_dir_all(&directory).unwrap();
        fs::write(
            directory.join("benchmark.json"),
            r#"{"group_id":"queue","function_id":"by tag","value_str":"10","throughput":null}"#,
        )
        .unwrap();
        let estimate = r#"{"confidence_interval":{"confidence_level":0.95,"lower_bound":900.0,"upper_bound":1200.0},
                           "point_estimate":1000.0,"standard_error":1.0}"#;
        fs::write(directory.join("estimates.json"), format!(r#"{{"mean":{estimate},"median":{estimate}}}"#))
            .unwrap();
        let tables = tables(home.path()).unwrap();
        assert_eq!(tables.len(), 1);
        assert_eq!(tables[0].rows[0].name, "by tag, 10");
        assert_eq!(tables[0].rows[0].cells, [Some(Spread { min: 0.9, median: 1.0, max: 1.2 })]);
        assert!(super::tables(Path::new("/nowhere")).unwrap().is_empty());
    }
}
