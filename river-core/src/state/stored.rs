//! Checkpoints as the `river` command and other tools read them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::directory::Directory;
use super::file::Content;
use crate::error::StateError;
use crate::id::{ProgramId, VrId};

/// A complete checkpoint in a directory.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stored {
    /// Its number.
    pub number: u64,
    /// Its file.
    pub file: PathBuf,
    /// When it was taken.
    pub taken: SystemTime,
    /// The program: its executable's name, process and machine.
    pub program: String,
    /// The executable.
    pub image: PathBuf,
    /// The program's command line, its name included.
    pub arguments: Vec<OsString>,
    /// The environment variables that it passed on to its VRs.
    pub environment: Vec<(OsString, OsString)>,
    /// The directory in which it ran.
    pub directory: PathBuf,
    /// The names of the VMs that it used.
    pub vms: Vec<String>,
    /// Its VRs, the initiator first.
    pub vrs: Vec<StoredVr>,
    /// The errors of newer checkpoints.
    pub broken: Vec<StateError>,
}

/// A VR in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredVr {
    /// Its name.
    pub id: VrId,
    /// Its Rust type; "initiator" for the VR with which the program starts.
    pub name: String,
    /// The VM on which it was; `None` for the initiator.
    pub vm: Option<String>,
    /// How many safepoints it had made.
    pub safepoints: u64,
    /// The size of its state at the last safepoint, or at its beginning, in bytes.
    pub state: usize,
    /// How many lines were recorded since.
    pub lines: usize,
    /// How many envelopes and notices were waiting in its queue.
    pub waiting: usize,
}

impl Stored {
    /// Finds the newest complete checkpoint, and reads it.
    ///
    /// # Errors
    /// [`StateError::NoCheckpoint`] if there is none; [`StateError::File`] if none is complete, or if the program's image
    /// beside it is missing or altered.
    pub fn latest(directory: impl AsRef<Path>) -> Result<Self, StateError> {
        Self::newest(directory.as_ref(), None)
    }

    /// Finds the newest complete checkpoint of one run, that is, of a program that has `RIVER_CHECKPOINT_RUN` set to its
    /// id.
    ///
    /// # Errors
    /// The same as for [`latest`](Self::latest); if there is no such directory, nothing was taken for the run.
    pub fn latest_of(directory: impl AsRef<Path>, run: ProgramId) -> Result<Self, StateError> {
        Self::newest(directory.as_ref(), Some(run))
    }

    /// Checks that a program can take checkpoints into a directory: only one process at a time can, until it ends.
    ///
    /// # Errors
    /// [`StateError::File`] if another running process does.
    pub fn can_be_taken_into(directory: impl AsRef<Path>) -> Result<(), StateError> {
        Directory::new(directory.as_ref()).is_free()
    }

    fn newest(directory: &Path, of: Option<ProgramId>) -> Result<Self, StateError> {
        let checkpoints = Directory::new(directory);
        let (number, Content { header, vrs, .. }, broken) = checkpoints.latest(of)?;
        let image = checkpoints.image(header.image)?;
        let vm_of = |vr: VrId| {
            let (_, vm) = header.places.iter().find(|(id, _)| *id == vr)?;
            header.vms.iter().find(|known| known.info.id == *vm).map(|vm| vm.info.name.clone())
        };
        let mut vrs: Vec<StoredVr> = vrs
            .iter()
            .map(|saved| {
                let (id, base) = (saved.origin.id, saved.record.base());
                let (safepoints, state) = (base.safepoints, base.state.len());
                let waiting = base.queue.held.len() + base.queue.fresh.len() + saved.pending.len();
                let (name, lines) = (saved.origin.name.clone(), saved.record.len());
                StoredVr { id, name, vm: vm_of(id), safepoints, state, lines, waiting }
            })
            .collect();
        vrs.sort_by_key(|vr| (vr.id != header.initiator, vr.vm.clone(), vr.id));
        let os = OsString::from_vec;
        Ok(Self {
            number,
            file: checkpoints.path_of(number),
            taken: header.taken,
            program: header.name,
            image,
            arguments: header.arguments.into_iter().map(os).collect(),
            environment: header.environment.into_iter().map(|(name, value)| (os(name), os(value))).collect(),
            directory: os(header.directory).into(),
            vms: header.vms.into_iter().map(|vm| vm.info.name).collect(),
            vrs,
            broken,
        })
    }
}
