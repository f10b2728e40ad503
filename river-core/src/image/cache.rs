//! A VM's cache of images, by hash: a program that comes again need not be sent again.
//!
//! They are files in a directory of the user, which is limited in size. If there is no directory that can hold programs (a
//! read-only home, a file system mounted with `noexec`), they are kept in memory instead. A request for an image returns
//! either exactly the bytes with this hash, or nothing.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::id::ImageHash;
use crate::image::directory::{Directory, DraftFile};
use crate::image::memory::Memory;
use crate::image::place::{CacheError, DEFAULT_LIMIT, cache_limit, cache_path};

/// The most that is kept in memory: 256 MiB, since the programs that run need the memory as well.
const MEMORY_LIMIT: u64 = 256 << 20;
/// How long to retry starting an image whose file seems to be open for writing.
const BUSY_TIME: Duration = Duration::from_secs(1);

/// Why an image was not stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum InsertError {
    /// The bytes do not have the announced hash.
    #[error("the image that arrived is {found}, but {expected} was announced: send it again")]
    Mismatch {
        /// The hash that was announced.
        expected: ImageHash,
        /// The hash of the bytes.
        found: ImageHash,
    },
    /// The image alone is larger than the cache may be.
    #[error(
        "the image is larger than the cache, which holds {limit} bytes: strip the program or set \
         RIVER_CACHE_LIMIT to more"
    )]
    TooLarge {
        /// How many bytes the cache may hold.
        limit: u64,
    },
    /// The bytes could not be written.
    #[error("cannot store the image in {place}: free some space, or set RIVER_CACHE to another directory")]
    Store {
        /// The directory, or a text that says that it is memory.
        place: String,
        /// The error of the system.
        source: io::Error,
    },
}

/// The images that a VM has. All methods may be called by many threads at once.
#[derive(Debug)]
pub(crate) struct ImageCache {
    store: Store,
    limit: u64,
    /// The image of this process itself, if hosts may be started from it.
    own: Option<ImageHash>,
}

#[derive(Debug)]
enum Store {
    Directory(Directory),
    Memory(Memory),
}

/// An image that is arriving. Dropped unfinished, it leaves nothing behind.
#[must_use = "the image is not there before `ImageCache::finish`"]
#[derive(Debug)]
pub(crate) struct Draft {
    expected: ImageHash,
    hasher: Box<blake3::Hasher>,
    written: u64,
    limit: u64,
    place: String,
    file: File,
    /// `None` if the image is in memory.
    draft: Option<DraftFile>,
}

/// An image that can be started by this process: `Command::new(&spawnable)`. Hold it until the process has started.
#[derive(Clone, Debug)]
pub(crate) struct Spawnable {
    path: PathBuf,
    /// An image in memory has no name; its path refers to this file.
    _file: Option<Arc<OwnedFd>>,
}

impl Spawnable {
    /// Returns the path to execute. It is valid only in this process and its children.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl AsRef<OsStr> for Spawnable {
    fn as_ref(&self) -> &OsStr {
        self.path.as_os_str()
    }
}

impl ImageCache {
    /// Opens the user's cache: `$RIVER_CACHE`, else `$XDG_CACHE_HOME/river/images`, else `$HOME/.cache/river/images`. If that
    /// cannot hold programs, images are kept in memory, and the log says so.
    ///
    /// # Errors
    ///
    /// When `RIVER_CACHE_LIMIT` is not a number.
    pub(crate) fn open() -> Result<Self, CacheError> {
        Self::from_environment(|name| std::env::var_os(name))
    }

    fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, CacheError> {
        let limit = cache_limit(&variable)?;
        Ok(match cache_path(variable) {
            Some(path) => Self::open_at(&path, limit),
            None => {
                tracing::warn!(
                    "keeping programs in memory, as HOME is not set: set RIVER_CACHE to a directory"
                );
                Self::in_memory(limit)
            }
        })
    }

    /// Opens a cache of at most `limit` bytes in the directory `path`, or in memory if that is unusable.
    #[must_use]
    pub(crate) fn open_at(path: &Path, limit: u64) -> Self {
        match Directory::open(path, limit) {
            Ok(directory) => Self { store: Store::Directory(directory), limit, own: None },
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "keeping programs in memory: set RIVER_CACHE to another directory");
                Self::in_memory(limit)
            }
        }
    }

    /// Creates a cache of at most `limit` bytes, and at most 256 MiB, in memory.
    #[must_use]
    pub(crate) fn in_memory(limit: u64) -> Self {
        let limit = limit.min(MEMORY_LIMIT);
        Self { store: Store::Memory(Memory::new(limit)), limit, own: None }
    }

    /// Creates the cache of VMs inside a program that serve no other: the program's image need not be sent, as this process
    /// runs it. Hosts that are started from there have its symbols, too.
    #[must_use]
    pub(crate) fn of_own_image(hash: ImageHash) -> Self {
        Self { own: Some(hash), ..Self::in_memory(DEFAULT_LIMIT) }
    }

    /// Returns the directory of the images, unless they are in memory.
    #[must_use]
    pub(crate) fn directory(&self) -> Option<&Path> {
        match &self.store {
            Store::Directory(directory) => Some(directory.path()),
            Store::Memory(_) => None,
        }
    }

    /// Whether the image is there. Reads and hashes it if this process has not done so before.
    #[must_use]
    pub(crate) fn has(&self, hash: ImageHash) -> bool {
        self.get(hash).is_some()
    }

    /// Returns the image, ready to be started. Counts as a use: the least recently used images are evicted first.
    ///
    /// Start it inside [`retry_busy`]. If it is not found then, another VM has just evicted it, and it must be inserted
    /// again.
    ///
    /// # Errors
    ///
    /// `NotFound` when it is not there.
    pub(crate) fn spawnable(&self, hash: ImageHash) -> io::Result<Spawnable> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("image {hash} is not in the cache"));
        self.get(hash).ok_or_else(missing)
    }

    fn get(&self, hash: ImageHash) -> Option<Spawnable> {
        if self.own == Some(hash) {
            return Some(Spawnable { path: super::SELF.into(), _file: None });
        }
        match &self.store {
            Store::Directory(directory) => directory.get(hash).map(|path| Spawnable { path, _file: None }),
            Store::Memory(memory) => {
                memory.get(hash).map(|(path, file)| Spawnable { path, _file: Some(file) })
            }
        }
    }

    /// Begins to store an image that arrives in pieces.
    ///
    /// # Errors
    ///
    /// When no file can be created for it.
    pub(crate) fn begin(&self, hash: ImageHash) -> Result<Draft, InsertError> {
        let created = match &self.store {
            Store::Directory(directory) => directory.draft().map(|(file, draft)| (file, Some(draft))),
            Store::Memory(_) => Memory::draft().map(|file| (file, None)),
        };
        let place = self.place();
        match created {
            Ok((file, draft)) => {
                let hasher = Box::new(blake3::Hasher::new());
                Ok(Draft { expected: hash, hasher, written: 0, limit: self.limit, place, file, draft })
            }
            Err(source) => Err(InsertError::Store { place, source }),
        }
    }

    /// Completes the arrival of an image: from now on it is in the cache.
    ///
    /// # Errors
    ///
    /// When the bytes that were written do not have the hash that was announced.
    pub(crate) fn finish(&self, draft: Draft) -> Result<(), InsertError> {
        let Draft { expected, hasher, file, draft, place, .. } = draft;
        let found = ImageHash::from_bytes(*hasher.finalize().as_bytes());
        if found != expected {
            return Err(InsertError::Mismatch { expected, found });
        }
        let published = match (&self.store, draft) {
            (Store::Directory(directory), Some(draft)) => directory.publish(expected, file, draft),
            (Store::Memory(memory), None) => memory.publish(expected, file),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "the draft is of another cache")),
        };
        published.map_err(|source| InsertError::Store { place, source })
    }

    fn place(&self) -> String {
        self.directory().map_or_else(|| "memory".to_owned(), |path| path.display().to_string())
    }
}

impl Draft {
    /// Appends the next piece.
    ///
    /// # Errors
    ///
    /// When the image becomes too large, or the piece cannot be written.
    pub(crate) fn write(&mut self, piece: &[u8]) -> Result<(), InsertError> {
        self.written = self.written.saturating_add(piece.len() as u64);
        if self.written > self.limit {
            return Err(InsertError::TooLarge { limit: self.limit });
        }
        self.hasher.update(piece);
        let place = &self.place;
        self.file.write_all(piece).map_err(|source| InsertError::Store { place: place.clone(), source })
    }
}

/// Starts an image: retries, for a second at most, while its file is busy.
///
/// When any thread of this process starts a child, the child holds all open files for an instant, between `fork` and `exec`.
/// If one of them was an image being written, that image cannot be executed during this instant.
///
/// # Errors
///
/// Those of `start`.
pub(crate) fn retry_busy<T>(mut start: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let begun = Instant::now();
    loop {
        match start() {
            Err(error)
                if error.kind() == io::ErrorKind::ExecutableFileBusy && begun.elapsed() < BUSY_TIME =>
            {
                std::thread::sleep(Duration::from_micros(100));
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::Barrier;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::image::own_image;

    impl ImageCache {
        fn insert(&self, hash: ImageHash, bytes: &[u8]) -> Result<(), InsertError> {
            let mut draft = self.begin(hash)?;
            bytes.chunks(1000).try_for_each(|piece| draft.write(piece))?;
            self.finish(draft)
        }
    }

    fn hash_of(bytes: &[u8]) -> ImageHash {
        ImageHash::from_bytes(*blake3::hash(bytes).as_bytes())
    }

    /// One cache of each kind.
    fn caches(limit: u64) -> (TempDir, [ImageCache; 2]) {
        let scratch = tempfile::tempdir().unwrap();
        let directory = ImageCache::open_at(&scratch.path().join("images"), limit);
        assert!(directory.directory().is_some());
        (scratch, [directory, ImageCache::in_memory(limit)])
    }

    #[test]
    fn this_very_program_runs_from_the_cache() {
        let image = own_image().unwrap();
        let (_scratch, caches) = caches(DEFAULT_LIMIT);
        for cache in caches {
            assert!(!cache.has(image.hash));
            cache.insert(image.hash, &image.bytes[..]).unwrap();
            let spawnable = cache.spawnable(image.hash).unwrap();
            let output = retry_busy(|| Command::new(&spawnable).arg("--list").output()).unwrap();
            assert!(output.status.success(), "{output:?}");
            let list = String::from_utf8(output.stdout).unwrap();
            assert!(list.contains("this_very_program_runs_from_the_cache: test"), "{list}");
        }
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        let (_scratch, caches) = caches(100);
        for cache in caches {
            let error = cache.spawnable(hash_of(b"image")).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
        }
    }

    #[test]
    fn wrong_bytes_are_refused_with_both_hashes() {
        let (_scratch, caches) = caches(100);
        for cache in caches {
            let error = cache.insert(hash_of(b"image"), &b"imagf"[..]).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(&hash_of(b"image").to_string()), "{text}");
            assert!(text.contains(&hash_of(b"imagf").to_string()), "{text}");
            assert!(!cache.has(hash_of(b"image")) && !cache.has(hash_of(b"imagf")));
            assert!(cache.directory().is_none_or(|path| path.read_dir().unwrap().next().is_none()));
        }
    }

    #[test]
    fn an_endless_image_is_refused() {
        let (_scratch, caches) = caches(1 << 20);
        for cache in caches {
            let error = cache.insert(hash_of(b"image"), &vec![1; (1 << 20) + 1]).unwrap_err();
            assert!(matches!(error, InsertError::TooLarge { limit } if limit == 1 << 20), "{error}");
        }
    }

    #[test]
    fn an_image_that_breaks_off_leaves_nothing() {
        let (_scratch, caches) = caches(100);
        for cache in caches {
            let mut draft = cache.begin(hash_of(b"image")).unwrap();
            draft.write(b"ima").unwrap();
            drop(draft);
            assert!(cache.directory().is_none_or(|path| path.read_dir().unwrap().next().is_none()));
        }
    }

    #[test]
    fn the_same_image_can_be_inserted_by_many_at_once() {
        let bytes = vec![7; 1 << 20];
        let hash = hash_of(&bytes);
        let (_scratch, caches) = caches(DEFAULT_LIMIT);
        for cache in caches {
            let barrier = Barrier::new(4);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        barrier.wait();
                        cache.insert(hash, &bytes[..]).unwrap();
                        assert_eq!(std::fs::read(cache.spawnable(hash).unwrap().path()).unwrap(), bytes);
                    });
                }
            });
            assert!(cache.directory().is_none_or(|path| path.read_dir().unwrap().count() == 1));
        }
    }

    #[test]
    fn a_draft_of_another_cache_is_refused() {
        let (_scratch, [directory, memory]) = caches(100);
        let mut draft = directory.begin(hash_of(b"image")).unwrap();
        draft.write(b"image").unwrap();
        assert!(memory.finish(draft).is_err());
    }

    #[test]
    fn without_a_usable_directory_images_are_in_memory() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::write(scratch.path().join("file"), b"").unwrap();
        let cache = ImageCache::open_at(&scratch.path().join("file/images"), 100);
        assert_eq!(cache.directory(), None);
        cache.insert(hash_of(b"image"), &b"image"[..]).unwrap();
        assert!(cache.has(hash_of(b"image")));
        assert_eq!(ImageCache::from_environment(|_| None).unwrap().directory(), None);
    }

    #[test]
    fn a_limit_that_is_no_number_is_an_error() {
        let limit = |text: &'static str| {
            ImageCache::from_environment(move |name| (name == "RIVER_CACHE_LIMIT").then(|| text.into()))
        };
        assert_eq!(limit("1000").unwrap().limit, 1000);
        assert_eq!(limit("").unwrap().limit, MEMORY_LIMIT);
        for bad in ["2GB", "-1", "1e9"] {
            assert!(limit(bad).unwrap_err().to_string().contains("RIVER_CACHE_LIMIT"));
        }
    }

    #[test]
    fn a_busy_file_is_tried_again() {
        let mut tries = 0;
        let result = retry_busy(|| {
            tries += 1;
            if tries < 3 { Err(io::ErrorKind::ExecutableFileBusy.into()) } else { Ok(tries) }
        });
        assert_eq!(result.unwrap(), 3);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn an_image_arrives_in_any_pieces(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..2000), 0..10)
        ) {
            let bytes = pieces.concat();
            let (_scratch, caches) = caches(DEFAULT_LIMIT);
            for cache in caches {
                let mut draft = cache.begin(hash_of(&bytes)).unwrap();
                for piece in &pieces {
                    draft.write(piece).unwrap();
                }
                cache.finish(draft).unwrap();
                let stored = cache.spawnable(hash_of(&bytes)).unwrap();
                prop_assert_eq!(std::fs::read(stored.path()).unwrap(), &bytes[..]);
            }
        }
    }
}
