use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::discovery::Network;
use crate::envelope::{Channel, Envelope, Payload};
use crate::error::{RecvError, StateError};
use crate::id::{HostId, IdMap, ProgramId, VrId};
use crate::inbox::{Event, Inbox, Moment};
use crate::key::ClusterKey;
use crate::mailbox::Selector;
use crate::node::Node;
use crate::protocol::Place;
use crate::rt;
use crate::state::{Base, Call, Origin, Record, Recorder};
use crate::vr::Vr;

const WORK: Channel = Channel::named("work");
const PING: Channel = Channel::named("ping");

/// Runs `body` as a recorded VR, and returns its result and the record.
fn recorded<T>(id: VrId, record: Record, body: impl FnOnce(&Vr, &Arc<Inbox>) -> T) -> (T, Record) {
    let place = Place { host: HostId::fresh(), address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) };
    let (requests, _) = rt::unbounded();
    let (program, key) = (ProgramId::fresh(), ClusterKey::from_bytes([0; 32]));
    let node = Node::start((place, Network::Loopback), program, "test".into(), key, requests, true).unwrap();
    let inbox = node.add(id);
    let origin = Origin { id, parent: None, code: None, name: "test".into(), program };
    let recorder = Recorder::new(origin, record, false);
    let result = body(&Vr::recorded(node, inbox.clone(), recorder.clone()), &inbox);
    (result, recorder.look(|record, _| record.clone()))
}

/// A handler runs, and only then arrives what its VR waits for.
#[test]
fn what_comes_after_a_handler_has_run_is_replayed_after_it() {
    let id = VrId::fresh();
    let arrive = move |inbox: &Inbox, channel, value: u8| {
        let payload = vec![value].into();
        let envelope = Envelope { src: id, dst: id, seq: 0, channel, lane: 0, payload };
        inbox.push(Event::Envelope(envelope)).unwrap();
    };
    let body = |live: bool| {
        move |vr: &Vr, inbox: &Arc<Inbox>| {
            let (wanted, inbox) = (Rc::new(Cell::new(1)), inbox.clone());
            let accepted = wanted.clone();
            if live {
                arrive(&inbox, PING, 0);
            }
            let handler = vr.handle(
                Selector::on(PING),
                |_| true,
                move |_, _| {
                    wanted.set(2);
                    if live {
                        arrive(&inbox, WORK, 1);
                        arrive(&inbox, WORK, 2);
                    }
                },
            );
            let accept = |envelope: &Envelope| envelope.payload.head()[0] == accepted.get();
            let found = vr.receive_where(Selector::on(WORK), accept).unwrap();
            drop(handler);
            found.payload.head()[0]
        }
    };
    let (found, record) = recorded(id, Record::new(Base::new(id, Bytes::new())), body(true));
    assert_eq!(found, 2);
    let record = postcard::from_bytes(&postcard::to_stdvec(&record).unwrap()).unwrap();
    assert_eq!(recorded(id, record, body(false)).0, 2);
}

/// A handler takes what its VR waits for.
#[test]
fn a_wait_that_ends_after_a_handler_has_run_is_replayed() {
    let id = VrId::fresh();
    let body = |live: bool| {
        move |vr: &Vr, inbox: &Arc<Inbox>| {
            let taken = Rc::new(Cell::new(0));
            let takes = taken.clone();
            let action = move |vr: &Vr, _| {
                let work = vr.receive(Selector::on(WORK)).unwrap();
                takes.set(work.payload.head()[0]);
            };
            let handler = vr.handle(Selector::on(PING), |_| true, action);
            if live {
                for (seq, channel) in [(0, PING), (1, WORK)] {
                    let envelope =
                        Envelope { src: id, dst: id, seq, channel, lane: 0, payload: vec![7].into() };
                    inbox.push(Event::Envelope(envelope)).unwrap();
                }
            }
            let wanted = |envelope: &Envelope| envelope.channel == WORK && envelope.lane == 1;
            assert!(vr.receive_until_handled(Selector::on(WORK), None, wanted).unwrap().is_none());
            drop(handler);
            // What is recorded behind it is found there.
            vr.send_bytes(id, PING, 0, vec![]).unwrap();
            assert!(vr.receive(Selector::on(PING)).unwrap().payload.is_empty());
            taken.get()
        }
    };
    let (taken, record) = recorded(id, Record::new(Base::new(id, Bytes::new())), body(true));
    assert_eq!(taken, 7);
    let record = postcard::from_bytes(&postcard::to_stdvec(&record).unwrap()).unwrap();
    assert_eq!(recorded(id, record, body(false)).0, 7);
}

/// The record ends within a checkpoint.
#[test]
fn who_is_restored_from_a_checkpoint_is_told_so_and_who_takes_over_takes_another() {
    let id = VrId::fresh();
    let mut record = Record::new(Base::new(id, Bytes::new()));
    record.call(Call::Checkpoint).unwrap();
    // Moved or restored.
    let restored: Record = postcard::from_bytes(&postcard::to_stdvec(&record).unwrap()).unwrap();
    let checkpoint = |vr: &Vr, _: &Arc<Inbox>| vr.checkpoint("state");
    let (taken, _) = recorded(id, restored.clone(), checkpoint);
    assert!(taken.unwrap().resumed);
    let mut heir = restored;
    heir.resend(IdMap::default(), IdMap::default());
    // There is no program to ask here.
    assert_eq!(recorded(id, heir, checkpoint).0.unwrap_err().to_string(), StateError::Stopped.to_string());
}

/// A predicate may read the clock, and that may be the first thing that is not in the record.
#[test]
fn who_goes_live_within_a_predicate_watches_whom_it_watched() {
    let [id, peer] = [VrId::fresh(), VrId::fresh()];
    let selector = Selector::on(WORK);
    let mut record = Record::new(Base::new(id, Bytes::new()));
    record.call(Call::Receive(selector)).unwrap();
    let arrived = |events: &mut Vec<Event>| {
        let payload = Payload::default();
        events.push(Event::Envelope(Envelope { src: id, dst: id, seq: 0, channel: WORK, lane: 0, payload }));
        Some(Moment::now())
    };
    record.arrivals(&mut Vec::new(), arrived).unwrap();
    let record = postcard::from_bytes(&postcard::to_stdvec(&record).unwrap()).unwrap();
    let (told, _) = recorded(id, record, |vr, _| {
        vr.watch(peer);
        vr.receive_where(selector, |_| vr.uptime() > Duration::ZERO).unwrap();
        vr.receive_until(selector, Some(Instant::now() + Duration::from_secs(5)), |_| true)
    });
    assert!(matches!(&told, Err(RecvError::Down(down)) if down.who == peer), "{told:?}");
}
