//! The reading end of one connection. Frames are handed out as they arrive, and a VR that polls itself may read the payload
//! of an envelope that is still arriving directly to its destination.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::RecvFlags;

use super::{Own, Sink};
use crate::arriving::{Arriving, Intake, Source};
use crate::frame::{Decoder, Front, Kind};
use crate::id::HostId;
use crate::noise::{Session, Unsealer};
use crate::pool::Pool;

/// Reads in a row before other connections get their turn.
const TURN: usize = 16;
/// A VR is shown an envelope that is still arriving once this much of it has come: more than any layer's header.
const HEAD: usize = 256;
/// The longest payload that is shown while it arrives, so that no thread is kept from polling for too long: one mebibyte and
/// some headers.
pub(super) const LONGEST: usize = (1 << 20) + (4 << 10);
/// How long to wait for the next bytes of such an envelope, and for all of them.
const GAP: Duration = Duration::from_micros(20);
const WHOLE: Duration = Duration::from_micros(500);
/// How many envelopes are not shown while they arrive, after one that has not arrived in time.
const SLOW: u8 = 8;

/// Why a connection ends after a part of an envelope was read from it and the envelope was not taken.
const TORN: &str = "a VR that was shown an envelope on it has panicked, or has not taken what it had read";

#[derive(Debug)]
pub(super) struct Connection {
    host: HostId,
    stream: mio::net::TcpStream,
    decoder: Decoder,
    /// Set if the connection is sealed.
    unsealer: Option<Unsealer>,
    is_ending: bool,
    /// How many more envelopes are not shown while they arrive.
    slow: u8,
    /// Whether a VR has read a part of an envelope past the decoder, but has not taken the envelope.
    torn: bool,
}

/// The result of a connection's turn.
pub(super) struct Turn {
    /// Whether anything was there.
    pub(super) read: bool,
    /// Whether everything was read, and the system will tell when there is more.
    pub(super) is_over: bool,
}

impl Connection {
    /// Reads frames from this stream, decrypted by the session's keys if there are any.
    pub(super) fn new(
        host: HostId,
        stream: mio::net::TcpStream,
        session: Option<Session>,
        pool: Arc<Pool>,
    ) -> Self {
        let unsealer = session.map(|session| Unsealer::new(session.opener));
        Self { host, stream, decoder: Decoder::new(pool), unsealer, is_ending: false, slow: 0, torn: false }
    }

    /// Returns the host of the peer.
    pub(super) fn host(&self) -> HostId {
        self.host
    }

    /// The connection ends after what has arrived on it.
    pub(super) fn expect_end(&mut self) {
        self.is_ending = true;
    }

    /// Reads the frames that are there, a turn at most. Fails with the reason if the connection is over.
    pub(super) fn read(&mut self, sink: &dyn Sink, own: &mut Option<Own<'_, '_>>) -> Result<Turn, String> {
        if self.torn {
            return Err(TORN.into());
        }
        for turn in 0..TURN {
            let space = match &mut self.unsealer {
                None => self.decoder.space(),
                Some(unsealer) => unsealer.space(),
            };
            let room = space.len();
            let Some(n) = read(&self.stream, space)? else {
                return Ok(Turn { read: turn > 0, is_over: true });
            };
            match &mut self.unsealer {
                None => self.decoder.advance(n),
                Some(unsealer) => unsealer.advance(n),
            }
            self.hand_out(sink, own)?;
            // The system reports what arrives from now on anew. If a part of a payload is here, its rest is read first, as a
            // part is of no use.
            if n < room && !self.is_ending && !self.decoder.is_amid() {
                return Ok(Turn { read: true, is_over: true });
            }
            // There may be more, but reading may already have taken long.
            if own.as_ref().is_some_and(|own| own.taker.taken) {
                break;
            }
        }
        Ok(Turn { read: true, is_over: false })
    }

    /// Hands out all complete frames that are here.
    fn hand_out(&mut self, sink: &dyn Sink, own: &mut Option<Own<'_, '_>>) -> Result<(), String> {
        loop {
            while let Some(own) = own
                && !own.taker.done
                && self.show(sink, own)?
            {}
            if let Some(frame) = self.decoder.next().map_err(|error| error.to_string())? {
                sink.frame(self.host, frame);
                continue;
            }
            let Some(unsealer) = &mut self.unsealer else { return Ok(()) };
            match unsealer.open(self.decoder.space()).map_err(|error| error.to_string())? {
                0 => return Ok(()),
                n => self.decoder.advance(n),
            }
        }
    }

    /// Shows the next envelope to the polling VR, which may read the rest of it directly to its destination. Returns `false`
    /// if there is no envelope, or it was not taken.
    fn show(&mut self, sink: &dyn Sink, own: &mut Own<'_, '_>) -> Result<bool, String> {
        let front = self.decoder.front().map_err(|error| error.to_string())?;
        let Some(Front { kind: Kind::Envelope, label, len, here }) = front else { return Ok(false) };
        let is_whole = here.len() == len;
        if !is_whole {
            if self.unsealer.is_some() || here.len() < HEAD || len > LONGEST {
                return Ok(false);
            }
            if self.slow > 0 {
                self.slow -= 1;
                return Ok(false);
            }
        }
        let rest = RefCell::new(if is_whole { Rest::Read } else { Rest::Coming });
        let payload = Stream { here, len, stream: &self.stream, rest };
        let here = here.len();
        // If the VR panics, nobody knows how much it has read.
        self.torn = !is_whole;
        let intake = own.offer(sink, &Arriving { label, len, here, payload: &payload });
        let rest = payload.rest.into_inner();
        let taken = intake != Intake::Left && matches!(rest, Rest::Read);
        match rest {
            Rest::Read if taken => self.decoder.pass(here, len),
            Rest::Read if !is_whole => return Err(TORN.into()),
            Rest::Lost(part) => {
                self.slow = SLOW;
                self.decoder.go_on_with(&part).map_err(|error| error.to_string())?;
            }
            Rest::Read | Rest::Coming => {}
        }
        self.torn = false;
        Ok(taken)
    }
}

/// The payload of an envelope that is arriving.
struct Stream<'a> {
    here: &'a [u8],
    len: usize,
    stream: &'a mio::net::TcpStream,
    rest: RefCell<Rest>,
}

/// The part of it that has not arrived.
enum Rest {
    Coming,
    /// It was read, or there is none.
    Read,
    /// A part of it was read, but the rest did not come in time.
    Lost(Vec<u8>),
}

impl Source for Stream<'_> {
    fn copy(&self, offset: usize, out: &mut [u8]) -> bool {
        let here = self.here.get(offset..).unwrap_or_default();
        let (first, rest) = out.split_at_mut(here.len().min(out.len()));
        first.copy_from_slice(&here[..first.len()]);
        if rest.is_empty() {
            return true;
        }
        let mut state = self.rest.borrow_mut();
        let is_all = offset <= self.here.len() && rest.len() == self.len - self.here.len();
        if !is_all || !matches!(*state, Rest::Coming) {
            return false;
        }
        let begun = Instant::now();
        let (mut filled, mut last) = (0, begun);
        loop {
            // Errors of the connection are found by the next thread that reads it.
            let n = read(self.stream, &mut rest[filled..]).ok().flatten();
            filled += n.unwrap_or_default();
            if filled == rest.len() {
                *state = Rest::Read;
                return true;
            }
            let now = Instant::now();
            last = if n.is_some() { now } else { last };
            if now - last >= GAP || now - begun >= WHOLE {
                *state = Rest::Lost(rest[..filled].to_vec());
                return false;
            }
        }
    }

    fn is_read(&self) -> bool {
        matches!(*self.rest.borrow(), Rest::Read)
    }
}

/// Reads what is there; `None` if that is nothing at present. Fails with the reason if the connection is over.
pub(super) fn read(stream: &mio::net::TcpStream, space: &mut [u8]) -> Result<Option<usize>, String> {
    loop {
        match rustix::net::recv(stream, &mut *space, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return Err("the peer closed the connection".into()),
            Ok((_, n)) => return Ok(Some(n)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Mutex;

    use super::*;
    use crate::envelope::{Channel, Label};
    use crate::frame::{self, Frame};
    use crate::id::VrId;
    use crate::inbox::{Inbox, Taker};

    #[derive(Default)]
    struct Keep(Mutex<Vec<Frame>>);

    impl Sink for Keep {
        fn frame(&self, _: HostId, frame: Frame) {
            self.0.lock().unwrap().push(frame);
        }

        fn trusts_all(&self) -> bool {
            true
        }

        fn closed(&self, _: HostId, _: String) {}
    }

    fn connection() -> (TcpStream, Connection) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let far = listener.accept().unwrap().0;
        far.set_nonblocking(true).unwrap();
        let far = mio::net::TcpStream::from_std(far);
        (near, Connection::new(HostId::fresh(), far, None, Arc::default()))
    }

    /// Longer than the bytes that are read together with a header.
    const LEN: usize = 20_000;

    fn payload(number: u64, len: usize) -> Vec<u8> {
        (0..len as u64).map(|at| (at / 7 + number) as u8).collect()
    }

    /// Sends a header and `part` bytes of its payload, and returns once they can be read, if nothing else can.
    fn begin(wire: &mut TcpStream, connection: &Connection, number: u64, len: usize, part: usize) {
        let (src, dst) = (VrId::fresh(), VrId::fresh());
        let label = Label { src, dst, seq: number, channel: Channel::named("test"), lane: 0 };
        let header = frame::encode_header(Kind::Envelope, &label, len);
        wire.write_all(&[&header, &payload(number, len)[..part]].concat()).unwrap();
        let there = (header.len() + part) as u64;
        while rustix::io::ioctl_fionread(&connection.stream).unwrap() < there {
            std::hint::spin_loop();
        }
    }

    /// Reads until `read` reports success, and shows it the arriving envelopes.
    fn read(
        connection: &mut Connection,
        sink: &Keep,
        mut show: impl FnMut(&Arriving<'_>) -> Intake,
        mut has_come: impl FnMut() -> bool,
    ) {
        let (inbox, begun) = (Inbox::default(), Instant::now());
        while !has_come() {
            let mut taker = Taker::new(&mut show);
            connection.read(sink, &mut Some(Own { inbox: &inbox, taker: &mut taker })).unwrap();
            assert!(begun.elapsed() < Duration::from_secs(60), "it has not come");
        }
    }

    #[test]
    fn a_payload_that_is_coming_is_read_to_its_place_in_order() {
        let (mut wire, mut connection) = connection();
        let sink = Keep::default();
        for number in 0..20 {
            begin(&mut wire, &connection, number, LEN, LEN);
            let (sent, taken) = (payload(number, LEN), Cell::new(false));
            let show = |arriving: &Arriving<'_>| {
                let (mut head, mut place) = ([0; 100], vec![0; LEN - 100]);
                assert_eq!((arriving.label.seq, arriving.len()), (number, LEN));
                assert_eq!(
                    arriving.here() < LEN,
                    number > 0,
                    "a header brings little with it, after the first"
                );
                assert!(arriving.copy_to(0, &mut head) && head == sent[..100]);
                if number > 0 {
                    assert!(!arriving.copy_to(100, &mut place[1..]), "all of the rest, or nothing");
                }
                assert!(arriving.copy_to(100, &mut place) && place == sent[100..]);
                taken.set(true);
                Intake::Done
            };
            read(&mut connection, &sink, show, || taken.get());
        }
        assert!(sink.0.lock().unwrap().is_empty());
    }

    #[test]
    fn what_does_not_come_in_time_comes_later_and_whole() {
        for len in [LEN, LEN / 2] {
            let (mut wire, mut connection) = connection();
            let sink = Keep::default();
            begin(&mut wire, &connection, 0, len, len);
            read(&mut connection, &sink, |_| Intake::Left, || sink.0.lock().unwrap().len() == 1);
            begin(&mut wire, &connection, 1, len, len / 2);
            let shown = Cell::new(false);
            let show = |arriving: &Arriving<'_>| {
                assert!(!arriving.copy_to(50, &mut vec![0; len - 50]), "the end was not sent");
                shown.set(true);
                // The answer does not count, as the payload was not read completely.
                Intake::Done
            };
            read(&mut connection, &sink, show, || shown.get());
            wire.write_all(&payload(1, len)[len / 2..]).unwrap();
            begin(&mut wire, &connection, 2, len, len);
            let never = |arriving: &Arriving<'_>| {
                assert_eq!(arriving.here(), len, "one has not come in time");
                Intake::Left
            };
            read(&mut connection, &sink, never, || sink.0.lock().unwrap().len() == 3);
            for (frame, number) in sink.0.lock().unwrap().iter().zip(0..) {
                assert_eq!(frame.envelope.seq, number);
                assert!(frame.envelope.payload.to_bytes()[..] == payload(number, len)[..]);
            }
        }
    }

    /// Shows the second of two envelopes, whose header arrives with only a few bytes, and reads on.
    fn end_after(mut show: impl FnMut(TcpStream, &Arriving<'_>) -> Intake) -> String {
        let (mut wire, mut connection) = connection();
        let (sink, inbox, begun) = (Keep::default(), Inbox::default(), Instant::now());
        begin(&mut wire, &connection, 0, LEN, LEN);
        read(&mut connection, &sink, |_| Intake::Left, || sink.0.lock().unwrap().len() == 1);
        begin(&mut wire, &connection, 1, LEN, LEN);
        let mut wire = Some(wire);
        loop {
            let mut show =
                |arriving: &Arriving<'_>| wire.take().map_or(Intake::Left, |wire| show(wire, arriving));
            let mut taker = Taker::new(&mut show);
            let mut own = Some(Own { inbox: &inbox, taker: &mut taker });
            let read = AssertUnwindSafe(|| connection.read(&sink, &mut own));
            if let Ok(Err(why)) = catch_unwind(read) {
                assert_eq!(sink.0.lock().unwrap().len(), 1, "nobody can tell where the next frame begins");
                return why;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "the connection goes on");
        }
    }

    #[test]
    fn who_reads_the_end_of_an_envelope_and_does_not_take_it_ends_the_connection() {
        let left = end_after(|_, arriving| {
            assert!(arriving.copy_to(0, &mut [0; LEN]));
            Intake::Left
        });
        let panicked = end_after(|_, arriving| {
            assert!(!arriving.copy_to(0, &mut [0; LEN]), "the end has come: a panic");
            Intake::Left
        });
        assert!(left == TORN && panicked == TORN, "{left}; {panicked}");
    }
}
