//! Where the records of a job go, and how they are written.

mod buffer;
mod directory;

use std::path::{Path, PathBuf};

pub(crate) use buffer::{OutputBuffer, Sink};
pub(crate) use directory::{Directory, part_file};
use serde::{Deserialize, Serialize};

/// Where the records of a job go.
///
/// A directory gets one file per reducer, `part-00000` and so on, and an empty file `_SUCCESS` when all of them are
/// complete. Each is written under another name first, so a part that can be seen is a whole one. The VMs write them:
/// they have to see the same directory. One job at a time writes to a directory, and no input of it lies there: a
/// second job, and one that would read what it removes, is refused before anything is touched.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an output does nothing until a job is given it"]
pub struct Output {
    pub(crate) place: Place,
    pub(crate) format: Format,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// To the caller.
    Collect,
    Directory {
        path: PathBuf,
        overwrite: bool,
    },
}

/// How records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Format {
    /// Key, separator, value, newline.
    Text { separator: u8 },
    /// The encoding of the pair, which [`Input::records`](crate::Input::records) reads.
    Records,
    /// The encodings of key and value, nothing between them.
    Raw,
}

impl Output {
    /// The records are returned to the caller, in the order of reducers and keys.
    pub fn collect() -> Self {
        Self { place: Place::Collect, format: Format::Records }
    }

    /// Lines of text: key, tab, value, as people read them.
    pub fn text(directory: impl AsRef<Path>) -> Self {
        Self::delimited(directory, b'\t')
    }

    /// Lines of text: key, a separator, value.
    pub fn delimited(directory: impl AsRef<Path>, separator: u8) -> Self {
        Self::directory(directory.as_ref(), Format::Text { separator })
    }

    /// Binary records, for jobs that [read](crate::Input::records) them.
    pub fn records(directory: impl AsRef<Path>) -> Self {
        Self::directory(directory.as_ref(), Format::Records)
    }

    /// The encodings of keys and values with nothing between or around them: for records of a fixed length.
    pub fn raw(directory: impl AsRef<Path>) -> Self {
        Self::directory(directory.as_ref(), Format::Raw)
    }

    /// Replaces what an earlier job wrote there; whatever else is there stays. Without this a directory that is there and
    /// not empty is an error.
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
