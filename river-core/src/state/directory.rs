//! A directory of checkpoints: `checkpoint-000007.river`, numbered, and the images that they need, named by their hashes.
//!
//! A checkpoint is written under a temporary name, made durable, and then renamed, so a file with the final name is always
//! complete. The newest few checkpoints are kept, with the images that they need. If one is broken nevertheless, the one
//! before it is used. Only one process at a time writes to the directory; it removes what others have left unfinished.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::file::{self, Content, FileError, Header, Writer};
use super::lock;
use super::series;
use super::target::{self, Target};
use crate::error::StateError;
use crate::id::{HostId, ImageHash, ProgramId};
use crate::image::Image;

/// How many checkpoints are kept by default.
pub(crate) const KEEP: usize = 2;

const DRAFT: &str = ".checkpoint-";
const IMAGE_DRAFT: &str = ".image-";

#[derive(Clone, Debug)]
pub(crate) struct Directory(PathBuf);

/// A checkpoint that is being written. Leaves nothing behind if it is dropped.
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

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn path_of(&self, number: u64) -> PathBuf {
        self.0.join(series::name_of(number))
    }

    fn image_path(&self, hash: ImageHash) -> PathBuf {
        self.0.join(series::image_name(hash))
    }

    /// The numbers of the checkpoints in the directory, ascending.
    pub(crate) fn numbers(&self) -> io::Result<Vec<u64>> {
        self.names().map(|names| series::numbers(&names))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.0)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    }

    /// Checks that no other process takes checkpoints into it.
    pub(super) fn is_free(&self) -> Result<(), StateError> {
        lock::is_free(&self.0).map_err(|error| failed(&self.0, &error))
    }

    /// Creates the directory if necessary and locks it for this process; removes what others have left unfinished.
    fn take(&self) -> io::Result<()> {
        fs::create_dir_all(&self.0)?;
        if lock::take(&self.0)? {
            let unfinished = |name: &&String| name.starts_with(DRAFT) || name.starts_with(IMAGE_DRAFT);
            for name in self.names()?.iter().filter(unfinished) {
                fs::remove_file(self.0.join(name))?;
            }
        }
        Ok(())
    }

    /// Begins a checkpoint with the next number.
    fn begin(&self) -> Result<Draft, StateError> {
        let error = |error: io::Error| failed(&self.0, &error);
        self.begin_as(series::next(&self.numbers().map_err(error)?))
    }

    /// Begins a checkpoint with this number.
    fn begin_as(&self, number: u64) -> Result<Draft, StateError> {
        let path = self.0.join(format!("{DRAFT}{number:06}.{}", std::process::id()));
        // The contents of VRs are private to the user who runs them.
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        let writer = file.and_then(|file| Writer::new(BufWriter::with_capacity(1 << 20, file)));
        match writer {
            Ok(writer) => Ok(Draft { writer: Some(writer), directory: self.clone(), path, number }),
            Err(error) => Err(failed(&path, &error)),
        }
    }

    /// Stores an image unless it is there already, and creates the directory if necessary.
    pub(crate) fn keep_image(&self, hash: ImageHash, bytes: &[u8]) -> Result<(), StateError> {
        fs::create_dir_all(&self.0).map_err(|error| failed(&self.0, &error))?;
        let path = self.image_path(hash);
        if fs::metadata(&path).is_ok_and(|found| found.len() == bytes.len() as u64) {
            return Ok(());
        }
        let draft = self.0.join(format!("{IMAGE_DRAFT}{}", std::process::id()));
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

    /// The path of the executable with this hash, if it exists and is unchanged.
    pub(crate) fn image(&self, hash: ImageHash) -> Result<PathBuf, StateError> {
        let path = self.image_path(hash);
        let bytes = fs::read(&path).map_err(|error| failed(&path, &error))?;
        if blake3::hash(&bytes).as_bytes() != hash.as_bytes() {
            return Err(failed(&path, &"the program's image was altered: its checksum is wrong"));
        }
        let permissions = fs::Permissions::from_mode(0o700);
        // If it cannot be made executable, starting it will report that.
        let _ = fs::set_permissions(&path, permissions);
        Ok(path)
    }

    /// Writes a checkpoint that was kept elsewhere, under its number.
    pub(crate) fn write(&self, number: u64, header: &Header, vrs: &[&[u8]]) -> Result<u64, StateError> {
        let mut draft = Box::new(self.begin_as(number)?);
        for saved in vrs {
            target::Draft::vr(&mut *draft, HostId::fresh(), saved)?;
        }
        target::Draft::publish(draft, header, KEEP)
    }

    /// Returns the newest complete checkpoint, with its number and the errors of newer ones. If a run is given, only its
    /// checkpoints count.
    pub(crate) fn latest(
        &self,
        of: Option<ProgramId>,
    ) -> Result<(u64, Content, Vec<StateError>), StateError> {
        let numbers = match self.numbers() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && of.is_some() => Vec::new(),
            numbers => numbers.map_err(|error| failed(&self.0, &error))?,
        };
        let nothing =
            || StateError::NoCheckpoint { path: self.0.display().to_string(), of_run: of.is_some() };
        series::newest(&numbers, of, |number| self.read(number))?.ok_or_else(nothing)
    }

    /// Finds a checkpoint by the path of its file, or the newest one of a directory, like [`latest`](Self::latest).
    pub(crate) fn find(path: &Path) -> Result<(Self, u64, Content, Vec<StateError>), StateError> {
        let number = path.file_name().and_then(OsStr::to_str).and_then(series::number_of);
        if let (Some(number), Some(directory)) = (number, path.parent())
            && path.is_file()
        {
            let this = Self::new(directory);
            let content = this.read(number)?;
            return Ok((this, number, content, Vec::new()));
        }
        let this = Self::new(path);
        let (number, content, broken) = this.latest(None)?;
        Ok((this, number, content, broken))
    }

    fn read(&self, number: u64) -> Result<Content, StateError> {
        let path = self.path_of(number);
        let content = fs::read(&path).map_err(FileError::from).and_then(|bytes| file::read(&bytes));
        content.map_err(|error| failed(&path, &error))
    }

    /// Removes all but the newest `keep` checkpoints, and the images that those do not need.
    fn prune(&self, keep: usize) -> Result<(), FileError> {
        let names = self.names()?;
        let numbers = series::numbers(&names);
        let (old, kept) = series::retire(&numbers, keep);
        for &number in old {
            fs::remove_file(self.path_of(number))?;
        }
        let image_of = |number| {
            let file = File::open(self.path_of(number))?;
            file::read_header(BufReader::new(file)).map(|header| header.image)
        };
        for name in series::needless_images(names, kept, image_of)? {
            fs::remove_file(self.0.join(name))?;
        }
        Ok(())
    }
}

impl Target for Directory {
    fn begin(&self, image: &Image) -> Result<Box<dyn target::Draft>, StateError> {
        self.take().map_err(|error| failed(&self.0, &error))?;
        self.keep_image(image.hash, &image.bytes)?;
        Ok(Box::new(Directory::begin(self)?))
    }
}

impl target::Draft for Draft {
    fn number(&self) -> u64 {
        self.number
    }

    fn vr(&mut self, _of: HostId, saved: &[u8]) -> Result<(), StateError> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.vr(saved).map_err(|error| failed(&self.path, &error))
    }

    /// Makes the checkpoint durable, gives it its final name, and removes old ones.
    fn publish(mut self: Box<Self>, header: &Header, keep: usize) -> Result<u64, StateError> {
        let Some(mut writer) = self.writer.take() else { return Ok(0) };
        series::complete(&mut writer, header).map_err(|error| failed(&self.path, &error))?;
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
        // After publication, no file of this name exists.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::VrId;
    use crate::state::series::IMAGE;

    fn header(image: u8) -> Header {
        Header {
            program: ProgramId::fresh(),
            name: "pi".into(),
            image: ImageHash::from_bytes([image; 32]),
            triple: String::new(),
            taken: std::time::UNIX_EPOCH,
            arguments: Vec::new(),
            environment: vec![(b"RIVER_PORT".to_vec(), b"7484".to_vec())],
            directory: Vec::new(),
            initiator: VrId::fresh(),
            vms: Vec::new(),
            aliases: Vec::new(),
            places: Vec::new(),
            ended: Vec::new(),
            services: Vec::new(),
        }
    }

    /// A directory in which checkpoints have been taken by executables with these hashes.
    fn taken(by: &[u8]) -> (tempfile::TempDir, Directory) {
        let scratch = tempfile::tempdir().unwrap();
        let directory = Directory::new(scratch.path());
        for (number, image) in (1..).zip(by) {
            directory.keep_image(ImageHash::from_bytes([*image; 32]), b"image").unwrap();
            directory.write(number, &header(*image), &[]).unwrap();
        }
        (scratch, directory)
    }

    fn images(directory: &Directory) -> Vec<String> {
        let mut images = directory.names().unwrap();
        images.retain(|name| name.starts_with(IMAGE));
        images.sort();
        images.iter().map(|name| name[IMAGE.len()..][..2].to_owned()).collect()
    }

    #[test]
    fn images_that_no_kept_checkpoint_needs_are_removed() {
        assert_eq!(images(&taken(&[1, 1]).1), ["01"]);
        assert_eq!(images(&taken(&[1, 1, 2]).1), ["01", "02"]);
        assert_eq!(images(&taken(&[1, 1, 2, 2]).1), ["02"]);
    }

    /// Nobody knows which image an unreadable checkpoint needs.
    #[test]
    fn no_image_is_removed_while_a_checkpoint_is_unreadable() {
        let (_scratch, directory) = taken(&[1, 2]);
        fs::write(directory.path_of(2), b"RIVERCKP").unwrap();
        directory.keep_image(ImageHash::from_bytes([3; 32]), b"image").unwrap();
        directory.write(3, &header(3), &[]).unwrap();
        assert_eq!(images(&directory), ["01", "02", "03"]);
    }

    #[test]
    fn a_checkpoint_is_found_by_its_file_also_if_it_is_not_the_newest() {
        let (scratch, directory) = taken(&[1, 2]);
        let image = |path: &Path| Directory::find(path).unwrap().2.header.image.as_bytes()[0];
        assert_eq!((image(scratch.path()), image(&directory.path_of(1))), (2, 1));
    }

    #[test]
    fn only_checkpoints_of_the_run_count() {
        let (_scratch, directory) = taken(&[1]);
        let run = ProgramId::fresh();
        assert_eq!(directory.latest(None).unwrap().0, 1);
        let error = directory.latest(Some(run)).unwrap_err().to_string();
        assert!(error.contains("no checkpoint of this run"), "{error}");
        let mut writer = Writer::new(Vec::new()).unwrap();
        writer.run(run).unwrap();
        writer.header(&header(1)).unwrap();
        fs::write(directory.path_of(2), writer.finish().unwrap()).unwrap();
        directory.write(3, &header(1), &[]).unwrap();
        assert_eq!((directory.latest(Some(run)).unwrap().0, directory.latest(None).unwrap().0), (2, 3));
    }

    #[test]
    fn a_directory_is_for_one_process_and_what_others_left_unfinished_is_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = Directory::new(scratch.path());
        let unfinished = [".checkpoint-000009.1", ".image-1"].map(|name| scratch.path().join(name));
        unfinished.iter().for_each(|path| fs::write(path, "torn").unwrap());
        // Stands for another process: locks of two open files exclude each other, whoever has opened them.
        let other = File::create(scratch.path().join(".lock")).unwrap();
        other.lock().unwrap();
        (&other).write_all(b"pi (process 1 on lab)").unwrap();
        let error = directory.take().unwrap_err().to_string();
        assert!(error.contains("pi (process 1 on lab)"), "{error}");
        assert!(directory.is_free().unwrap_err().to_string().contains("pi (process 1 on lab)"));
        assert!(unfinished.iter().all(|path| path.exists()));
        // Closing it is not enough: a process that another test starts at this moment may have inherited it.
        other.unlock().unwrap();
        directory.is_free().unwrap();
        directory.take().unwrap();
        assert!(!unfinished.iter().any(|path| path.exists()));
        // Its own drafts are not removed.
        fs::write(&unfinished[0], "being written").unwrap();
        directory.take().unwrap();
        assert!(unfinished[0].exists());
    }
}
