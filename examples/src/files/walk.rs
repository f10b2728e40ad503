//! Walks directories.

use std::ffi::OsStr;
use std::fs::{self, DirEntry, FileType};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

use super::pattern::{is_pattern, matches};
use super::piece::Problem;

/// Collects files. Each costs one `stat` call, for its length, relative to its open directory.
#[derive(Default)]
pub(super) struct Walk {
    /// Path and length in bytes.
    pub(super) files: Vec<(PathBuf, u64)>,
    /// The number of files and directories at which the walks began. If it is one, no file can have been found twice.
    pub(super) roots: usize,
    /// Paths that could not be read.
    pub(super) unreadable: Vec<Problem>,
}

impl Walk {
    /// Collects the files that a path of the command line names; returns `false` if there are none.
    pub(super) fn start(&mut self, path: &Path) -> bool {
        let Ok(path) = std::path::absolute(path) else { return false };
        match fs::symlink_metadata(&path) {
            Ok(metadata) => {
                self.root(path, metadata.file_type(), || Ok(metadata.len()));
                true
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                let components: Vec<Component<'_>> = path.components().collect();
                match components.iter().position(|component| is_pattern(component.as_os_str())) {
                    Some(first) => {
                        let (literal, pattern) = components.split_at(first);
                        let before = (self.roots, self.unreadable.len());
                        self.expand(literal.iter().collect(), pattern);
                        before != (self.roots, self.unreadable.len())
                    }
                    None => false,
                }
            }
            Err(error) => {
                self.unreadable.push(Problem::new(&path, &error));
                true
            }
        }
    }

    /// Collects a path that was named by the user or matches a pattern.
    fn root(&mut self, path: PathBuf, kind: FileType, len: impl FnOnce() -> io::Result<u64>) {
        self.roots += 1;
        if kind.is_dir() {
            self.directory(&path);
        } else if kind.is_file() {
            self.file(path, len());
        } else {
            let why = match kind.is_symlink() {
                true => "a symbolic link, which is not followed",
                false => "neither a file nor a directory",
            };
            self.unreadable.push(Problem::new(&path, why));
        }
    }

    fn file(&mut self, path: PathBuf, len: io::Result<u64>) {
        match len {
            Ok(len) => self.files.push((path, len)),
            // Removed since its directory was read.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => self.unreadable.push(Problem::new(&path, &error)),
        }
    }

    /// Collects all files below a directory, however deep: the stack of directories is on the heap.
    fn directory(&mut self, top: &Path) {
        let mut open = vec![top.to_owned()];
        while let Some(directory) = open.pop() {
            for (entry, kind) in self.entries(&directory) {
                if kind.is_dir() {
                    open.push(entry.path());
                } else if kind.is_file() {
                    self.file(entry.path(), entry.metadata().map(|metadata| metadata.len()));
                }
            }
        }
    }

    /// The entries of a directory; errors are recorded.
    fn entries(&mut self, directory: &Path) -> Vec<(DirEntry, FileType)> {
        let mut known = Vec::new();
        match fs::read_dir(directory) {
            Ok(entries) => {
                for entry in entries {
                    // Most systems return the type along with the name, without another call.
                    match entry.and_then(|entry| entry.file_type().map(|kind| (entry, kind))) {
                        Ok(entry) => known.push(entry),
                        Err(error) => self.unreadable.push(Problem::new(directory, &error)),
                    }
                }
            }
            Err(error) => self.unreadable.push(Problem::new(directory, &error)),
        }
        known
    }

    /// Collects what matches the components of a pattern, starting from a directory.
    fn expand(&mut self, directory: PathBuf, pattern: &[Component<'_>]) {
        let mut open = vec![(directory, pattern)];
        while let Some((directory, pattern)) = open.pop() {
            let Some((component, rest)) = pattern.split_first() else { continue };
            let name = component.as_os_str();
            if !is_pattern(name) {
                let path = directory.join(name);
                // A link within a pattern is not followed; one that is named without wildcards is.
                match fs::symlink_metadata(&path) {
                    Ok(metadata) if rest.is_empty() => {
                        self.root(path, metadata.file_type(), || Ok(metadata.len()));
                    }
                    Ok(metadata) if metadata.is_dir() => open.push((path, rest)),
                    _ => {}
                }
                continue;
            }
            if !directory.is_dir() {
                continue;
            }
            let any_depth = name == OsStr::new("**");
            if any_depth && !rest.is_empty() {
                open.push((directory.clone(), rest));
            }
            for (entry, kind) in self.entries(&directory) {
                if !matches(name, &entry.file_name()) {
                    continue;
                }
                if any_depth && kind.is_dir() {
                    open.push((entry.path(), pattern));
                } else if rest.is_empty() && (kind.is_file() || kind.is_dir()) {
                    self.root(entry.path(), kind, || entry.metadata().map(|metadata| metadata.len()));
                } else if kind.is_dir() {
                    open.push((entry.path(), rest));
                }
            }
        }
    }
}
