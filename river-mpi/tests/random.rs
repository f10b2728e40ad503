//! Random programs of sends and receives, checked against MPI's matching rules.

use proptest::prelude::*;
use proptest::sample::Index;
use river_core::testing::for_each_topology;
use river_core::try_run;
use river_mpi::testing::world;
use river_mpi::{ANY_SOURCE, ANY_TAG, Communicator, Peer, Request, Tag, run_on};
use river_mpi::{test_some, wait_all, wait_any, wait_some};

const RANKS: usize = 3;

/// A message.
#[derive(Clone, Copy, Debug)]
struct Send {
    from: usize,
    to: usize,
    tag: i32,
    len: usize,
    mode: u8,
}

impl Send {
    /// Whether it is sent in buffered mode.
    fn is_buffered(&self) -> bool {
        self.mode == 4
    }
}

/// How the criteria of a receive are derived from a message that is still to be received.
#[derive(Clone, Copy, Debug)]
struct Wish {
    any_source: bool,
    any_tag: bool,
}

/// A part of what each rank receives.
#[derive(Clone, Debug)]
enum Round {
    Receive(Wish),
    ProbeAndReceive(Wish),
    /// Posts several receives. Some of them may not be matched, and are cancelled.
    Post(Vec<Wish>, Index),
}

#[derive(Clone, Debug)]
struct Program {
    sends: Vec<Send>,
    rounds: Vec<Round>,
    /// Receives that are posted before those that match every message.
    last: Vec<Wish>,
    /// How the last receives are completed.
    ways: Vec<u8>,
}

fn program() -> impl Strategy<Value = Program> {
    let len = prop_oneof![4 => 0..20_usize, 1 => Just(5000_usize), 1 => Just(65_537_usize), 1 => Just(200_000_usize)];
    let send = (0..RANKS, 0..RANKS, 0..3i32, len, 0..6u8).prop_map(|(from, to, tag, len, mode)| Send {
        from,
        to,
        tag,
        len,
        mode,
    });
    let wish = || any::<(bool, bool)>().prop_map(|(any_source, any_tag)| Wish { any_source, any_tag });
    let wishes = || prop::collection::vec(wish(), 1..5);
    let round = prop_oneof![
        1 => wish().prop_map(Round::Receive),
        1 => wish().prop_map(Round::ProbeAndReceive),
        2 => (wishes(), any::<Index>()).prop_map(|(wishes, first)| Round::Post(wishes, first)),
    ];
    let (sends, rounds) = (prop::collection::vec(send, 1..40), prop::collection::vec(round, 0..5));
    let ways = prop::collection::vec(0..3u8, 1..8);
    (sends, rounds, wishes(), ways).prop_map(|(sends, rounds, last, ways)| Program {
        sends,
        rounds,
        last,
        ways,
    })
}

/// The contents of the message with this number.
fn content(number: usize, len: usize) -> Vec<u8> {
    std::iter::once(number as u8).chain((0..len).map(|i| (i + number) as u8)).collect()
}

/// The criteria of a receive; `None` is a wildcard.
#[derive(Clone, Copy, Debug)]
struct Pattern {
    source: Option<usize>,
    tag: Option<i32>,
}

impl Pattern {
    const ANY: Self = Self { source: None, tag: None };

    /// Matches this message, and maybe others.
    fn of(wish: Wish, send: &Send) -> Self {
        Self { source: (!wish.any_source).then_some(send.from), tag: (!wish.any_tag).then_some(send.tag) }
    }

    fn matches(self, send: &Send) -> bool {
        self.source.is_none_or(|source| source == send.from) && self.tag.is_none_or(|tag| tag == send.tag)
    }

    fn source(self) -> Peer {
        self.source.map_or(ANY_SOURCE, Peer::from)
    }

    fn tag(self) -> Tag {
        self.tag.map_or(ANY_TAG, Tag::from)
    }
}

/// A receive, and the number of the message that it got.
struct Receive {
    pattern: Pattern,
    got: Option<usize>,
    /// Whether it was cancelled when there were no more messages.
    in_vain: bool,
}

/// What a rank has received, in the order in which the receives were posted.
struct Log<'a> {
    sends: &'a [Send],
    me: usize,
    receives: Vec<Receive>,
}

impl Log<'_> {
    /// The messages that this rank has not received yet.
    fn left(&self) -> Vec<usize> {
        let got: Vec<usize> = self.receives.iter().filter_map(|receive| receive.got).collect();
        (0..self.sends.len())
            .filter(|number| self.sends[*number].to == self.me && !got.contains(number))
            .collect()
    }

    /// Adds a receive; returns its place.
    fn posted(&mut self, pattern: Pattern) -> usize {
        self.receives.push(Receive { pattern, got: None, in_vain: false });
        self.receives.len() - 1
    }

    /// A receive got a message with these contents.
    fn got(&mut self, place: usize, data: &[u8], status: river_mpi::Status) {
        let number = usize::from(data[0]);
        let send = &self.sends[number];
        assert_eq!(data, content(number, send.len));
        assert_eq!((status.source(), status.tag()), (Some(send.from), Some(send.tag)));
        assert!(send.to == self.me && self.receives[place].pattern.matches(send), "{send:?}");
        assert_eq!(self.receives[place].got.replace(number), None);
    }

    /// Checks that every message was received once, and that none has overtaken another (MPI 1.3, section 3.5): if a receive
    /// got a message, those that were posted before it and match the message, too, got an earlier message, or one from another
    /// sender.
    fn check(&self) {
        assert!(self.left().is_empty(), "{:?} are left", self.left());
        let mut numbers: Vec<usize> = self.receives.iter().filter_map(|receive| receive.got).collect();
        for (place, later) in self.receives.iter().enumerate() {
            let Some(number) = later.got else { continue };
            let send = &self.sends[number];
            for earlier in self.receives[..place].iter().filter(|earlier| earlier.pattern.matches(send)) {
                let overtaken = match earlier.got {
                    Some(other) => self.sends[other].from == send.from && other > number,
                    None => earlier.in_vain,
                };
                assert!(!overtaken, "{send:?} with number {number} was not for {:?}", earlier.pattern);
            }
        }
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), self.sends.iter().filter(|send| send.to == self.me).count());
    }
}

/// Starts the sends of this rank. None of them waits for a receive.
fn start<'a>(world: &Communicator<'a>, mine: &'a [(Send, Vec<u8>)]) -> river_mpi::Result<Vec<Request<'a>>> {
    let mut requests = Vec::new();
    for (send, data) in mine {
        let Send { to, tag, .. } = *send;
        match send.mode {
            0 => requests.push(world.isend_vec(data.clone(), to, tag)?),
            1 => requests.push(world.issend(data, to, tag)?),
            2 => requests.push(world.isend_from(data, to, tag)?),
            _ if send.is_buffered() => world.bsend(data, to, tag)?,
            // A short message is sent eagerly.
            5 if data.len() < 1000 => world.send(data, to, tag)?,
            _ => requests.push(world.isend(data, to, tag)?),
        }
    }
    Ok(requests)
}

/// Every rank starts its sends in order, all at once, and then receives.
fn play(world: &Communicator<'_>, program: &Program) -> river_mpi::Result<()> {
    let me = world.rank();
    let sends = program.sends.iter().enumerate().filter(|(_, send)| send.from == me);
    let mine: Vec<_> = sends.map(|(number, send)| (*send, content(number, send.len))).collect();
    world.buffer_attach(
        1 + mine.iter().filter(|(send, _)| send.is_buffered()).map(|(_, data)| data.len()).sum::<usize>(),
    )?;
    let mut requests = start(world, &mine)?;
    let mut log = Log { sends: &program.sends, me, receives: Vec::new() };
    for round in &program.rounds {
        receive(world, round, &mut log)?;
    }
    receive_the_rest(world, program, &mut log)?;
    log.check();
    wait_all(&mut requests)?;
    world.buffer_detach()?;
    assert!(world.iprobe(ANY_SOURCE, ANY_TAG)?.is_none());
    world.barrier()?;
    shift(world, program)?;
    world.barrier()
}

fn receive(world: &Communicator<'_>, round: &Round, log: &mut Log<'_>) -> river_mpi::Result<()> {
    let left = log.left();
    let Some(&first) = left.first() else { return Ok(()) };
    match round {
        Round::Receive(wish) => {
            // It will be completed, by the first message or another.
            let pattern = Pattern::of(*wish, &log.sends[first]);
            let (data, status) = world.recv::<u8>(pattern.source(), pattern.tag())?;
            let place = log.posted(pattern);
            log.got(place, &data, status);
        }
        Round::ProbeAndReceive(wish) => {
            let pattern = Pattern::of(*wish, &log.sends[first]);
            let probed = world.probe(pattern.source(), pattern.tag())?;
            let (source, tag) = (probed.source().unwrap(), probed.tag().unwrap());
            let mut data = vec![0; probed.bytes()];
            assert_eq!(world.recv_into(&mut data, source, tag)?, probed);
            let place = log.posted(pattern);
            log.got(place, &data, probed);
        }
        Round::Post(wishes, start) => {
            let mut posted = Vec::new();
            for (wish, &number) in wishes.iter().zip(&left) {
                let pattern = Pattern::of(*wish, &log.sends[number]);
                let receive = world.irecv::<u8>(pattern.source(), pattern.tag())?;
                posted.push((log.posted(pattern), receive));
            }
            // Nothing takes the first message from the first receive. The others may take each other's.
            let (place, first) = posted.remove(0);
            let (data, status) = first.wait()?;
            log.got(place, &data, status);
            if !posted.is_empty() {
                let at = start.index(posted.len());
                posted.rotate_left(at);
            }
            for (place, mut receive) in posted {
                if let Some((data, status)) = receive.test()? {
                    log.got(place, &data, status);
                    continue;
                }
                receive.cancel()?;
                let (data, status) = receive.wait()?;
                if !status.is_cancelled() {
                    log.got(place, &data, status);
                }
            }
        }
    }
    Ok(())
}

/// Posts some receives, and as many that match everything as messages are left.
fn receive_the_rest(world: &Communicator<'_>, program: &Program, log: &mut Log<'_>) -> river_mpi::Result<()> {
    let left = log.left();
    let patterns =
        program.last.iter().zip(&left).map(|(wish, &number)| Pattern::of(*wish, &log.sends[number]));
    let patterns: Vec<Pattern> = patterns.chain(left.iter().map(|_| Pattern::ANY)).collect();
    let longest = left.iter().map(|&number| log.sends[number].len + 1).max().unwrap_or(0);
    let mut buffers = vec![vec![0_u8; longest]; patterns.len()];
    let mut requests = Vec::new();
    let mut places = Vec::new();
    for (pattern, buffer) in patterns.iter().zip(&mut buffers) {
        requests.push(world.irecv_into(buffer, pattern.source(), pattern.tag())?);
        places.push(log.posted(*pattern));
    }
    let mut statuses = vec![None; requests.len()];
    let mut ways = program.ways.iter().cycle();
    let mut number = 0;
    while number < left.len() {
        let done = match ways.next() {
            Some(0) => wait_any(&mut requests)?.into_iter().collect(),
            Some(1) => wait_some(&mut requests)?,
            _ => test_some(&mut requests)?,
        };
        number += done.len();
        done.into_iter().for_each(|(at, status)| statuses[at] = Some(status));
    }
    for (at, mut request) in requests.into_iter().enumerate() {
        if statuses[at].is_none() {
            request.cancel()?;
            assert!(request.wait()?.is_cancelled());
            log.receives[places[at]].in_vain = true;
        }
    }
    for (at, status) in statuses.into_iter().enumerate() {
        if let Some(status) = status {
            log.got(places[at], &buffers[at][..status.bytes()], status);
        }
    }
    Ok(())
}

/// Each rank sends to the next one while it receives from the one before, for each message of the program.
fn shift(world: &Communicator<'_>, program: &Program) -> river_mpi::Result<()> {
    let (me, p) = (world.rank(), world.size());
    let before = (me + p - 1) % p;
    for (number, send) in program.sends.iter().enumerate().take(4) {
        let wish = program.last[number % program.last.len()];
        let pattern = Pattern::of(wish, &Send { from: before, ..*send });
        let mut buffer = vec![0; send.len + 1];
        let mine = content(number + me, send.len);
        let (next, source, tag) = ((me + 1) % p, pattern.source(), pattern.tag());
        let status = world.sendrecv(&mine, next, send.tag, &mut buffer, source, tag)?;
        assert_eq!((status.source(), status.tag()), (Some(before), Some(send.tag)));
        assert_eq!(buffer, content(number + before, send.len));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn messages_are_matched_in_order(program in program()) {
        world(RANKS, |world| Ok(play(world, &program)?));
    }
}

#[test]
fn random_programs_on_every_topology() {
    for_each_topology(|_, make_vms| {
        try_run(|vr| {
            let vms = make_vms(vr, RANKS)?;
            run_on(vr, &vms, |world| {
                // All ranks generate the same programs from a fixed seed.
                let mut runner = proptest::test_runner::TestRunner::deterministic();
                for _ in 0..20 {
                    let tree = program().new_tree(&mut runner).map_err(|_| river_mpi::MpiError::Stopped)?;
                    play(world, &proptest::strategy::ValueTree::current(&tree))?;
                }
                Ok(())
            })?;
            Ok(())
        })
        .unwrap();
    });
}
