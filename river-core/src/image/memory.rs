//! Images in memory, for machines where no directory can hold programs: sealed memory files, which can be executed, but
//! neither changed nor kept beyond the VM's end.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;

use crate::id::ImageHash;

/// The images.
#[derive(Debug)]
pub(crate) struct Memory {
    limit: u64,
    /// Locked only for a look-up or an insertion.
    images: Mutex<Images>,
}

#[derive(Debug, Default)]
struct Images {
    by_hash: HashMap<ImageHash, Entry>,
    /// Counts the uses.
    clock: u64,
}

#[derive(Debug)]
struct Entry {
    file: Arc<OwnedFd>,
    length: u64,
    used: u64,
}

impl Memory {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, images: Mutex::default() }
    }

    /// Creates a new file to write an image into.
    pub(crate) fn draft() -> io::Result<File> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Some systems make only those files executable that ask for it, and older ones do not know the flag.
        let file = match rustix::fs::memfd_create("river", flags | MemfdFlags::EXEC) {
            Err(Errno::INVAL) => rustix::fs::memfd_create("river", flags),
            other => other,
        }?;
        Ok(file.into())
    }

    /// Turns a complete and verified draft into an image.
    pub(crate) fn publish(&self, hash: ImageHash, file: File) -> io::Result<()> {
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals)?;
        let length = file.metadata()?.len();
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        images.clock += 1;
        let used = images.clock;
        images.by_hash.insert(hash, Entry { file: Arc::new(file.into()), length, used });
        images.evict(self.limit);
        Ok(())
    }

    /// Returns the path of an image, valid in this process and its children for as long as the file is held.
    pub(crate) fn get(&self, hash: ImageHash) -> Option<(PathBuf, Arc<OwnedFd>)> {
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        images.clock += 1;
        let clock = images.clock;
        let entry = images.by_hash.get_mut(&hash)?;
        entry.used = clock;
        Some((format!("/proc/self/fd/{}", entry.file.as_raw_fd()).into(), entry.file.clone()))
    }
}

impl Images {
    /// Removes the least recently used images until the rest fits the limit; never the newest.
    fn evict(&mut self, limit: u64) {
        let mut total = self.by_hash.values().fold(0_u64, |sum, entry| sum.saturating_add(entry.length));
        while total > limit && self.by_hash.len() > 1 {
            let oldest = self.by_hash.iter().min_by_key(|(_, entry)| entry.used).map(|(hash, _)| *hash);
            let Some(entry) = oldest.and_then(|hash| self.by_hash.remove(&hash)) else { break };
            total -= entry.length;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn insert(memory: &Memory, bytes: &[u8]) -> ImageHash {
        let mut file = Memory::draft().unwrap();
        file.write_all(bytes).unwrap();
        let hash = ImageHash::from_bytes(*blake3::hash(bytes).as_bytes());
        memory.publish(hash, file).unwrap();
        hash
    }

    #[test]
    fn an_image_can_be_read_but_not_changed() {
        let memory = Memory::new(100);
        let (path, _file) = memory.get(insert(&memory, b"image")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"image");
        let error = std::fs::OpenOptions::new().write(true).open(&path).and_then(|mut file| file.write(b"x"));
        assert!(error.is_err());
    }

    #[test]
    fn the_least_recently_used_go_first() {
        let memory = Memory::new(100);
        let [one, two, three] = [1, 2, 3].map(|byte| insert(&memory, &[byte; 30]));
        memory.get(one).unwrap();
        let four = insert(&memory, &[4; 30]);
        assert_eq!([one, two, three, four].map(|hash| memory.get(hash).is_some()), [true, false, true, true]);
        let five = insert(&memory, &[5; 200]);
        assert_eq!([one, four, five].map(|hash| memory.get(hash).is_some()), [false, false, true]);
    }

    #[test]
    fn an_evicted_image_lives_while_it_is_held() {
        let memory = Memory::new(10);
        let (path, _file) = memory.get(insert(&memory, b"image")).unwrap();
        insert(&memory, b"another one");
        assert_eq!(std::fs::read(path).unwrap(), b"image");
    }
}
