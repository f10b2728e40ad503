//! Replays one VR of a recording alone: it is told what it was told then, in a process that has nothing else.
//!
//! `river replay`, perhaps under a debugger, starts the program's executable with variables that say which VR to replay.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::process;
use std::sync::Arc;

use crate::discovery::Network;
use crate::down::Why;
use crate::error::{Result, VrError};
use crate::host;
use crate::id::{HostId, ProgramId};
use crate::image;
use crate::key::ClusterKey;
use crate::node::Node;
use crate::protocol::Place;
use crate::rt;
use crate::state::{Record, Recorder, Recording, Replay};
use crate::vr::Vr;

/// The directory of the recording. Set by `river replay`, like the others.
const REPLAY: &str = "RIVER_REPLAY";
/// The VR to replay.
const WHICH: &str = "RIVER_REPLAY_VR";
/// The safepoint to begin at.
const FROM: &str = "RIVER_REPLAY_FROM";
/// Where to write the states that are passed to safepoints, as JSON, one per line.
const STATES: &str = "RIVER_REPLAY_STATES";
/// Whether every line of the record is printed to stderr.
const TRACE: &str = "RIVER_REPLAY_TRACE";

/// Returns what this process must replay, if anything.
pub(crate) fn wanted() -> Option<PathBuf> {
    std::env::var_os(REPLAY).filter(|directory| !directory.is_empty()).map(PathBuf::from)
}

/// Replays a VR and ends the process. `body` is the program's initiator.
pub(crate) fn replay<T>(directory: PathBuf, body: impl FnOnce(&Vr) -> Result<T>) -> ! {
    let (code, told) = match run(directory, body) {
        Ok(end) => (0, format!("river replay: {end}")),
        Err(error) => (1, format!("error: {error}")),
    };
    let _ = std::io::stdout().flush();
    eprintln!("{told}");
    process::exit(code)
}

fn run<T>(directory: PathBuf, body: impl FnOnce(&Vr) -> Result<T>) -> Result<String> {
    let recording = Recording::open(directory)?;
    if image::own_image()?.hash != recording.image() {
        return Err(VrError::msg(
            "this is not the executable that was recorded: build it from the same sources, or \
             use the one that is kept in the recording",
        ));
    }
    let wanted = std::env::var(WHICH).unwrap_or_default();
    let known = recording.ids().iter().find(|id| id.to_string() == wanted);
    let vr = *known.ok_or_else(|| VrError::msg("the recording has no such VR"))?;
    let from = std::env::var(FROM).ok().and_then(|from| from.parse().ok()).unwrap_or(0);
    let tape = recording.tape(vr)?;
    let safepoints = tape.stretches.len().saturating_sub(1);
    let record = Record::chain(tape.stretches.into_iter().skip(from).map(|stretch| stretch.record));
    let record = record.ok_or_else(|| VrError::msg(format!("the VR has made {safepoints} safepoints")))?;
    let replay = Replay {
        end: end_of_record,
        trace: std::env::var_os(TRACE).is_some(),
        states: std::env::var_os(STATES).map(PathBuf::from),
    };
    let node = alone(tape.origin.program, &tape.vm)?;
    let state = record.base().state.to_vec();
    let recorder = Recorder::replaying(tape.origin.clone(), record, replay);
    let vr = Vr::recorded(node.clone(), node.add(tape.origin.id), recorder.clone());
    let result = match tape.origin.code {
        None => panic::catch_unwind(AssertUnwindSafe(|| body(&vr).map(drop))),
        Some(code) => {
            let mut resource = host::make(code, state).map_err(VrError::msg)?;
            panic::catch_unwind(AssertUnwindSafe(|| resource.run(&vr)))
        }
    };
    drop(vr);
    let why = match result {
        Ok(Ok(())) => Why::Finished,
        Ok(Err(error)) => Why::Failed(error.to_string()),
        // The panic's text was printed when it happened.
        Err(_) => Why::Panicked("as above".into()),
    };
    match recorder.replayed() {
        Ok(()) => Ok(format!("the VR {why}, as in the recording")),
        Err(divergence) => Err(divergence.into()),
    }
}

/// The record has ended before the VR has.
fn end_of_record(at: &str) -> ! {
    let _ = std::io::stdout().flush();
    eprintln!("river replay: here the record ends, at {at}");
    process::exit(0)
}

/// Starts a process that is the only one of its program, and that nobody can reach.
fn alone(program: ProgramId, vm: &str) -> Result<Arc<Node>> {
    let place = Place { host: HostId::fresh(), address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) };
    // Nobody receives the requests.
    let (requests, _) = rt::unbounded();
    Ok(Node::start(
        (place, Network::Loopback),
        program,
        vm.to_owned(),
        ClusterKey::from_bytes([0; 32]),
        requests,
        true,
    )?)
}
