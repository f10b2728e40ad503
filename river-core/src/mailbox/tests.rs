use proptest::prelude::*;

use super::*;
use crate::envelope::{Channel, Payload};

const CHANNEL: Channel = Channel::named("test");
const OTHER: Channel = Channel::named("other");

#[derive(Clone, Debug)]
enum Step {
    Arrive { src: u8, other: bool, lane: u64, value: u8 },
    Receive { from: Option<u8>, lane: Option<u64>, value: Option<u8> },
    Post { from: Option<u8>, lane: Option<u64>, value: Option<u8>, standing: bool },
    Serve(Vec<usize>),
    Complete(usize),
    Unpost(usize),
    Status,
}

fn id(n: u8) -> VrId {
    VrId::from_uuid(uuid::Uuid::from_u128(u128::from(n) + 1))
}

fn envelope(src: u8, channel: Channel, lane: u64, value: u8) -> Envelope {
    let payload = Payload::from(vec![value]);
    Envelope { src: id(src), dst: id(99), seq: 0, channel, lane, payload }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3u8, any::<bool>(), 0..3u64, 0..3u8).prop_map(|(src, other, lane, value)| Step::Arrive {
            src,
            other,
            lane,
            value
        }),
        (prop::option::of(0..3u8), prop::option::of(0..3u64), prop::option::of(0..3u8))
            .prop_map(|(from, lane, value)| Step::Receive { from, lane, value }),
        (prop::option::of(0..3u8), prop::option::of(0..3u64), prop::option::of(0..3u8)).prop_flat_map(
            |(from, lane, value)| any::<bool>().prop_map(move |standing| Step::Post {
                from,
                lane,
                value,
                standing
            })
        ),
        prop::collection::vec(0..3usize, 0..2).prop_map(Step::Serve),
        (0..3usize).prop_map(Step::Complete),
        (0..3usize).prop_map(Step::Unpost),
        Just(Step::Status),
    ]
}

type Sent = (u8, bool, u64, u8);
type Wish = (Option<u8>, Option<u64>, Option<u8>);

#[derive(Clone)]
struct Post {
    wish: Wish,
    standing: bool,
    got: Vec<(usize, Sent)>,
    id: PostId,
}

fn fits(&(from, lane, value): &Wish, &(src, other, at, v): &Sent) -> bool {
    !other
        && from.is_none_or(|from| from == src)
        && lane.is_none_or(|lane| lane == at)
        && value.is_none_or(|value| value == v)
}

fn selector(&(from, lane, _): &Wish) -> Selector {
    let on = Selector::on(CHANNEL);
    let on = lane.map_or(on, |lane| on.lane(lane));
    from.map_or(on, |from| on.from(id(from)))
}

fn predicate(&(_, _, value): &Wish) -> impl FnMut(&Envelope) -> bool + 'static {
    move |e| value.is_none_or(|value| e.payload.head()[0] == value)
}

/// Two lists: envelopes by arrival, and posted receives with what they have got.
#[derive(Default)]
struct Model {
    queue: Vec<(usize, Sent)>,
    posted: Vec<Post>,
}

impl Model {
    fn arrive(&mut self, number: usize, sent: Sent) {
        let wants = |post: &Post| (post.standing || post.got.is_empty()) && fits(&post.wish, &sent);
        let queue = match self.posted.iter_mut().find(|post| wants(post)) {
            Some(post) => &mut post.got,
            None => &mut self.queue,
        };
        queue.push((number, sent));
        queue.sort_unstable();
    }

    fn take(&mut self, wish: &Wish) -> Option<(usize, Sent)> {
        let index = self.queue.iter().position(|(_, sent)| fits(wish, sent))?;
        Some(self.queue.remove(index))
    }
}

proptest! {
    /// The mailbox is two lists searched from the front, whatever its index does.
    #[test]
    fn equals_two_lists(steps in prop::collection::vec(step(), 1..80)) {
        let (mut mailbox, mut inbox, mut model) = (Mailbox::default(), Vec::new(), Model::default());
        let mut arrived = 0;
        for step in steps {
            let mut swap = |events: &mut Vec<Event>| { std::mem::swap(events, &mut inbox); (!events.is_empty()).then(Moment::now) };
            let (found, expected) = match step {
                Step::Arrive { src, other, lane, value } => {
                    let channel = if other { OTHER } else { CHANNEL };
                    inbox.push(Event::Envelope(envelope(src, channel, lane, value)));
                    model.arrive(arrived, (src, other, lane, value));
                    arrived += 1;
                    continue;
                }
                Step::Receive { from, lane, value } => {
                    let wish = (from, lane, value);
                    let found = mailbox.take(&selector(&wish), &mut predicate(&wish), &mut swap);
                    (found, model.take(&wish))
                }
                Step::Post { from, lane, value, standing } => {
                    let wish = (from, lane, value);
                    let accept = Box::new(predicate(&wish));
                    let id = mailbox.post(selector(&wish), accept, standing, &mut swap);
                    let mut got = Vec::new();
                    while let Some(found) = model.take(&wish) {
                        got.push(found);
                        if !standing {
                            break;
                        }
                    }
                    model.posted.push(Post { wish, standing, got, id });
                    continue;
                }
                Step::Serve(busy) => {
                    // What has arrived so far is given out before.
                    mailbox.visit(&Selector::on(CHANNEL), &mut |_| None::<()>, &mut swap);
                    let is_busy = |index: &usize| busy.contains(index);
                    let ids: Vec<PostId> = model.posted.iter().enumerate()
                        .filter(|(index, _)| is_busy(index)).map(|(_, post)| post.id).collect();
                    let served = model.posted.iter_mut().enumerate()
                        .filter(|(index, post)| !is_busy(index) && post.standing && !post.got.is_empty())
                        .min_by_key(|(_, post)| post.got[0].0)
                        .map(|(_, post)| (post.id, post.got.remove(0)));
                    let (found, expected) = (mailbox.take_standing(&ids), served);
                    prop_assert_eq!(found.as_ref().map(|(id, _)| *id), expected.map(|(id, _)| id));
                    let waiting = model.posted.iter().any(|post| post.standing && !post.got.is_empty());
                    prop_assert_eq!(mailbox.has_standing(), waiting);
                    (found.map_or(Found::Nothing, |(_, e)| Found::Envelope(e)), expected.map(|(_, sent)| sent))
                }
                Step::Complete(index) => {
                    let Some(post) = model.posted.get(index).filter(|post| !post.standing).cloned() else {
                        continue;
                    };
                    if !post.got.is_empty() {
                        model.posted.remove(index);
                    }
                    (mailbox.complete(post.id, &mut swap), post.got.first().copied())
                }
                Step::Status => {
                    let posted: usize = model.posted.iter().map(|post| post.got.len()).sum();
                    let status = mailbox.status(&mut swap);
                    let waiting = model.queue.len() + posted;
                    prop_assert_eq!((status.messages, status.bytes), (waiting, waiting));
                    prop_assert_eq!(status.oldest.is_some(), !model.queue.is_empty());
                    continue;
                }
                Step::Unpost(index) => {
                    if index < model.posted.len() {
                        // What has arrived so far was given out before the receive is taken back.
                        mailbox.visit(&Selector::on(CHANNEL), &mut |_| None::<()>, &mut swap);
                        let post = model.posted.remove(index);
                        mailbox.unpost(post.id);
                        for (number, sent) in post.got {
                            model.arrive(number, sent);
                        }
                    }
                    continue;
                }
            };
            match (found, expected) {
                (Found::Envelope(e), Some((_, (src, _, lane, value)))) => {
                    prop_assert_eq!((e.src, e.lane, e.payload.head()[0]), (id(src), lane, value));
                }
                (Found::Nothing, None) => {}
                (found, expected) => prop_assert!(false, "{:?} for {:?}", found, expected),
            }
        }
    }
}

fn take(mailbox: &mut Mailbox, selector: Selector, events: Vec<Event>) -> Found {
    let mut events = Some(events);
    mailbox.take(&selector, &mut |_| true, &mut |into| match events.take() {
        Some(events) => {
            *into = events;
            Some(Moment::now())
        }
        None => None,
    })
}

#[test]
fn what_a_dead_vr_had_sent_is_received_before_its_death() {
    let mut mailbox = Mailbox::default();
    let down = Down { who: id(1), why: Why::Finished };
    let events = vec![Event::Envelope(envelope(1, CHANNEL, 0, 7)), Event::Down(down.clone())];
    let from = Selector::on(CHANNEL).from(id(1));
    assert!(matches!(take(&mut mailbox, from, events), Found::Envelope(_)));
    assert!(matches!(take(&mut mailbox, from, vec![]), Found::Down(d) if d == down));
    assert!(matches!(take(&mut mailbox, Selector::on(CHANNEL), vec![]), Found::Nothing));
}

#[test]
fn a_childs_failure_is_told_once_and_its_normal_end_is_not() {
    let mut mailbox = Mailbox::default();
    mailbox.adopt(id(1));
    mailbox.adopt(id(2));
    let any = Selector::on(CHANNEL);
    let finished = Event::Down(Down { who: id(1), why: Why::Finished });
    assert!(matches!(take(&mut mailbox, any, vec![finished]), Found::Nothing));
    let panicked = Down { who: id(2), why: Why::Panicked("x".into()) };
    assert!(
        matches!(take(&mut mailbox, any, vec![Event::Down(panicked.clone())]), Found::Down(d) if d == panicked)
    );
    assert!(matches!(take(&mut mailbox, any, vec![]), Found::Nothing));
}

#[test]
fn a_watch_after_the_death_is_answered() {
    let mut mailbox = Mailbox::default();
    let any = Selector::on(CHANNEL);
    let down = Down { who: id(1), why: Why::Finished };
    assert!(matches!(take(&mut mailbox, any, vec![Event::Down(down.clone())]), Found::Nothing));
    mailbox.watch(id(1));
    assert!(matches!(take(&mut mailbox, any, vec![]), Found::Down(d) if d == down));
}

#[test]
fn a_watch_on_one_whose_end_waits_to_be_told_tells_it_once() {
    let mut mailbox = Mailbox::default();
    let any = Selector::on(CHANNEL);
    mailbox.watch(id(1));
    let down = Down { who: id(1), why: Why::Finished };
    let events = vec![Event::Down(down.clone()), Event::Envelope(envelope(2, CHANNEL, 0, 7))];
    assert!(matches!(take(&mut mailbox, any, events), Found::Envelope(_)));
    mailbox.watch(id(1));
    assert!(matches!(take(&mut mailbox, any, vec![]), Found::Down(d) if d == down));
    assert!(matches!(take(&mut mailbox, any, vec![]), Found::Nothing));
}
