//! Checkpoints in a store that the program brings along.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use river_core::{
    Channel, KeepIn, Launch, Result, Selector, StateError, Store, Stored, VirtualResource, Vr, VrId,
};
use serde::{Deserialize, Serialize};

const CHANNEL: Channel = Channel::named("test");

/// Files in a directory tree: each kind of content has its own folder.
#[derive(Clone)]
struct Tree {
    root: PathBuf,
    /// As if the disk were full.
    full: Arc<AtomicBool>,
}

impl Tree {
    fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), full: Arc::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name.split('-').next().unwrap()).join(name)
    }
}

impl Store for Tree {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for folder in fs::read_dir(&self.root)? {
            for file in fs::read_dir(folder?.path())? {
                names.extend(file?.file_name().into_string());
            }
        }
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path(name))
    }

    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        if self.full.load(SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let (path, draft) = (self.path(name), self.root.join("draft"));
        fs::create_dir_all(path.parent().unwrap())?;
        fs::create_dir_all(&draft)?;
        fs::write(draft.join("x"), content)?;
        fs::rename(draft.join("x"), path)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }
}

/// Adds what it receives to what it has.
#[derive(Serialize, Deserialize)]
struct Sum(u64);

impl VirtualResource for Sum {
    fn main(&mut self, vr: &Vr) -> Result {
        loop {
            let envelope = vr.receive(Selector::on(CHANNEL))?;
            self.0 += u64::from_le_bytes(envelope.payload.head()[..].try_into()?);
            vr.send_bytes(envelope.src, CHANNEL, 0, self.0.to_le_bytes().to_vec())?;
        }
    }
}

fn add(vr: &Vr, sum: VrId, number: u64) -> Result<u64> {
    vr.send_bytes(sum, CHANNEL, 0, number.to_le_bytes().to_vec())?;
    let envelope = vr.receive(Selector::on(CHANNEL).from(sum))?;
    Ok(u64::from_le_bytes(envelope.payload.head()[..].try_into()?))
}

/// Adds the numbers from 1 to 5, with a checkpoint after each; `full` is set for the fourth. Returns the sum, and the errors
/// of checkpoints.
fn body(vr: &Vr, full: &AtomicBool) -> Result<(u64, Vec<StateError>)> {
    let vms = vr.start_local(1)?;
    let sum = vr.deploy(&vms, |_| Sum(0))?[0];
    let (mut total, mut errors) = (0, Vec::new());
    for number in 1..=5 {
        total = add(vr, sum, number)?;
        full.store(number == 4, SeqCst);
        errors.extend(vr.checkpoint_in_store().err());
    }
    Ok((total, errors))
}

fn checkpoints(store: &Tree) -> Vec<String> {
    let mut names = store.names().unwrap();
    names.retain(|name| name.starts_with("checkpoint-"));
    names.sort();
    names
}

#[test]
fn a_program_goes_on_from_the_newest_complete_checkpoint_in_its_store() {
    let scratch = tempfile::tempdir().unwrap();
    let store = Tree::new(scratch.path());
    let (full, launch) = (store.full.clone(), Launch::new().store(store.clone()));
    let restore = || launch.clone().restore(|vr| body(vr, &full));
    let error = restore().unwrap_err().to_string();
    assert!(error.contains("there is no checkpoint"), "{error}");

    let (total, errors) = launch.clone().try_run(|vr| body(vr, &full)).unwrap();
    assert_eq!(total, 15);
    let [StateError::Store(error)] = &errors[..] else { panic!("{errors:?}") };
    assert!(error.contains("checkpoint-000004.river"), "{error}");
    // The two newest, under the next number in spite of the error; and the executable.
    assert_eq!(checkpoints(&store), ["checkpoint-000003.river", "checkpoint-000004.river"]);
    assert_eq!(store.names().unwrap().len(), 3);

    fs::write(store.path("checkpoint-000004.river"), b"torn").unwrap();
    let (total, errors) = restore().unwrap();
    assert_eq!((total, errors.len()), (15, 1), "it went on after the third number");
}

#[test]
fn what_is_in_a_store_is_a_directory_of_checkpoints_if_it_is_written_to_files() {
    let (scratch, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = Tree::new(scratch.path());
    let full = store.full.clone();
    Launch::new().store(store.clone()).try_run(|vr| body(vr, &full)).unwrap();
    for name in store.names().unwrap() {
        fs::write(files.path().join(&name), store.read(&name).unwrap()).unwrap();
    }
    // This also compares the executable with its name.
    let stored = Stored::latest(files.path()).unwrap();
    assert_eq!((stored.number, stored.vrs.len()), (4, 2));
    let (total, errors) = river_core::restore(files.path(), |vr| body(vr, &full)).unwrap();
    assert_eq!((total, errors.len()), (15, 1));
}

#[test]
fn checkpoints_are_taken_into_the_store_regularly() {
    let scratch = tempfile::tempdir().unwrap();
    let store = Tree::new(scratch.path());
    let launch = Launch::new().checkpoint_every(Duration::from_millis(1), KeepIn::Store).store(store.clone());
    let taken = launch.try_run(|vr| {
        // Calls until there is one; a VR that makes none is not stopped.
        while !fs::exists(store.path("checkpoint-000001.river"))? {
            let deadline = Instant::now() + Duration::from_millis(1);
            vr.receive_until(Selector::on(CHANNEL), Some(deadline), |_| true).err();
        }
        Ok(())
    });
    taken.unwrap();
}

#[test]
fn a_program_without_a_store_is_told_so() {
    let error = river_core::try_run_recoverable(|vr| Ok(vr.checkpoint_in_store().unwrap_err())).unwrap();
    assert!(matches!(&error, StateError::Store(why) if why.contains("Launch::store")), "{error}");
}
