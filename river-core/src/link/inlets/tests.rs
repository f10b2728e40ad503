use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::*;
use crate::envelope::{Channel, Envelope};
use crate::frame::{Frame, Kind};
use crate::id::{HostId, VrId};
use crate::inbox::{Event, Limit};
use crate::link::{By, Reader, TcpLink};

const PATIENCE: Duration = Duration::from_secs(60);

/// A process with one VR.
struct Process {
    reader: Reader,
    inbox: Arc<Inbox>,
    ends: Receiver<String>,
}

struct Deliver(Arc<Inbox>, Sender<String>);

impl Sink for Deliver {
    fn frame(&self, _: HostId, frame: Frame) {
        self.0.push(Event::Envelope(frame.envelope)).unwrap();
    }

    fn closed(&self, _: HostId, why: String) {
        let _ = self.1.send(why);
    }
}

impl Process {
    fn start() -> Self {
        let (closed, ends) = unbounded();
        let inbox = Arc::new(Inbox::default());
        let reader = Reader::start(Arc::new(Deliver(inbox.clone(), closed))).unwrap();
        Self { reader, inbox, ends }
    }

    fn link_to(&self, other: &Process) -> TcpLink {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let far = listener.accept().unwrap().0;
        other.reader.add(HostId::fresh(), far, By::Connection(None)).unwrap();
        TcpLink::new(near, None, self.reader.inlets().clone()).unwrap()
    }

    /// Waits until something has come, and says how long the payloads are.
    fn receive(&self) -> Vec<usize> {
        let mut events = Vec::new();
        let mut limit = Limit::For(PATIENCE);
        assert!(self.inbox.wait(&mut limit, &**self.reader.inlets(), None), "nothing has come");
        let _ = self.inbox.swap(&mut events);
        let len = |event| match event {
            Event::Envelope(envelope) => envelope.payload.len(),
            other => panic!("{other:?}"),
        };
        events.into_iter().map(len).collect()
    }
}

fn send(link: &TcpLink, len: usize) {
    let (src, dst) = (VrId::fresh(), VrId::fresh());
    let payload = vec![1; len].into();
    let envelope = Envelope { src, dst, seq: 0, channel: Channel::named("test"), lane: 0, payload };
    link.send(Kind::Envelope, &envelope).unwrap();
}

/// Takes its time, without giving its processor away.
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
            // The other one looks, parks, or has been parked by now.
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
        // From now on the reader threads are not woken by what comes.
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
    let why = loop {
        far.reader.inlets().poll(1, &far.inbox, None);
        if let Ok(why) = far.ends.try_recv() {
            break why;
        }
    };
    assert!(why.contains("closed the connection"), "{why}");
}
