//! An output directory: parts are written under names of their own and renamed when they are complete.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Where parts are until they are complete.
const TEMPORARY: &str = "_temporary";
/// Says that all parts are there.
const SUCCESS: &str = "_SUCCESS";

/// An output directory.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    path: PathBuf,
}

/// The name of a reducer's part.
pub(crate) fn part_name(reducer: u32) -> String {
    format!("part-{reducer:05}")
}

impl Directory {
    /// Makes the directory ready for a job.
    ///
    /// # Errors
    /// If it cannot be made, or is there and has something in it that may not be overwritten.
    pub(crate) fn prepare(path: &Path, overwrite: bool) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        let mut old = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name == TEMPORARY {
                fs::remove_dir_all(entry.path())?;
                continue;
            }
            if !overwrite {
                let text = "the output directory is not empty: name another one, or empty it first; \
                            a program can have that done with `Output::overwrite`";
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
            }
            // Only what a job writes: whatever else somebody keeps there stays.
            if name == SUCCESS || name.starts_with("part-") {
                old.push(entry.path());
            }
        }
        // First the mark, so that a half-removed output is not taken for a whole one.
        old.sort();
        for path in old {
            fs::remove_file(path)?;
        }
        fs::create_dir(path.join(TEMPORARY))?;
        Ok(Self { path: path.to_owned() })
    }

    /// The directory that a job has made ready.
    pub(crate) fn prepared(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where an attempt of a reducer writes.
    pub(crate) fn attempt(&self, reducer: u32, attempt: u64) -> PathBuf {
        self.path.join(TEMPORARY).join(format!("{}-{attempt}", part_name(reducer)))
    }

    /// Makes what an attempt has written the reducer's part.
    pub(crate) fn commit_part(&self, reducer: u32, attempt: u64) -> io::Result<()> {
        fs::rename(self.attempt(reducer, attempt), self.path.join(part_name(reducer)))
    }

    /// Marks the output as complete.
    pub(crate) fn commit(&self) -> io::Result<()> {
        fs::remove_dir_all(self.path.join(TEMPORARY))?;
        File::create(self.path.join(SUCCESS)).map(drop)
    }

    /// Removes what was not committed.
    pub(crate) fn abandon(&self) {
        let _ = fs::remove_dir_all(self.path.join(TEMPORARY));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn parts_appear_when_they_are_whole() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("out");
        let directory = Directory::prepare(&path, false).unwrap();
        for attempt in 0..2 {
            fs::write(directory.attempt(3, attempt), attempt.to_string()).unwrap();
        }
        assert_eq!(names(&path), ["_temporary"]);
        directory.commit_part(3, 1).unwrap();
        directory.commit().unwrap();
        assert_eq!(names(&path), ["_SUCCESS", "part-00003"]);
        assert_eq!(fs::read_to_string(path.join("part-00003")).unwrap(), "1");
    }

    #[test]
    fn what_a_killed_program_has_left_goes_at_the_next_start() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("out");
        let killed = Directory::prepare(&path, false).unwrap();
        fs::write(killed.attempt(0, 1), "half of a pa").unwrap();
        let again = Directory::prepare(&path, false).unwrap();
        fs::write(again.attempt(0, 1), "whole").unwrap();
        again.commit_part(0, 1).unwrap();
        again.commit().unwrap();
        assert_eq!(names(&path), ["_SUCCESS", "part-00000"]);
    }

    #[test]
    fn what_is_there_is_not_overwritten_unasked() {
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join("mine"), "").unwrap();
        fs::write(scratch.path().join("part-00007"), "").unwrap();
        let error = Directory::prepare(scratch.path(), false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        let directory = Directory::prepare(scratch.path(), true).unwrap();
        directory.abandon();
        assert_eq!(names(scratch.path()), ["mine"]);
    }
}
