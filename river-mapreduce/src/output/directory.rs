//! Output directories: parts are written under temporary names and renamed when they are complete.

use std::cell::RefCell;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The subdirectory of parts that are not complete.
const TEMPORARY: &str = "_temporary";
/// A file that is locked while a job writes to the directory.
const LOCK: &str = "_lock";
/// The file that marks the output as complete.
const SUCCESS: &str = "_SUCCESS";

/// An output directory that only this job writes to. Dropping it removes whatever was not committed.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// The reducers whose parts are complete, until the whole output is.
    parts: RefCell<Vec<u32>>,
    _lock: Lock,
}

/// Keeps other jobs from writing to a directory. Dropping it removes its file, if the file is ours.
#[derive(Debug)]
struct Lock {
    file: File,
    path: PathBuf,
    is_ours: bool,
}

/// The name of a reducer's part.
fn part_name(reducer: u32) -> String {
    format!("part-{reducer:05}")
}

/// Whether a job writes files of that name, which a later job may remove.
fn is_output(name: &str) -> bool {
    let is_part = |number: &str| number.len() >= 5 && number.bytes().all(|byte| byte.is_ascii_digit());
    name == SUCCESS || name.strip_prefix("part-").is_some_and(is_part)
}

/// The file to which an attempt of a reducer writes.
fn attempt_path(directory: &Path, reducer: u32, attempt: u64) -> PathBuf {
    directory.join(TEMPORARY).join(format!("{}-{attempt}", part_name(reducer)))
}

/// Returns a function that takes what an attempt of a reducer writes. An error's text is for the user.
pub(crate) fn part_file(
    directory: &Path,
    reducer: u32,
    attempt: u64,
) -> Result<impl FnMut(Vec<u8>) -> Result<Vec<u8>, String> + use<>, String> {
    let path = attempt_path(directory, reducer, attempt);
    let named = |error: io::Error, path: &Path| format!("{}: {error}", path.display());
    let mut file = File::create(&path).map_err(|error| named(error, &path))?;
    Ok(move |bytes: Vec<u8>| match file.write_all(&bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => Err(named(error, &path)),
    })
}

/// Locks a directory; the lock ends with this process, however it ends.
fn lock(directory: &Path) -> io::Result<Lock> {
    let path = directory.join(LOCK);
    loop {
        let (file, is_ours) = match File::options().create_new(true).write(true).open(&path) {
            Ok(file) => (file, true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                (File::options().create(true).truncate(false).write(true).open(&path)?, false)
            }
            Err(error) => return Err(error),
        };
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let text = "another job is writing to the output directory: name another one, or wait for it";
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
            }
            // Some file systems do not support locks.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        // The previous owner may have removed the file before it was locked here.
        let inode = file.metadata()?.ino();
        if fs::metadata(&path).is_ok_and(|there| there.ino() == inode) {
            return Ok(Lock { file, path, is_ours });
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.is_ours {
            let _ = fs::remove_file(&self.path);
        }
        // Explicitly, as a process started meanwhile may have inherited the file.
        let _ = self.file.unlock();
    }
}

/// Returns an input that is in the directory, if any.
fn inside<'a>(directory: &Path, inputs: impl IntoIterator<Item = &'a Path>) -> Option<&'a Path> {
    let directory = directory.canonicalize().ok()?;
    inputs.into_iter().find(|input| input.canonicalize().is_ok_and(|input| input.starts_with(&directory)))
}

impl Directory {
    /// Prepares the directory for a job with these input files. Nothing is removed before it is certain that the job
    /// may write there.
    ///
    /// # Errors
    /// If it cannot be created, contains files that may not be overwritten, or contains an input, or if another job
    /// writes to it.
    pub(crate) fn prepare<'a>(
        path: &Path,
        overwrite: bool,
        inputs: impl IntoIterator<Item = &'a Path>,
    ) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        if let Some(input) = inside(path, inputs) {
            let text = format!(
                "the input {} lies in the output directory: name another one for the output",
                input.display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let mut lock = lock(path)?;
        let mut old = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name == TEMPORARY || name == LOCK {
                continue;
            }
            if !overwrite {
                let text = "the output directory is not empty: name another one, or empty it first; \
                            a program can have that done with `Output::overwrite`";
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
            }
            // Only files of jobs: whatever else is there stays.
            if is_output(&name) {
                if entry.file_type()?.is_dir() {
                    let text = format!(
                        "{name} in the output directory is a directory, which no job has made: move it"
                    );
                    return Err(io::Error::new(io::ErrorKind::IsADirectory, text));
                }
                old.push(entry.path());
            }
        }
        // From here on the job owns its names there, including a lock file left by a program that was killed.
        lock.is_ours = true;
        let directory = Self { path: path.to_owned(), parts: RefCell::default(), _lock: lock };
        // The mark goes first, so that half-removed output is not taken for complete output.
        old.sort();
        for path in old {
            fs::remove_file(path)?;
        }
        let temporary = path.join(TEMPORARY);
        // Left by a program that was killed.
        if temporary.exists() {
            fs::remove_dir_all(&temporary)?;
        }
        fs::create_dir(temporary)?;
        Ok(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the output of an attempt the reducer's part.
    pub(crate) fn commit_part(&self, reducer: u32, attempt: u64) -> io::Result<()> {
        fs::rename(attempt_path(&self.path, reducer, attempt), self.path.join(part_name(reducer)))?;
        self.parts.borrow_mut().push(reducer);
        Ok(())
    }

    /// Marks the output as complete.
    pub(crate) fn commit(self) -> io::Result<()> {
        File::create(self.path.join(SUCCESS))?;
        self.parts.take();
        Ok(())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        for reducer in self.parts.take() {
            let _ = fs::remove_file(self.path.join(part_name(reducer)));
        }
        // Best effort: an attempt that is no longer needed may still be writing. The next job removes the rest.
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

    fn prepare(path: &Path, overwrite: bool) -> io::Result<Directory> {
        Directory::prepare(path, overwrite, [])
    }

    fn write(directory: &Directory, reducer: u32, attempt: u64, text: &str) {
        part_file(&directory.path, reducer, attempt).unwrap()(text.into()).unwrap();
    }

    #[test]
    fn parts_appear_when_they_are_whole() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("out");
        let directory = prepare(&path, false).unwrap();
        for attempt in 0..2 {
            write(&directory, 3, attempt, &attempt.to_string());
        }
        assert_eq!(names(&path), ["_lock", "_temporary"]);
        directory.commit_part(3, 1).unwrap();
        directory.commit().unwrap();
        assert_eq!(names(&path), ["_SUCCESS", "part-00003"]);
        assert_eq!(fs::read_to_string(path.join("part-00003")).unwrap(), "1");
    }

    #[test]
    fn the_parts_of_an_output_that_did_not_become_complete_go() {
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join("mine"), "").unwrap();
        let directory = prepare(scratch.path(), true).unwrap();
        write(&directory, 3, 1, "whole");
        directory.commit_part(3, 1).unwrap();
        assert_eq!(names(scratch.path()), ["_lock", "_temporary", "mine", "part-00003"]);
        drop(directory);
        assert_eq!(names(scratch.path()), ["mine"]);
    }

    #[test]
    fn what_a_killed_program_has_left_goes_at_the_next_start() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("out");
        fs::create_dir_all(path.join(TEMPORARY)).unwrap();
        fs::write(attempt_path(&path, 0, 1), "half of a pa").unwrap();
        fs::write(path.join(LOCK), "").unwrap();
        let again = prepare(&path, false).unwrap();
        assert_eq!(names(&path.join(TEMPORARY)), [""; 0]);
        write(&again, 0, 1, "whole");
        again.commit_part(0, 1).unwrap();
        again.commit().unwrap();
        assert_eq!(names(&path), ["_SUCCESS", "part-00000"]);
    }

    #[test]
    fn what_is_there_is_not_overwritten_unasked() {
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join("mine"), "").unwrap();
        fs::write(scratch.path().join("part-00007"), "").unwrap();
        let error = prepare(scratch.path(), false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(names(scratch.path()), ["mine", "part-00007"]);
        drop(prepare(scratch.path(), true).unwrap());
        assert_eq!(names(scratch.path()), ["mine"]);
    }

    #[test]
    fn a_refused_directory_keeps_all_that_is_there() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        fs::create_dir(at(TEMPORARY)).unwrap();
        for name in ["_temporary/precious", LOCK, "mine"] {
            fs::write(at(name), name).unwrap();
        }
        assert_eq!(prepare(scratch.path(), false).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(names(scratch.path()), [LOCK, TEMPORARY, "mine"]);
        assert_eq!(names(&at(TEMPORARY)), ["precious"]);
        fs::remove_file(at(LOCK)).unwrap();
        prepare(scratch.path(), false).unwrap_err();
        assert_eq!(names(scratch.path()), [TEMPORARY, "mine"]);
    }

    #[test]
    fn only_what_a_job_has_written_is_overwritten() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        let kept = ["part-", "part-00000-x", "part-list.csv", "part-r-00000.parquet"];
        for name in kept.into_iter().chain([SUCCESS, "part-00000", "part-123456"]) {
            fs::write(at(name), "").unwrap();
        }
        fs::create_dir(at("part-00001")).unwrap();
        let error = prepare(scratch.path(), true).unwrap_err().to_string();
        assert!(error.contains("part-00001"), "{error}");
        assert!(at(SUCCESS).exists() && at("part-00000").exists());
        fs::remove_dir(at("part-00001")).unwrap();
        drop(prepare(scratch.path(), true).unwrap());
        assert_eq!(names(scratch.path()), kept);
    }

    #[test]
    fn one_job_at_a_time_writes_to_a_directory() {
        let scratch = tempfile::tempdir().unwrap();
        let first = prepare(scratch.path(), false).unwrap();
        write(&first, 0, 1, "first");
        for overwrite in [false, true] {
            let error = prepare(scratch.path(), overwrite).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ResourceBusy, "{error}");
        }
        first.commit_part(0, 1).unwrap();
        first.commit().unwrap();
        assert_eq!(names(scratch.path()), ["_SUCCESS", "part-00000"]);
        prepare(scratch.path(), true).unwrap();
    }

    #[test]
    fn an_input_that_lies_there_is_not_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let part = scratch.path().join("part-00000");
        fs::write(&part, "precious").unwrap();
        let link = scratch.path().join("../").join(scratch.path().file_name().unwrap()).join("part-00000");
        for input in [part.as_path(), &link] {
            let error = Directory::prepare(scratch.path(), true, [input]).unwrap_err();
            assert!(error.to_string().contains("lies in the output directory"), "{error}");
        }
        assert_eq!(names(scratch.path()), ["part-00000"]);
        let below = scratch.path().join("below");
        drop(Directory::prepare(&below, true, [part.as_path()]).unwrap());
    }

    #[test]
    fn an_output_is_complete_even_if_what_is_temporary_cannot_be_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = prepare(scratch.path(), false).unwrap();
        // A file in place of the directory cannot be removed as a directory.
        fs::remove_dir(scratch.path().join(TEMPORARY)).unwrap();
        fs::write(scratch.path().join(TEMPORARY), "").unwrap();
        directory.commit().unwrap();
        assert!(scratch.path().join(SUCCESS).exists());
    }
}
