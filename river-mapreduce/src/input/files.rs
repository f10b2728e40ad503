//! Resolves paths to files.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use glob::Pattern;
use serde::{Deserialize, Serialize};
use walkdir::{DirEntry, WalkDir};

/// The input of a job cannot be found.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// No file has that name, or matches that pattern.
    #[error("no input: {} is no file or directory, and no pattern that matches one", .0.display())]
    NotFound(PathBuf),
    /// It exists, but cannot contain records: a socket, a pipe, a device.
    #[error("input {} is neither a file nor a directory", .0.display())]
    NoFile(PathBuf),
    /// A file or directory cannot be read.
    #[error("input {}: {error}", path.display())]
    Io {
        /// Its path.
        path: PathBuf,
        /// The cause.
        error: Arc<io::Error>,
    },
    /// The pattern is invalid.
    #[error("input pattern {pattern}: {error}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        error: String,
    },
    /// The file cannot be divided into records of that length.
    #[error("input {} has {length} bytes, which is no multiple of the record length {record}", path.display())]
    Ragged {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        length: u64,
        /// The length of a record in bytes.
        record: usize,
    },
    /// The length of a record is zero.
    #[error("records of 0 bytes: name the length of a record")]
    Empty,
}

impl InputError {
    fn io(path: &Path, error: impl Into<io::Error>) -> Self {
        Self::Io { path: path.to_owned(), error: Arc::new(error.into()) }
    }
}

/// How a file is compressed, judged by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Codec {
    Plain,
    Gzip,
    Zstd,
}

impl Codec {
    pub(crate) fn of(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => Self::Gzip,
            Some("zst") => Self::Zstd,
            _ => Self::Plain,
        }
    }
}

/// All files that the paths name, each once, in the order of their names: the order is the same on every machine.
pub(crate) fn find(paths: &[PathBuf]) -> Result<BTreeMap<PathBuf, u64>, InputError> {
    let mut found = BTreeMap::new();
    for path in paths {
        match path.metadata() {
            Ok(metadata) if metadata.is_file() || metadata.is_dir() => walk(path, &mut found)?,
            Ok(_) => return Err(InputError::NoFile(path.clone())),
            Err(error) if is_missing(&error) => walk_pattern(path, &mut found)?,
            Err(error) => return Err(InputError::io(path, error)),
        }
    }
    Ok(found)
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Adds all files that match a pattern, and those below directories that match.
fn walk_pattern(pattern: &Path, found: &mut BTreeMap<PathBuf, u64>) -> Result<(), InputError> {
    let text = pattern.to_string_lossy();
    let mut any = false;
    if text.contains(['*', '?', '[']) {
        let matches = glob::glob(&text)
            .map_err(|error| InputError::Pattern { pattern: text.to_string(), error: error.to_string() })?;
        for path in matches {
            let path = path.map_err(|error| InputError::io(error.path(), error.error().kind()))?;
            if is_hidden_from(pattern, &path) {
                continue;
            }
            walk(&path, found)?;
            any |= path.is_file() || path.is_dir();
        }
    }
    if any { Ok(()) } else { Err(InputError::NotFound(pattern.to_owned())) }
}

/// Whether a path that matches a pattern is left out, as in a shell: it has a name that begins with a dot, which no part of
/// the pattern spells out. (The option of `glob` for that panics at names that are not UTF-8.)
fn is_hidden_from(pattern: &Path, path: &Path) -> bool {
    let dotted = |path: &Path| -> Vec<String> {
        let names = path.iter().map(|name| name.to_string_lossy().into_owned());
        names.filter(|name| name.starts_with('.')).collect()
    };
    let parts: Vec<Pattern> = dotted(pattern).iter().filter_map(|part| Pattern::new(part).ok()).collect();
    dotted(path).iter().any(|name| !parts.iter().any(|part| part.matches(name)))
}

/// Adds a file, or all files below a directory. The path itself may be a link to a directory; below it only links to
/// files are followed, so there are no loops.
fn walk(path: &Path, found: &mut BTreeMap<PathBuf, u64>) -> Result<(), InputError> {
    let hidden = |entry: &DirEntry| {
        entry.depth() > 0 && entry.file_name().as_encoded_bytes().first().is_some_and(|c| b"._".contains(c))
    };
    for entry in WalkDir::new(path).into_iter().filter_entry(|entry| !hidden(entry)) {
        let failed = |error: walkdir::Error| {
            let at = error.path().unwrap_or(path).to_owned();
            InputError::io(&at, error)
        };
        let entry = entry.map_err(failed)?;
        let metadata = if entry.path_is_symlink() {
            entry.path().metadata().map_err(|error| InputError::io(entry.path(), error))?
        } else {
            entry.metadata().map_err(failed)?
        };
        if metadata.is_file() {
            found.insert(entry.into_path(), metadata.len());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn paths_are_files_directories_and_patterns() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        fs::create_dir_all(at("a/_temporary")).unwrap();
        for name in ["a/one.txt", "a/two.log", "a/.hidden", "a/_SUCCESS", "a/_temporary/part", "three.txt"] {
            fs::write(at(name), name).unwrap();
        }
        let names = |paths: &[PathBuf]| -> Vec<String> {
            let found = find(paths).unwrap();
            found
                .keys()
                .map(|path| path.strip_prefix(scratch.path()).unwrap().to_string_lossy().into_owned())
                .collect()
        };
        assert_eq!(names(&[at("a")]), ["a/one.txt", "a/two.log"]);
        assert_eq!(names(&[at("a/_SUCCESS"), at("a/_SUCCESS")]), ["a/_SUCCESS"]);
        assert_eq!(names(&[at("**/*.txt"), at("a/one.txt")]), ["a/one.txt", "three.txt"]);
        assert_eq!(names(&[at("a/*")]), ["a/_SUCCESS", "a/_temporary/part", "a/one.txt", "a/two.log"]);
        assert_eq!(names(&[at("a/.h*")]), ["a/.hidden"]);
        fs::create_dir(at(".below")).unwrap();
        fs::write(at(".below/four.txt"), "").unwrap();
        fs::write(at("a").join(OsStr::from_bytes(b"caf\xe9.txt")), "").unwrap();
        assert_eq!(names(&[at("**/*.txt")]), ["a/one.txt", "three.txt"]);
        assert_eq!(names(&[at(".b*/*.txt"), at("a/../a/one*")]), [".below/four.txt", "a/../a/one.txt"]);
        assert_eq!(find(&[at("three.txt")]).unwrap()[&at("three.txt")], 9);
        for missing in ["four.txt", "*.zip"] {
            assert!(matches!(find(&[at(missing)]), Err(InputError::NotFound(path)) if path == at(missing)));
        }
        assert!(matches!(find(&["[".into()]), Err(InputError::Pattern { .. })));
    }

    #[test]
    fn links_to_files_are_files_and_links_to_directories_are_not_followed() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        fs::create_dir_all(at("real/below")).unwrap();
        fs::create_dir(at("links")).unwrap();
        for name in ["real/a", "real/below/b"] {
            fs::write(at(name), name).unwrap();
        }
        for (to, name) in [
            ("real/a", "links/a"),
            ("real/below/b", "links/c"),
            ("real/below", "links/below"),
            ("links", "links/again"),
        ] {
            symlink(at(to), at(name)).unwrap();
        }
        let found = BTreeMap::from([(at("links/a"), 6), (at("links/c"), 12)]);
        assert_eq!(find(&[at("links")]).unwrap(), found);
        assert_eq!(find(&[at("links/*")]).unwrap(), {
            let mut found = found.clone();
            found.extend([(at("links/again/a"), 6), (at("links/again/c"), 12), (at("links/below/b"), 12)]);
            found
        });
        symlink(at("nothing"), at("links/broken")).unwrap();
        let error = find(&[at("links")]).unwrap_err();
        assert!(matches!(&error, InputError::Io { path, .. } if *path == at("links/broken")), "{error}");
    }

    #[test]
    fn what_is_there_but_cannot_be_read_is_not_called_missing() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        // Not even root can resolve these.
        symlink(at("loop"), at("loop")).unwrap();
        let error = find(&[at("loop")]).unwrap_err();
        assert!(matches!(&error, InputError::Io { path, .. } if *path == at("loop")), "{error}");
        let long = at(&"x".repeat(300));
        assert!(
            matches!(find(std::slice::from_ref(&long)), Err(InputError::Io { path, .. }) if path == long)
        );
        fs::write(at("file"), "").unwrap();
        assert!(matches!(find(&[at("file/below")]), Err(InputError::NotFound(_))));
        let _socket = UnixListener::bind(at("socket")).unwrap();
        let error = find(&[at("socket")]).unwrap_err();
        assert!(error.to_string().contains("neither a file nor a directory"), "{error}");
        assert!(matches!(find(&[at("s*t")]), Err(InputError::NotFound(_))));
        assert_eq!(find(&[at("file"), at("f*")]).unwrap().len(), 1);
    }
}
