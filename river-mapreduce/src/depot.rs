//! The depot: the VR of a VM that serves the output of its map tasks, even while its workers are busy.
//!
//! A reader requests as many bytes as it has room for, so a request is a credit, and nothing is sent unsolicited.

use bytes::Bytes;
use river_core::trace::Label;
use river_core::{RecvError, Result, Selector, SendError, VirtualResource, Vr};
use serde::{Deserialize, Serialize};

use crate::pack::Packer;
use crate::place::Place;
use crate::protocol::{CHANNEL, ToDepot, ToMaster, ToWorker, decode, encode, is_announced, send_patiently};

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
            let why = match vr.send_bytes(envelope.src, CHANNEL, 0, answer) {
                Ok(()) => continue,
                // The reader has ended, as the master is told as well.
                Err(SendError::Down(down)) if is_announced(&down.why) => continue,
                Err(error) => error.to_string(),
            };
            if let Some(master) = vr.parent() {
                let message = encode(&ToMaster::Unanswered { worker: envelope.src, why }, Bytes::new())?;
                if let Err(error) = send_patiently(vr, master, &message) {
                    tracing::warn!(%error, "the master is not told of an answer that cannot be sent");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use river_core::{Channel, Payload, QueueLimit, VrId, WhenFull};

    use super::*;
    use crate::protocol::Ticket;

    const OTHER: Channel = Channel::named("other");

    fn read() -> Payload {
        let ticket = Ticket { attempt: 1, stream: 0, generation: 0, offset: 0 };
        let read =
            ToDepot::Read { job: 1, attempt: 1, run: 0, part: 0, offset: 0, len: 9, pack: false, ticket };
        encode(&read, Bytes::new()).unwrap()
    }

    #[test]
    fn the_master_is_told_of_an_answer_that_cannot_be_sent_to_a_living_reader() {
        river_core::try_run(|vr| {
            let depot = vr.spawn("depot", |vr| {
                vr.receive(Selector::on(OTHER))?;
                Depot.main(vr)
            })?;
            let gone = vr.spawn("gone", move |vr| Ok(vr.send_bytes(depot, CHANNEL, 0, read())?))?;
            vr.watch(gone);
            let end = vr.receive(Selector::on(OTHER));
            assert!(matches!(end, Err(RecvError::Down(down)) if down.who == gone));
            let reader = vr.spawn("reader", move |vr| {
                vr.send_bytes(vr.id(), OTHER, 0, Bytes::new())?;
                let limit = QueueLimit { messages: 1, bytes: usize::MAX, when_full: WhenFull::Refuse };
                vr.limit_queue(Some(limit));
                vr.send_bytes(depot, CHANNEL, 0, read())?;
                // It takes nothing while it waits.
                let _ = vr.receive(Selector::on(CHANNEL));
                Ok(())
            })?;
            vr.send_bytes(depot, OTHER, 0, Bytes::new())?;
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
