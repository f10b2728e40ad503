//! The initiator's side: collects what the processes of the program have recorded, and writes it to a file as it arrives.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::clock::Sample;
use super::record::{Piece, Writer};
use super::traces::{Traces, now};
use crate::id::{HostId, VrId};

/// How many exchanges follow each other immediately when a host joins; later there is one per second.
const AT_FIRST: usize = 8;
/// If there are more exchanges with a host, every other one is dropped.
const SAMPLES: usize = 2048;

/// Collects the trace of a program.
#[derive(Debug)]
pub(crate) struct Collector {
    host: HostId,
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    writer: Option<Writer<BufWriter<File>>>,
    /// The error for which the writer was dropped.
    failed: Option<io::Error>,
    hosts: HashMap<HostId, Host>,
    heard: Instant,
}

#[derive(Debug, Default)]
struct Host {
    vm: String,
    samples: Vec<Sample>,
    exchanges: usize,
    /// Whether it has handed over everything.
    done: bool,
}

impl Collector {
    /// Creates a trace file.
    pub(crate) fn create(path: &Path, name: &str, host: HostId, vm: &str) -> io::Result<Self> {
        let mut writer = Writer::create(path)?;
        writer.piece(host, &Piece::Program { name: name.to_owned(), host })?;
        writer.piece(host, &Piece::Host { host, vm: vm.to_owned(), boot: boot() })?;
        let state =
            State { writer: Some(writer), failed: None, hosts: HashMap::new(), heard: Instant::now() };
        Ok(Self { host, path: path.to_owned(), state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn joined(&self, host: HostId, vm: &str) {
        self.state().hosts.insert(host, Host { vm: vm.to_owned(), ..Host::default() });
    }

    /// Notes a clock exchange with a host. Returns whether another one should follow at once.
    pub(crate) fn compared(&self, of: HostId, asked: u64, heard: u64, answered: u64) -> bool {
        let told = now();
        let mut state = self.state();
        let Some(host) = state.hosts.get_mut(&of) else { return false };
        host.samples.push(Sample { asked, heard, answered, told });
        host.exchanges += 1;
        if host.samples.len() > SAMPLES {
            let mut number = 0;
            host.samples.retain(|_| {
                number += 1;
                number % 2 == 0
            });
        }
        host.exchanges < AT_FIRST
    }

    /// Writes a piece that a host has encoded.
    pub(crate) fn take(&self, host: HostId, piece: &[u8]) {
        let mut state = self.state();
        state.heard = Instant::now();
        state.write(|writer| writer.encoded(host, piece));
    }

    /// Notes that a host has handed over everything.
    pub(crate) fn done(&self, host: HostId) {
        let mut state = self.state();
        state.heard = Instant::now();
        if let Some(host) = state.hosts.get_mut(&host) {
            host.done = true;
        }
    }

    /// How long ago a host last handed over anything.
    pub(crate) fn silence(&self) -> Duration {
        self.state().heard.elapsed()
    }

    /// Notes that a host is gone with those VRs. What it had not handed over is lost.
    pub(crate) fn gone(&self, host: HostId, why: &str, vrs: &[VrId]) {
        let mut state = self.state();
        let Some(known) = state.hosts.get_mut(&host).filter(|host| !host.done) else { return };
        known.done = true;
        let vm = known.vm.clone();
        let (vrs, why) = (vrs.to_vec(), why.to_owned());
        state.write(|writer| writer.piece(host, &Piece::Lost { host, vm, at: now(), why, vrs }));
    }

    /// Writes the rest, including what this process itself has recorded.
    pub(crate) fn finish(&self, own: &Traces) -> io::Result<()> {
        let mut state = self.state();
        for (id, host) in std::mem::take(&mut state.hosts) {
            if !host.done {
                let why = "it did not hand over its trace in time".to_owned();
                let lost = Piece::Lost { host: id, vm: host.vm, at: now(), why, vrs: Vec::new() };
                state.write(|writer| writer.piece(id, &lost));
            }
            state.write(|writer| writer.piece(id, &Piece::Clock { host: id, samples: host.samples }));
        }
        own.collect(|piece| state.write(|writer| writer.piece(self.host, &piece)));
        state.write(|writer| writer.piece(self.host, &Piece::End { at: now() }));
        let written = state.writer.take().map_or(Ok(()), |writer| writer.finish().map(drop));
        let result = state.failed.take().map_or(written, Err);
        result.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot write the trace {}: {error}", self.path.display()))
        })
    }
}

impl State {
    fn write(&mut self, write: impl FnOnce(&mut Writer<BufWriter<File>>) -> io::Result<()>) {
        let Some(writer) = &mut self.writer else { return };
        if let Err(error) = write(writer) {
            self.failed = Some(error);
            self.writer = None;
        }
    }
}

/// Identifies the boot of the kernel whose clock this process reads; empty if that is unknown.
pub(crate) fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}
