//! Resolves the paths of a command line to pieces of work.
//!
//! A path is a file, a directory, which stands for all files below it, or, if nothing has that name, a glob pattern:
//! `*`, `?` and `[a-z]` within a name, `**` for any directories (quote it, or the shell is faster). Symbolic links
//! are never followed, so nothing is found twice and nothing outside; pipes, sockets and devices are never opened.
//!
//! - `pattern`: matches names
//! - `walk`: walks directories
//! - `piece`: the result ([`Piece`], [`Found`], [`Problem`])

mod pattern;
mod piece;
mod walk;

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub use piece::{Found, Piece, Problem};
use walk::Walk;

/// Finds the files that the paths name and cuts those of more than `split_at` bytes (at least one) into ranges of about
/// equal length, none longer than that.
///
/// The pieces have absolute paths, in ascending order, so that they are valid in a process with another working
/// directory. A file that several paths name occurs once. Empty files are counted, but make no pieces.
///
/// Paths that cannot be used do not affect the others: they are in [`Found::unreadable`] or [`Found::unmatched`].
#[must_use]
pub fn find(paths: &[OsString], split_at: u64) -> Found {
    let mut walk = Walk::default();
    let mut unmatched = Vec::new();
    for path in paths {
        if !walk.start(Path::new(path)) {
            unmatched.push(path.clone());
        }
    }
    let Walk { mut files, roots, mut unreadable } = walk;
    files.sort_unstable();
    unreadable.sort_unstable();
    unreadable.dedup();
    if roots > 1 {
        keep_first(&mut files);
    }
    let bytes = files.iter().map(|(_, len)| len).sum();
    let count = files.len();
    let mut pieces = Vec::with_capacity(count);
    for (path, len) in files {
        Piece::cut(path, len, split_at, &mut pieces);
    }
    Found { pieces, files: count, bytes, unreadable, unmatched }
}

/// Drops files that an earlier name already stands for.
fn keep_first(files: &mut Vec<(PathBuf, u64)>) {
    // Two paths are the same file if their directories are the same, with all links resolved, and their names are,
    // which are not links. Inode numbers would make one file of two hard links.
    let mut directories: HashMap<PathBuf, PathBuf> = HashMap::new();
    let mut seen = HashSet::new();
    files.retain(|(path, _)| {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return true };
        let resolved = match directories.get(parent) {
            Some(resolved) => resolved.join(name),
            None => {
                let resolved = parent.canonicalize().unwrap_or_else(|_| parent.to_owned());
                let file = resolved.join(name);
                directories.insert(parent.to_owned(), resolved);
                file
            }
        };
        seen.insert(resolved)
    });
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use tempfile::TempDir;

    use super::*;

    /// A directory with these files, each five bytes long.
    fn tree(files: &[&str]) -> TempDir {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().expect("a file has a directory")).expect("created");
            fs::write(path, b"words").expect("written");
        }
        dir
    }

    fn find_in(dir: &TempDir, paths: &[&str]) -> Found {
        let paths: Vec<OsString> = paths.iter().map(|path| dir.path().join(path).into_os_string()).collect();
        find(&paths, u64::MAX)
    }

    /// The files found, relative to the directory.
    fn names(dir: &TempDir, found: &Found) -> Vec<String> {
        let relative =
            |piece: &Piece| piece.path().strip_prefix(dir.path()).map(|path| path.display().to_string());
        found.pieces.iter().map(|piece| relative(piece).expect("below the directory")).collect()
    }

    #[test]
    fn directories_are_walked_and_sorted() {
        let dir = tree(&["b/2", "b/1", "a", "c d/e/f g", ".hidden"]);
        fs::write(dir.path().join("empty"), b"").expect("written");
        let found = find_in(&dir, &["."]);
        assert_eq!(names(&dir, &found), [".hidden", "a", "b/1", "b/2", "c d/e/f g"]);
        assert_eq!((found.files, found.bytes), (6, 25));
        assert_eq!((found.unmatched.len(), found.unreadable.len()), (0, 0));
    }

    #[test]
    fn patterns_name_files_and_directories() {
        let dir = tree(&["a.txt", "b.txt", "d1/c.txt", "d1/x", "d2/e/c.txt", ".d/h.txt"]);
        let cases: [(&str, &[&str]); 7] = [
            ("*.txt", &["a.txt", "b.txt"]),
            ("d?/c.txt", &["d1/c.txt"]),
            ("d[12]", &["d1/c.txt", "d1/x", "d2/e/c.txt"]),
            ("**/c.txt", &["d1/c.txt", "d2/e/c.txt"]),
            ("**", &["a.txt", "b.txt", "d1/c.txt", "d1/x", "d2/e/c.txt"]),
            ("*/e", &["d2/e/c.txt"]),
            (".d/*", &[".d/h.txt"]),
        ];
        for (pattern, expected) in cases {
            assert_eq!(names(&dir, &find_in(&dir, &[pattern])), expected, "{pattern}");
        }
    }

    #[test]
    fn a_literal_name_is_no_pattern() {
        let dir = tree(&["[a]", "a"]);
        assert_eq!(names(&dir, &find_in(&dir, &["[a]"])), ["[a]"]);
    }

    #[test]
    fn what_matches_nothing_is_reported() {
        let dir = tree(&["a", "d/b"]);
        let found = find_in(&dir, &["none", "a", "*.rs", "a/b", "d/none/*"]);
        assert_eq!(names(&dir, &found), ["a"]);
        let unmatched =
            ["none", "*.rs", "a/b", "d/none/*"].map(|path| dir.path().join(path).into_os_string());
        assert_eq!(found.unmatched, unmatched);
    }

    #[test]
    fn a_file_counts_once() {
        let dir = tree(&["d/a", "d/b", "e/c"]);
        symlink("d", dir.path().join("link")).expect("linked");
        let found = find_in(&dir, &["d/a", "d", "d/*", "d/../d/b", "link/a", "e", "."]);
        assert_eq!((found.files, found.bytes, found.pieces.len()), (3, 15, 3));
    }

    #[test]
    fn links_are_not_followed_and_special_files_not_opened() {
        let dir = tree(&["d/a"]);
        symlink("d", dir.path().join("to-dir")).expect("linked");
        symlink("d/a", dir.path().join("to-file")).expect("linked");
        let _socket = UnixListener::bind(dir.path().join("socket")).expect("bound");
        let found = find_in(&dir, &["."]);
        assert_eq!(names(&dir, &found), ["d/a"]);
        assert!(found.unreadable.is_empty(), "what a directory contains is passed over");
        let found = find_in(&dir, &["to-dir", "to-file", "socket", "d"]);
        assert_eq!((found.files, found.unmatched.len()), (1, 0));
        let reasons: Vec<&str> = found.unreadable.iter().map(|problem| problem.why.as_str()).collect();
        assert_eq!(
            reasons,
            [
                "neither a file nor a directory",
                "a symbolic link, which is not followed",
                "a symbolic link, which is not followed"
            ]
        );
    }

    #[test]
    fn names_need_not_be_text() {
        let dir = tree(&[]);
        let name = OsStr::from_bytes(b"\xff name");
        fs::write(dir.path().join(name), b"words").expect("written");
        for path in [dir.path().to_owned(), dir.path().join(name), dir.path().join("*name")] {
            let found = find(&[path.into()], 2);
            assert_eq!(found.pieces.len(), 3);
            assert_eq!(found.pieces[0].path().file_name(), Some(name));
        }
    }

    #[test]
    fn an_unreadable_directory_does_not_lose_the_rest() {
        let dir = tree(&["a/x", "b/y"]);
        let closed = dir.path().join("a");
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).expect("changed");
        let found = find_in(&dir, &["."]);
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("changed");
        // Root may read it nevertheless.
        match found.unreadable.as_slice() {
            [] => assert_eq!(found.files, 2),
            [problem] => assert_eq!((problem.path.as_path(), found.files), (closed.as_path(), 1)),
            more => panic!("{more:?}"),
        }
    }

    #[test]
    fn relative_paths_become_absolute() {
        let found = find(&["Cargo.toml".into()], u64::MAX);
        assert_eq!(found.pieces[0].path(), std::path::absolute("Cargo.toml").expect("a working directory"));
    }
}
