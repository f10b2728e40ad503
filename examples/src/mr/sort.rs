//! Sorting records of 100 bytes by their first ten, after the sort benchmark (sortbenchmark.org).

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use river::mapreduce::{MapContext, MapReduce, ReduceContext, Values};
use serde::{Deserialize, Serialize};

/// The length of a key in bytes.
const KEY: usize = 10;
/// The length of a record in bytes: the key and the value.
pub const RECORD: usize = 100;
const VALUE: usize = RECORD - KEY;

/// Sorts records of [`RECORD`] bytes by their first ten. Equal keys stay in the order of the input.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Sort;

impl MapReduce for Sort {
    type Input = Vec<u8>;
    type Key = [u8; KEY];
    type Value = [u8; VALUE];
    type OutKey = [u8; KEY];
    type OutValue = [u8; VALUE];

    fn map(&self, record: &[u8], out: &mut MapContext<'_, [u8; KEY], [u8; VALUE]>) {
        if let Some((key, value)) = record.split_first_chunk()
            && let Some(value) = value.first_chunk()
        {
            out.emit(key, value);
        }
    }

    fn reduce(
        &self,
        key: &[u8; KEY],
        values: &mut Values<'_, [u8; VALUE]>,
        out: &mut ReduceContext<'_, [u8; KEY], [u8; VALUE]>,
    ) {
        while let Some(value) = values.next_view() {
            out.emit(key, value);
        }
    }
}

/// The content of a file or directory of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// The number of records.
    pub records: u64,
    /// The sum of the hashes of all records: equal for the same records in any order.
    pub checksum: u64,
    /// Whether no key is smaller than the one before.
    pub sorted: bool,
}

/// Writes this many records, whose keys are random and whose values contain their number. The same ones each time.
///
/// # Errors
/// If the file cannot be written.
pub fn generate(path: &Path, records: u64) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut state = 0x5eed_u64;
    let mut random = || {
        // SplitMix64 (Steele, Lea and Flood, 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let mut record = [b'.'; RECORD];
    record[RECORD - 2..].copy_from_slice(b"\r\n");
    for number in 0..records {
        record[..8].copy_from_slice(&random().to_be_bytes());
        record[8..KEY].copy_from_slice(&random().to_be_bytes()[..2]);
        write!(&mut record[KEY..KEY + 32], "{number:032}")?;
        out.write_all(&record)?;
    }
    out.flush()
}

/// Reads a file of records, or the parts of an output directory, one after the other.
///
/// # Errors
/// If something cannot be read, or ends within a record.
pub fn check(path: &Path) -> io::Result<Checked> {
    let mut checked = Checked { sorted: true, ..Checked::default() };
    let mut last = [0; KEY];
    for file in files(path)? {
        let mut file = BufReader::with_capacity(1 << 20, File::open(&file)?);
        let mut record = [0; RECORD];
        loop {
            match file.read(&mut record[..1])? {
                0 => break,
                _ => file.read_exact(&mut record[1..])?,
            }
            checked.records += 1;
            let mut hasher = DefaultHasher::new();
            hasher.write(&record);
            checked.checksum = checked.checksum.wrapping_add(hasher.finish());
            checked.sorted &= last[..] <= record[..KEY];
            last.copy_from_slice(&record[..KEY]);
        }
    }
    Ok(checked)
}

/// The file itself, or the parts of a directory in order.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path()));
    let mut parts = entries.collect::<io::Result<Vec<_>>>()?;
    parts.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("part-")));
    parts.sort();
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use river::mapreduce::{Input, Job, Output};

    use super::*;

    #[test]
    fn what_is_sorted_is_what_was_generated() {
        let scratch = tempfile::tempdir().unwrap();
        let (input, output) = (scratch.path().join("in"), scratch.path().join("out"));
        generate(&input, 10_000).unwrap();
        let before = check(&input).unwrap();
        assert!(!before.sorted);
        let job = Job::new(Sort, Input::fixed([&input], RECORD)).sorted().output(Output::raw(&output));
        job.memory(1 << 20).run_serial().unwrap();
        assert_eq!(check(&output).unwrap(), Checked { sorted: true, ..before });
        let part = output.join("part-00003");
        let mut bytes = fs::read(&part).unwrap();
        bytes[50] ^= 1;
        fs::write(&part, &bytes).unwrap();
        assert_ne!(check(&output).unwrap().checksum, before.checksum);
        fs::write(&part, &bytes[..bytes.len() - 1]).unwrap();
        assert!(check(&output).is_err());
    }
}
