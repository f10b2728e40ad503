//! The cluster key: 32 random bytes that all machines of a cluster share. Nothing else decides who may start programs on
//! them.
//!
//! The key is stored in a file of the user, as 64 hexadecimal digits and a newline. The file is created when it is first
//! needed, so that River works on one machine without any set-up; to join machines to a cluster, copy the file. A key that
//! others could have read or changed protects nothing, so such a file is refused.
//!
//! The key itself never encrypts or signs anything: each purpose derives a key of its own from it.

use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use uuid::Uuid;

/// The environment variable that names the key file.
pub(crate) const KEY_FILE_VARIABLE: &str = "RIVER_KEY_FILE";

/// The most that is read of a key file. A longer file is not a key file.
const MAX_FILE: u64 = 256;

/// The secret that the machines of a cluster share.
#[derive(Clone)]
pub struct ClusterKey {
    bytes: [u8; 32],
    origin: Option<Arc<Path>>,
}

/// Why there is no usable cluster key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The path of the key file is not known.
    #[error(
        "no place for the cluster key, as HOME is not set: set RIVER_KEY_FILE to the path of the key file"
    )]
    NoHome,
    /// The file does not exist and could not be created.
    #[error("cannot create the cluster key {}: set RIVER_KEY_FILE to a path that you can write to", .path.display())]
    Create {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no key file, and the network is not used without one.
    #[error(
        "there is no cluster key {0}, which the network requires: copy the key of another machine of the \
         cluster there, or make one with `river key new` and copy it to the others",
        .path.display()
    )]
    Missing {
        /// The key file.
        path: PathBuf,
    },
    /// The file could not be read.
    #[error(
        "cannot read the cluster key {}: make it readable for its owner, or set RIVER_KEY_FILE to another",
        .path.display()
    )]
    Read {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Users other than the owner have rights on the file.
    #[error(
        "the cluster key {0} is open to others (mode {mode:03o}), so they may know or have changed it: run \
         `chmod 600 {0}` if you trust them, otherwise remove it on all machines of the cluster to get a new one",
        .path.display()
    )]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to another user.
    #[error(
        "the cluster key {} belongs to user {owner}, but this program runs as user {user}: copy the key to a \
         file of your own and set RIVER_KEY_FILE to it",
        .path.display()
    )]
    Foreign {
        /// The key file.
        path: PathBuf,
        /// The user id of its owner.
        owner: u32,
        /// The user id of this process.
        user: u32,
    },
    /// The file does not contain a key.
    #[error(
        "{} is not a cluster key (64 hexadecimal digits in a file): copy it again from another machine of the \
         cluster, or remove it to get a new one",
        .path.display()
    )]
    Malformed {
        /// The key file.
        path: PathBuf,
    },
}

impl ClusterKey {
    /// Returns the path of the user's cluster key, which need not exist.
    ///
    /// # Errors
    ///
    /// When no place for the file is known.
    pub fn path() -> Result<PathBuf, KeyError> {
        key_path(|name| std::env::var_os(name))
    }

    /// Loads the key of the user's cluster; creates it if there is none yet.
    ///
    /// The file is `$RIVER_KEY_FILE`, else `$XDG_CONFIG_HOME/river/key`, else `$HOME/.config/river/key`.
    ///
    /// # Errors
    ///
    /// When no place for the file is known, when it can be neither read nor made, when others have access to it,
    /// or when its content is not a key.
    pub fn load_or_create() -> Result<Self, KeyError> {
        Self::load_or_create_at(&Self::path()?)
    }

    /// Loads the key of the user's cluster. The file must exist: no key is created.
    ///
    /// # Errors
    ///
    /// As [`load_or_create`](Self::load_or_create), and [`KeyError::Missing`].
    pub(crate) fn load() -> Result<Self, KeyError> {
        Self::load_existing(&key_path(|name| std::env::var_os(name))?)
    }

    fn load_existing(path: &Path) -> Result<Self, KeyError> {
        Self::load_at(path).map_err(|error| match error {
            KeyError::Read { path, source } if source.kind() == io::ErrorKind::NotFound => {
                KeyError::Missing { path }
            }
            other => other,
        })
    }

    /// Loads the key in the file `path`; creates it if there is none yet. Processes that do so concurrently get the same key.
    ///
    /// # Errors
    ///
    /// As [`load_or_create`](Self::load_or_create).
    pub fn load_or_create_at(path: &Path) -> Result<Self, KeyError> {
        match Self::load_at(path) {
            Err(KeyError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                create(path).map_err(|source| KeyError::Create { path: path.to_owned(), source })?;
                // Another process may have created the key first, so read what is there instead of trusting what we wrote.
                Self::load_at(path)
            }
            other => other,
        }
    }

    /// Loads the key in the file `path`, which must exist.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, when others have access to it, or when its content is not a key.
    pub fn load_at(path: &Path) -> Result<Self, KeyError> {
        let read_error = |source| KeyError::Read { path: path.to_owned(), source };
        // Without O_NONBLOCK, opening a FIFO would wait for a writer forever.
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path).map_err(read_error)?;
        // Taken from the open file, so that it cannot be swapped between the check and the read.
        let metadata = file.metadata().map_err(read_error)?;
        if !metadata.is_file() {
            return Err(KeyError::Malformed { path: path.to_owned() });
        }
        let user = rustix::process::geteuid().as_raw();
        if metadata.uid() != user {
            return Err(KeyError::Foreign { path: path.to_owned(), owner: metadata.uid(), user });
        }
        let mode = metadata.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path: path.to_owned(), mode });
        }
        let mut text = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut text).map_err(read_error)?;
        let bytes = parse(&text).ok_or_else(|| KeyError::Malformed { path: path.to_owned() })?;
        Ok(Self { bytes, origin: Some(path.into()) })
    }

    /// Creates a key from these bytes. They must be secret and random; a hashed passphrase is neither.
    #[must_use]
    pub(crate) const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self { bytes, origin: None }
    }

    /// Returns the 32 bytes of the key, for a process that this one starts, or for another machine.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        self.bytes
    }

    /// Returns the file that the key was read from, if it was read from one.
    #[must_use]
    pub(crate) fn origin(&self) -> Option<&Path> {
        self.origin.as_deref()
    }

    /// Derives a key for the purpose that `context` names. Different contexts give unrelated keys, and none of them reveals
    /// anything about the cluster key.
    #[must_use]
    pub(crate) fn derive(&self, context: &str) -> [u8; 32] {
        blake3::derive_key(context, &self.bytes)
    }

    /// Returns a short name of the key, by which people can check whether two machines have the same one. It does not help to
    /// guess the key.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex(&self.derive("river key fingerprint v1")[..4])
    }
}

impl fmt::Debug for ClusterKey {
    /// Prints the fingerprint only, as a secret does not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClusterKey({})", self.fingerprint())
    }
}

/// Returns the path of the key file in this environment.
fn key_path(variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, KeyError> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(file) = set(KEY_FILE_VARIABLE) {
        return Ok(file);
    }
    // The XDG specification says to ignore relative paths.
    let config = set("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
    let config = config.or_else(|| set("HOME").map(|home| home.join(".config"))).ok_or(KeyError::NoHome)?;
    Ok(config.join("river").join("key"))
}

/// Creates the key file. If another process is faster, that is success too.
///
/// The key is written to a file of another name, which is then hard-linked: the link either creates a complete file or fails
/// because there is one, so no reader ever sees half a key and no key replaces another.
fn create(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;

    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;

    let draft = directory.join(format!(".key-{}", Uuid::new_v4().simple()));
    let linked = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(format!("{}\n", hex(&bytes)).as_bytes())?;
        // Once linked, the key may be copied to other machines: a power failure must not take it back.
        file.sync_all()?;
        std::fs::hard_link(&draft, path)
    })();
    // A draft that stays behind is a nuisance, not a danger: its mode is 0600.
    let _ = std::fs::remove_file(&draft);
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Parses the text of a key file. White space around the key is ignored, as editors like to add some.
fn parse(text: &[u8]) -> Option<[u8; 32]> {
    let digits = text.trim_ascii();
    if digits.len() != 64 {
        return None;
    }
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Barrier;

    use proptest::prelude::*;

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o777
    }

    fn write(path: &Path, text: &[u8], mode: u32) {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_key_is_made_once_and_for_the_owner_only() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("config/river/key");
        let first = ClusterKey::load_or_create_at(&path).unwrap();
        let second = ClusterKey::load_or_create_at(&path).unwrap();
        assert_eq!(first.bytes, second.bytes);
        assert_eq!(first.origin(), Some(path.as_path()));
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", hex(&first.bytes)));
        // No draft stays behind.
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn for_the_network_no_key_is_made() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("key");
        let error = ClusterKey::load_existing(&path).unwrap_err();
        assert!(matches!(error, KeyError::Missing { .. }), "{error}");
        assert!(error.to_string().contains("river key new"), "{error}");
        assert!(!path.exists());
        let made = ClusterKey::load_or_create_at(&path).unwrap();
        assert_eq!(ClusterKey::load_existing(&path).unwrap().bytes, made.bytes);
    }

    #[test]
    fn all_who_make_it_at_once_get_the_same_key() {
        for _ in 0..20 {
            let scratch = tempfile::tempdir().unwrap();
            let path = scratch.path().join("river/key");
            let barrier = Barrier::new(8);
            let keys: HashSet<[u8; 32]> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8)
                    .map(|_| {
                        scope.spawn(|| {
                            barrier.wait();
                            ClusterKey::load_or_create_at(&path).unwrap().bytes
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(keys.len(), 1);
        }
    }

    #[test]
    fn different_clusters_and_purposes_have_different_keys() {
        let scratch = tempfile::tempdir().unwrap();
        let one = ClusterKey::load_or_create_at(&scratch.path().join("one")).unwrap();
        let two = ClusterKey::load_or_create_at(&scratch.path().join("two")).unwrap();
        assert_ne!(one.bytes, two.bytes);
        assert_ne!(one.derive("a"), two.derive("a"));
        assert_ne!(one.derive("a"), one.derive("b"));
        assert_ne!(one.derive("a"), one.bytes);
    }

    #[test]
    fn a_key_that_others_can_touch_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("key");
        for bad in [0o640, 0o604, 0o620, 0o602, 0o644, 0o666, 0o610] {
            write(&path, "ab".repeat(32).as_bytes(), bad);
            let error = ClusterKey::load_or_create_at(&path).unwrap_err();
            assert!(matches!(error, KeyError::Exposed { mode, .. } if mode == bad), "{error}");
            assert!(error.to_string().contains("chmod 600"), "{error}");
        }
        for good in [0o600, 0o400, 0o700] {
            write(&path, "ab".repeat(32).as_bytes(), 0o600);
            std::fs::set_permissions(&path, PermissionsExt::from_mode(good)).unwrap();
            assert_eq!(ClusterKey::load_or_create_at(&path).unwrap().bytes, [0xab; 32]);
        }
    }

    #[test]
    fn a_key_of_another_user_is_refused() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can give a file away");
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("key");
        write(&path, "ab".repeat(32).as_bytes(), 0o600);
        std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
        let error = ClusterKey::load_or_create_at(&path).unwrap_err();
        assert!(matches!(error, KeyError::Foreign { owner: 12345, .. }), "{error}");
    }

    #[test]
    fn what_is_not_a_key_is_refused_and_not_replaced() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("key");
        let long = "ab".repeat(4000);
        for text in ["", "\n", "hello", &long[..62], &long[..66], &long, &"zz".repeat(32), &"+a".repeat(32)] {
            write(&path, text.as_bytes(), 0o600);
            let error = ClusterKey::load_or_create_at(&path).unwrap_err();
            assert!(matches!(error, KeyError::Malformed { .. }), "{text}: {error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        let directory = ClusterKey::load_or_create_at(scratch.path()).unwrap_err();
        assert!(matches!(directory, KeyError::Malformed { .. }), "{directory}");
    }

    #[test]
    fn a_fifo_does_not_hang() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("key");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(matches!(ClusterKey::load_or_create_at(&path), Err(KeyError::Malformed { .. })));
    }

    #[test]
    fn a_place_that_cannot_be_written_is_an_error() {
        let scratch = tempfile::tempdir().unwrap();
        write(&scratch.path().join("file"), b"", 0o600);
        let error = ClusterKey::load_or_create_at(&scratch.path().join("file/river/key")).unwrap_err();
        assert!(matches!(error, KeyError::Read { .. } | KeyError::Create { .. }), "{error}");
    }

    #[test]
    fn the_environment_says_where_the_key_is() {
        let path = |set: &'static [(&str, &str)]| {
            key_path(|name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()))
        };
        let all = &[("RIVER_KEY_FILE", "k"), ("XDG_CONFIG_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(path(all).unwrap(), Path::new("k"));
        assert_eq!(path(&all[1..]).unwrap(), Path::new("/x/river/key"));
        assert_eq!(path(&all[2..]).unwrap(), Path::new("/h/.config/river/key"));
        let relative = &[("RIVER_KEY_FILE", ""), ("XDG_CONFIG_HOME", "x"), ("HOME", "/h")];
        assert_eq!(path(relative).unwrap(), Path::new("/h/.config/river/key"));
        assert!(path(&[]).unwrap_err().to_string().contains("set RIVER_KEY_FILE"));
    }

    #[test]
    fn logs_do_not_show_the_key() {
        let key = ClusterKey::from_bytes([0xab; 32]);
        assert!(!format!("{key:?}").contains("abab"));
        assert!(format!("{key:?}").contains(&key.fingerprint()));
    }

    proptest! {
        #[test]
        fn keys_survive_their_file(bytes: [u8; 32]) {
            prop_assert_eq!(parse(format!("{}\n", hex(&bytes)).as_bytes()), Some(bytes));
        }

        #[test]
        fn any_text_is_a_key_or_none(text in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&text);
        }
    }
}
