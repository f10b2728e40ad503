//! The lock of a checkpoint directory: only one process at a time writes checkpoints there.
//!
//! A process has a directory from its first checkpoint there until it ends, in whatever way: what it has is the lock of a file
//! beside the checkpoints, which the system releases. The file says for people who has it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::machine::process_name;

const NAME: &str = ".lock";

/// What this process has, by the device and the number of the file: a directory may have several names, and may be removed
/// and made again. A file that is held open keeps its number for itself.
static HELD: Mutex<BTreeMap<(u64, u64), File>> = Mutex::new(BTreeMap::new());

/// Makes a directory this process's. Whether it is so only now: what others had begun there nobody will end.
///
/// # Errors
/// `ResourceBusy` if another process has it; of the file.
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
    // For people only.
    let _ = file.set_len(0).and_then(|()| file.write_all(process_name().as_bytes()));
    held.insert(id, file);
    Ok(true)
}

/// That no other process has a directory now.
///
/// # Errors
/// `ResourceBusy` if one has it.
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
