//! A directory of checkpoints: `checkpoint-000007.river`, numbered, and the images that they need, named by their hashes.
//!
//! A checkpoint is written under another name, made durable, and then renamed: under its name there is always a whole one.
//! The newest few are kept. What nevertheless is broken is passed over for the one before.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::file::{self, Content, FileError, Header, Writer};
use super::store::{self, Store};
use crate::error::StateError;
use crate::id::{HostId, ImageHash};
use crate::image::Image;

/// How many checkpoints are kept if nothing else is said.
pub(crate) const KEEP: usize = 2;

#[derive(Clone, Debug)]
pub(crate) struct Directory(PathBuf);

/// A checkpoint that is being written. Dropped, it leaves nothing behind.
pub(super) struct Draft {
    writer: Option<Writer<BufWriter<File>>>,
    directory: Directory,
    path: PathBuf,
    number: u64,
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> StateError {
    StateError::File { path: path.display().to_string(), error: error.to_string() }
}

impl Directory {
    pub(crate) fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    fn path_of(&self, number: u64) -> PathBuf {
        self.0.join(format!("checkpoint-{number:06}.river"))
    }

    fn image_path(&self, hash: ImageHash) -> PathBuf {
        self.0.join(format!("image-{hash}"))
    }

    /// The numbers of the checkpoints that are there, ascending.
    pub(crate) fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let name = entry?.file_name();
            let number =
                |name: &str| name.strip_prefix("checkpoint-")?.strip_suffix(".river")?.parse::<u64>().ok();
            numbers.extend(name.to_str().and_then(number));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Begins a checkpoint with the next number.
    fn begin(&self) -> Result<Draft, StateError> {
        let error = |error: io::Error| failed(&self.0, &error);
        let number = self.numbers().map_err(error)?.last().map_or(1, |last| last + 1);
        self.begin_as(number)
    }

    /// Begins a checkpoint with that number.
    fn begin_as(&self, number: u64) -> Result<Draft, StateError> {
        let path = self.0.join(format!(".checkpoint-{number:06}.{}", std::process::id()));
        // What VRs know is for the user who runs them only.
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let writer = file.and_then(|file| Writer::new(BufWriter::with_capacity(1 << 20, file)));
        match writer {
            Ok(writer) => Ok(Draft { writer: Some(writer), directory: self.clone(), path, number }),
            Err(error) => Err(failed(&path, &error)),
        }
    }

    /// Puts an image there, if it is not yet, and makes the directory if need be.
    pub(crate) fn keep_image(&self, hash: ImageHash, bytes: &[u8]) -> Result<(), StateError> {
        fs::create_dir_all(&self.0).map_err(|error| failed(&self.0, &error))?;
        let path = self.image_path(hash);
        if fs::metadata(&path).is_ok_and(|found| found.len() == bytes.len() as u64) {
            return Ok(());
        }
        let draft = self.0.join(format!(".image-{}", std::process::id()));
        let write = || {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o700).open(&draft)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&draft, &path)
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&draft);
            failed(&path, &error)
        })
    }

    /// The executable of that hash, if it is there and unchanged.
    pub(crate) fn image(&self, hash: ImageHash) -> Result<PathBuf, StateError> {
        let path = self.image_path(hash);
        let bytes = fs::read(&path).map_err(|error| failed(&path, &error))?;
        if blake3::hash(&bytes).as_bytes() != hash.as_bytes() {
            return Err(failed(&path, &"the program's image was altered: its checksum is wrong"));
        }
        let permissions = fs::Permissions::from_mode(0o700);
        // If it cannot be made executable, starting it says so.
        let _ = fs::set_permissions(&path, permissions);
        Ok(path)
    }

    /// Writes a checkpoint that was elsewhere, under its number.
    pub(crate) fn write(&self, number: u64, header: &Header, vrs: &[&[u8]]) -> Result<u64, StateError> {
        let mut draft = Box::new(self.begin_as(number)?);
        for saved in vrs {
            store::Draft::vr(&mut *draft, HostId::fresh(), saved)?;
        }
        store::Draft::publish(draft, header, KEEP)
    }

    /// The newest checkpoint that is whole, its number, and what is wrong with those that are newer.
    pub(crate) fn latest(&self) -> Result<(u64, Content, Vec<StateError>), StateError> {
        let numbers = self.numbers().map_err(|error| failed(&self.0, &error))?;
        let mut broken = Vec::new();
        for &number in numbers.iter().rev() {
            match self.read(number) {
                Ok(content) => return Ok((number, content, broken)),
                Err(error) => broken.push(failed(&self.path_of(number), &error)),
            }
        }
        Err(broken
            .into_iter()
            .next()
            .unwrap_or_else(|| failed(&self.0, &"there is no checkpoint in this directory")))
    }

    fn read(&self, number: u64) -> Result<Content, FileError> {
        file::read(&fs::read(self.path_of(number))?)
    }

    /// Removes all but the newest.
    fn prune(&self, keep: usize) -> io::Result<()> {
        let numbers = self.numbers()?;
        for &number in &numbers[..numbers.len().saturating_sub(keep.max(1))] {
            fs::remove_file(self.path_of(number))?;
        }
        Ok(())
    }
}

impl Store for Directory {
    fn begin(&self, image: &Image) -> Result<Box<dyn store::Draft>, StateError> {
        self.keep_image(image.hash, &image.bytes)?;
        Ok(Box::new(Directory::begin(self)?))
    }
}

impl store::Draft for Draft {
    fn number(&self) -> u64 {
        self.number
    }

    fn vr(&mut self, _of: HostId, saved: &[u8]) -> Result<(), StateError> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.vr(saved).map_err(|error| failed(&self.path, &error))
    }

    /// Makes it durable, gives it its name, and removes old ones.
    fn publish(mut self: Box<Self>, header: &Header, keep: usize) -> Result<u64, StateError> {
        let Some(mut writer) = self.writer.take() else { return Ok(0) };
        writer.header(header).map_err(|error| failed(&self.path, &error))?;
        let length = writer.length;
        let path = self.directory.path_of(self.number);
        let published = writer.finish().and_then(|out| {
            out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            fs::rename(&self.path, &path)?;
            File::open(&self.directory.0)?.sync_all()
        });
        published.map_err(|error| failed(&path, &error))?;
        if let Err(error) = self.directory.prune(keep) {
            tracing::warn!(%error, directory = %self.directory.0.display(), "cannot remove an old checkpoint");
        }
        Ok(length)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After it was published there is nothing of this name.
        let _ = fs::remove_file(&self.path);
    }
}
