//! The driver of [`Streams`]: sends requests to depots, handles messages from them and from the master, and whatever
//! else a worker is told meanwhile.

use std::collections::HashMap;

use bytes::Bytes;
use river_core::VrId;

use super::{Ended, Message, Running};
use crate::failure::Failure;
use crate::pack::unpack;
use crate::protocol::{Segment, ToMaster, ToWorker, is_announced};
use crate::sort::Source;
use crate::streams::{From, Next, Streams};

pub(super) struct Shuffle<'r, 'v> {
    running: &'r mut Running<'v>,
    job: u64,
    attempt: u64,
    streams: Streams,
    /// Depots that cannot be read from, and why. Another attempt may reach them.
    lost: HashMap<VrId, Option<String>>,
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
        let mut shuffle = Self { running, job, attempt, streams, lost: HashMap::new() };
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
        } else if self.lost.contains_key(&depot) {
            From::Lost
        } else {
            From::Depot(depot)
        };
        let remote = matches!(source, From::Depot(_));
        self.streams.attach(index, source);
        self.ask(index);
        if remote && !self.lost.contains_key(&depot) {
            self.running.vr.watch(depot);
        }
    }

    /// Keeps the requests of a stream outstanding.
    fn ask(&mut self, index: usize) {
        while let Some((depot, message)) = self.streams.next_request(index) {
            if let Err(unreached) = self.running.ask(depot, &message) {
                self.lose(depot, unreached);
            }
        }
    }

    /// Notes that a depot cannot be read from, and why if it may be alive.
    fn lose(&mut self, depot: VrId, unreached: Option<String>) {
        self.lost.insert(depot, unreached);
        self.streams.handle_lost(depot);
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
            Message::Down(down) => {
                self.lose(down.who, (!is_announced(&down.why)).then(|| down.why.cause()));
            }
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
                Next::Blocked(depot) => {
                    let not_there = || Some("the output of a map task is not there".to_owned());
                    let unreached = self.lost.get(&depot).cloned().unwrap_or_else(not_there);
                    let message = ToMaster::Blocked { attempt: self.attempt, depot, unreached };
                    self.running.tell(&message).map_err(|Ended| Failure::Cancelled)?;
                    self.look_up(true)?;
                }
            }
        }
    }
}
