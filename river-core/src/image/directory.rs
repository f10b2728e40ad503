//! Images as files in a directory, named by their hashes. They outlive the VM, and are shared by all VMs of a user.
//!
//! A file appears under its hash only when it is complete. Still, disks fail and people edit files, so a file is hashed again
//! before this process uses it for the first time, and removed if it does not match its name.

use std::collections::HashMap;
use std::fs::{DirBuilder, DirEntry, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, OFlags, RenameFlags, StatVfsMountFlags};
use rustix::io::Errno;
use uuid::Uuid;

use crate::id::ImageHash;

/// Files that are being written begin with this.
const DRAFT: &str = ".draft-";
/// A draft this old was left behind by a process that died.
const DRAFT_LIFETIME: Duration = Duration::from_secs(3600);

/// The directory.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    limit: u64,
    /// The files whose contents this process has verified. Locked only for look-ups.
    verified: Mutex<HashMap<ImageHash, Identity>>,
}

/// Identifies the file that was verified: another one of the same name must be verified again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    length: u64,
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino(), length: metadata.len() }
    }
}

/// A file that is being written. It is removed unless it becomes an image.
#[derive(Debug)]
pub(crate) struct DraftFile {
    path: PathBuf,
}

impl Drop for DraftFile {
    fn drop(&mut self) {
        // If it has become an image, it has another name by now. If it cannot be removed, the next VM will try.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Directory {
    /// Opens the directory at `path`, creating it if necessary; an error says why it is unusable.
    pub(crate) fn open(path: &Path, limit: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let metadata = std::fs::metadata(path)?;
        let user = rustix::process::geteuid().as_raw();
        // Anybody who can write here can swap an image between its verification and its start.
        if metadata.uid() != user || metadata.mode() & 0o022 != 0 {
            let text =
                format!("{} must belong to user {user} and be writable for nobody else", path.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        if rustix::fs::statvfs(path)?.f_flag.contains(StatVfsMountFlags::NOEXEC) {
            let text = format!("{} is on a file system mounted with noexec", path.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        // Programs are started in working directories of their own.
        let directory = Self { path: path.canonicalize()?, limit, verified: Mutex::default() };
        // Finds out now whether the file system is writable.
        drop(directory.draft()?);
        directory.remove_old_drafts();
        Ok(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Creates a new file to write an image into.
    pub(crate) fn draft(&self) -> io::Result<(File, DraftFile)> {
        let path = self.path.join(format!("{DRAFT}{}", Uuid::new_v4().simple()));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o700).open(&path)?;
        Ok((file, DraftFile { path }))
    }

    /// Turns a complete and verified draft into an image, unless there already is one with that hash, which others may just
    /// have verified.
    pub(crate) fn publish(&self, hash: ImageHash, file: File, draft: DraftFile) -> io::Result<()> {
        let identity = Identity::of(&file.metadata()?);
        // A file that is open for writing cannot be executed.
        drop(file);
        let path = self.file(hash);
        match rustix::fs::renameat_with(CWD, &draft.path, CWD, &path, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EXIST) if self.get(hash).is_some() => return Ok(()),
            // It is damaged, or the file system supports only one way of renaming.
            Err(_) => std::fs::rename(&draft.path, path)?,
        }
        drop(draft);
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).insert(hash, identity);
        self.evict(hash);
        Ok(())
    }

    /// Returns the file of an image, if it is there and valid.
    pub(crate) fn get(&self, hash: ImageHash) -> Option<PathBuf> {
        let path = self.file(hash);
        // Following a link would leave the directory; opening a FIFO would wait for a writer.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(_) if path.is_symlink() => return Self::reject(&path, "it is a link"),
            Err(error) => return Self::unreadable(&path, &error),
        };
        let metadata = file.metadata().ok()?;
        let identity = Identity::of(&metadata);
        let known = self.verified.lock().unwrap_or_else(PoisonError::into_inner).get(&hash).copied();
        if known != Some(identity) {
            if !metadata.is_file() || metadata.len() > self.limit {
                return Self::reject(&path, "it cannot be an image");
            }
            let mut hasher = blake3::Hasher::new();
            if let Err(error) = hasher.update_reader((&file).take(self.limit)) {
                return Self::unreadable(&path, &error);
            }
            if hasher.finalize() != *hash.as_bytes() {
                return Self::reject(&path, "its content is not what its name says");
            }
            self.verified.lock().unwrap_or_else(PoisonError::into_inner).insert(hash, identity);
        }
        // The modification time serves as the time of last use, for eviction. A failure does no harm.
        let _ = file.set_modified(SystemTime::now());
        Some(path)
    }

    fn file(&self, hash: ImageHash) -> PathBuf {
        self.path.join(hash.to_string())
    }

    fn reject(path: &Path, why: &str) -> Option<PathBuf> {
        tracing::warn!(file = %path.display(), why, "removing a bad image");
        let _ = std::fs::remove_file(path);
        None
    }

    /// Being unreadable now (for example because of too many open files) does not make a file invalid, so it stays.
    fn unreadable(path: &Path, error: &io::Error) -> Option<PathBuf> {
        tracing::warn!(file = %path.display(), %error, "cannot read an image");
        None
    }

    /// Removes the least recently used images until the rest fits the limit; never `newest`.
    ///
    /// Other VMs may do the same concurrently. Running programs do not notice: their file lives until they end.
    fn evict(&self, newest: ImageHash) {
        let newest = newest.to_string();
        let is_image = |name: &str| name.len() == 64 && name.bytes().all(|digit| digit.is_ascii_hexdigit());
        let mut images: Vec<(SystemTime, String, u64)> = Vec::new();
        for (entry, metadata) in self.entries() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_image(&name) {
                images.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), name, metadata.len()));
            }
        }
        images.sort_unstable();
        let mut total = images.iter().fold(0_u64, |sum, (_, _, length)| sum.saturating_add(*length));
        for (_, name, length) in images {
            if total <= self.limit {
                break;
            }
            if name != newest && std::fs::remove_file(self.path.join(name)).is_ok() {
                total -= length;
            }
        }
    }

    fn remove_old_drafts(&self) {
        for (entry, metadata) in self.entries() {
            let age = metadata.modified().ok().and_then(|time| time.elapsed().ok()).unwrap_or_default();
            if entry.file_name().to_string_lossy().starts_with(DRAFT) && age > DRAFT_LIFETIME {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Returns the contents of the directory, as far as they can be read.
    fn entries(&self) -> impl Iterator<Item = (DirEntry, Metadata)> {
        std::fs::read_dir(&self.path).into_iter().flatten().filter_map(|entry| {
            let entry = entry.ok()?;
            let metadata = entry.metadata().ok()?;
            Some((entry, metadata))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    fn hash_of(bytes: &[u8]) -> ImageHash {
        ImageHash::from_bytes(*blake3::hash(bytes).as_bytes())
    }

    fn insert(directory: &Directory, bytes: &[u8]) -> ImageHash {
        let (mut file, draft) = directory.draft().unwrap();
        file.write_all(bytes).unwrap();
        directory.publish(hash_of(bytes), file, draft).unwrap();
        hash_of(bytes)
    }

    fn open(limit: u64) -> (TempDir, Directory) {
        let scratch = tempfile::tempdir().unwrap();
        let directory = Directory::open(&scratch.path().join("river/images"), limit).unwrap();
        (scratch, directory)
    }

    fn age(path: &Path, seconds: u64) {
        let time = SystemTime::now() - Duration::from_secs(seconds);
        File::open(path).unwrap().set_modified(time).unwrap();
    }

    #[test]
    fn directory_and_files_are_the_owners() {
        let (_scratch, directory) = open(1000);
        let path = directory.get(insert(&directory, b"image")).unwrap();
        for path in [&path, directory.path(), directory.path().parent().unwrap()] {
            assert_eq!(std::fs::metadata(path).unwrap().mode() & 0o777, 0o700, "{}", path.display());
        }
        assert_eq!(std::fs::read(path).unwrap(), b"image");
        assert_eq!(directory.entries().count(), 1, "no draft stays behind");
    }

    #[test]
    fn an_image_is_still_there_for_the_next_vm() {
        let (_scratch, directory) = open(1000);
        let hash = insert(&directory, b"image");
        let next = Directory::open(directory.path(), 1000).unwrap();
        assert!(next.get(hash).is_some());
        assert!(next.get(hash_of(b"other")).is_none());
    }

    #[test]
    fn an_image_that_is_there_stays_and_a_bad_one_is_replaced() {
        let (_scratch, directory) = open(1000);
        let hash = insert(&directory, b"image");
        let path = directory.get(hash).unwrap();
        let first = std::fs::metadata(&path).unwrap().ino();
        let next = Directory::open(directory.path(), 1000).unwrap();
        insert(&next, b"image");
        assert_eq!(std::fs::metadata(&path).unwrap().ino(), first);
        std::fs::write(&path, b"imag").unwrap();
        insert(&next, b"image");
        assert_eq!(std::fs::read(next.get(hash).unwrap()).unwrap(), b"image");
        assert_eq!(next.entries().count(), 1, "no draft stays behind");
    }

    #[test]
    fn a_bad_file_is_removed() {
        let (_scratch, directory) = open(1000);
        let hash = insert(&directory, b"image");
        let path = directory.get(hash).unwrap();
        let link = || std::os::unix::fs::symlink("/bin/true", &path).unwrap();
        let spoil: [&dyn Fn(); 4] = [
            &|| std::fs::write(&path, b"imagf").unwrap(),
            &|| std::fs::write(&path, b"ima").unwrap(),
            &|| std::fs::write(&path, vec![0; 2000]).unwrap(),
            &link,
        ];
        for spoil in spoil {
            let _ = std::fs::remove_file(&path);
            spoil();
            let next = Directory::open(directory.path(), 1000).unwrap();
            assert!(next.get(hash).is_none());
            assert!(path.symlink_metadata().is_err(), "removed");
        }
        // And can be replaced by a good one.
        insert(&directory, b"image");
        assert!(directory.get(hash).is_some());
    }

    #[test]
    fn another_file_of_the_same_name_is_verified_again() {
        let (_scratch, directory) = open(1000);
        let hash = insert(&directory, b"image");
        let path = directory.get(hash).unwrap();
        let other = directory.path().join("other");
        std::fs::write(&other, b"imagf").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert!(directory.get(hash).is_none());
    }

    #[test]
    fn the_least_recently_used_go_first() {
        let (_scratch, directory) = open(100);
        let [one, two, three] = [1, 2, 3].map(|byte| insert(&directory, &[byte; 30]));
        for (hash, seconds) in [(one, 300), (two, 200), (three, 100)] {
            age(&directory.file(hash), seconds);
        }
        // Now it is the one that was used last.
        directory.get(one).unwrap();
        let four = insert(&directory, &[4; 30]);
        let there = [one, two, three, four].map(|hash| directory.get(hash).is_some());
        assert_eq!(there, [true, false, true, true]);
        // The new one stays, even if nothing else can.
        let five = insert(&directory, &[5; 99]);
        age(&directory.file(five), 10_000);
        let there = [one, two, three, four, five].map(|hash| directory.get(hash).is_some());
        assert_eq!(there, [false, false, false, false, true]);
    }

    #[test]
    fn other_peoples_files_are_not_evicted() {
        let (_scratch, directory) = open(100);
        let other = directory.path().join("notes");
        std::fs::write(&other, vec![0; 1000]).unwrap();
        insert(&directory, b"image");
        assert!(other.exists());
    }

    #[test]
    fn old_drafts_are_removed_and_new_ones_are_not() {
        let (_scratch, directory) = open(100);
        let (_file, young) = directory.draft().unwrap();
        let (_file, old) = directory.draft().unwrap();
        age(&old.path, 3700);
        let _next = Directory::open(directory.path(), 100).unwrap();
        assert!(young.path.exists() && !old.path.exists());
        let path = young.path.clone();
        drop(young);
        assert!(!path.exists(), "a draft that is given up");
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::set_permissions(scratch.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let error = Directory::open(scratch.path(), 100).unwrap_err();
        assert!(error.to_string().contains("writable for nobody else"), "{error}");
    }
}
