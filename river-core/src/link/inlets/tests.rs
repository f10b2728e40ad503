use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::*;
use crate::envelope::{Channel, Envelope};
use crate::frame::{Frame, Kind};
use crate::id::{HostId, VrId};
use crate::inbox::{Event, Limit};
use crate::link::{By, Offer, Reader, ShmLink, TcpLink};

const PATIENCE: Duration = Duration::from_secs(60);

/// The channel of the second VR of a process.
const OTHER: u64 = 1;

/// A process with two VRs.
struct Process {
    reader: Reader,
    inbox: Arc<Inbox>,
    other: Arc<Inbox>,
    ends: Receiver<String>,
}

struct Deliver {
    inbox: Arc<Inbox>,
    other: Arc<Inbox>,
    closed: Sender<String>,
}

impl Sink for Deliver {
    fn frame(&self, _: HostId, frame: Frame) {
        let inbox = if frame.envelope.lane == OTHER { &self.other } else { &self.inbox };
        inbox.push(Event::Envelope(frame.envelope)).unwrap();
    }

    fn closed(&self, _: HostId, why: String) {
        let _ = self.closed.send(why);
    }
}

impl Process {
    fn start() -> Self {
        let (closed, ends) = unbounded();
        let (inbox, other) = (Arc::new(Inbox::default()), Arc::new(Inbox::default()));
        let deliver = Deliver { inbox: inbox.clone(), other: other.clone(), closed };
        let reader = Reader::start(Arc::new(deliver)).unwrap();
        Self { reader, inbox, other, ends }
    }

    fn connect(&self, other: &Process, by: By) -> (HostId, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (host, far) = (HostId::fresh(), listener.accept().unwrap().0);
        other.reader.add(host, far, by).unwrap();
        (host, near)
    }

    fn link_to(&self, other: &Process) -> TcpLink {
        let (_, stream) = self.connect(other, By::Connection(None));
        TcpLink::new(stream, None, self.reader.inlets().clone()).unwrap()
    }

    fn ring_to(&self, other: &Process) -> ShmLink {
        let offer = Offer::new(self.reader.rings().segments()).unwrap();
        let (host, doorbell) = self.connect(other, By::Ring);
        let rings = other.reader.rings();
        rings.attach(host, &offer.name()).unwrap();
        offer.to(&rings.bell()).unwrap().accepted(doorbell, host, self.reader.rings().segments())
    }

    /// Waits until something has come, and returns the lengths of the payloads.
    fn receive(&self) -> Vec<usize> {
        self.receive_for(&self.inbox)
    }

    fn receive_for(&self, inbox: &Inbox) -> Vec<usize> {
        let mut events = Vec::new();
        let mut limit = Limit::For(PATIENCE);
        assert!(inbox.wait(&mut limit, &**self.reader.inlets(), None), "nothing has come");
        let _ = inbox.swap(&mut events);
        let len = |event| match event {
            Event::Envelope(envelope) => envelope.payload.len(),
            other => panic!("{other:?}"),
        };
        events.into_iter().map(len).collect()
    }
}

fn envelope(lane: u64, len: usize) -> Envelope {
    let (src, dst) = (VrId::fresh(), VrId::fresh());
    Envelope { src, dst, seq: 0, channel: Channel::named("test"), lane, payload: vec![1; len].into() }
}

fn send(link: &TcpLink, len: usize) {
    link.send(Kind::Envelope, &envelope(0, len)).unwrap();
}

fn ring(link: &ShmLink, len: usize) {
    let Envelope { payload, .. } = &envelope(0, len);
    let parts = payload.parts().map(|part| &part[..]);
    link.send(Kind::Envelope, &envelope(0, len).label(), len, parts).unwrap();
}

/// Spends time without yielding the core.
fn dawdle(micros: u64) {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_micros(micros) {
        std::hint::spin_loop();
    }
}

#[test]
fn whoever_waits_gets_what_comes_whether_it_looks_or_sleeps() {
    const ROUNDS: usize = 5000;
    let (near, far) = (Process::start(), Process::start());
    let (there, back) = (near.link_to(&far), far.link_to(&near));
    thread::scope(|scope| {
        scope.spawn(|| {
            far.inbox.adopt();
            for round in 0..ROUNDS {
                assert_eq!(far.receive(), [round]);
                dawdle(round as u64 * 11 % 120);
                send(&back, round);
            }
        });
        near.inbox.adopt();
        for round in 0..ROUNDS {
            // By now the other one polls, parks, or has been parked.
            dawdle(round as u64 * 7 % 120);
            send(&there, round);
            assert_eq!(near.receive(), [round]);
        }
    });
}

#[test]
fn two_that_write_to_each_other_at_once_are_both_read() {
    const LEN: usize = 64 << 20;
    let (near, far) = (Process::start(), Process::start());
    let (there, back) = (near.link_to(&far), far.link_to(&near));
    let exchange = |process: &Process, link| {
        process.inbox.adopt();
        // From now on arrivals do not wake the reader threads.
        send(link, 1);
        assert_eq!(process.receive(), [1]);
        send(link, LEN);
        assert_eq!(process.receive(), [LEN]);
    };
    thread::scope(|scope| {
        scope.spawn(|| exchange(&far, &back));
        exchange(&near, &there);
    });
}

#[test]
fn an_end_that_a_vr_comes_upon_is_told() {
    let (near, far) = (Process::start(), Process::start());
    let link = near.link_to(&far);
    far.inbox.adopt();
    send(&link, 5);
    assert_eq!(far.receive(), [5]);
    link.close("done");
    let begun = Instant::now();
    let why = loop {
        far.reader.inlets().poll(1, &far.inbox, None);
        if let Ok(why) = far.ends.try_recv() {
            break why;
        }
        assert!(begun.elapsed() < PATIENCE, "nobody was told");
    };
    assert!(why.contains("closed the connection"), "{why}");
}

/// One VR is busy with a ring all the time; another one of its process waits for TCP data.
#[test]
fn a_ring_that_is_never_silent_keeps_no_connection_waiting() {
    let (near, far) = (Process::start(), Process::start());
    let (there, back) = (near.ring_to(&far), far.ring_to(&near));
    let link = far.link_to(&near);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            far.inbox.adopt();
            let mut answers = 0;
            while far.receive() != [0] {
                answers += 1;
                // Now and then the other one parks, and is woken by the bell.
                dawdle(if answers % 8 == 0 { 100 } else { 0 });
                ring(&back, 1);
            }
        });
        scope.spawn(|| {
            near.inbox.adopt();
            while !over.load(Relaxed) {
                ring(&there, 1);
                assert_eq!(near.receive(), [1]);
            }
            ring(&there, 0);
        });
        near.other.adopt();
        for round in 0..2000 {
            // Sometimes it is silent for so long that nobody polls any more.
            dawdle(round * 7 % 120);
            link.send(Kind::Envelope, &envelope(OTHER, 5)).unwrap();
            assert_eq!(near.receive_for(&near.other), [5]);
        }
        over.store(true, Relaxed);
    });
}

/// A VR takes what is sent to it and never polls, so the reader thread brings everything in: at first by polling; then, when
/// it has left polling to the VR, after ticks.
fn is_left_alone(far: &Process, send: impl Fn()) {
    let inlets = far.reader.inlets();
    let left_alone = || !inlets.is_looking() && !inlets.is_asleep();
    let (begun, mut events, mut taken) = (Instant::now(), Vec::new(), 0);
    let mut was_left_alone = false;
    for sent in 1.. {
        send();
        while !far.inbox.is_ready() {
            assert!(
                begun.elapsed() < PATIENCE,
                "the reader thread has gone on looking, or forgotten the {sent}th"
            );
            if left_alone() {
                dawdle(200);
                was_left_alone |= left_alone();
            }
        }
        let _ = far.inbox.swap(&mut events);
        inlets.drained();
        taken += events.len();
        events.clear();
        if was_left_alone && taken == sent {
            return;
        }
    }
}

#[test]
fn who_takes_batch_after_batch_is_left_to_bring_in_the_next() {
    let (near, far) = (Process::start(), Process::start());
    let there = near.ring_to(&far);
    is_left_alone(&far, || ring(&there, 1));
    let (near, far) = (Process::start(), Process::start());
    let there = near.link_to(&far);
    is_left_alone(&far, || send(&there, 1));
}
