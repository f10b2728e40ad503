//! The file format of checkpoints: sections behind a magic number, and a hash of all of it at the end.
//!
//! ```text
//!  0  "RIVERCKP" | format u32
//! 12  sections: kind u8 | length u64 | bytes
//!     the last one, of kind 255, is the BLAKE3 hash of everything before it
//! ```
//!
//! Little-endian. One section is the [`Header`], one may name the run of `river run` that it was taken for, and every other
//! one is a VR. Nothing in the file is trusted before the hash has been verified, which detects torn and altered files.

use std::io::{self, Read, Seek, Write};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::saved::Saved;
use crate::discovery::VmInfo;
use crate::down::Why;
use crate::id::{ImageHash, ProgramId, VmId, VrId};

const MAGIC: &[u8; 8] = b"RIVERCKP";
const FORMAT: u32 = 4;
const HEADER: u8 = 1;
const VR: u8 = 2;
const RUN: u8 = 3;
const END: u8 = 255;
const HASH: usize = 32;
/// The length of the magic number and the format.
const START: usize = 12;

/// What is known about the program besides its VRs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) program: ProgramId,
    /// The executable's file name, for people.
    pub(crate) name: String,
    pub(crate) image: ImageHash,
    pub(crate) triple: String,
    pub(crate) taken: SystemTime,
    pub(crate) arguments: Vec<Vec<u8>>,
    pub(crate) environment: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) directory: Vec<u8>,
    pub(crate) initiator: VrId,
    pub(crate) vms: Vec<SavedVm>,
    /// Which VMs stand for those from before an earlier restore.
    pub(crate) aliases: Vec<(VmId, VmId)>,
    /// The VM that each VR was on; the initiator was on none.
    pub(crate) places: Vec<(VrId, VmId)>,
    pub(crate) ended: Vec<(VrId, Why)>,
    pub(crate) services: Vec<((VmId, String), VrId)>,
}

/// A VM that the program had leased.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SavedVm {
    pub(crate) info: VmInfo,
    /// It ran in the initiator's process, and ended with it.
    pub(crate) local: bool,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it was not written by River")]
    Magic,
    #[error("it has format {0}, and this version of River reads format {FORMAT}")]
    Format(u32),
    #[error("it is incomplete or was altered: its checksum is wrong")]
    Torn,
    #[error("its content is invalid ({0}): was it written by another version of River?")]
    Nonsense(#[from] postcard::Error),
}

/// Writes a checkpoint.
pub(crate) struct Writer<W> {
    out: W,
    hasher: blake3::Hasher,
    pub(crate) length: u64,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(out: W) -> io::Result<Self> {
        let mut this = Self { out, hasher: blake3::Hasher::new(), length: 0 };
        this.put(MAGIC)?;
        this.put(&FORMAT.to_le_bytes())?;
        Ok(this)
    }

    pub(crate) fn header(&mut self, header: &Header) -> Result<(), FileError> {
        let bytes = postcard::to_stdvec(header)?;
        Ok(self.section(HEADER, &bytes)?)
    }

    /// Adds the run of `river run` for which it is taken.
    pub(crate) fn run(&mut self, run: ProgramId) -> io::Result<()> {
        self.section(RUN, run.as_uuid().as_bytes())
    }

    /// Adds a VR, encoded by [`Saved::encode`].
    pub(crate) fn vr(&mut self, saved: &[u8]) -> io::Result<()> {
        self.section(VR, saved)
    }

    /// Adds the hash.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        let hash = *self.hasher.finalize().as_bytes();
        self.section(END, &hash)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn section(&mut self, kind: u8, bytes: &[u8]) -> io::Result<()> {
        self.put(&[kind])?;
        self.put(&(bytes.len() as u64).to_le_bytes())?;
        self.put(bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// A complete checkpoint that was read.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) header: Header,
    /// The run of `river run` for which it was taken.
    pub(crate) run: Option<ProgramId>,
    pub(crate) vrs: Vec<Saved>,
}

/// Reads a checkpoint from the bytes of its file.
pub(crate) fn read(bytes: &[u8]) -> Result<Content, FileError> {
    let Part { header, run, vrs } = read_part(bytes)?;
    let vrs = vrs.into_iter().map(Saved::decode).collect::<Result<_, _>>()?;
    Ok(Content { header: header.ok_or(FileError::Torn)?, run, vrs })
}

/// The contents of one part of a checkpoint; one of the parts has the header.
pub(crate) struct Part<'a> {
    pub(crate) header: Option<Header>,
    run: Option<ProgramId>,
    /// Encoded by [`Saved::encode`].
    pub(crate) vrs: Vec<&'a [u8]>,
}

/// Reads a part, which has the same format as a checkpoint but may lack the header.
pub(crate) fn read_part(bytes: &[u8]) -> Result<Part<'_>, FileError> {
    const END_SECTION: usize = 1 + 8 + HASH;
    let (start, _) = bytes.split_first_chunk().ok_or(FileError::Torn)?;
    check_start(start)?;
    let end = bytes.len().checked_sub(END_SECTION).ok_or(FileError::Torn)?;
    let (body, last) = bytes.split_at(end);
    // The hash does not cover its own section, so compare it before looking at that section's head.
    if last[0] != END || blake3::hash(body).as_bytes()[..] != last[9..] {
        return Err(FileError::Torn);
    }
    let mut rest = body.get(START..).ok_or(FileError::Torn)?;
    let (mut header, mut run, mut vrs) = (None, None, Vec::new());
    while let Some((kind, after)) = rest.split_first() {
        let (length, after) = after.split_first_chunk().ok_or(FileError::Torn)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| FileError::Torn)?;
        let (section, after) = after.split_at_checked(length).ok_or(FileError::Torn)?;
        match *kind {
            HEADER => header = Some(postcard::from_bytes(section)?),
            RUN => run = Some(ProgramId::from_uuid(Uuid::from_slice(section).map_err(|_| FileError::Torn)?)),
            VR => vrs.push(section),
            _ => return Err(FileError::Torn),
        }
        rest = after;
    }
    Ok(Part { header, run, vrs })
}

/// A checkpoint that has these bytes as its sections and a valid checksum, for fuzzers: without one, nothing else is parsed.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn sealed(sections: &[u8]) -> io::Result<Vec<u8>> {
    let mut writer = Writer::new(Vec::new())?;
    writer.put(sections)?;
    writer.finish()
}

fn check_start(start: &[u8; START]) -> Result<(), FileError> {
    let format = start.strip_prefix(MAGIC).ok_or(FileError::Magic)?;
    match u32::from_le_bytes(format.try_into().map_err(|_| FileError::Torn)?) {
        FORMAT => Ok(()),
        other => Err(FileError::Format(other)),
    }
}

/// Reads only the header, without verifying the hash. That is enough where certainty is not needed, and avoids reading a
/// file as large as the states of all VRs.
pub(crate) fn read_header(mut file: impl Read + Seek) -> Result<Header, FileError> {
    let mut start = [0; START];
    file.read_exact(&mut start)?;
    check_start(&start)?;
    loop {
        let (mut kind, mut length) = ([0], [0; 8]);
        file.read_exact(&mut kind)?;
        file.read_exact(&mut length)?;
        let length = u64::from_le_bytes(length);
        match kind[0] {
            HEADER => {
                let mut section = Vec::new();
                file.take(length).read_to_end(&mut section)?;
                return Ok(postcard::from_bytes(&section)?);
            }
            RUN | VR => file.seek_relative(i64::try_from(length).map_err(|_| FileError::Torn)?)?,
            _ => return Err(FileError::Torn),
        }
    }
}
