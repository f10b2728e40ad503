//! The reading end of one connection: frames are handed out as they come, and a VR that looks itself may read the payload of
//! an envelope that is coming straight to where it belongs.

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

/// Reads in a row before other connections have their turn.
const TURN: usize = 16;
/// A VR is shown an envelope that is still coming if so much of it is here: more than any layer's header.
const HEAD: usize = 256;
/// Nobody is kept from looking until a longer one has come.
const LONGEST: usize = 1 << 20;
/// How long the next bytes of such an envelope are waited for, and all of them.
const GAP: Duration = Duration::from_micros(20);
const WHOLE: Duration = Duration::from_micros(500);
/// So many are not shown after one that has not come in time.
const SLOW: u8 = 8;

/// Why a connection ends of whose envelope a part was read and not taken.
const TORN: &str = "a VR that was shown an envelope on it has panicked, or has not taken what it had read";

#[derive(Debug)]
pub(super) struct Connection {
    host: HostId,
    stream: mio::net::TcpStream,
    decoder: Decoder,
    /// For a sealed connection.
    unsealer: Option<Unsealer>,
    is_ending: bool,
    /// So many envelopes more are not shown while they are coming.
    slow: u8,
    /// Somebody has read a part of an envelope past the decoder, and has not taken it.
    torn: bool,
}

/// What a turn of a connection has brought.
pub(super) struct Turn {
    /// Something was there.
    pub(super) read: bool,
    /// All of it was read, and the system tells when there is more.
    pub(super) is_over: bool,
}

impl Connection {
    /// Reads frames from there, opened by the session's keys if there are any.
    pub(super) fn new(
        host: HostId,
        stream: mio::net::TcpStream,
        session: Option<Session>,
        pool: Arc<Pool>,
    ) -> Self {
        let unsealer = session.map(|session| Unsealer::new(session.opener));
        Self { host, stream, decoder: Decoder::new(pool), unsealer, is_ending: false, slow: 0, torn: false }
    }

    /// Whose it is.
    pub(super) fn host(&self) -> HostId {
        self.host
    }

    /// What it has brought is followed by the end.
    pub(super) fn expect_end(&mut self) {
        self.is_ending = true;
    }

    /// Reads frames that are there, a turn at most. `Err`: the connection is over, and why.
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
            // What comes from now on is told of anew. A part of a payload is of no use to anybody.
            if n < room && !self.is_ending && !self.decoder.is_amid() {
                return Ok(Turn { read: true, is_over: true });
            }
            // There may be more, but that may have taken long.
            if own.as_ref().is_some_and(|own| own.taker.taken) {
                break;
            }
        }
        Ok(Turn { read: true, is_over: false })
    }

    /// Hands out all whole frames that are here.
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

    /// Shows the next envelope to the VR that looks, which may read what has not come of it straight to where it belongs. False:
    /// there is none, or it was not taken.
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
        // Should the VR panic, nobody knows how much it has read.
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

/// The payload of an envelope that is coming.
struct Stream<'a> {
    here: &'a [u8],
    len: usize,
    stream: &'a mio::net::TcpStream,
    rest: RefCell<Rest>,
}

/// What is not here of it.
enum Rest {
    Coming,
    /// It was read, or there is none.
    Read,
    /// A part of it was read in vain.
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
            // What is wrong with the connection is found out by who reads it next.
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

/// What is there. `None`: nothing now. `Err`: the connection is over, and why.
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

    /// Longer than what is read together with a header.
    const LEN: usize = 20_000;

    fn payload(number: u64, len: usize) -> Vec<u8> {
        (0..len as u64).map(|at| (at / 7 + number) as u8).collect()
    }

    /// Sends a header and so much of its payload, and returns when that can be read, if nothing else can.
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

    /// Reads until `read` says that it has come, showing what comes to that.
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
                // What is said of it does not count.
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

    /// Shows the second of two envelopes, of which a header brings little with it, and reads on.
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
