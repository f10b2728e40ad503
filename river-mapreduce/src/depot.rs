//! The depot: the VR of a VM that serves the output of its map tasks, even while its workers are busy.
//!
//! A reader requests as many bytes as it has room for, so a request is a credit, and nothing is sent unsolicited.

use bytes::Bytes;
use river_core::trace::Label;
use river_core::{RecvError, Result, Selector, VirtualResource, Vr};
use serde::{Deserialize, Serialize};

use crate::pack::Packer;
use crate::place::Place;
use crate::protocol::{CHANNEL, ToDepot, ToWorker, decode, encode};

/// The depot of a VM.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Depot;

impl VirtualResource for Depot {
    fn main(&mut self, vr: &Vr) -> Result {
        vr.describe_channel(CHANNEL, "mapreduce", Label::None);
        let place = Place::of(vr.id());
        let mut packer = Packer::default();
        loop {
            let envelope = match vr.receive(Selector::on(CHANNEL)) {
                Ok(envelope) => envelope,
                Err(RecvError::Stopped) => return Ok(()),
                // Readers come and go.
                Err(RecvError::Down(_)) => continue,
                Err(error) => return Err(error.into()),
            };
            let (message, bytes) = match decode(&envelope.payload) {
                Some((ToDepot::Read { job, attempt, run, part, offset, len, pack, ticket }, _)) => {
                    let runs = place.runs(job, attempt);
                    let run = runs.as_ref().and_then(|runs| runs.get(run as usize));
                    match run.map(|run| run.read(part as usize, offset, len as usize)) {
                        Some(Ok(bytes)) => match pack.then(|| packer.pack(&bytes)).flatten() {
                            Some(packed) => {
                                (ToWorker::Chunk { ticket, unpacked: Some(bytes.len() as u64) }, packed)
                            }
                            None => (ToWorker::Chunk { ticket, unpacked: None }, bytes),
                        },
                        Some(Err(error)) => {
                            (ToWorker::Missing { ticket, why: error.to_string() }, Bytes::new())
                        }
                        None => {
                            let why = "the output of that map task is not here".to_owned();
                            (ToWorker::Missing { ticket, why }, Bytes::new())
                        }
                    }
                }
                None => continue,
            };
            let payload = encode(&message, bytes)?;
            // The reader may be gone.
            let _ = vr.send_bytes(envelope.src, CHANNEL, 0, payload);
        }
    }
}
