//! The reducer's side of the shuffle, without messages: byte streams from the depots of all VMs, as a state machine.
//!
//! A stream has two outstanding requests, so that one is in transit while the data of the other is merged; all requests
//! together ask for no more bytes than the job may use. Data in this process is used in place.
//!
//! When a depot is gone, its streams keep what they have received and wait for the master to tell where the map task
//! was run again; they continue there at the same byte.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use river_core::VrId;

use crate::failure::Failure;
use crate::protocol::{Segment, Ticket, ToDepot};
use crate::sort::Run;

/// The number of outstanding requests of a stream.
const WINDOW: u64 = 2;
/// The size of a request in bytes, if there is enough memory.
const LARGEST: u64 = 256 << 10;
const SMALLEST: u64 = 4 << 10;

/// The streams of one attempt at a reduce task.
#[derive(Debug)]
pub(crate) struct Streams {
    job: u64,
    attempt: u64,
    reducer: u32,
    streams: Vec<Stream>,
    /// The size of a request in bytes.
    request: u64,
    /// Whether the master knows that this attempt waits; reset when it reports that a map task was run again.
    blocked: bool,
}

#[derive(Debug)]
struct Stream {
    segment: Segment,
    generation: u32,
    source: From,
    /// The number of bytes requested.
    asked: u64,
    /// The number of bytes received.
    received: u64,
    /// The checksum of the bytes that depots have sent, and their number.
    crc: crc32fast::Hasher,
    checked: u64,
    ready: VecDeque<Bytes>,
}

/// The source of a stream.
#[derive(Debug)]
pub(crate) enum From {
    /// This process.
    Here(Arc<Vec<Run>>),
    Depot(VrId),
    /// Lost, and not available anywhere yet.
    Lost,
}

/// The next bytes of a stream, or why there are none.
#[derive(Debug)]
pub(crate) enum Next {
    Chunk(Bytes),
    End,
    /// Nothing until something is received.
    Wait,
    /// Nothing until a map task was run again whose output was in this depot; the master must be told of that.
    Blocked(VrId),
}

impl Streams {
    /// Makes streams that are not attached to a source yet, with this many bytes of memory for all together.
    pub(crate) fn new(job: u64, attempt: u64, reducer: u32, segments: Vec<Segment>, memory: usize) -> Self {
        let request = memory as u64 / (segments.len() as u64 * WINDOW).max(1);
        let streams = segments.into_iter().map(|segment| Stream {
            segment,
            generation: 0,
            source: From::Lost,
            asked: 0,
            received: 0,
            crc: crc32fast::Hasher::new(),
            checked: 0,
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

    /// The maximum number of bytes that a request asks for.
    pub(crate) fn request_size(&self) -> u64 {
        self.request
    }

    /// Makes a stream read from that source, from its current position.
    pub(crate) fn attach(&mut self, index: usize, source: From) {
        let stream = &mut self.streams[index];
        stream.generation += 1;
        stream.asked = stream.received;
        stream.source = source;
    }

    /// The next request needed to keep the stream's requests outstanding, and the depot to send it to.
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
            ticket: Ticket {
                attempt: self.attempt,
                stream: index as u32,
                generation: stream.generation,
                offset: stream.asked,
            },
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

    /// Handles requested bytes. An answer from a former source is dropped: its bytes were requested again. The bytes
    /// that depots have sent are verified at the end of a segment; memory of this process is not read again for that.
    pub(crate) fn handle_chunk(&mut self, ticket: Ticket, bytes: Bytes) -> Result<(), Failure> {
        if !self.is_current(ticket) {
            return Ok(());
        }
        let stream = &mut self.streams[ticket.stream as usize];
        let end = ticket.offset.saturating_add(bytes.len() as u64);
        if bytes.is_empty() || ticket.offset != stream.received || end > stream.asked {
            return Err(Failure::Internal("a depot sent something else than was asked for".into()));
        }
        stream.received = end;
        stream.crc.update(&bytes);
        stream.checked += bytes.len() as u64;
        let part = &stream.segment.part;
        if stream.checked == part.len && stream.crc.clone().finalize() != part.crc {
            return Err(Failure::Internal(
                "the bytes that depots sent are not those that a map task wrote".into(),
            ));
        }
        stream.ready.push_back(bytes);
        Ok(())
    }

    /// Whether an answer comes from the current source of its stream.
    pub(crate) fn is_current(&self, ticket: Ticket) -> bool {
        let stream = self.streams.get(ticket.stream as usize);
        ticket.attempt == self.attempt && stream.is_some_and(|stream| stream.generation == ticket.generation)
    }

    /// A map task was run again elsewhere. Returns the streams that must be attached to the new locations of their
    /// segments.
    pub(crate) fn handle_moved(&mut self, map: u32, segments: &[Segment]) -> Result<Vec<usize>, Failure> {
        // The master assumes that this attempt goes on.
        self.blocked = false;
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

    /// The next bytes of a stream.
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
                Ok(Next::Blocked(stream.segment.depot))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sort::{RunSpace, RunWriter};

    const LEN: u64 = 3 * SMALLEST;

    fn run() -> Run {
        let bytes: Vec<u8> = (0..LEN).map(|i| (i / 5) as u8).collect();
        let space = RunSpace::new(1 << 20, std::env::temp_dir());
        let mut writer = RunWriter::new(&space, bytes.len()).unwrap();
        writer.record(|out| out.extend_from_slice(&bytes)).unwrap();
        writer.end_part();
        writer.finish().unwrap()
    }

    /// The streams of one reducer from this many map tasks, each of which has left that run.
    fn streams(run: &Run, maps: u32) -> Streams {
        let segment = |map| Segment {
            map,
            run: 0,
            part: run.parts()[0],
            depot: VrId::fresh(),
            pack: false,
            attempt: 1,
        };
        Streams::new(7, 9, 0, (0..maps).map(segment).collect(), 1)
    }

    fn asked(streams: &mut Streams) -> (Ticket, u64, usize) {
        let (_, ToDepot::Read { ticket, offset, len, .. }) = streams.next_request(0).unwrap();
        (ticket, offset, len as usize)
    }

    #[test]
    fn chunks_in_another_order_than_they_were_asked_for_are_an_error() {
        let run = run();
        let mut streams = streams(&run, 1);
        streams.attach(0, From::Depot(VrId::fresh()));
        let (first, second) = (asked(&mut streams), asked(&mut streams));
        assert!(streams.next_request(0).is_none());
        let bytes = |(_, offset, len): (Ticket, u64, usize)| run.read(0, offset, len).unwrap();
        assert!(matches!(streams.handle_chunk(second.0, bytes(second)), Err(Failure::Internal(_))));
        streams.handle_chunk(first.0, bytes(first)).unwrap();
        assert!(matches!(streams.handle_chunk(first.0, bytes(first)), Err(Failure::Internal(_))));
        streams.handle_chunk(second.0, bytes(second)).unwrap();
    }

    #[test]
    fn bytes_that_are_not_those_of_the_run_are_an_error_at_its_end() {
        let run = run();
        for spoiled in [false, true] {
            let mut streams = streams(&run, 1);
            streams.attach(0, From::Depot(VrId::fresh()));
            for chunk in 0..3 {
                let (ticket, offset, len) = asked(&mut streams);
                let mut bytes = run.read(0, offset, len).unwrap().to_vec();
                bytes[0] ^= u8::from(spoiled && chunk == 1);
                let handled = streams.handle_chunk(ticket, bytes.into());
                assert_eq!(handled.is_err(), spoiled && chunk == 2, "{handled:?}");
                if handled.is_ok() {
                    assert!(matches!(streams.next(0), Ok(Next::Chunk(_))));
                }
            }
        }
    }

    #[test]
    fn a_reducer_that_still_waits_after_a_move_says_so_again() {
        let run = run();
        let mut streams = streams(&run, 2);
        assert!(matches!(streams.next(0), Ok(Next::Blocked(_))));
        assert!(matches!(streams.next(0), Ok(Next::Wait)));
        let moved = *streams.segment(1);
        assert_eq!(streams.handle_moved(1, &[moved]), Ok(vec![1]));
        streams.attach(1, From::Depot(moved.depot));
        assert!(matches!(streams.next(0), Ok(Next::Blocked(_))));
        assert!(matches!(streams.next(0), Ok(Next::Wait)));
    }
}
