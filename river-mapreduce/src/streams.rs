//! The reducer's side of the shuffle without its messages: streams of bytes out of the depots of all VMs, a state machine.
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

use crate::failure::Failure;
use crate::protocol::{Segment, Ticket, ToDepot};
use crate::sort::Run;

/// Requests of a stream that are under way.
const WINDOW: u64 = 2;
/// A request asks for so many bytes, if there is memory for them.
const LARGEST: u64 = 256 << 10;
const SMALLEST: u64 = 4 << 10;

/// The streams of one attempt at a reduce task.
#[derive(Debug)]
pub(crate) struct Streams {
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

/// Where a stream reads from.
#[derive(Debug)]
pub(crate) enum From {
    /// This process.
    Here(Arc<Vec<Run>>),
    Depot(VrId),
    /// Nobody has it any more.
    Lost,
}

/// What there is of a stream.
#[derive(Debug)]
pub(crate) enum Next {
    Chunk(Bytes),
    End,
    /// Nothing, until something is received.
    Wait,
    /// Nothing, until a map task was done again, of which the master has to be told.
    Blocked,
}

impl Streams {
    /// Streams that are not attached to a source yet, with so many bytes of memory for all together.
    pub(crate) fn new(job: u64, attempt: u64, reducer: u32, segments: Vec<Segment>, memory: usize) -> Self {
        let request = memory as u64 / (segments.len() as u64 * WINDOW).max(1);
        let streams = segments.into_iter().map(|segment| Stream {
            segment,
            generation: 0,
            source: From::Lost,
            asked: 0,
            received: 0,
            ready: VecDeque::new(),
        });
        let streams = streams.collect();
        Self { job, attempt, reducer, streams, request: request.clamp(SMALLEST, LARGEST), blocked: false }
    }

    pub(crate) fn len(&self) -> usize {
        self.streams.len()
    }

    pub(crate) fn segment(&self, index: usize) -> &Segment {
        &self.streams[index].segment
    }

    /// Bytes that a request asks for, at most.
    pub(crate) fn request_size(&self) -> u64 {
        self.request
    }

    /// Has a stream read from that source, from where it is.
    pub(crate) fn attach(&mut self, index: usize, source: From) {
        let stream = &mut self.streams[index];
        stream.generation += 1;
        stream.asked = stream.received;
        stream.source = source;
        self.blocked = self.streams.iter().any(|stream| matches!(stream.source, From::Lost)) && self.blocked;
    }

    /// What is to be asked for next so that the requests of a stream stay under way, and whom.
    pub(crate) fn next_request(&mut self, index: usize) -> Option<(VrId, ToDepot)> {
        let stream = &mut self.streams[index];
        let From::Depot(depot) = stream.source else { return None };
        let rest = stream.segment.part.len.saturating_sub(stream.asked);
        let ready: u64 = stream.ready.iter().map(|chunk| chunk.len() as u64).sum();
        if rest == 0 || stream.asked - stream.received + ready >= WINDOW * self.request {
            return None;
        }
        let len = self.request.min(rest);
        let message = ToDepot::Read {
            job: self.job,
            attempt: stream.segment.attempt,
            run: stream.segment.run,
            part: self.reducer,
            offset: stream.asked,
            len,
            pack: stream.segment.pack,
            ticket: Ticket { attempt: self.attempt, stream: index as u32, generation: stream.generation },
        };
        stream.asked += len;
        Some((depot, message))
    }

    /// A depot is gone.
    pub(crate) fn handle_lost(&mut self, depot: VrId) {
        for stream in &mut self.streams {
            if matches!(stream.source, From::Depot(lost) if lost == depot) {
                stream.source = From::Lost;
            }
        }
    }

    /// Bytes that were asked for. An answer of a former source is dropped: its bytes were asked for again.
    pub(crate) fn handle_chunk(&mut self, ticket: Ticket, bytes: Bytes) -> Result<(), Failure> {
        if !self.is_current(ticket) {
            return Ok(());
        }
        let stream = &mut self.streams[ticket.stream as usize];
        if bytes.is_empty() || stream.received + bytes.len() as u64 > stream.asked {
            return Err(Failure::Internal("a depot sent something else than was asked for".into()));
        }
        stream.received += bytes.len() as u64;
        stream.ready.push_back(bytes);
        Ok(())
    }

    /// Whether an answer is one to the source that a stream reads from now.
    pub(crate) fn is_current(&self, ticket: Ticket) -> bool {
        let stream = self.streams.get(ticket.stream as usize);
        ticket.attempt == self.attempt && stream.is_some_and(|stream| stream.generation == ticket.generation)
    }

    /// A map task was done again, elsewhere. Returns the streams that are to be attached to where their segments are now.
    pub(crate) fn handle_moved(&mut self, map: u32, segments: &[Segment]) -> Result<Vec<usize>, Failure> {
        let ours: Vec<usize> =
            (0..self.streams.len()).filter(|&index| self.streams[index].segment.map == map).collect();
        let same = |(&index, new): (&usize, &Segment)| {
            let old = &self.streams[index].segment;
            (old.run, old.part) == (new.run, new.part)
        };
        if ours.len() != segments.len() || !ours.iter().zip(segments).all(same) {
            return Err(Failure::Changed { map });
        }
        for (&index, new) in ours.iter().zip(segments) {
            self.streams[index].segment = *new;
        }
        Ok(ours)
    }

    /// What there is of a stream.
    pub(crate) fn next(&mut self, index: usize) -> Result<Next, Failure> {
        let stream = &mut self.streams[index];
        if let Some(chunk) = stream.ready.pop_front() {
            return Ok(Next::Chunk(chunk));
        }
        if stream.received >= stream.segment.part.len {
            return Ok(Next::End);
        }
        match &stream.source {
            From::Here(runs) => {
                let Some(run) = runs.get(stream.segment.run as usize) else {
                    return Err(Failure::Internal("a run that is not there".into()));
                };
                let len = run.natural_read(self.request as usize);
                let chunk = run.read(self.reducer as usize, stream.received, len)?;
                stream.received += chunk.len() as u64;
                Ok(if chunk.is_empty() { Next::End } else { Next::Chunk(chunk) })
            }
            From::Depot(_) => Ok(Next::Wait),
            From::Lost if self.blocked => Ok(Next::Wait),
            From::Lost => {
                self.blocked = true;
                Ok(Next::Blocked)
            }
        }
    }
}
