//! The result of finding files.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A file, or a range of one, to work on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Piece {
    /// The bytes of the path, because a path need not be UTF-8 and must survive a message.
    path: Vec<u8>,
    /// The range `[from, to)` of the file in bytes; `None` means the whole file.
    pub range: Option<(u64, u64)>,
    /// The number of bytes in the piece, provided the file has not changed since.
    pub len: u64,
}

impl Piece {
    /// A whole file of `len` bytes.
    #[must_use]
    pub fn whole(path: &Path, len: u64) -> Self {
        Self { path: path.as_os_str().as_bytes().to_vec(), range: None, len }
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        Path::new(std::ffi::OsStr::from_bytes(&self.path))
    }

    /// Adds the pieces of a file. The last range is open, so that all ranges together cover what reading the whole file
    /// would have found, even if it has grown.
    pub(super) fn cut(path: PathBuf, len: u64, split_at: u64, pieces: &mut Vec<Self>) {
        let path = path.into_os_string().into_vec();
        let parts = len.div_ceil(split_at.max(1));
        let step = if parts == 0 { return } else { len.div_ceil(parts) };
        if parts == 1 {
            pieces.push(Self { path, range: None, len });
            return;
        }
        let mut from = 0;
        while from < len {
            let to = from.saturating_add(step).min(len);
            let open = if to == len { u64::MAX } else { to };
            pieces.push(Self { path: path.clone(), range: Some((from, open)), len: to - from });
            from = to;
        }
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut piece = f.debug_struct("Piece");
        piece.field("path", &self.path()).field("range", &self.range).field("len", &self.len).finish()
    }
}

/// A file or directory that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// Its path.
    #[serde(with = "path_bytes")]
    pub path: PathBuf,
    /// The reason: lower case, no full stop.
    pub why: String,
}

impl Problem {
    /// A problem with this path.
    #[must_use]
    pub fn new(path: &Path, why: &(impl ToString + ?Sized)) -> Self {
        Self { path: path.to_owned(), why: why.to_string() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.why)
    }
}

/// Serde refuses paths that are not UTF-8; as bytes all of them can be sent.
mod path_bytes {
    use serde::{Deserializer, Serializer};

    use super::{Deserialize, OsStrExt, OsString, OsStringExt, Path, PathBuf, Serialize};

    pub(super) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        path.as_os_str().as_bytes().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        Ok(OsString::from_vec(Vec::deserialize(deserializer)?).into())
    }
}

/// The files that the paths of a command line name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The work: ordered by path, then by range.
    pub pieces: Vec<Piece>,
    /// The number of distinct files, including empty ones.
    pub files: usize,
    /// The sum of their lengths in bytes.
    pub bytes: u64,
    /// Directories that could not be read, and arguments that are neither a file nor a directory, ordered by path.
    pub unreadable: Vec<Problem>,
    /// The paths and patterns that match nothing, as given.
    pub unmatched: Vec<OsString>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pieces_and_problems_travel_whatever_their_name() {
        let path = PathBuf::from(OsString::from_vec(b"/a b/\xff\n".to_vec()));
        let piece = Piece { range: Some((3, 5)), ..Piece::whole(&path, 2) };
        let json = serde_json::to_string(&piece).expect("serializable");
        assert_eq!(serde_json::from_str::<Piece>(&json).expect("what was written"), piece);
        assert_eq!(piece.path(), path);
        let problem = Problem::new(&path, "not there");
        let json = serde_json::to_string(&problem).expect("serializable");
        assert_eq!(serde_json::from_str::<Problem>(&json).expect("what was written"), problem);
    }

    proptest! {
        #[test]
        fn ranges_partition_a_file(len in 0..10_000_u64, split_at in 0..4000_u64) {
            let mut pieces = Vec::new();
            Piece::cut("/f".into(), len, split_at, &mut pieces);
            prop_assert_eq!(pieces.iter().map(|piece| piece.len).sum::<u64>(), len);
            prop_assert!(pieces.iter().all(|piece| (1..=split_at.max(1)).contains(&piece.len)));
            if let [whole] = pieces.as_slice() {
                prop_assert_eq!(whole.range, None);
            }
            let mut from = 0;
            for (start, end) in pieces.iter().filter_map(|piece| piece.range) {
                prop_assert!(start == from && start < end);
                from = end;
            }
            prop_assert!(pieces.len() < 2 || from == u64::MAX);
        }
    }
}
