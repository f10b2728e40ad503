//! The lock of a checkpoint directory: only one process at a time writes checkpoints to it.
//!
//! A process holds a directory from its first checkpoint there until it ends, however it ends: it locks a file beside the
//! checkpoints, and the system releases that lock. The file names the holder, for people.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::machine::process_name;

const NAME: &str = ".lock";

/// The locks that this process holds, by device and inode of the file: a directory may have several names, and may be
/// removed and created again. The inode of a file that is open is not reused.
static HELD: Mutex<BTreeMap<(u64, u64), File>> = Mutex::new(BTreeMap::new());

/// Locks a directory for this process. Returns `true` if this process did not hold it before; drafts found there are
/// orphaned then.
///
/// # Errors
/// `ResourceBusy` if another process holds it; otherwise those of the lock file.
pub(super) fn take(directory: &Path) -> io::Result<bool> {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    let mut file = options().create(true).truncate(false).open(directory.join(NAME))?;
    let metadata = file.metadata()?;
    let id = (metadata.dev(), metadata.ino());
    if held.contains_key(&id) {
        return Ok(false);
    }
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(busy(&mut file)),
        Err(TryLockError::Error(error)) => {
            tracing::warn!(%error, directory = %directory.display(), "cannot lock a directory of checkpoints");
            return Ok(false);
        }
    }
    // Only informative.
    let _ = file.set_len(0).and_then(|()| file.write_all(process_name().as_bytes()));
    held.insert(id, file);
    Ok(true)
}

/// Checks that no other process holds a directory now.
///
/// # Errors
/// `ResourceBusy` if one does.
pub(super) fn is_free(directory: &Path) -> io::Result<()> {
    let Ok(mut file) = options().open(directory.join(NAME)) else { return Ok(()) };
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Err(busy(&mut file)),
        _ => Ok(()),
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn busy(file: &mut File) -> io::Error {
    let mut who = String::new();
    let _ = file.read_to_string(&mut who);
    let text =
        format!("another program takes its checkpoints into this directory: {who}; give each one its own");
    io::Error::new(io::ErrorKind::ResourceBusy, text)
}
