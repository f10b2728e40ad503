//! The depot: the VR of a VM that serves the output of its map tasks, even while its workers are busy.
//!
//! A reader requests as many bytes as it has room for, so a request is a credit, and nothing is sent unsolicited.

use bytes::Bytes;
use river_core::trace::Label;
use river_core::{RecvError, Result, Selector, VirtualResource, Vr};
use serde::{Deserialize, Serialize};

use crate::pack::Packer;
use crate::place::Place;
use crate::protocol::{CHANNEL, ToDepot, ToMaster, ToWorker, decode, encode, send_patiently};

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
            let answer = encode(&message, bytes)?;
            if let Err(error) = vr.send_bytes(envelope.src, CHANNEL, 0, answer)
                && let Some(master) = vr.parent()
            {
                // Usually the reader is gone, which the master knows.
                let why = error.to_string();
                let message = ToMaster::Unanswered { worker: envelope.src, why };
                send_patiently(vr, master, &encode(&message, Bytes::new())?)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use river_core::{Channel, QueueLimit, VrId, WhenFull};

    use super::*;
    use crate::protocol::Ticket;

    #[test]
    fn the_master_is_told_of_an_answer_that_cannot_be_sent() {
        river_core::try_run(|vr| {
            const OTHER: Channel = Channel::named("other");
            let depot = vr.spawn("depot", |vr| Depot.main(vr))?;
            // It takes nothing while it waits.
            let reader = vr.spawn("reader", move |vr| {
                vr.send_bytes(vr.id(), OTHER, 0, Bytes::new())?;
                let limit = QueueLimit { messages: 1, bytes: usize::MAX, when_full: WhenFull::Refuse };
                vr.limit_queue(Some(limit));
                let ticket = Ticket { attempt: 1, stream: 0, generation: 0, offset: 0 };
                let read = ToDepot::Read {
                    job: 1,
                    attempt: 1,
                    run: 0,
                    part: 0,
                    offset: 0,
                    len: 9,
                    pack: false,
                    ticket,
                };
                vr.send_bytes(depot, CHANNEL, 0, encode(&read, Bytes::new())?)?;
                let _ = vr.receive(Selector::on(CHANNEL));
                Ok(())
            })?;
            let heard: Option<(ToMaster, Bytes)> = decode(&vr.receive(Selector::on(CHANNEL))?.payload);
            let told = |worker: VrId, why: &str| worker == reader && why.contains("mailbox is full");
            assert!(
                matches!(&heard, Some((ToMaster::Unanswered { worker, why }, _)) if told(*worker, why)),
                "{heard:?}"
            );
            Ok(())
        })
        .unwrap();
    }
}
