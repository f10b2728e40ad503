//! Records all VRs of a program to files, from pieces that their processes send regularly.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use super::Program;
use crate::cut::FLUSH;
use crate::error::StateError;
use crate::id::{HostId, VrId};
use crate::image::Image;
use crate::node::Node;
use crate::notice::say;
use crate::protocol::ToHost;
use crate::rt;
use crate::state::{Ran, append_tape, create_recording};

/// How long a host may take to send the rest of its recordings when the program ends.
const FAREWELL: Duration = Duration::from_secs(10);

/// The inputs of a VR, encoded.
type Piece = (VrId, Vec<u8>);

/// The files, and the thread that writes them.
pub(super) struct Recording {
    /// Locked while pieces are taken and handed over, so that both happen in the same order.
    to: Mutex<Option<crossbeam_channel::Sender<Piece>>>,
    writer: Mutex<Option<thread::JoinHandle<()>>>,
}

impl Recording {
    /// Begins a recording in a directory.
    pub(super) fn begin(directory: PathBuf, ran: &Ran) -> Result<Self, StateError> {
        create_recording(&directory, ran)?;
        let (to, items) = crossbeam_channel::unbounded::<Piece>();
        let write = move || {
            for (vr, bytes) in items {
                if let Err(error) = append_tape(&directory, vr, &bytes) {
                    say!("[river: the recording ends here: {error}]");
                    return;
                }
            }
        };
        let failed = |error: io::Error| StateError::File { path: "thread".into(), error: error.to_string() };
        let writer = thread::Builder::new().name("river-recording".into()).spawn(write).map_err(failed)?;
        Ok(Self { to: Mutex::new(Some(to)), writer: Mutex::new(Some(writer)) })
    }

    /// Appends to the recording of a VR.
    pub(super) fn append(&self, vr: VrId, bytes: Vec<u8>) {
        if let Some(to) = &*self.to.lock().unwrap_or_else(PoisonError::into_inner) {
            // After a failure, nothing more is recorded.
            let _ = to.send((vr, bytes));
        }
    }

    /// Records the new inputs of this process's VRs.
    fn flush(&self, node: &Node) {
        let to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(to) = &*to else { return };
        for item in node.states.flush() {
            let _ = to.send(item);
        }
    }

    /// Waits until everything is written.
    fn close(&self) {
        drop(self.to.lock().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer {
            let _ = writer.join();
        }
    }
}

impl Program {
    /// Records to files all VRs that begin from now on.
    pub(crate) fn record(
        self: &Arc<Self>,
        directory: PathBuf,
        initiator: VrId,
        image: &Image,
    ) -> Result<(), StateError> {
        let ran = Ran {
            program: self.tenant.name.clone(),
            image: image.hash,
            began: SystemTime::now(),
            arguments: super::local::arguments(),
            environment: super::local::environment(),
            directory: super::local::directory(),
            initiator,
        };
        let _ = self.recording.set(Recording::begin(directory, &ran)?);
        self.node.states.tape(&self.node.vm);
        let this = self.clone();
        self.tasks().push(rt::spawn(async move {
            loop {
                rt::sleep(FLUSH).await;
                if let Some(recording) = this.recording.get() {
                    recording.flush(&this.node);
                }
            }
        }));
        Ok(())
    }

    pub(super) fn is_recorded(&self) -> bool {
        self.recording.get().is_some()
    }

    /// Notes that a host has sent the rest of its recordings.
    pub(super) fn tape_ends(&self, host: HostId) {
        if let Some(to) = &self.state().tapes {
            let _ = to.try_send(host);
        }
    }

    /// Writes the rest of the recording. The VRs are about to be stopped.
    pub(super) fn end_recording(&self) {
        let Some(recording) = self.recording.get() else { return };
        let (to, ends) = rt::unbounded();
        let hosts: Vec<HostId> = {
            let mut state = self.state();
            state.tapes = Some(to);
            let dead = |host: &HostId| state.directory.has_died(*host);
            state.hosts.keys().copied().filter(|host| !dead(host)).collect()
        };
        hosts.iter().for_each(|host| self.tell_host(*host, ToHost::Tape));
        let all = async {
            let mut missing = hosts;
            while !missing.is_empty() {
                let Ok(host) = ends.recv().await else { return };
                missing.retain(|other| *other != host);
            }
        };
        if rt::block_on(rt::timeout(FAREWELL, all)).is_err() {
            say!("[river: a host did not send the end of its recording in time]");
        }
        recording.flush(&self.node);
        recording.close();
    }
}
