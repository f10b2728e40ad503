//! Random programs of sends and receives, checked against what MPI's matching rules say.

use proptest::prelude::*;
use river_core::testing::for_each_topology;
use river_core::try_run;
use river_mpi::testing::world;
use river_mpi::{ANY_SOURCE, ANY_TAG, Communicator, run_on};
use serde::{Deserialize, Serialize};

/// One message: from a rank to rank 0, with a tag, of a length, in a mode.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Send {
    from: usize,
    tag: i32,
    len: usize,
    mode: u8,
}

/// How rank 0 asks for its next message.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Wish {
    any_source: bool,
    any_tag: bool,
    posted: bool,
}

const RANKS: usize = 3;

fn send() -> impl Strategy<Value = Send> {
    let len = prop_oneof![4 => 0..20_usize, 1 => Just(5000_usize), 1 => Just(65_537_usize), 1 => Just(200_000_usize)];
    (1..RANKS, 0..3i32, len, 0..5u8).prop_map(|(from, tag, len, mode)| Send { from, tag, len, mode })
}

fn wish() -> impl Strategy<Value = Wish> {
    any::<(bool, bool, bool)>().prop_map(|(any_source, any_tag, posted)| Wish { any_source, any_tag, posted })
}

/// The content of the message with this number.
fn content(number: usize, len: usize) -> Vec<u8> {
    std::iter::once(number as u8).chain((0..len).map(|i| (i + number) as u8)).collect()
}

/// Each sender sends its messages in order, all at once. Rank 0 makes a receive for each message, such that each receive can
/// be satisfied whatever arrives first, and returns which message each receive got.
fn play(world: &Communicator<'_>, sends: &[Send], wishes: &[Wish]) -> river_mpi::Result<Vec<usize>> {
    let me = world.rank();
    if me != 0 {
        let mine = sends.iter().enumerate().filter(|(_, send)| send.from == me);
        let mine: Vec<_> = mine.map(|(number, send)| (send, content(number, send.len))).collect();
        let mut requests = Vec::new();
        for (send, data) in &mine {
            requests.push(match send.mode {
                0 => world.isend(data, 0, send.tag)?,
                1 => world.isend_vec(data.clone(), 0, send.tag)?,
                2 => world.issend(data, 0, send.tag)?,
                _ => world.isend_from(data, 0, send.tag)?,
            });
        }
        river_mpi::wait_all(&mut requests)?;
        return Ok(Vec::new());
    }
    let mut left: Vec<usize> = (0..sends.len()).collect();
    let mut got = Vec::new();
    for wish in wishes.iter().cycle().take(sends.len()) {
        // A receive that the first message left matches can be satisfied, by that message or by another.
        let Send { from, tag, .. } = sends[left[0]];
        let source = if wish.any_source { ANY_SOURCE } else { from.into() };
        let tag = if wish.any_tag { ANY_TAG } else { tag.into() };
        let (data, status) = if wish.posted {
            world.irecv::<u8>(source, tag)?.wait()?
        } else {
            world.recv::<u8>(source, tag)?
        };
        let number = usize::from(data[0]);
        assert_eq!(data, content(number, sends[number].len));
        assert_eq!((status.source(), status.tag()), (Some(sends[number].from), Some(sends[number].tag)));
        // Non-overtaking: of that sender, no earlier message that also matches is left.
        let fits = |other: &Send| {
            (wish.any_source || other.from == from)
                && (wish.any_tag || other.tag == sends[left[0]].tag)
                && other.from == sends[number].from
        };
        let first = left.iter().find(|&&other| fits(&sends[other]));
        assert_eq!(first, Some(&number));
        left.retain(|&other| other != number);
        got.push(number);
    }
    Ok(got)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn messages_are_matched_in_order(
        sends in prop::collection::vec(send(), 1..40),
        wishes in prop::collection::vec(wish(), 1..8),
    ) {
        let got = world(RANKS, |world| Ok(play(world, &sends, &wishes)?));
        let mut all = got[0].clone();
        all.sort_unstable();
        prop_assert_eq!(all, (0..sends.len()).collect::<Vec<_>>());
    }
}

#[test]
fn random_programs_on_every_topology() {
    for_each_topology(|_, make_vms| {
        try_run(|vr| {
            let vms = make_vms(vr, RANKS)?;
            run_on(vr, &vms, |world| {
                // All ranks generate the same programs: only a seed is passed to them.
                let mut runner = proptest::test_runner::TestRunner::deterministic();
                let program = (prop::collection::vec(send(), 1..40), prop::collection::vec(wish(), 1..8));
                for _ in 0..20 {
                    let tree = program.new_tree(&mut runner).map_err(|_| river_mpi::MpiError::Stopped)?;
                    let (sends, wishes) = proptest::strategy::ValueTree::current(&tree);
                    play(world, &sends, &wishes)?;
                    // The next program begins when this one has ended.
                    if world.rank() == 0 {
                        for rank in 1..RANKS {
                            world.send(&[0_u8; 0], rank, 9)?;
                        }
                    } else {
                        world.recv::<u8>(0, 9)?;
                    }
                }
                Ok(())
            })?;
            Ok(())
        })
        .unwrap();
    });
}
