//! Tests the scheduler against random orders of events.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

/// One random choice of the driver, taken each time the scheduler waits.
#[derive(Clone, Debug)]
enum Chance {
    /// The n-th VM that has work finishes its first batch or its collection.
    Progress(usize),
    /// Like `Progress`, but the chunks fail and have to be done again.
    Fail(usize),
    /// The n-th living VM dies.
    Die(usize),
    /// A VM joins.
    Join,
    /// The n-th living VM is to leave.
    Leave(usize),
    /// The n-th living VM is slow.
    Slow(usize),
    /// The n-th living VM takes too long.
    Overdue(usize),
    /// The answer to a stale batch arrives late.
    Late,
    /// Chunks turn out to be this cheap.
    Window(usize),
}

fn chance(deaths: u32, losses: u32) -> impl Strategy<Value = Chance> {
    prop_oneof![
        20 => any::<usize>().prop_map(Chance::Progress),
        losses => any::<usize>().prop_map(Chance::Fail),
        deaths => any::<usize>().prop_map(Chance::Die),
        1 => Just(Chance::Join),
        losses => any::<usize>().prop_map(Chance::Leave),
        3 => any::<usize>().prop_map(Chance::Slow),
        losses => any::<usize>().prop_map(Chance::Overdue),
        2 => Just(Chance::Late),
        1 => (0..20usize).prop_map(Chance::Window),
    ]
}

#[derive(Debug, Default, Clone)]
struct Worker {
    gone: bool,
    queue: VecDeque<(BatchId, Vec<ChunkId>)>,
    /// Batches that were taken from it and that it has not answered yet.
    stale: Vec<BatchId>,
    folded: Vec<ChunkId>,
    collecting: bool,
}

impl Worker {
    /// Throws away what it has accumulated.
    fn spoil(&mut self, lost: Vec<ChunkId>) {
        assert_eq!(lost, std::mem::take(&mut self.folded));
        self.stale.extend(self.queue.drain(..).map(|(batch, _)| batch));
        self.collecting = false;
    }
}

/// Drives a scheduler to its end; returns how many times each chunk was accepted or given up, and how it ended.
fn drive(mode: Mode, chunks: u64, vms: usize, chances: &[Chance]) -> (HashMap<ChunkId, u32>, Action) {
    let mut scheduler = Scheduler::new(mode);
    let mut workers = vec![Worker::default(); vms];
    for _ in 0..vms {
        scheduler.handle_joined();
    }
    let mut settled: HashMap<ChunkId, u32> = HashMap::new();
    let (mut pulled, mut over, mut late) = (0, 0, Vec::new());
    let mut recalled = HashSet::new();
    let mut window = PREFETCH;
    let mut chances = chances.iter();
    for _ in 0..100_000 {
        match scheduler.poll() {
            Action::Pull if pulled < chunks => {
                let chunk = scheduler.handle_pulled();
                settled.insert(chunk, 0);
                pulled += 1;
                let outstanding: usize =
                    workers.iter().flat_map(|worker| &worker.queue).map(|(_, chunks)| chunks.len()).sum();
                assert!(outstanding <= 20 * workers.len(), "pulled before anyone needed it");
            }
            Action::Pull => scheduler.handle_exhausted(),
            Action::Issue { batch, chunks, vm } => {
                let worker = &mut workers[vm.0];
                assert!(!worker.gone && !chunks.is_empty() && chunks.len() <= (window / 2).max(1));
                assert!(chunks.iter().all(|chunk| settled[chunk] == 0), "issued what is settled");
                let mine = worker.queue.iter().flat_map(|(_, chunks)| chunks);
                assert!(!mine.clone().any(|chunk| chunks.contains(chunk)), "a copy for who has it");
                assert!(mine.count() + chunks.len() <= window.max(20));
                worker.queue.push_back((batch, chunks));
            }
            Action::Recall { batches } => {
                assert!(mode == Mode::Held && !batches.is_empty());
                let behind = |worker: &Worker, batch| worker.queue.iter().skip(1).any(|(it, _)| *it == batch);
                for batch in batches {
                    assert!(workers.iter().any(|worker| behind(worker, batch)), "it may have begun");
                    assert!(recalled.insert(batch), "recalled twice");
                }
            }
            Action::Collect { vm } => {
                let worker = &mut workers[vm.0];
                assert!(mode == Mode::Held && !worker.gone && !worker.collecting && worker.queue.is_empty());
                worker.collecting = true;
            }
            Action::Release { vm } => {
                let worker = &mut workers[vm.0];
                assert!(worker.queue.is_empty() && worker.folded.is_empty() && !worker.gone);
                worker.gone = true;
            }
            Action::Wait => {
                let alive: Vec<usize> = (0..workers.len()).filter(|&i| !workers[i].gone).collect();
                let busy = |worker: &Worker| {
                    worker.collecting || !worker.queue.is_empty() || !worker.stale.is_empty()
                };
                let busy: Vec<usize> = alive.iter().copied().filter(|&i| busy(&workers[i])).collect();
                assert!(!busy.is_empty(), "waits although nobody works");
                for &index in &alive {
                    assert_eq!(scheduler.owes(VmIndex(index)), !workers[index].stale.is_empty());
                }
                let chance = chances.next().cloned().unwrap_or(Chance::Progress(0));
                match chance {
                    Chance::Progress(n) | Chance::Fail(n) => {
                        let index = busy[n % busy.len()];
                        let worker = &mut workers[index];
                        if let Some(batch) = worker.stale.pop() {
                            assert!(!scheduler.handle_not_begun(batch));
                            assert!(scheduler.handle_finished(batch).is_empty());
                        } else if let Some((batch, chunks)) = worker.queue.pop_front() {
                            // Whether the VM had begun it before it was recalled.
                            let not_begun = recalled.contains(&batch) && n % 2 == 0;
                            if !recalled.contains(&batch) || not_begun {
                                assert_eq!(scheduler.handle_not_begun(batch), not_begun);
                            }
                            if not_begun {
                                continue;
                            }
                            let used = scheduler.handle_finished(batch);
                            over += 1;
                            match mode {
                                Mode::Direct => {
                                    for chunk in used {
                                        assert!(chunks.contains(&chunk));
                                        *settled.get_mut(&chunk).unwrap() += 1;
                                        if matches!(chance, Chance::Fail(_)) {
                                            settled.insert(scheduler.handle_again(), 0);
                                        }
                                    }
                                }
                                Mode::Held => {
                                    assert_eq!(used, chunks);
                                    worker.folded.extend(&chunks);
                                    if matches!(chance, Chance::Fail(_)) {
                                        chunks
                                            .into_iter()
                                            .for_each(|chunk| scheduler.handle_suspicious(chunk));
                                        worker.spoil(scheduler.handle_spoiled(VmIndex(index)));
                                    }
                                }
                            }
                        } else {
                            worker.collecting = false;
                            let chunks = scheduler.handle_collected(VmIndex(index)).unwrap();
                            assert_eq!(chunks, std::mem::take(&mut worker.folded));
                            chunks.iter().for_each(|chunk| *settled.get_mut(chunk).unwrap() += 1);
                        }
                    }
                    Chance::Die(n) => {
                        let index = alive[n % alive.len()];
                        let worker = &mut workers[index];
                        worker.gone = true;
                        late.extend(worker.queue.drain(..).map(|(batch, _)| batch));
                        late.append(&mut worker.stale);
                        let lost = scheduler.handle_down(VmIndex(index));
                        assert_eq!(lost, std::mem::take(&mut worker.folded));
                    }
                    Chance::Join => {
                        workers.push(Worker::default());
                        scheduler.handle_joined();
                    }
                    Chance::Leave(n) => scheduler.handle_leaving(VmIndex(alive[n % alive.len()])),
                    Chance::Slow(n) => scheduler.handle_slow(VmIndex(alive[n % alive.len()])),
                    Chance::Overdue(n) => {
                        let index = alive[n % alive.len()];
                        let worker = &mut workers[index];
                        let first =
                            worker.queue.front().map(|(_, chunks)| chunks.clone()).unwrap_or_default();
                        worker.stale.extend(worker.queue.drain(..).map(|(batch, _)| batch));
                        for chunk in scheduler.handle_overdue(VmIndex(index)) {
                            assert!(first.contains(&chunk));
                            *settled.get_mut(&chunk).unwrap() += 1;
                        }
                        if mode == Mode::Held {
                            worker.spoil(scheduler.handle_spoiled(VmIndex(index)));
                        }
                    }
                    Chance::Late => {
                        if let Some(batch) = late.pop() {
                            assert!(scheduler.handle_finished(batch).is_empty());
                        } else if over > 0 {
                            assert!(scheduler.handle_finished(BatchId(u64::MAX)).is_empty());
                        }
                    }
                    Chance::Window(n) => {
                        window = n.max(PREFETCH);
                        scheduler.set_window(n);
                    }
                }
            }
            end => {
                assert!(pulled == chunks || end != Action::Done);
                return (settled, end);
            }
        }
    }
    panic!("does not end");
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Direct), Just(Mode::Held)]
}

proptest! {
    #[test]
    fn every_chunk_is_settled_once_or_the_defeat_is_named(
        mode in mode(),
        chunks in 0u64..60,
        vms in 1usize..6,
        chances in prop::collection::vec(chance(3, 1), 0..200),
    ) {
        let (settled, end) = drive(mode, chunks, vms, &chances);
        prop_assert!(settled.values().all(|&times| times <= 1), "{:?}", settled);
        match end {
            Action::Done => prop_assert!(settled.values().all(|&times| times == 1), "{:?}", settled),
            // Some may have left instead.
            Action::GiveUp(Defeat::NoVmLeft { .. }) => {}
            Action::GiveUp(Defeat::Deadly { chunk, deaths }) => {
                prop_assert_eq!(settled[&chunk], 0);
                prop_assert_eq!(deaths.len(), ATTEMPTS);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn without_losses_it_is_always_done(
        mode in mode(),
        chunks in 0u64..60,
        vms in 1usize..6,
        chances in prop::collection::vec(chance(0, 0), 0..200),
    ) {
        let (settled, end) = drive(mode, chunks, vms, &chances);
        prop_assert_eq!(end, Action::Done);
        prop_assert!(settled.values().all(|&times| times == 1));
    }
}

/// Pulls and issues until the scheduler waits; returns what was issued, by VM.
fn fill(scheduler: &mut Scheduler, mut left: u64) -> Vec<(VmIndex, BatchId, Vec<ChunkId>)> {
    let mut issued = Vec::new();
    loop {
        match scheduler.poll() {
            Action::Pull if left > 0 => {
                left -= 1;
                scheduler.handle_pulled();
            }
            Action::Pull => scheduler.handle_exhausted(),
            Action::Issue { batch, chunks, vm } => issued.push((vm, batch, chunks)),
            Action::Wait => return issued,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn only_the_chunk_that_was_worked_on_is_suspected() {
    let mut scheduler = Scheduler::new(Mode::Direct);
    let mut vm = scheduler.handle_joined();
    assert_eq!(fill(&mut scheduler, 2).len(), PREFETCH);
    for _ in 1..ATTEMPTS {
        scheduler.handle_down(vm);
        vm = scheduler.handle_joined();
        let issued = fill(&mut scheduler, 0);
        assert_eq!(issued.iter().map(|(_, _, chunks)| chunks[0].0).collect::<Vec<_>>(), [0, 1]);
    }
    scheduler.handle_down(vm);
    let Action::GiveUp(Defeat::Deadly { chunk, .. }) = scheduler.poll() else { panic!("goes on") };
    assert_eq!(chunk, ChunkId(0));
    assert!(scheduler.open[&ChunkId(1)].deaths.is_empty());
}

#[test]
fn a_chunk_that_kills_three_vms_is_given_up() {
    let mut scheduler = Scheduler::new(Mode::Direct);
    let vms: Vec<VmIndex> = (0..4).map(|_| scheduler.handle_joined()).collect();
    for &vm in &vms[..3] {
        assert_eq!(fill(&mut scheduler, u64::from(vm == vms[0]))[0].0, vm);
        scheduler.handle_down(vm);
    }
    let deaths = vms[..3].to_vec();
    assert_eq!(scheduler.poll(), Action::GiveUp(Defeat::Deadly { chunk: ChunkId(0), deaths }));
}

#[test]
fn of_a_batch_that_killed_its_vm_each_chunk_travels_alone() {
    let mut scheduler = Scheduler::new(Mode::Direct);
    scheduler.set_window(16);
    let first = scheduler.handle_joined();
    assert_eq!(fill(&mut scheduler, 8)[0].2.len(), 8);
    scheduler.handle_down(first);
    let mut died = 1;
    let end = loop {
        let vm = scheduler.handle_joined();
        let issued = loop {
            match scheduler.poll() {
                Action::Issue { batch, chunks, .. } if chunks != [ChunkId(5)] => {
                    assert_eq!(chunks.len(), 1);
                    assert_eq!(scheduler.handle_finished(batch), chunks);
                }
                Action::Pull => scheduler.handle_exhausted(),
                other => break other,
            }
        };
        assert!(matches!(issued, Action::Issue { .. }), "{issued:?}");
        scheduler.handle_down(vm);
        died += 1;
        if let Action::GiveUp(defeat @ Defeat::Deadly { .. }) = scheduler.poll() {
            break defeat;
        }
    };
    assert!(matches!(end, Defeat::Deadly { chunk: ChunkId(5), .. }));
    assert_eq!(died, ATTEMPTS + 1);
}

#[test]
fn a_vm_that_refuses_a_batch_does_not_make_it_suspect() {
    let mut scheduler = Scheduler::new(Mode::Direct);
    let vms: Vec<VmIndex> = (0..4).map(|_| scheduler.handle_joined()).collect();
    for &vm in &vms {
        let issued = fill(&mut scheduler, u64::from(vm == vms[0]));
        assert_eq!(issued[0].0, vm);
        scheduler.handle_refused(issued[0].1);
    }
    assert_eq!(scheduler.poll(), Action::GiveUp(Defeat::NoVmLeft { deaths: vms }));
}

#[test]
fn the_last_vm_may_die_when_all_is_done() {
    let mut scheduler = Scheduler::new(Mode::Direct);
    let vm = scheduler.handle_joined();
    assert_eq!(scheduler.poll(), Action::Pull);
    let chunk = scheduler.handle_pulled();
    let Action::Issue { batch, .. } = scheduler.poll() else { panic!("nothing issued") };
    assert_eq!(scheduler.handle_finished(batch), [chunk]);
    scheduler.handle_down(vm);
    assert_eq!(scheduler.poll(), Action::Pull);
    scheduler.handle_exhausted();
    assert_eq!(scheduler.poll(), Action::Done);
}

#[test]
fn a_straggler_is_copied_once_and_whoever_is_first_counts() {
    let mut scheduler = Scheduler::new(Mode::Direct);
    let [slow, fast] = [(); 2].map(|()| scheduler.handle_joined());
    let issued = fill(&mut scheduler, 2);
    let of = |vm| issued.iter().find(|(at, ..)| *at == vm).unwrap();
    scheduler.handle_finished(of(fast).1);
    assert_eq!(scheduler.poll(), Action::Wait);
    scheduler.handle_slow(slow);
    let copies = fill(&mut scheduler, 0);
    assert_eq!((copies.len(), &copies[0].2), (1, &of(slow).2));
    assert_eq!(scheduler.handle_finished(copies[0].1), of(slow).2);
    assert_eq!(scheduler.poll(), Action::Done);
    assert!(scheduler.handle_finished(of(slow).1).is_empty());
}

#[test]
fn a_vm_that_leaves_finishes_hands_over_and_is_released() {
    let mut scheduler = Scheduler::new(Mode::Held);
    let [leaver, other] = [(); 2].map(|()| scheduler.handle_joined());
    let issued = fill(&mut scheduler, 100);
    scheduler.handle_leaving(leaver);
    for (vm, batch, _) in &issued {
        if *vm == leaver {
            scheduler.handle_finished(*batch);
        }
    }
    assert_eq!(scheduler.poll(), Action::Collect { vm: leaver });
    assert_eq!(scheduler.handle_collected(leaver).map(|chunks| chunks.len()), Some(PREFETCH));
    assert_eq!(scheduler.poll(), Action::Release { vm: leaver });
    assert!(scheduler.is_gone(leaver) && !scheduler.is_gone(other));
    assert_eq!(scheduler.poll(), Action::Wait);
}

#[test]
fn a_vm_that_is_stuck_gets_nothing_before_it_has_answered() {
    let mut scheduler = Scheduler::new(Mode::Direct);
    let stuck = scheduler.handle_joined();
    let issued = fill(&mut scheduler, 3);
    assert_eq!(scheduler.handle_overdue(stuck), issued[0].2);
    assert_eq!(scheduler.poll(), Action::Wait);
    assert!(scheduler.handle_finished(issued[0].1).is_empty());
    assert_eq!(scheduler.poll(), Action::Wait);
    assert!(scheduler.handle_finished(issued[1].1).is_empty());
    let again = fill(&mut scheduler, 0);
    assert_eq!(again.iter().map(|(_, _, chunks)| chunks[0].0).collect::<Vec<_>>(), [1]);
}

#[test]
fn what_was_overdue_is_not_copied_again() {
    let mut scheduler = Scheduler::new(Mode::Direct);
    let [first, second] = [(); 2].map(|()| scheduler.handle_joined());
    let issued = fill(&mut scheduler, 1);
    assert_eq!(issued[0].0, first);
    scheduler.handle_slow(first);
    let copies = fill(&mut scheduler, 0);
    assert_eq!((copies[0].0, &copies[0].2), (second, &issued[0].2));
    // The copy has time left, and the VM that had the chunk first is free for another one.
    assert!(scheduler.handle_overdue(first).is_empty());
    assert!(scheduler.handle_finished(issued[0].1).is_empty());
    scheduler.handle_slow(second);
    assert_eq!(scheduler.poll(), Action::Wait);
    assert_eq!(scheduler.handle_overdue(second), issued[0].2);
}

#[test]
fn what_was_folded_into_something_spoiled_is_folded_again() {
    let mut scheduler = Scheduler::new(Mode::Held);
    let vm = scheduler.handle_joined();
    let issued = fill(&mut scheduler, 3);
    let folded = scheduler.handle_finished(issued[0].1);
    assert_eq!(scheduler.handle_spoiled(vm), folded);
    assert_eq!(scheduler.poll(), Action::Wait, "it has not answered everything");
    assert!(scheduler.handle_finished(issued[1].1).is_empty());
    let again: Vec<u64> = fill(&mut scheduler, 0).iter().map(|(_, _, chunks)| chunks[0].0).collect();
    assert_eq!(again.len(), PREFETCH);
    assert_eq!(scheduler.open.len(), PREFETCH, "the other one has not been pulled");
}

#[test]
fn what_a_slow_vm_has_not_begun_is_folded_by_an_idle_one() {
    let mut scheduler = Scheduler::new(Mode::Held);
    let [slow, idle] = [(); 2].map(|()| scheduler.handle_joined());
    let issued = fill(&mut scheduler, 4);
    let (of_slow, of_idle): (Vec<_>, Vec<_>) = issued.into_iter().partition(|(vm, ..)| *vm == slow);
    for (_, batch, _) in of_idle {
        scheduler.handle_finished(batch);
    }
    scheduler.handle_exhausted();
    assert_eq!(scheduler.poll(), Action::Collect { vm: idle });
    scheduler.handle_collected(idle);
    assert_eq!(scheduler.poll(), Action::Wait);
    scheduler.handle_slow(slow);
    let [(_, first, _), (_, second, chunks)] = &of_slow[..] else { panic!("{of_slow:?}") };
    assert_eq!(scheduler.poll(), Action::Recall { batches: vec![*second] });
    assert_eq!(scheduler.poll(), Action::Wait, "it may have begun");
    scheduler.handle_finished(*first);
    assert!(scheduler.handle_not_begun(*second));
    // Not the slow VM, though it is free as well.
    assert!(
        matches!(scheduler.poll(), Action::Issue { vm, chunks: again, .. } if vm == idle && again == *chunks)
    );
}

#[test]
fn a_vm_that_was_slow_and_has_nothing_left_to_do_is_free_again() {
    let mut scheduler = Scheduler::new(Mode::Held);
    let [slow, other] = [(); 2].map(|()| scheduler.handle_joined());
    let issued = fill(&mut scheduler, 4);
    let (of_slow, of_other): (Vec<_>, Vec<_>) = issued.into_iter().partition(|(vm, ..)| *vm == slow);
    for (_, batch, _) in of_other {
        scheduler.handle_finished(batch);
    }
    scheduler.handle_exhausted();
    assert_eq!(scheduler.poll(), Action::Collect { vm: other });
    scheduler.handle_collected(other);
    scheduler.handle_slow(slow);
    let [(_, first, _), (_, second, chunks)] = &of_slow[..] else { panic!("{of_slow:?}") };
    assert_eq!(scheduler.poll(), Action::Recall { batches: vec![*second] });
    scheduler.handle_finished(*first);
    scheduler.handle_slow(slow);
    assert!(scheduler.handle_not_begun(*second));
    scheduler.handle_down(other);
    assert!(
        matches!(scheduler.poll(), Action::Issue { vm, chunks: again, .. } if vm == slow && again == *chunks)
    );
}
