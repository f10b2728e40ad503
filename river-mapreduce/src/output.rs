//! The destination of a job's records, and their format.

mod buffer;
mod directory;

use std::path::{Path, PathBuf};

pub(crate) use buffer::{OutputBuffer, OutputError, Sink};
pub(crate) use directory::{Directory, part_file};
use serde::{Deserialize, Serialize};

/// The destination of a job's records.
///
/// A directory gets one file per reducer, `part-00000` and so on, and an empty file `_SUCCESS` when all of them are
/// complete. Each part is written under a temporary name first, so a visible part is complete. The VMs write the files,
/// so they must all have access to the same directory. Only one job at a time may write to a directory, and none of its
/// inputs may be there: a second job, or one that would read what it removes, is refused before anything is touched.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an output does nothing until a job is given it"]
pub struct Output {
    pub(crate) place: Place,
    pub(crate) format: Format,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Return them to the caller.
    Collect,
    Directory {
        path: PathBuf,
        overwrite: bool,
    },
}

/// The format of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Format {
    /// Key, separator, value, newline.
    Text { separator: u8 },
    /// The encoding of the pair, which [`Input::records`](crate::Input::records) reads.
    Records,
    /// The encodings of key and value, without anything between them.
    Raw,
}

impl Output {
    /// Output that is returned to the caller, in the order of reducers and keys.
    pub fn collect() -> Self {
        Self { place: Place::Collect, format: Format::Records }
    }

    /// Output as lines of text: key, tab, value, in readable form. A record that has none ends the job with an error.
    pub fn text(directory: impl AsRef<Path>) -> Self {
        Self::delimited(directory, b'\t')
    }

    /// Output as lines of text: key, separator, value.
    pub fn delimited(directory: impl AsRef<Path>, separator: u8) -> Self {
        Self::directory(directory.as_ref(), Format::Text { separator })
    }

    /// Output as binary records, for jobs that [read](crate::Input::records) them.
    pub fn records(directory: impl AsRef<Path>) -> Self {
        Self::directory(directory.as_ref(), Format::Records)
    }

    /// Output as the encodings of keys and values with nothing between or around them: for records of a fixed length.
    pub fn raw(directory: impl AsRef<Path>) -> Self {
        Self::directory(directory.as_ref(), Format::Raw)
    }

    /// Replaces the output of an earlier job; other files in the directory stay. Without this, a directory that exists
    /// and is not empty is an error.
    pub fn overwrite(mut self) -> Self {
        if let Place::Directory { overwrite, .. } = &mut self.place {
            *overwrite = true;
        }
        self
    }

    fn directory(path: &Path, format: Format) -> Self {
        Self { place: Place::Directory { path: path.to_owned(), overwrite: false }, format }
    }
}
