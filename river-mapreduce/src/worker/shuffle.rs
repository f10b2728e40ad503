//! The driver of [`Streams`]: sends requests to depots, handles messages from them and from the master, and whatever
//! else a worker is told meanwhile.

use bytes::Bytes;

use super::{Ended, Message, Running};
use crate::failure::Failure;
use crate::pack::unpack;
use crate::protocol::{Segment, ToMaster, ToWorker};
use crate::sort::Source;
use crate::streams::{From, Next, Streams};

pub(super) struct Shuffle<'r, 'v> {
    running: &'r mut Running<'v>,
    job: u64,
    attempt: u64,
    streams: Streams,
}

impl<'r, 'v> Shuffle<'r, 'v> {
    pub(super) fn new(
        running: &'r mut Running<'v>,
        job: u64,
        attempt: u64,
        reducer: u32,
        segments: Vec<Segment>,
        memory: usize,
    ) -> Self {
        let streams = Streams::new(job, attempt, reducer, segments, memory);
        let mut shuffle = Self { running, job, attempt, streams };
        for index in 0..shuffle.streams.len() {
            shuffle.attach(index);
        }
        shuffle
    }

    /// Attaches a stream to the current location of its segment.
    fn attach(&mut self, index: usize) {
        let Segment { depot, attempt, .. } = *self.streams.segment(index);
        let source = if depot == self.running.depot {
            self.running.place.runs(self.job, attempt).map_or(From::Lost, From::Here)
        } else if self.running.gone.contains(&depot) {
            From::Lost
        } else {
            self.running.vr.watch(depot);
            From::Depot(depot)
        };
        self.streams.attach(index, source);
        self.ask(index);
    }

    /// Keeps the requests of a stream outstanding.
    fn ask(&mut self, index: usize) {
        while let Some((depot, message)) = self.streams.next_request(index) {
            if !self.running.ask(depot, &message) {
                self.streams.handle_lost(depot);
            }
        }
    }

    /// Handles the messages that have arrived, in order; with `wait`, waits for the first.
    fn look_up(&mut self, mut wait: bool) -> Result<(), Failure> {
        while let Some(message) = self.running.next(wait).map_err(|Ended| Failure::Cancelled)? {
            self.obey(message)?;
            wait = false;
        }
        Ok(())
    }

    fn obey(&mut self, message: Message) -> Result<(), Failure> {
        match message {
            Message::Down(who) => self.streams.handle_lost(who),
            Message::Told(ToWorker::Chunk { ticket, unpacked }, bytes) if ticket.attempt == self.attempt => {
                let plain = match unpacked {
                    Some(len) => unpack(&bytes, len, self.streams.request_size()).unwrap_or_default(),
                    None => bytes,
                };
                self.streams.handle_chunk(ticket, plain)?;
            }
            Message::Told(ToWorker::Missing { ticket, why }, _) if ticket.attempt == self.attempt => {
                if self.streams.is_current(ticket) {
                    return Err(Failure::Internal(why));
                }
            }
            Message::Told(ToWorker::Cancel { attempt }, _) if attempt == self.attempt => {
                return Err(Failure::Cancelled);
            }
            Message::Told(ToWorker::Moved { attempt, map, segments }, _) if attempt == self.attempt => {
                for index in self.streams.handle_moved(map, &segments)? {
                    self.attach(index);
                }
            }
            other @ Message::Told(ToWorker::Reduce { .. }, _) => {
                // The master considers this attempt ended.
                self.running.inbox.push_front(other);
                return Err(Failure::Cancelled);
            }
            other => self.running.handle(other).map_err(|Ended| Failure::Cancelled)?,
        }
        Ok(())
    }
}

impl Source for Shuffle<'_, '_> {
    type Error = Failure;

    fn next_chunk(&mut self, index: usize) -> Result<Option<Bytes>, Failure> {
        self.look_up(false)?;
        loop {
            match self.streams.next(index)? {
                Next::Chunk(chunk) => {
                    self.ask(index);
                    return Ok(Some(chunk));
                }
                Next::End => return Ok(None),
                Next::Wait => self.look_up(true)?,
                Next::Blocked => {
                    let message = ToMaster::Blocked { attempt: self.attempt };
                    self.running.tell(&message).map_err(|Ended| Failure::Cancelled)?;
                    self.look_up(true)?;
                }
            }
        }
    }
}
