//! The reducer's side of the shuffle: streams of bytes out of the depots of all VMs.
//!
//! A stream has two requests under way, so that one travels while the other is merged; all requests together ask for no
//! more bytes than the job may use. What lies in this process is taken from memory as it is.
//!
//! When a depot is gone its streams wait, with what they have received, for the master to say where the map task was done
//! again, and go on from there at the same byte.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use river_core::VrId;

use super::{Ended, Message, Running};
use crate::failure::Failure;
use crate::pack::unpack;
use crate::protocol::{Segment, Ticket, ToDepot, ToMaster, ToWorker};
use crate::sort::{Run, Source};

/// Requests of a stream that are under way.
const WINDOW: u64 = 2;
/// A request asks for so many bytes, if there is memory for them.
const LARGEST: u64 = 256 << 10;
const SMALLEST: u64 = 4 << 10;

pub(super) struct Shuffle<'r, 'v> {
    running: &'r mut Running<'v>,
    job: u64,
    attempt: u64,
    reducer: u32,
    streams: Vec<Stream>,
    /// Bytes that a request asks for.
    request: u64,
    /// The master knows that this attempt waits.
    blocked: bool,
}

#[derive(Debug)]
struct Stream {
    segment: Segment,
    generation: u32,
    source: From,
    /// Bytes asked for.
    asked: u64,
    /// Bytes received.
    received: u64,
    ready: VecDeque<Bytes>,
}

#[derive(Debug)]
enum From {
    /// This process.
    Here(Arc<Vec<Run>>),
    Depot(VrId),
    /// Nobody has it any more.
    Lost,
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
        let streams = segments.into_iter().map(|segment| Stream {
            segment,
            generation: 0,
            source: From::Lost,
            asked: 0,
            received: 0,
            ready: VecDeque::new(),
        });
        let streams: Vec<Stream> = streams.collect();
        let request = memory as u64 / (streams.len() as u64 * WINDOW).max(1);
        let request = request.clamp(SMALLEST, LARGEST);
        let mut shuffle = Self { running, job, attempt, reducer, streams, request, blocked: false };
        for index in 0..shuffle.streams.len() {
            shuffle.attach(index);
        }
        shuffle
    }

    /// Has a stream read from where its segment is said to be.
    fn attach(&mut self, index: usize) {
        let stream = &mut self.streams[index];
        stream.generation += 1;
        stream.asked = stream.received;
        let (depot, attempt) = (stream.segment.depot, stream.segment.attempt);
        stream.source = if depot == self.running.depot {
            self.running.place.runs(self.job, attempt).map_or(From::Lost, From::Here)
        } else if self.running.gone.contains(&depot) {
            From::Lost
        } else {
            self.running.vr.watch(depot);
            From::Depot(depot)
        };
        self.ask(index);
    }

    /// Keeps the requests of a stream under way.
    fn ask(&mut self, index: usize) {
        let stream = &mut self.streams[index];
        let From::Depot(depot) = stream.source else { return };
        let len = stream.segment.part.len;
        let ready: u64 = stream.ready.iter().map(|chunk| chunk.len() as u64).sum();
        while stream.asked < len && stream.asked - stream.received + ready < WINDOW * self.request {
            let bytes = self.request.min(len - stream.asked);
            let message = ToDepot::Read {
                job: self.job,
                attempt: stream.segment.attempt,
                run: stream.segment.run,
                part: self.reducer,
                offset: stream.asked,
                len: bytes,
                pack: stream.segment.pack,
                ticket: Ticket { attempt: self.attempt, stream: index as u32, generation: stream.generation },
            };
            if !self.running.ask(depot, &message) {
                stream.source = From::Lost;
                return;
            }
            stream.asked += bytes;
        }
    }

    /// Waits for a message and does what it says.
    fn wait(&mut self) -> Result<(), Failure> {
        let message = self.running.receive().map_err(|Ended| Failure::Cancelled)?;
        self.obey(message)
    }

    /// Does what messages say that are there.
    fn look_up(&mut self) -> Result<(), Failure> {
        while let Some(message) = self.running.try_receive_new().map_err(|Ended| Failure::Cancelled)? {
            self.obey(message)?;
        }
        Ok(())
    }

    fn obey(&mut self, message: Message) -> Result<(), Failure> {
        match message {
            Message::Down(who) => {
                for stream in &mut self.streams {
                    if matches!(stream.source, From::Depot(depot) if depot == who) {
                        stream.source = From::Lost;
                    }
                }
            }
            Message::Told(ToWorker::Chunk { ticket, unpacked }, bytes) if ticket.attempt == self.attempt => {
                let plain = match unpacked {
                    Some(len) => unpack(&bytes, len, self.request).unwrap_or_default(),
                    None => bytes,
                };
                self.take(ticket, plain)?;
            }
            Message::Told(ToWorker::Missing { ticket, why }, _) if ticket.attempt == self.attempt => {
                if self.current(ticket).is_some() {
                    return Err(Failure::Internal(why));
                }
            }
            Message::Told(ToWorker::Cancel { attempt }, _) if attempt == self.attempt => {
                return Err(Failure::Cancelled);
            }
            Message::Told(ToWorker::Moved { attempt, map, segments }, _) if attempt == self.attempt => {
                self.moved(map, &segments)?;
            }
            other @ Message::Told(ToWorker::Reduce { .. }, _) => {
                // The master believes that this attempt has ended.
                self.running.inbox.push_front(other);
                return Err(Failure::Cancelled);
            }
            other => self.running.handle(other).map_err(|Ended| Failure::Cancelled)?,
        }
        Ok(())
    }

    fn current(&mut self, ticket: Ticket) -> Option<&mut Stream> {
        let stream = self.streams.get_mut(ticket.stream as usize)?;
        (stream.generation == ticket.generation).then_some(stream)
    }

    fn take(&mut self, ticket: Ticket, bytes: Bytes) -> Result<(), Failure> {
        // An answer of a former source is dropped: its bytes were asked for again.
        let Some(stream) = self.current(ticket) else { return Ok(()) };
        if bytes.is_empty() || stream.received + bytes.len() as u64 > stream.segment.part.len {
            return Err(Failure::Internal("a depot sent something else than was asked for".into()));
        }
        stream.received += bytes.len() as u64;
        stream.ready.push_back(bytes);
        Ok(())
    }

    /// A map task was done again, elsewhere.
    fn moved(&mut self, map: u32, segments: &[Segment]) -> Result<(), Failure> {
        let ours = self.streams.iter().filter(|stream| stream.segment.map == map);
        let same = ours.clone().count() == segments.len()
            && ours
                .zip(segments)
                .all(|(stream, new)| (stream.segment.run, stream.segment.part) == (new.run, new.part));
        if !same {
            return Err(Failure::Changed { map });
        }
        for new in segments {
            let of = |stream: &Stream| stream.segment.map == map && stream.segment.run == new.run;
            if let Some(index) = self.streams.iter().position(of) {
                self.streams[index].segment = *new;
                self.attach(index);
            }
        }
        self.blocked = self.streams.iter().any(|stream| matches!(stream.source, From::Lost));
        Ok(())
    }
}

impl Source for Shuffle<'_, '_> {
    type Error = Failure;

    fn next_chunk(&mut self, index: usize) -> Result<Option<Bytes>, Failure> {
        self.look_up()?;
        loop {
            let stream = &mut self.streams[index];
            if let Some(chunk) = stream.ready.pop_front() {
                self.ask(index);
                return Ok(Some(chunk));
            }
            if stream.received >= stream.segment.part.len {
                return Ok(None);
            }
            match &stream.source {
                From::Here(runs) => {
                    let Some(run) = runs.get(stream.segment.run as usize) else {
                        return Err(Failure::Internal("a run that is not there".into()));
                    };
                    let len = run.natural_read(self.request as usize);
                    let chunk = run.read(self.reducer as usize, stream.received, len)?;
                    stream.received += chunk.len() as u64;
                    return Ok((!chunk.is_empty()).then_some(chunk));
                }
                From::Depot(_) => self.wait()?,
                From::Lost => {
                    if !self.blocked {
                        self.blocked = true;
                        let message = ToMaster::Blocked { attempt: self.attempt };
                        self.running.tell(&message, Bytes::new()).map_err(|_| Failure::Cancelled)?;
                    }
                    self.wait()?;
                }
            }
        }
    }
}
