//! Splits: the input of one map task.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::files::{self, Codec, InputError};
use super::{Framing, Source};
use crate::raw_path::RawPath;
use crate::varint;

/// The input of one map task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Split {
    Files(Vec<Piece>),
    /// The numbers in a range: start, end.
    Range(u64, u64),
    /// Encoded items with their lengths, and the number of the first.
    Items(Vec<u8>, u64),
}

/// A part of a file: the records that begin in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Piece {
    pub(crate) path: RawPath,
    pub(crate) start: u64,
    /// The file's end, if this is the last part.
    pub(crate) end: u64,
    pub(crate) codec: Codec,
}

/// The maximum number of files in a split.
const FILES: usize = 4096;
/// The default size of a split, unless the input is so small that there would be few of them.
const USUAL: u64 = 128 << 20;
const SMALLEST: u64 = 1 << 20;
/// An input has at least this many splits, unless they would be smaller than the minimum. It must not depend on the
/// number of VMs, so that the result does not either.
const FEWEST: u64 = 12;

/// How much of a split is read for a sample: up to whichever of these is reached first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limit {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
}

impl Limit {
    pub(crate) fn is_reached(self, records: u64, bytes: u64) -> bool {
        records >= self.records || bytes >= self.bytes
    }
}

impl Split {
    /// The files that it reads completely or in part.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        let pieces = match self {
            Split::Files(pieces) => pieces.as_slice(),
            _ => &[],
        };
        pieces.iter().map(|piece| &*piece.path)
    }

    /// The part of the split that must be sent so that `limit` of it can be read.
    pub(crate) fn beginning(&self, limit: Limit) -> Self {
        match self {
            Split::Items(bytes, first) => {
                let (mut at, mut records) = (0, 0);
                while !limit.is_reached(records, at as u64)
                    && let Some((length, used)) = varint::get(&bytes[at..])
                {
                    (at, records) = (at + used + length, records + 1);
                }
                Split::Items(bytes[..at].to_vec(), *first)
            }
            other => other.clone(),
        }
    }
}

/// Cuts an input into splits of about that size.
pub(crate) fn cut(source: &Source, framing: Framing, size: Option<u64>) -> Result<Vec<Split>, InputError> {
    match source {
        Source::Paths(paths) => cut_files(paths, framing, size),
        Source::Range(count) => {
            let step = size.unwrap_or_else(|| count.div_ceil(FEWEST)).max(1);
            let starts = (0..*count).step_by(usize::try_from(step).unwrap_or(usize::MAX));
            Ok(starts.map(|start| Split::Range(start, start.saturating_add(step).min(*count))).collect())
        }
        Source::Items(bytes, count) => Ok(cut_items(bytes, *count, size)),
    }
}

fn cut_files(paths: &[PathBuf], framing: Framing, size: Option<u64>) -> Result<Vec<Split>, InputError> {
    if framing == Framing::Fixed(0) {
        return Err(InputError::Empty);
    }
    let found = files::find(paths)?;
    let total: u64 = found.values().sum();
    let size = size.unwrap_or_else(|| (total / FEWEST).clamp(SMALLEST, USUAL)).max(1);
    let mut packing = Packing { size, splits: Vec::new(), packed: Vec::new(), bytes: 0 };
    for (path, length) in found {
        let codec = Codec::of(&path);
        let step = match framing {
            Framing::Fixed(record) if codec == Codec::Plain => {
                if length % record as u64 != 0 {
                    return Err(InputError::Ragged { path, length, record });
                }
                Some(record as u64)
            }
            Framing::Lines | Framing::Delimited(_) | Framing::Blocks if codec == Codec::Plain => Some(1),
            _ => None,
        };
        if length > 0 || framing == Framing::Whole {
            packing.add(&path, length, codec, step);
        }
    }
    packing.flush();
    Ok(packing.splits)
}

/// Fills splits with files, or parts of files, one after the other.
struct Packing {
    size: u64,
    splits: Vec<Split>,
    /// The content of the split that is being filled, and its size in bytes.
    packed: Vec<Piece>,
    bytes: u64,
}

impl Packing {
    /// Adds a file. `step`: it may be cut at multiples of this; `None`: it may not be cut.
    fn add(&mut self, path: &Path, length: u64, codec: Codec, step: Option<u64>) {
        let mut start = 0;
        loop {
            let (rest, room) = (length - start, self.size.saturating_sub(self.bytes));
            // A split may be up to an eighth larger or smaller, so that no tiny part is left over.
            let slack = self.size / 8;
            if self.bytes + rest <= self.size + slack && self.packed.len() < FILES {
                break;
            }
            match step {
                Some(step) if room > slack && (room >= step || self.packed.is_empty()) => {
                    // At least one record, however long it is.
                    let end = start + (room / step * step).max(step).min(rest);
                    self.push(Piece { path: path.into(), start, end, codec });
                    start = end;
                    self.flush();
                }
                _ if self.packed.is_empty() => break,
                _ => self.flush(),
            }
        }
        if start < length || length == 0 {
            self.push(Piece { path: path.into(), start, end: length, codec });
        }
    }

    fn push(&mut self, piece: Piece) {
        self.bytes += piece.end - piece.start;
        self.packed.push(piece);
    }

    /// Completes the split that is being filled.
    fn flush(&mut self) {
        if !self.packed.is_empty() {
            self.splits.push(Split::Files(std::mem::take(&mut self.packed)));
        }
        self.bytes = 0;
    }
}

fn cut_items(bytes: &[u8], count: u64, size: Option<u64>) -> Vec<Split> {
    let size = size.unwrap_or_else(|| (bytes.len() as u64).div_ceil(FEWEST)).max(1) as usize;
    let (mut splits, mut start, mut at, mut first) = (Vec::new(), 0, 0, 0);
    for number in 0..count {
        let Some((length, used)) = varint::get(&bytes[at..]) else { break };
        at += used + length;
        if at - start >= size || number + 1 == count {
            splits.push(Split::Items(bytes[start..at].to_vec(), first));
            (start, first) = (at, number + 1);
        }
    }
    splits
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_files_are_packed_and_large_ones_cut() {
        let scratch = tempfile::tempdir().unwrap();
        for (name, length) in [("a", 10), ("b", 10), ("c", 100), ("d", 0), ("e.gz", 100), ("f", 15)] {
            fs::write(scratch.path().join(name), vec![b'x'; length]).unwrap();
        }
        let source = Source::Paths(vec![scratch.path().to_owned()]);
        let splits = cut(&source, Framing::Lines, Some(30)).unwrap();
        let described: Vec<Vec<(String, u64, u64)>> = splits
            .iter()
            .map(|split| {
                let Split::Files(pieces) = split else { panic!("{split:?}") };
                let name = |piece: &Piece| piece.path.file_name().unwrap().to_string_lossy().into_owned();
                pieces.iter().map(|piece| (name(piece), piece.start, piece.end)).collect()
            })
            .collect();
        let piece = |name: &str, start, end| (name.to_owned(), start, end);
        assert_eq!(
            described,
            [
                vec![piece("a", 0, 10), piece("b", 0, 10), piece("c", 0, 10)],
                vec![piece("c", 10, 40)],
                vec![piece("c", 40, 70)],
                vec![piece("c", 70, 100)],
                vec![piece("e.gz", 0, 100)],
                vec![piece("f", 0, 15)],
            ]
        );
        let error = cut(&source, Framing::Fixed(7), None).unwrap_err().to_string();
        assert!(error.contains("10 bytes") && error.contains("record length 7"), "{error}");
    }

    proptest! {
        #[test]
        fn every_byte_is_in_one_split_and_splits_are_about_as_large_as_asked_for(
            lengths in prop::collection::vec(0u64..2000, 0..20), size in 16u64..1500, step in 1u64..40,
        ) {
            let mut packing = Packing { size, splits: Vec::new(), packed: Vec::new(), bytes: 0 };
            let files: Vec<u64> = lengths.iter().map(|length| (length / step + 1) * step).collect();
            for (index, length) in files.iter().enumerate() {
                packing.add(Path::new(&index.to_string()), *length, Codec::Plain, Some(step));
            }
            packing.flush();
            let mut ends = vec![0; files.len()];
            let count = packing.splits.len();
            for (index, split) in packing.splits.iter().enumerate() {
                let Split::Files(pieces) = split else { panic!("{split:?}") };
                for piece in pieces {
                    let file: usize = piece.path.to_str().unwrap().parse().unwrap();
                    prop_assert!(piece.start == ends[file] && piece.end > piece.start);
                    prop_assert!(piece.start % step == 0 && piece.end % step == 0);
                    ends[file] = piece.end;
                }
                let bytes: u64 = pieces.iter().map(|piece| piece.end - piece.start).sum();
                prop_assert!(bytes <= size + size / 8 || bytes <= step, "{bytes}");
                prop_assert!(bytes + size / 8 + step >= size || index + 1 == count, "{bytes}");
            }
            prop_assert_eq!(ends, files);
        }

        #[test]
        fn items_and_numbers_are_in_one_split_each(
            items in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..50),
            size in 1u64..40,
        ) {
            let mut bytes = Vec::new();
            for item in &items {
                varint::put(item.len(), &mut bytes);
                bytes.extend(item);
            }
            let splits = cut(&Source::Items(bytes.clone(), items.len() as u64), Framing::Encoded, Some(size));
            let splits = splits.unwrap();
            let all: Vec<u8> = splits
                .iter()
                .flat_map(|split| match split {
                    Split::Items(bytes, _) => bytes.clone(),
                    _ => panic!("{split:?}"),
                })
                .collect();
            prop_assert_eq!(all, bytes);
            let count = items.len() as u64;
            let ranges = cut(&Source::Range(count), Framing::Lines, Some(size)).unwrap();
            let numbers = |split: &Split| match split {
                Split::Range(from, to) => *from..*to,
                _ => panic!("{split:?}"),
            };
            prop_assert_eq!(ranges.iter().flat_map(numbers).collect::<Vec<_>>(), (0..count).collect::<Vec<_>>());
        }
    }
}
