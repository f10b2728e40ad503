//! Simulates a whole job in one thread, without machines: the master, the tasks of workers, and the shuffle, with VMs
//! that die at random steps. Compared with a sequential program.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use river_core::VrId;

use crate::failure::Failure;
use crate::input::{Input, Split, cut};
use crate::job::{Combiner, MapContext, MapReduce, ReduceContext, Values};
use crate::master::{Action, AttemptId, Defeat, Master, TaskId, WorkerId};
use crate::output::{Format, OutputBuffer};
use crate::protocol::{Segment, ToDepot};
use crate::sort::{Part, Run, RunSpace, Source};
use crate::streams::{From, Next, Streams};
use crate::task::{self, MapTask};

/// Concatenates all values of a key, which shows their order.
#[derive(Clone, Copy)]
struct Concat {
    combines: bool,
}

type Record = (u8, Vec<u8>);

impl MapReduce for Concat {
    type Input = Record;
    type Key = u8;
    type Value = Vec<u8>;
    type OutKey = u8;
    type OutValue = Vec<u8>;

    fn map(&self, (key, value): (u8, &[u8]), out: &mut MapContext<'_, u8, Vec<u8>>) {
        out.emit(key, value);
    }

    fn combiner(&self) -> Option<Combiner<'_, Vec<u8>>> {
        self.combines.then_some(&|all: &mut Vec<u8>, more| all.extend_from_slice(more))
    }

    fn reduce(&self, key: u8, values: &mut Values<'_, Vec<u8>>, out: &mut ReduceContext<'_, u8, Vec<u8>>) {
        let mut all = Vec::new();
        while let Some(value) = values.next_view() {
            all.extend_from_slice(value);
        }
        out.emit(key, &all);
    }
}

/// The output of a sequential program for the records, as text.
fn expected(records: &[Record]) -> BTreeMap<u8, Vec<u8>> {
    let mut all = BTreeMap::<u8, Vec<u8>>::new();
    for (key, value) in records {
        all.entry(*key).or_default().extend_from_slice(value);
    }
    all
}

/// A VM.
struct Vm {
    depot: VrId,
    alive: bool,
    space: Arc<RunSpace>,
    /// The output of its map tasks, by attempt.
    runs: HashMap<u64, Arc<Vec<Run>>>,
}

/// A task that was started somewhere.
struct Started {
    worker: usize,
    attempt: AttemptId,
    task: TaskId,
    segments: Vec<Segment>,
}

/// A message to a running reduce task.
enum Told {
    Cancel,
    Moved(u32, Vec<Segment>),
}

struct World {
    master: Master,
    job: Concat,
    input: Input<Record>,
    splits: Vec<Split>,
    reducers: usize,
    /// Bytes for unsorted records, and for merging.
    memory: [usize; 2],
    vms: Vec<Vm>,
    /// A VM that cannot read from any other.
    deaf: Option<usize>,
    /// The parts of the runs of each map task.
    maps: Vec<Vec<Vec<Part>>>,
    /// Started, but not run yet.
    waiting: Vec<Started>,
    told: HashMap<AttemptId, VecDeque<Told>>,
    outputs: Vec<Option<Vec<u8>>>,
    script: std::vec::IntoIter<(u8, usize)>,
    now: Duration,
    defeat: Option<Defeat>,
    done: bool,
}

impl World {
    /// Runs the job to its end.
    fn run(&mut self) {
        for turn in 0.. {
            assert!(turn < 10_000, "the job does not end: {:?}", self.master);
            self.obey();
            if self.done {
                return;
            }
            match self.script.next() {
                Some((0, choice)) => self.kill(choice),
                Some((_, choice)) => self.run_one(choice),
                None => self.run_one(turn),
            }
        }
    }

    /// Executes the master's actions.
    fn obey(&mut self) {
        self.now += Duration::from_millis(300);
        while !self.done {
            let Some(action) = self.master.poll(self.now) else { return };
            match action {
                Action::Start { worker: WorkerId(worker), attempt, task } => {
                    assert!(self.vms[worker].alive, "started on a dead worker");
                    let segments = match task {
                        TaskId::Map(_) => Vec::new(),
                        TaskId::Reduce(reducer) => {
                            (0..self.maps.len() as u32).flat_map(|map| self.segments(map, reducer)).collect()
                        }
                    };
                    self.waiting.push(Started { worker, attempt, task, segments });
                }
                Action::Cancel { attempt, .. } => {
                    self.told.entry(attempt).or_default().push_back(Told::Cancel);
                }
                Action::Moved { attempt, map, .. } => {
                    if let Some(TaskId::Reduce(reducer)) = self.master.task_of(attempt) {
                        let moved = Told::Moved(map, self.segments(map, reducer));
                        self.told.entry(attempt).or_default().push_back(moved);
                    }
                }
                Action::Done => self.done = true,
                Action::GiveUp(defeat) => (self.done, self.defeat) = (true, Some(defeat)),
            }
        }
    }

    fn segments(&self, map: u32, reducer: u32) -> Vec<Segment> {
        let Some((worker, attempt)) = self.master.map_done_by(map) else { return Vec::new() };
        let depot = self.vms[worker.0].depot;
        let runs = (0..).zip(&self.maps[map as usize]);
        runs.filter_map(|(run, parts)| {
            let part = *parts.get(reducer as usize).filter(|part| part.len > 0)?;
            Some(Segment { map, run, part, depot, pack: false, attempt: attempt.0 })
        })
        .collect()
    }

    fn kill(&mut self, choice: usize) {
        let vms = self.vms.len();
        let vm = &mut self.vms[choice % vms];
        vm.alive = false;
        vm.runs.clear();
        self.master.handle_down(choice % vms);
    }

    /// Runs one of the tasks that were started.
    fn run_one(&mut self, choice: usize) {
        if self.waiting.is_empty() {
            return;
        }
        let started = self.waiting.remove(choice % self.waiting.len());
        if !self.vms[started.worker].alive {
            return;
        }
        match started.task {
            TaskId::Map(map) => self.map(map, &started),
            TaskId::Reduce(reducer) => self.reduce(reducer, started),
        }
    }

    fn map(&mut self, map: u32, started: &Started) {
        let (job, split) = (self.job, self.splits[map as usize].clone());
        let task = MapTask {
            split: &split,
            framing: self.input.framing,
            at_most: None,
            reducers: self.reducers,
            bounds: None,
            memory: self.memory[0],
            space: &Arc::clone(&self.vms[started.worker].space),
            skippable: 0,
        };
        let (mapped, _) = task::map(&job, &task, &mut None, &mut |_| Ok(())).unwrap();
        let parts = mapped.runs.iter().map(|run| run.parts().to_vec()).collect();
        self.vms[started.worker].runs.insert(started.attempt.0, Arc::new(mapped.runs));
        if self.master.handle_done(started.attempt, self.now) {
            self.maps[map as usize] = parts;
        }
    }

    fn reduce(&mut self, reducer: u32, started: Started) {
        let Started { worker, attempt, segments, .. } = started;
        let (job, count) = (self.job, segments.len());
        let mut bytes = Vec::new();
        let mut sink = |more: Vec<u8>| {
            bytes.extend_from_slice(&more);
            Ok(more)
        };
        let streams = Streams::new(0, attempt.0, reducer, segments, self.memory[1]);
        let mut source = Reader { world: self, worker, attempt, streams, requests: VecDeque::new() };
        (0..count).for_each(|index| source.attach(index));
        let output = OutputBuffer::new(Format::Text { separator: b'\t' }, &mut sink);
        match task::reduce(&job, &mut source, count, output) {
            Ok(_) => {
                let current = self.vms[worker].alive && self.master.task_of(attempt).is_some();
                if current && self.master.handle_done(attempt, self.now) {
                    let before = self.outputs[reducer as usize].replace(bytes);
                    assert_eq!(before, None, "reduce task {reducer} was accepted twice");
                }
            }
            Err(Failure::Cancelled) => {}
            Err(failure) => panic!("{failure}"),
        }
    }
}

/// A running reduce task: whenever it needs bytes, other events may happen first.
struct Reader<'w> {
    world: &'w mut World,
    worker: usize,
    attempt: AttemptId,
    streams: Streams,
    /// Requests in transit.
    requests: VecDeque<(VrId, ToDepot)>,
}

impl Reader<'_> {
    fn vm_of(&self, depot: VrId) -> &Vm {
        self.world.vms.iter().find(|vm| vm.depot == depot).unwrap()
    }

    fn attach(&mut self, index: usize) {
        let Segment { depot, attempt, .. } = *self.streams.segment(index);
        let vm = self.vm_of(depot);
        let source = match vm.runs.get(&attempt) {
            Some(runs) if depot == self.world.vms[self.worker].depot => From::Here(Arc::clone(runs)),
            Some(_) if self.world.deaf == Some(self.worker) => From::Lost,
            Some(_) => From::Depot(depot),
            None => From::Lost,
        };
        self.streams.attach(index, source);
        self.ask(index);
    }

    fn ask(&mut self, index: usize) {
        while let Some(request) = self.streams.next_request(index) {
            self.requests.push_back(request);
        }
    }

    /// Processes its messages.
    fn look_up(&mut self) -> Result<(), Failure> {
        if !self.world.vms[self.worker].alive || self.world.done {
            return Err(Failure::Cancelled);
        }
        for vm in self.world.vms.iter().filter(|vm| !vm.alive) {
            self.streams.handle_lost(vm.depot);
        }
        while let Some(told) = self.world.told.get_mut(&self.attempt).and_then(VecDeque::pop_front) {
            match told {
                Told::Cancel => return Err(Failure::Cancelled),
                Told::Moved(map, segments) => {
                    for index in self.streams.handle_moved(map, &segments)? {
                        self.attach(index);
                    }
                }
            }
        }
        Ok(())
    }

    /// A depot answers any one of the requests. Returns `false` if there is none.
    fn answer(&mut self, choice: usize) -> Result<bool, Failure> {
        if self.requests.is_empty() {
            return Ok(false);
        }
        let stream = |request: &(VrId, ToDepot)| {
            let ToDepot::Read { ticket, .. } = request.1;
            ticket.stream
        };
        let chosen = stream(&self.requests[choice % self.requests.len()]);
        // The answers of one depot come in the order of the requests.
        let first = self.requests.iter().position(|request| stream(request) == chosen);
        let Some((depot, ToDepot::Read { attempt, run, part, offset, len, ticket, .. })) =
            first.and_then(|first| self.requests.remove(first))
        else {
            return Ok(false);
        };
        if let Some(runs) = self.vm_of(depot).runs.get(&attempt) {
            let bytes = runs[run as usize].read(part as usize, offset, len as usize)?;
            self.streams.handle_chunk(ticket, bytes)?;
        }
        Ok(true)
    }
}

impl Source for Reader<'_> {
    type Error = Failure;

    fn next_chunk(&mut self, index: usize) -> Result<Option<Bytes>, Failure> {
        for turn in 0.. {
            assert!(
                turn < 10_000,
                "a reduce task waits for ever: {:?} {:?}",
                self.streams,
                self.world.master
            );
            match self.world.script.next() {
                Some((0, choice)) => self.world.kill(choice),
                Some((1..=30, choice)) => self.world.run_one(choice),
                Some((_, choice)) => drop(self.answer(choice)?),
                None => {}
            }
            self.world.obey();
            self.look_up()?;
            match self.streams.next(index)? {
                Next::Chunk(chunk) => {
                    self.ask(index);
                    return Ok(Some(chunk));
                }
                Next::End => return Ok(None),
                Next::Wait => {
                    if !self.answer(turn)? {
                        self.world.run_one(turn);
                    }
                }
                Next::Blocked(depot) => {
                    let place = self.world.vms.iter().position(|vm| vm.depot == depot).unwrap();
                    self.world.master.handle_unreached(self.attempt, place);
                }
            }
        }
        Ok(None)
    }
}

fn world(
    records: &[Record],
    combines: bool,
    [split, reducers, vms]: [usize; 3],
    memory: [usize; 3],
    deaf: Option<usize>,
    script: Vec<(u8, usize)>,
) -> World {
    let input = Input::items(records.iter().cloned());
    let splits = cut(&input.source, input.framing, Some(split as u64)).unwrap();
    let places: Vec<usize> = (0..vms).collect();
    let vm = |_: &usize| Vm {
        depot: VrId::fresh(),
        alive: true,
        space: RunSpace::new(memory[2], std::env::temp_dir()),
        runs: HashMap::new(),
    };
    World {
        master: Master::new(splits.len(), reducers, &places, 1, true),
        job: Concat { combines },
        vms: places.iter().map(vm).collect(),
        deaf,
        maps: vec![Vec::new(); splits.len()],
        input,
        splits,
        reducers,
        memory: [memory[0], memory[1]],
        waiting: Vec::new(),
        told: HashMap::new(),
        outputs: vec![None; reducers],
        script: script.into_iter(),
        now: Duration::ZERO,
        defeat: None,
        done: false,
    }
}

/// The records of all parts; each key may occur once.
fn collected(outputs: &[Option<Vec<u8>>]) -> BTreeMap<u8, Vec<u8>> {
    let mut all = BTreeMap::new();
    for output in outputs {
        for line in output.as_deref().unwrap_or_default().split(|byte| *byte == b'\n') {
            let Some(tab) = line.iter().position(|byte| *byte == b'\t') else { continue };
            let key = std::str::from_utf8(&line[..tab]).unwrap().parse().unwrap();
            assert_eq!(all.insert(key, line[tab + 1..].to_vec()), None, "key {key} is there twice");
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
    #[test]
    fn the_output_is_that_of_a_sequential_program_whatever_dies(
        records in prop::collection::vec((0u8..20, "[a-z]{0,6}|[a-z]{3000}"), 0..120),
        combines: bool,
        shape in (prop_oneof![1usize..60, 1usize..20_000], 1usize..5, 1usize..6).prop_map(|(a, b, c)| [a, b, c]),
        memory in (
            prop::sample::select(&[1usize, 5000, 1 << 20][..]),
            prop::sample::select(&[1usize, 100_000][..]),
            prop::sample::select(&[0usize, 3000, 1 << 20][..]),
        ).prop_map(|(a, b, c)| [a, b, c]),
        deaf in prop::option::of(0usize..6),
        script in prop::collection::vec((0u8..120, any::<usize>()), 0..400),
    ) {
        let records: Vec<Record> =
            records.into_iter().map(|(key, value)| (key, value.into_bytes())).collect();
        let mut world = world(&records, combines, shape, memory, deaf, script);
        world.run();
        match &world.defeat {
            None => prop_assert_eq!(collected(&world.outputs), expected(&records)),
            Some(Defeat::NoWorkerLeft) => prop_assert!(world.vms.iter().all(|vm| !vm.alive)),
            Some(Defeat::Deadly { places, .. }) => prop_assert!(places.iter().all(|place| !world.vms[*place].alive)),
            Some(Defeat::Failed { .. }) => prop_assert!(false, "a task failed"),
        }
    }
}

#[test]
fn a_reducer_goes_on_at_the_byte_where_a_vm_died() {
    // One reducer, two VMs; the one that does not reduce dies after the reducer has read some of its run.
    let records: Vec<Record> = (0..40).map(|i| (i % 2, vec![b'a' + i; 3000])).collect();
    for dies_at in 0..30 {
        for vm in 0..2 {
            let mut script = vec![(99, 0); dies_at];
            script.push((0, vm));
            let mut world = world(&records, false, [50_000, 1, 2], [1 << 20, 1, 1 << 20], None, script);
            world.run();
            assert_eq!(world.defeat, None);
            assert_eq!(collected(&world.outputs), expected(&records));
        }
    }
}
