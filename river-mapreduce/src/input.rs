//! The sources of a job's records: files, items, or a range of numbers.

mod files;
mod frame;
mod read;
mod split;

use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use files::InputError;
pub(crate) use read::{ReadError, read_split};
pub(crate) use split::{Limit, Split, cut};

use crate::datum::{Datum, pair_width};
use crate::varint;

/// The source of a job's records.
///
/// A path names a file, a directory (all files below it, including those that links point to, except names that begin
/// with `.` or `_`, and without following links to directories) or a pattern such as `logs/**/*.txt`, which matches
/// names that are UTF-8, and names that begin with `.` only if it spells out the dot. Files that end in `.gz` or `.zst`
/// are decompressed, and not split; others are split at record boundaries, if these can be found without reading the file
/// from its beginning ([`records`](Self::records) says when), and small files are packed together into one split. The VMs read the files, so they must all have access to the same files.
#[must_use = "an input does nothing until a job is given it"]
pub struct Input<T> {
    pub(crate) source: Source,
    pub(crate) framing: Framing,
    kind: PhantomData<fn() -> T>,
}

#[derive(Clone, Debug)]
pub(crate) enum Source {
    Paths(Vec<PathBuf>),
    /// The numbers below this one.
    Range(u64),
    /// Encoded items, each preceded by its length, and their number.
    Items(Vec<u8>, u64),
}

/// How a file is divided into records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Framing {
    /// Lines, without line ends.
    Lines,
    /// The bytes between two of these delimiters.
    Delimited(u8),
    /// Records of this many bytes.
    Fixed(usize),
    /// Blocks of many whole lines, with line ends.
    Blocks,
    /// Whole files.
    Whole,
    /// Encodings preceded by their lengths.
    Encoded,
}

/// The position of a record: its file, and where it begins there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Position {
    pub(crate) file: Option<Arc<Path>>,
    pub(crate) offset: u64,
}

impl Position {
    /// Assigns another position, which is nearly always in the same file.
    pub(crate) fn move_to(&mut self, other: &Self) {
        let same_file = match (&self.file, &other.file) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        if !same_file {
            self.file.clone_from(&other.file);
        }
        self.offset = other.offset;
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{}, byte {}", file.display(), self.offset),
            None => write!(f, "item {}", self.offset),
        }
    }
}

/// A type that can view the text of a file: `String`, for valid UTF-8, and `Vec<u8>`, for any bytes.
pub trait Text: Datum {}

impl Text for String {}
impl Text for Vec<u8> {}

impl<T: Text> Input<T> {
    /// Each record is a line, without its end (`\n` or `\r\n`).
    pub fn lines(paths: impl IntoIterator<Item: Into<PathBuf>>) -> Self {
        Self::files(paths, Framing::Lines)
    }

    /// Each record is the bytes between two delimiters.
    pub fn delimited(paths: impl IntoIterator<Item: Into<PathBuf>>, delimiter: u8) -> Self {
        Self::files(paths, Framing::Delimited(delimiter))
    }

    /// Each record is a block of many whole lines, with their ends: for map functions that read text faster than line
    /// by line. The number of lines in a block is unspecified.
    pub fn blocks(paths: impl IntoIterator<Item: Into<PathBuf>>) -> Self {
        Self::files(paths, Framing::Blocks)
    }

    /// Each record is a whole file. Files of more than a gibibyte are an error.
    pub fn whole_files(paths: impl IntoIterator<Item: Into<PathBuf>>) -> Self {
        Self::files(paths, Framing::Whole)
    }
}

impl Input<Vec<u8>> {
    /// Each record has `length` bytes. A file whose length is not a multiple of it is an error.
    pub fn fixed(paths: impl IntoIterator<Item: Into<PathBuf>>, length: usize) -> Self {
        Self::files(paths, Framing::Fixed(length))
    }
}

impl<K: Datum, V: Datum> Input<(K, V)> {
    /// The records that an earlier job wrote with [`Output::records`](crate::Output::records).
    ///
    /// Files of them are split only if all records have the same length, as pairs of numbers do. Otherwise each file is
    /// read by one map task, so the earlier job should have about as many reducers as there are VMs, or more.
    pub fn records(paths: impl IntoIterator<Item: Into<PathBuf>>) -> Self {
        Self::files(paths, pair_width::<K, V>().map_or(Framing::Encoded, Framing::Fixed))
    }
}

impl Input<u64> {
    /// The numbers `0..count`: for jobs that generate their data.
    pub fn generate(count: u64) -> Self {
        Self { source: Source::Range(count), framing: Framing::Lines, kind: PhantomData }
    }
}

impl<T: Datum> Input<T> {
    /// Items that the program holds. They are sent to the VMs with the tasks.
    pub fn items(items: impl IntoIterator<Item = T>) -> Self {
        let (mut bytes, mut scratch, mut count) = (Vec::new(), Vec::new(), 0);
        for item in items {
            let view = item.view();
            let encoded = T::bytes(&view, &mut scratch);
            varint::put(encoded.len(), &mut bytes);
            bytes.extend_from_slice(encoded);
            count += 1;
        }
        Self { source: Source::Items(bytes, count), framing: Framing::Encoded, kind: PhantomData }
    }

    fn files(paths: impl IntoIterator<Item: Into<PathBuf>>, framing: Framing) -> Self {
        Self {
            source: Source::Paths(paths.into_iter().map(Into::into).collect()),
            framing,
            kind: PhantomData,
        }
    }
}

impl<T> Clone for Input<T> {
    fn clone(&self) -> Self {
        Self { source: self.source.clone(), framing: self.framing, kind: PhantomData }
    }
}

impl<T> fmt::Debug for Input<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Paths(paths) => write!(f, "Input({:?}, {paths:?})", self.framing),
            Source::Range(count) => write!(f, "Input(0..{count})"),
            Source::Items(_, count) => write!(f, "Input({count} items)"),
        }
    }
}
