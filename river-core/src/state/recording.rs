//! A recording of a program: a directory with the program's executable and a file for each VR.
//!
//! `recording.river` describes what was run, `program` is the complete executable, in which a debugger finds symbols, and
//! each `vr-ID.tape` is one VR's [tape](super::tape).

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::record::Said;
use super::tape::{self, Stretch};
use crate::envelope::Envelope;
use crate::error::StateError;
use crate::id::{ImageHash, VrId};
use crate::inbox::Event;

const HEADER: &str = "recording.river";
const PROGRAM: &str = "program";
const MAGIC: &[u8; 12] = b"RIVERREC\x01\0\0\0";

/// What was run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ran {
    /// The executable's name, process and machine, for people.
    pub(crate) program: String,
    pub(crate) image: ImageHash,
    pub(crate) began: SystemTime,
    pub(crate) arguments: Vec<Vec<u8>>,
    pub(crate) environment: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) directory: Vec<u8>,
    pub(crate) initiator: VrId,
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> StateError {
    StateError::File { path: path.display().to_string(), error: error.to_string() }
}

/// Begins a recording. Creates the directory, which must not hold a recording yet.
pub(crate) fn create(directory: &Path, ran: &Ran) -> Result<(), StateError> {
    let header = directory.join(HEADER);
    let begin = || {
        fs::create_dir_all(directory)?;
        if header.exists() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is already a recording: use another directory, or remove this one",
            ));
        }
        let executable = directory.join(PROGRAM);
        // The file that is running, whatever has become of its name.
        fs::copy("/proc/self/exe", &executable)?;
        let body = postcard::to_stdvec(ran).map_err(io::Error::other)?;
        private(&header)?.write_all(&[MAGIC, &blake3::hash(&body).as_bytes()[..], &body].concat())
    };
    begin().map_err(|error: io::Error| failed(&header, &error))
}

/// The inputs of VRs are private to the user who runs them.
fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

fn path_of(directory: &Path, vr: VrId) -> PathBuf {
    directory.join(format!("vr-{vr}.tape"))
}

/// Appends to the recording of a VR.
pub(crate) fn append(directory: &Path, vr: VrId, bytes: &[u8]) -> Result<(), StateError> {
    let path = path_of(directory, vr);
    private(&path).and_then(|mut file| file.write_all(bytes)).map_err(|error| failed(&path, &error))
}

/// A recording on disk, made by `river record`.
///
/// ```no_run
/// # fn main() -> Result<(), river_core::StateError> {
/// use river_core::{Happening, Recording};
///
/// let recording = Recording::open("tape")?;
/// for vr in recording.vrs() {
///     let steps = recording.outline(vr.id)?;
///     let sent = steps.iter().filter(|step| matches!(step.what, Happening::Sent(..))).count();
///     println!("{} ({}) has sent {sent} envelopes", vr.id.short(), vr.name);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Recording {
    directory: PathBuf,
    ran: Ran,
    ids: Vec<VrId>,
    vrs: OnceLock<(Vec<RecordedVr>, Vec<StateError>)>,
    /// What VRs have received, for the VRs that were looked up.
    arrivals: Mutex<HashMap<VrId, Arc<Arrivals>>>,
}

/// What a VR has received from each other one, by number.
type Arrivals = HashMap<VrId, BTreeMap<u64, Envelope>>;

/// A VR of a recording.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RecordedVr {
    /// Its name.
    pub id: VrId,
    /// Its Rust type; "initiator" for the VR with which the program starts.
    pub name: String,
    /// The VR that deployed it; `None` for the initiator.
    pub parent: Option<VrId>,
    /// The VM on which it was; for the initiator, the machine's name.
    pub vm: String,
    /// How many safepoints it has made.
    pub safepoints: usize,
    /// The number of lines of its record: calls, sends, arrivals, answers.
    pub lines: usize,
    /// The size of its recording, in bytes.
    pub bytes: u64,
    /// How it ended; `None` if the recording ends before that.
    pub end: Option<String>,
}

/// Something that happened to a VR.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RecordedStep {
    /// When it happened, to a few milliseconds.
    pub time: SystemTime,
    /// The number of lines of the VR's record up to this one.
    pub line: usize,
    /// What happened.
    pub what: Happening,
}

/// What happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Happening {
    /// It began, with a state of this many bytes.
    Began(usize),
    /// It made the safepoint with this number, from 1, with a state of this many bytes.
    Safepoint(u64, usize),
    /// An envelope arrived. When it was received is not recorded, since a replay finds that out again.
    Arrived(Envelope),
    /// It sent an envelope, which is known only if the receiver's recording holds it.
    Sent(VrId, Option<Envelope>),
    /// Anything else, as text.
    Other(String),
    /// It ended.
    Ended(String),
}

impl Recording {
    /// Opens a recording.
    ///
    /// # Errors
    /// [`StateError::File`] if there is none, or if it is invalid.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, StateError> {
        let directory = directory.as_ref().to_owned();
        let path = directory.join(HEADER);
        let wrong = |error: &dyn std::fmt::Display| failed(&path, error);
        let bytes = fs::read(&path).map_err(|error| wrong(&error))?;
        let rest = bytes
            .strip_prefix(MAGIC)
            .ok_or_else(|| wrong(&"it is not a recording of this version of River"))?;
        let whole = rest.split_at_checked(32).filter(|(hash, body)| blake3::hash(body).as_bytes() == hash);
        let (_, body) = whole.ok_or_else(|| wrong(&"it was altered: its checksum is wrong"))?;
        let ran: Ran = postcard::from_bytes(body).map_err(|error| wrong(&error))?;
        let mut ids = Vec::new();
        for entry in fs::read_dir(&directory).map_err(|error| failed(&directory, &error))? {
            let name = entry.map_err(|error| failed(&directory, &error))?.file_name();
            let id = |name: &str| name.strip_prefix("vr-")?.strip_suffix(".tape")?.parse().ok();
            ids.extend(name.to_str().and_then(id).map(VrId::from_uuid));
        }
        ids.sort_unstable();
        Ok(Self { directory, ran, ids, vrs: OnceLock::new(), arrivals: Mutex::default() })
    }

    /// The ids of the VRs that have a recording, complete or not, in no meaningful order.
    #[must_use]
    pub fn ids(&self) -> &[VrId] {
        &self.ids
    }

    /// The VR with which the program started.
    #[must_use]
    pub fn initiator(&self) -> VrId {
        self.ran.initiator
    }

    /// Returns one VR. Reads only its recording.
    ///
    /// # Errors
    /// [`StateError::File`] if the recording is missing, or if not even its beginning is intact.
    pub fn vr(&self, id: VrId) -> Result<RecordedVr, StateError> {
        let (tape, bytes) = self.read(id)?;
        Ok(RecordedVr {
            id,
            name: tape.origin.name,
            parent: tape.origin.parent,
            vm: tape.vm,
            safepoints: tape.stretches.len() - 1,
            lines: tape.stretches.iter().map(|stretch| stretch.record.len()).sum(),
            bytes,
            end: tape.end.map(|(why, _)| why.to_string()),
        })
    }

    /// The VRs, the initiator first, except those that are [`broken`](Self::broken). The first call reads the recordings of
    /// all of them.
    #[must_use]
    pub fn vrs(&self) -> &[RecordedVr] {
        &self.list().0
    }

    /// The errors of recordings of which not even the beginning is intact, because of a full disk or an early death.
    #[must_use]
    pub fn broken(&self) -> &[StateError] {
        &self.list().1
    }

    fn list(&self) -> &(Vec<RecordedVr>, Vec<StateError>) {
        self.vrs.get_or_init(|| {
            let (mut vrs, mut broken) = (Vec::new(), Vec::new());
            for id in &self.ids {
                match self.vr(*id) {
                    Ok(vr) => vrs.push(vr),
                    Err(error) => broken.push(error),
                }
            }
            vrs.sort_by_key(|vr| (vr.parent.is_some(), vr.vm.clone(), vr.id));
            (vrs, broken)
        })
    }

    /// The program: its executable's name, process and machine.
    #[must_use]
    pub fn program(&self) -> &str {
        &self.ran.program
    }

    /// When it began.
    #[must_use]
    pub fn began(&self) -> SystemTime {
        self.ran.began
    }

    /// The program's executable.
    #[must_use]
    pub fn executable(&self) -> PathBuf {
        self.directory.join(PROGRAM)
    }

    /// The program's command line, its name included.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        self.ran.arguments.iter().cloned().map(OsString::from_vec).collect()
    }

    /// The environment variables that it passed on to its VRs.
    #[must_use]
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        let os = OsString::from_vec;
        self.ran.environment.iter().cloned().map(|(name, value)| (os(name), os(value))).collect()
    }

    /// The directory in which it ran.
    #[must_use]
    pub fn working_directory(&self) -> PathBuf {
        OsString::from_vec(self.ran.directory.clone()).into()
    }

    pub(crate) fn image(&self) -> ImageHash {
        self.ran.image
    }

    pub(crate) fn tape(&self, vr: VrId) -> Result<tape::Content, StateError> {
        Ok(self.read(vr)?.0)
    }

    /// Reads a tape, and the size of its file.
    fn read(&self, vr: VrId) -> Result<(tape::Content, u64), StateError> {
        let path = path_of(&self.directory, vr);
        let bytes = fs::read(&path).map_err(|error| failed(&path, &error))?;
        let tape = tape::read(&bytes).map_err(|error| failed(&path, &error))?;
        Ok((tape, bytes.len() as u64))
    }

    /// Returns everything that happened to a VR, in order. Reads the recordings of all VRs that it sent something to,
    /// unless they have been read already.
    ///
    /// # Errors
    /// [`StateError::File`] if its recording is missing.
    pub fn steps(&self, vr: VrId) -> Result<Vec<RecordedStep>, StateError> {
        self.walk(vr, true)
    }

    /// Like [`steps`](Self::steps), but does not look up the envelopes that it sent: reads only its own recording.
    ///
    /// # Errors
    /// [`StateError::File`] if its recording is missing.
    pub fn outline(&self, vr: VrId) -> Result<Vec<RecordedStep>, StateError> {
        self.walk(vr, false)
    }

    fn walk(&self, vr: VrId, find_sent: bool) -> Result<Vec<RecordedStep>, StateError> {
        let tape = self.tape(vr)?;
        let mut sent = find_sent.then(|| Sends { recording: self, from: vr, next: HashMap::new() });
        let (mut steps, mut line) = (Vec::new(), 0);
        for (number, Stretch { record, began, times }) in tape.stretches.iter().enumerate() {
            let state = record.base().state.len();
            let what = match number {
                0 => Happening::Began(state),
                number => Happening::Safepoint(number as u64, state),
            };
            steps.push(RecordedStep { time: (*began).into(), line, what });
            let (mut time, mut times) = (*began, times.iter().peekable());
            for (index, said) in record.said().enumerate() {
                while let Some((_, later)) = times.next_if(|(from, _)| *from <= index as u64) {
                    time = *later;
                }
                line += 1;
                let mut push = |what| steps.push(RecordedStep { time: time.into(), line, what });
                match said {
                    Said::Arrived(events) => events.iter().for_each(|event| match event {
                        Event::Envelope(envelope) => push(Happening::Arrived(envelope.clone())),
                        Event::Down(down) => push(Happening::Other(format!("the news: {down}"))),
                        Event::Stop => push(Happening::Other("the news that the program ends".into())),
                    }),
                    Said::Sent(to) => push(Happening::Sent(to, sent.as_mut().and_then(|sent| sent.next(to)))),
                    Said::Refused(text) => {
                        if let Some(sent) = &mut sent {
                            sent.take_back(&mut steps);
                        }
                        steps.push(RecordedStep { time: time.into(), line, what: Happening::Other(text) });
                    }
                    Said::Other(text) => push(Happening::Other(text)),
                }
            }
        }
        if let Some((why, time)) = tape.end {
            steps.push(RecordedStep { time: time.into(), line, what: Happening::Ended(why.to_string()) });
        }
        Ok(steps)
    }

    /// What a VR has received. Cached, as many VRs may have sent to it, each of them many times.
    fn arrivals(&self, to: VrId) -> Arc<Arrivals> {
        let mut known = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .entry(to)
            .or_insert_with(|| Arc::new(self.tape(to).map_or_else(|_| HashMap::new(), arrivals)))
            .clone()
    }
}

/// Looks up what a VR has sent, where it arrived.
struct Sends<'a> {
    recording: &'a Recording,
    from: VrId,
    /// The number of the next envelope to each VR.
    next: HashMap<VrId, u64>,
}

impl Sends<'_> {
    fn next(&mut self, to: VrId) -> Option<Envelope> {
        let number = self.next.entry(to).or_default();
        *number += 1;
        self.recording.arrivals(to).get(&self.from)?.get(&(*number - 1)).cloned()
    }

    /// Notes that the last send was not accepted, so the next one has its number.
    fn take_back(&mut self, steps: &mut [RecordedStep]) {
        if let Some(RecordedStep { what: Happening::Sent(to, envelope), .. }) = steps.last_mut()
            && let Some(next) = self.next.get_mut(to)
        {
            *next -= 1;
            *envelope = None;
        }
    }
}

fn arrivals(tape: tape::Content) -> Arrivals {
    let mut arrived = Arrivals::new();
    for said in tape.stretches.iter().flat_map(|stretch| stretch.record.said()) {
        let Said::Arrived(events) = said else { continue };
        for event in events {
            if let Event::Envelope(envelope) = event {
                arrived.entry(envelope.src).or_default().insert(envelope.seq, envelope.clone());
            }
        }
    }
    arrived
}

#[cfg(test)]
mod tests;
