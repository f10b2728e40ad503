//! The writing end of a TCP link.
//!
//! A link that leaves the machine seals what it writes with the keys from the connection's handshake.

use std::io::{self, IoSlice, Write};
use std::mem;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustix::net::{self, SendAncillaryBuffer, SendFlags};

use super::{Inlets, Traffic};
use crate::envelope::{Envelope, Label};
use crate::frame::{self, Kind};
use crate::noise::{Sealing, Session};

/// Parts up to this size are copied behind their header, so that they leave in one piece.
const COPY: usize = 16 << 10;
/// Senders wait while more than this many bytes are queued.
const LIMIT: usize = 8 << 20;
/// The kernel's limit on the pieces of one write is 1024.
const PIECES: usize = 1000;

/// A connection on which this process only sends.
///
/// A thread that finds nobody writing writes, and continues with what other threads have queued meanwhile: under contention
/// many frames leave in one system call, and without contention no other thread is involved.
#[derive(Debug)]
pub(crate) struct TcpLink {
    stream: Outlet,
    out: Mutex<Out>,
    room: Condvar,
    /// Locked only by the thread that writes; `None` if the connection is not sealed.
    sealing: Option<Mutex<Sealing>>,
    pub(super) traffic: Traffic,
}

#[derive(Debug, Default)]
struct Out {
    queued: Batch,
    spare: Batch,
    writing: bool,
    /// How many threads wait for room: a notification costs a system call even if nobody waits.
    waiting: usize,
    failed: Option<String>,
}

/// Frames in the order in which they are sent: `bytes`, with `large[i].1` inserted before `bytes[large[i].0]`.
#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    large: Vec<(usize, Bytes)>,
    large_len: usize,
}

impl Batch {
    fn push(&mut self, kind: Kind, envelope: &Envelope) {
        self.bytes.extend_from_slice(&frame::encode_header(kind, &envelope.label(), envelope.payload.len()));
        for part in envelope.payload.parts() {
            if part.len() <= COPY {
                self.bytes.extend_from_slice(part);
            } else {
                self.large.push((self.bytes.len(), part.clone()));
                self.large_len += part.len();
            }
        }
    }

    fn len(&self) -> usize {
        self.bytes.len() + self.large_len
    }

    fn write_to(&self, mut stream: &Outlet, sealing: Option<&Mutex<Sealing>>) -> io::Result<()> {
        if self.large.is_empty() && sealing.is_none() {
            return stream.write_all(&self.bytes);
        }
        let mut pieces = Vec::with_capacity(2 * self.large.len() + 1);
        let mut done = 0;
        for (at, part) in &self.large {
            pieces.push(&self.bytes[done..*at]);
            pieces.push(&part[..]);
            done = *at;
        }
        pieces.push(&self.bytes[done..]);
        write_pieces(&mut pieces, stream, sealing)
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(LIMIT);
        self.large.clear();
        self.large_len = 0;
    }
}

/// The socket. Before a write to it blocks, another thread is made to read incoming data: the other side may not read before
/// what it writes has been read.
#[derive(Debug)]
struct Outlet {
    socket: TcpStream,
    inlets: Arc<Inlets>,
}

impl Outlet {
    fn send(&self, pieces: &[IoSlice<'_>], flags: SendFlags) -> rustix::io::Result<usize> {
        let flags = flags | SendFlags::NOSIGNAL;
        match pieces {
            [piece] => net::send(&self.socket, piece, flags),
            _ => net::sendmsg(&self.socket, pieces, &mut SendAncillaryBuffer::default(), flags),
        }
    }
}

impl Write for &Outlet {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(piece)])
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.send(pieces, SendFlags::DONTWAIT) {
            Err(error) if error == rustix::io::Errno::AGAIN => {}
            sent => return Ok(sent?),
        }
        Ok(self.inlets.blocking(|| self.send(pieces, SendFlags::empty()))?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes pieces one after the other, in as few system calls as possible.
fn write_pieces(
    pieces: &mut Vec<&[u8]>,
    mut stream: &Outlet,
    sealing: Option<&Mutex<Sealing>>,
) -> io::Result<()> {
    pieces.retain(|piece| !piece.is_empty());
    if let Some(sealing) = sealing {
        return sealing.lock().unwrap_or_else(PoisonError::into_inner).write_all(pieces, stream);
    }
    if let [piece] = pieces[..] {
        return stream.write_all(piece);
    }
    for group in pieces.chunks(PIECES) {
        let mut slices: Vec<_> = group.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut rest = &mut slices[..];
        while !rest.is_empty() {
            match stream.write_vectored(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => IoSlice::advance_slices(&mut rest, n),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

impl TcpLink {
    /// Creates the link on an authenticated connection in blocking mode, sealed if there are keys for that. `inlets` are the
    /// ways into this process.
    pub(crate) fn new(socket: TcpStream, session: Option<Session>, inlets: Arc<Inlets>) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        if let (Ok(near), Ok(far)) = (socket.local_addr(), socket.peer_addr())
            && near.ip() == far.ip()
        {
            // There is no congestion within a machine. Algorithms that measure bandwidth and pace what is sent, such as BBR,
            // halve it.
            let _ = net::sockopt::set_tcp_congestion(&socket, "reno");
        }
        let stream = Outlet { socket, inlets };
        let sealing = session.map(|session| Mutex::new(Sealing::new(session.sealer)));
        let (out, room, traffic) = Default::default();
        Ok(Self { stream, out, room, sealing, traffic })
    }

    /// Whether what it sends is encrypted, as it is unless both ends are on this machine.
    pub(crate) fn is_sealed(&self) -> bool {
        self.sealing.is_some()
    }

    /// Writes a frame, or leaves it to the thread that is writing. Fails with the text of the connection's error.
    pub(crate) fn send(&self, kind: Kind, envelope: &Envelope) -> Result<(), String> {
        let mut out = self.enter()?;
        self.traffic.count(kind, envelope.payload.len());
        out.queued.push(kind, envelope);
        if out.writing { Ok(()) } else { self.drain(out) }
    }

    /// Like [`send`](Self::send), for a payload that is copied only if another thread will write it.
    pub(crate) fn send_parts(&self, kind: Kind, label: &Label, parts: &[&[u8]]) -> Result<(), String> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len <= COPY {
            return self.send(kind, &label.with(parts.concat().into()));
        }
        let mut out = self.enter()?;
        self.traffic.count(kind, len);
        if out.writing || out.queued.len() > 0 {
            out.queued.push(kind, &label.with(parts.concat().into()));
            return if out.writing { Ok(()) } else { self.drain(out) };
        }
        out.writing = true;
        drop(out);
        let header = frame::encode_header(kind, label, len);
        let mut pieces = Vec::with_capacity(parts.len() + 1);
        pieces.push(&header[..]);
        pieces.extend_from_slice(parts);
        let written = write_pieces(&mut pieces, &self.stream, self.sealing.as_ref());
        let mut out = self.lock();
        if let Err(error) = written {
            return Err(self.give_up(&mut out, &error));
        }
        self.drain(out)
    }

    /// Waits for room; then either this thread writes, or another one does.
    fn enter(&self) -> Result<MutexGuard<'_, Out>, String> {
        let mut out = self.lock();
        while out.writing && out.queued.len() > LIMIT && out.failed.is_none() {
            out.waiting += 1;
            out = self.room.wait(out).unwrap_or_else(PoisonError::into_inner);
            out.waiting -= 1;
        }
        match &out.failed {
            Some(error) => Err(error.clone()),
            None => Ok(out),
        }
    }

    fn give_up(&self, out: &mut Out, error: &io::Error) -> String {
        let text = error.to_string();
        out.failed.get_or_insert(text.clone());
        out.writing = false;
        self.room.notify_all();
        text
    }

    /// Writes what is queued, and what others queue meanwhile, until one of them waits for room. That thread continues;
    /// otherwise the first one would write for the others as long as they send.
    fn drain<'a>(&'a self, mut out: MutexGuard<'a, Out>) -> Result<(), String> {
        out.writing = true;
        while out.queued.len() > 0 {
            let spare = mem::take(&mut out.spare);
            let batch = mem::replace(&mut out.queued, spare);
            drop(out);
            let written = batch.write_to(&self.stream, self.sealing.as_ref());
            out = self.lock();
            out.spare = batch;
            out.spare.clear();
            if let Err(error) = written {
                return Err(self.give_up(&mut out, &error));
            }
            if out.waiting > 0 {
                self.room.notify_all();
                break;
            }
        }
        out.writing = false;
        Ok(())
    }

    /// Ends the link: a blocked writer returns, and further sends fail with this text.
    pub(crate) fn close(&self, error: &str) {
        self.lock().failed.get_or_insert_with(|| error.to_owned());
        self.room.notify_all();
        let _ = self.stream.socket.shutdown(Shutdown::Both);
    }

    fn lock(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
    use std::time::Duration;

    use super::*;
    use crate::envelope::Channel;
    use crate::frame::Frame;
    use crate::id::{HostId, VrId};
    use crate::link::{By, Reader, Sink};
    use crate::noise::session_pair;

    struct Collect(crossbeam_channel::Sender<Result<Frame, String>>);

    impl Sink for Collect {
        fn frame(&self, _: HostId, frame: Frame) {
            self.0.send(Ok(frame)).unwrap();
        }

        fn closed(&self, _: HostId, why: String) {
            let _ = self.0.send(Err(why));
        }
    }

    fn envelope(payload: Vec<u8>, seq: u64) -> Envelope {
        let (src, dst) = (VrId::fresh(), VrId::fresh());
        Envelope { src, dst, seq, channel: Channel::named("test"), lane: 0, payload: payload.into() }
    }

    fn connection() -> (TcpStream, TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn what_is_sealed_at_one_end_is_read_at_the_other() {
        let (near, far) = connection();
        let (ours, theirs) = session_pair();
        let (frames, arrived) = crossbeam_channel::unbounded();
        let reader = Reader::start(Arc::new(Collect(frames))).unwrap();
        reader.add(HostId::fresh(), far, By::Connection(Some(theirs))).unwrap();
        let link = TcpLink::new(near, Some(ours), reader.inlets().clone()).unwrap();
        let sizes = [0, 1, 1000, COPY, COPY + 1, 65_519, 70_000, 5 << 20];
        for (seq, size) in sizes.into_iter().enumerate() {
            link.send(Kind::Envelope, &envelope(vec![seq as u8; size], seq as u64)).unwrap();
        }
        for (seq, size) in sizes.into_iter().enumerate() {
            let frame = arrived.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
            assert_eq!(frame.envelope.seq, seq as u64);
            assert!(frame.envelope.payload.to_bytes()[..] == vec![seq as u8; size]);
        }
        link.close("done");
        assert!(arrived.recv_timeout(Duration::from_secs(20)).unwrap().is_err());
    }

    /// A thread that finds nobody writing writes for the others, but not for as long as they send.
    #[test]
    fn a_sender_returns_while_others_go_on() {
        let (near, mut far) = connection();
        let reader = Reader::start(Arc::new(Collect(crossbeam_channel::unbounded().0))).unwrap();
        let link = TcpLink::new(near, None, reader.inlets().clone()).unwrap();
        let (returned, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Longer than what the system buffers: it writes until somebody reads.
                link.send(Kind::Envelope, &envelope(vec![0; 16 << 20], 0)).unwrap();
                returned.store(true, SeqCst);
            });
            while !link.lock().writing {
                std::thread::yield_now();
            }
            let others = [(); 2].map(|()| {
                scope.spawn(|| {
                    while !returned.load(SeqCst) && sent.fetch_add(1, SeqCst) < 20_000 {
                        link.send(Kind::Envelope, &envelope(vec![0; 100_000], 0)).unwrap();
                    }
                })
            });
            while link.lock().waiting == 0 {
                std::thread::yield_now();
            }
            scope.spawn(|| io::copy(&mut far, &mut io::sink()));
            others.into_iter().for_each(|other| other.join().unwrap());
            link.close("done");
        });
        assert!(sent.into_inner() < 20_000, "the first sender never returned");
    }

    #[test]
    fn what_is_sealed_cannot_be_read_on_the_way() {
        let (near, mut far) = connection();
        let reader = Reader::start(Arc::new(Collect(crossbeam_channel::unbounded().0))).unwrap();
        let link = TcpLink::new(near, Some(session_pair().0), reader.inlets().clone()).unwrap();
        link.send(Kind::Envelope, &envelope(b"secret".repeat(10_000), 0)).unwrap();
        link.close("done");
        let mut wire = Vec::new();
        io::Read::read_to_end(&mut far, &mut wire).unwrap();
        assert!(wire.len() > 60_000);
        assert!(!wire.windows(12).any(|bytes| bytes == b"secretsecret"));
    }

    #[test]
    fn a_forged_chunk_ends_the_connection() {
        let (mut near, far) = connection();
        let (frames, arrived) = crossbeam_channel::unbounded();
        let reader = Reader::start(Arc::new(Collect(frames))).unwrap();
        reader.add(HostId::fresh(), far, By::Connection(Some(session_pair().1))).unwrap();
        near.write_all(&[200, 0]).unwrap();
        near.write_all(&[7; 200]).unwrap();
        let why = arrived.recv_timeout(Duration::from_secs(20)).unwrap().unwrap_err();
        assert!(why.contains("did not send"), "{why}");
    }
}
