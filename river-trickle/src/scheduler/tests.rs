//! The scheduler against every order of events that a random driver can think of.

use proptest::prelude::*;

use super::*;

/// One random choice of the driver, taken each time the scheduler waits.
#[derive(Clone, Debug)]
enum Chance {
    /// The n-th VM that has something finishes its first chunk or its collection.
    Progress(usize),
    /// The n-th living VM dies.
    Die(usize),
    /// A VM joins.
    Join,
    /// What a VM that died had sent comes late.
    Late,
}

fn chance(deaths: u32, joins: u32) -> impl Strategy<Value = Chance> {
    prop_oneof![
        20 => any::<usize>().prop_map(Chance::Progress),
        deaths => any::<usize>().prop_map(Chance::Die),
        joins => Just(Chance::Join),
        2 => Just(Chance::Late),
    ]
}

#[derive(Debug, Default, Clone)]
struct Worker {
    dead: bool,
    queue: VecDeque<ChunkId>,
    folded: Vec<ChunkId>,
    collecting: bool,
}

/// Drives a scheduler to its end; returns how often each chunk was accepted, and how it ended.
fn drive(mode: Mode, chunks: u64, vms: usize, chances: &[Chance]) -> (Vec<u32>, Action) {
    let mut scheduler = Scheduler::new(mode);
    let mut workers = vec![Worker::default(); vms];
    for _ in 0..vms {
        scheduler.handle_joined();
    }
    let mut accepted = vec![0; chunks as usize];
    let (mut pulled, mut late) = (0, Vec::new());
    let mut chances = chances.iter();
    for _ in 0..100_000 {
        match scheduler.poll() {
            Action::Pull if pulled < chunks => {
                assert_eq!(scheduler.handle_pulled(), ChunkId(pulled));
                pulled += 1;
                let outstanding: usize = workers.iter().map(|worker| worker.queue.len()).sum();
                assert!(outstanding < PREFETCH * workers.len().max(1), "pulled before anyone needed it");
            }
            Action::Pull => scheduler.handle_exhausted(),
            Action::Issue { chunk, vm } => {
                let worker = &mut workers[vm.0];
                assert!(!worker.dead && worker.queue.len() < PREFETCH);
                worker.queue.push_back(chunk);
            }
            Action::Collect { vm } => {
                let worker = &mut workers[vm.0];
                assert!(mode == Mode::Held && !worker.dead && !worker.collecting && worker.queue.is_empty());
                worker.collecting = true;
            }
            Action::Wait => {
                let busy: Vec<usize> = (0..workers.len())
                    .filter(|&i| !workers[i].dead && (workers[i].collecting || !workers[i].queue.is_empty()))
                    .collect();
                assert!(!busy.is_empty(), "waits although nobody works");
                match chances.next().unwrap_or(&Chance::Progress(0)) {
                    Chance::Progress(n) => {
                        let index = busy[n % busy.len()];
                        let worker = &mut workers[index];
                        if let Some(chunk) = worker.queue.pop_front() {
                            assert!(scheduler.handle_finished(VmIndex(index), chunk));
                            match mode {
                                Mode::Direct => accepted[chunk.0 as usize] += 1,
                                Mode::Held => worker.folded.push(chunk),
                            }
                        } else {
                            worker.collecting = false;
                            let chunks = scheduler.handle_collected(VmIndex(index)).unwrap();
                            assert_eq!(chunks, std::mem::take(&mut worker.folded));
                            chunks.iter().for_each(|chunk| accepted[chunk.0 as usize] += 1);
                        }
                    }
                    Chance::Die(n) => {
                        let alive: Vec<usize> = (0..workers.len()).filter(|&i| !workers[i].dead).collect();
                        let index = alive[n % alive.len()];
                        workers[index].dead = true;
                        late.extend(workers[index].queue.drain(..).map(|chunk| (VmIndex(index), chunk)));
                        let lost = scheduler.handle_down(VmIndex(index));
                        assert_eq!(lost, workers[index].folded);
                    }
                    Chance::Join => {
                        workers.push(Worker::default());
                        scheduler.handle_joined();
                    }
                    Chance::Late => {
                        if let Some((vm, chunk)) = late.pop() {
                            assert!(!scheduler.handle_finished(vm, chunk));
                            assert!(scheduler.handle_collected(vm).is_none());
                        }
                    }
                }
            }
            end => return (accepted, end),
        }
    }
    panic!("does not end");
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Direct), Just(Mode::Held)]
}

proptest! {
    #[test]
    fn every_chunk_is_accepted_once_or_the_defeat_is_named(
        mode in mode(),
        chunks in 0u64..30,
        vms in 1usize..6,
        chances in prop::collection::vec(chance(3, 1), 0..120),
    ) {
        let (accepted, end) = drive(mode, chunks, vms, &chances);
        prop_assert!(accepted.iter().all(|&times| times <= 1), "{:?}", accepted);
        match end {
            Action::Done => prop_assert!(accepted.iter().all(|&times| times == 1), "{:?}", accepted),
            Action::GiveUp(Defeat::NoVmLeft { deaths }) => prop_assert!(deaths.len() >= vms),
            Action::GiveUp(Defeat::Deadly { chunk, deaths }) => {
                prop_assert_eq!(accepted[chunk.0 as usize], 0);
                prop_assert_eq!(deaths.len(), ATTEMPTS);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn without_deaths_it_is_always_done(
        mode in mode(),
        chunks in 0u64..30,
        vms in 1usize..6,
        chances in prop::collection::vec(chance(0, 1), 0..120),
    ) {
        let (accepted, end) = drive(mode, chunks, vms, &chances);
        prop_assert_eq!(end, Action::Done);
        prop_assert!(accepted.iter().all(|&times| times == 1));
    }
}

#[test]
fn only_the_chunk_that_was_worked_on_is_suspected() {
    let mut scheduler = Scheduler::new(Mode::Direct);
    let first = scheduler.handle_joined();
    for _ in 0..PREFETCH {
        assert_eq!(scheduler.poll(), Action::Pull);
        let chunk = scheduler.handle_pulled();
        assert_eq!(scheduler.poll(), Action::Issue { chunk, vm: first });
    }
    scheduler.handle_exhausted();
    scheduler.handle_down(first);
    for _ in 1..ATTEMPTS {
        let vm = scheduler.handle_joined();
        for chunk in [ChunkId(0), ChunkId(1)] {
            assert_eq!(scheduler.poll(), Action::Issue { chunk, vm });
        }
        scheduler.handle_down(vm);
    }
    let Action::GiveUp(Defeat::Deadly { chunk, .. }) = scheduler.poll() else { panic!("goes on") };
    assert_eq!(chunk, ChunkId(0));
    assert!(scheduler.open[&ChunkId(1)].is_empty());
}

#[test]
fn a_chunk_that_kills_three_vms_is_given_up() {
    let mut scheduler = Scheduler::new(Mode::Direct);
    let vms: Vec<VmIndex> = (0..4).map(|_| scheduler.handle_joined()).collect();
    assert_eq!(scheduler.poll(), Action::Pull);
    let chunk = scheduler.handle_pulled();
    scheduler.handle_exhausted();
    for &vm in &vms[..3] {
        assert_eq!(scheduler.poll(), Action::Issue { chunk, vm });
        scheduler.handle_down(vm);
    }
    let deaths = vms[..3].to_vec();
    assert_eq!(scheduler.poll(), Action::GiveUp(Defeat::Deadly { chunk, deaths }));
}

#[test]
fn a_vm_that_refuses_a_chunk_does_not_make_it_suspect() {
    let mut scheduler = Scheduler::new(Mode::Direct);
    let vms: Vec<VmIndex> = (0..4).map(|_| scheduler.handle_joined()).collect();
    assert_eq!(scheduler.poll(), Action::Pull);
    let chunk = scheduler.handle_pulled();
    scheduler.handle_exhausted();
    for &vm in &vms {
        assert_eq!(scheduler.poll(), Action::Issue { chunk, vm });
        scheduler.handle_refused(vm, chunk);
    }
    assert_eq!(scheduler.poll(), Action::GiveUp(Defeat::NoVmLeft { deaths: vms }));
}

#[test]
fn the_last_vm_may_die_when_all_is_done() {
    let mut scheduler = Scheduler::new(Mode::Direct);
    let vm = scheduler.handle_joined();
    assert_eq!(scheduler.poll(), Action::Pull);
    let chunk = scheduler.handle_pulled();
    assert_eq!(scheduler.poll(), Action::Issue { chunk, vm });
    assert!(scheduler.handle_finished(vm, chunk));
    scheduler.handle_down(vm);
    assert_eq!(scheduler.poll(), Action::Pull);
    scheduler.handle_exhausted();
    assert_eq!(scheduler.poll(), Action::Done);
}
