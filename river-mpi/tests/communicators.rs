//! Groups, communicators, intercommunicators, attributes and topologies, as a program sees them.

use std::cell::Cell;
use std::rc::Rc;

use river_core::testing::for_each_topology;
use river_core::try_run;
use river_mpi::testing::world;
use river_mpi::{
    ANY_TAG, Communicator, Comparison, ErrorClass, ErrorHandler, Keyval, MpiError, PROC_NULL, Peer, run_on,
};

/// Each rank sends its rank to every other one and checks the messages that it receives: the communicator works, and is
/// separate from others.
fn everybody_talks(comm: &Communicator<'_>) -> river_mpi::Result {
    let peers = if comm.is_inter() { comm.remote_size() } else { comm.size() };
    for peer in 0..peers {
        comm.send(&[comm.rank()], peer, 0)?;
    }
    for peer in 0..peers {
        assert_eq!(comm.recv::<usize>(peer, 0)?.0, [peer]);
    }
    Ok(())
}

#[test]
fn a_duplicate_has_a_context_of_its_own() {
    world(3, |world| {
        let dup = world.dup()?;
        assert_eq!(world.compare(&dup), Comparison::Congruent);
        assert_eq!(world.compare(&world.clone()), Comparison::Identical);
        let (other, before) = ((world.rank() + 1) % 3, (world.rank() + 2) % 3);
        world.send(&[1], other, 0)?;
        dup.send(&[2], other, 0)?;
        assert_eq!(dup.recv::<i32>(before, ANY_TAG)?.0, [2]);
        assert_eq!(world.recv::<i32>(before, ANY_TAG)?.0, [1]);
        everybody_talks(&dup)?;
        Ok(())
    });
}

/// MPI 1.3, section 7.1.
#[test]
fn ranks_know_where_they_run_and_which_tags_there_are() {
    for_each_topology(|name, make_vms| {
        let ran = try_run(|vr| {
            let vms = make_vms(vr, 3)?;
            let names = run_on(vr, &vms, |world| {
                let (next, before) = ((world.rank() + 1) % 3, (world.rank() + 2) % 3);
                world.send(&[world.rank()], next, i32::MAX)?;
                let (data, status) = world.recv::<usize>(before, ANY_TAG)?;
                assert_eq!((&data[..], status.tag()), (&[before][..], Some(i32::MAX)));
                Ok(world.processor_name().to_owned())
            })?;
            assert_eq!(names, vms.iter().map(|vm| vm.name.clone()).collect::<Vec<_>>());
            Ok(())
        });
        ran.expect(name);
    });
}

#[test]
fn splits_are_ordered_by_key_and_then_by_rank() {
    for p in 1..=9 {
        world(p, |world| {
            let rank = world.rank();
            // Every third rank is left out; the others are in reverse order.
            let color = (rank % 3 < 2).then_some(rank % 3);
            let part = world.split(color, -(rank as i64))?;
            assert_eq!(part.is_some(), color.is_some());
            let Some(part) = part else { return Ok(()) };
            let members: Vec<usize> = (0..p).rev().filter(|other| other % 3 == rank % 3).collect();
            assert_eq!(part.size(), members.len());
            assert_eq!(members[part.rank()], rank);
            everybody_talks(&part)?;
            // Communicators of some of the ranks can be split separately, any number of times.
            let again = part.split(Some(part.rank() / 2), 0)?.expect("it has a color");
            everybody_talks(&again)?;
            everybody_talks(&again.dup()?)?;
            Ok(())
        });
    }
}

#[test]
fn a_communicator_of_a_group() {
    world(5, |world| {
        let group = world.group().include(&[4, 0, 2])?;
        let comm = world.create(&group)?;
        assert_eq!(comm.is_some(), world.rank() % 2 == 0);
        if let Some(comm) = comm {
            assert_eq!(comm.rank(), [1, 9, 2, 9, 0][world.rank()]);
            assert_eq!(comm.group().compare(&world.group()), Comparison::Unequal);
            assert_eq!(comm.group().compare(&world.group().include(&[0, 2, 4])?), Comparison::Similar);
            everybody_talks(&comm)?;
        }
        let empty = world.create(&river_mpi::Group::empty())?;
        assert!(empty.is_none());
        Ok(())
    });
}

#[test]
fn two_groups_talk_to_each_other_and_become_one() {
    for p in [2, 3, 5, 8] {
        world(p, |world| {
            let low = world.rank() < p.div_ceil(3);
            let half = world.split(Some(usize::from(low)), 0)?.expect("it has a color");
            let inter = half.create_intercomm(0, world, if low { p.div_ceil(3) } else { 0 }, 7)?;
            assert!(inter.is_inter());
            assert_eq!(inter.size() + inter.remote_size(), p);
            everybody_talks(&inter)?;
            everybody_talks(&inter.dup()?)?;
            // The group that passes `high` comes last.
            let reversed = inter.merge(low)?;
            let first = p - p.div_ceil(3);
            let expected = if low { first + world.rank() } else { world.rank() - p.div_ceil(3) };
            assert_eq!(reversed.rank(), expected);
            everybody_talks(&reversed)?;
            // If both pass the same value, there is still a defined order.
            assert_eq!(inter.merge(true)?.rank(), world.rank());
            // The intercommunicator is unchanged.
            inter.barrier()?;
            let dup = inter.dup()?;
            let theirs = inter.allgather_values(&world.rank())?;
            assert_eq!(dup.allgather_values(&world.rank())?, theirs);
            inter.set_error_handler(ErrorHandler::Return);
            assert_eq!(inter.split(Some(0), 0).unwrap_err().class(), ErrorClass::Comm);
            assert_eq!(world.compare(&inter), Comparison::Unequal);
            assert_eq!(inter.compare(&inter.dup()?), Comparison::Congruent);
            Ok(())
        });
    }
}

#[test]
fn attributes_are_copied_and_deleted_as_their_keys_say() {
    world(1, |world| {
        let deleted = Rc::new(Cell::new(0));
        let count = deleted.clone();
        let counted = Keyval::new().on_copy(|n: &u32| Ok(Some(n * 2))).on_delete(move |_| {
            count.set(count.get() + 1);
            Ok(())
        });
        let not_copied = Keyval::<String>::new();
        world.set_attribute(&counted, 5)?;
        world.set_attribute(&counted, 6)?;
        assert_eq!(deleted.get(), 1);
        world.set_attribute(&not_copied, "here".to_owned())?;
        let dup = world.dup()?;
        assert_eq!(dup.attribute(&counted).as_deref(), Some(&12));
        assert_eq!(dup.attribute(&not_copied), None);
        assert_eq!(world.attribute(&not_copied).map(|text| text.len()), Some(4));
        drop(dup);
        assert_eq!(deleted.get(), 2);
        assert!(world.delete_attribute(&counted)? && !world.delete_attribute(&counted)?);
        assert_eq!((deleted.get(), world.attribute(&counted)), (3, None));
        Ok(())
    });
}

/// A failed call changes nothing, and every attribute is deleted once.
#[test]
fn functions_of_attributes_may_fail() {
    world(2, |world| {
        world.set_error_handler(ErrorHandler::Return);
        let refuses = Rc::new(Cell::new(true));
        let deleted = Rc::new(Cell::new(0));
        let (is_refused, count) = (refuses.clone(), deleted.clone());
        let refuse = |what: &str| MpiError::Other(format!("no {what}"));
        let first = Keyval::new().on_copy(|n: &u32| Ok(Some(*n))).on_delete(move |_| {
            count.set(count.get() + 1);
            Ok(())
        });
        let second = Keyval::new()
            .on_copy(move |_: &u32| Err(refuse("copy")))
            .on_delete(move |_| if is_refused.get() { Err(refuse("deletion")) } else { Ok(()) });
        world.set_attribute(&first, 1)?;
        world.set_attribute(&second, 2)?;
        assert_eq!(world.dup().unwrap_err(), refuse("copy"));
        assert_eq!(deleted.get(), 1, "what was copied before is deleted");
        assert_eq!(world.set_attribute(&second, 3), Err(refuse("deletion")));
        assert_eq!(world.delete_attribute(&second), Err(refuse("deletion")));
        assert_eq!(world.attribute(&second).as_deref(), Some(&2));
        refuses.set(false);
        assert_eq!(world.delete_attribute(&second), Ok(true));
        everybody_talks(&world.dup()?)?;
        Ok(())
    });
}

#[test]
fn grids_know_their_neighbours() {
    world(7, |world| {
        let grid = world.cart_create(&[2, 3], &[true, false], true)?;
        assert_eq!(grid.is_none(), world.rank() == 6);
        let Some(grid) = grid else { return Ok(()) };
        let coords = grid.coords(grid.rank())?;
        let place: Vec<isize> = coords.iter().map(|&c| c as isize).collect();
        assert_eq!(grid.rank_at(&place)?, grid.rank());
        assert_eq!(grid.rank_at(&[place[0] - 2, place[1]])?, grid.rank());
        let (source, dest) = grid.shift(1, 1)?;
        assert_eq!(source == PROC_NULL, coords[1] == 0);
        assert_eq!(dest == PROC_NULL, coords[1] == 2);
        let other_row = Peer::Rank((grid.rank() + 3) % 6);
        assert_eq!(grid.shift(0, 1)?, (other_row, other_row));
        // A halo exchange along the non-periodic dimension.
        let mut left = [usize::MAX];
        grid.sendrecv(&[grid.rank()], dest, 0, &mut left, source, 0)?;
        assert_eq!(left[0], if coords[1] == 0 { usize::MAX } else { grid.rank() - 1 });
        let row = grid.sub(&[false, true])?;
        assert_eq!(
            (row.size(), row.rank(), row.dims(), row.periods()),
            (3, coords[1], &[3][..], &[false][..])
        );
        everybody_talks(&row)?;
        let point = grid.sub(&[false, false])?;
        assert_eq!((point.size(), point.dims().len()), (1, 0));
        grid.set_error_handler(ErrorHandler::Return);
        assert_eq!(grid.rank_at(&[0, 3]).unwrap_err().class(), ErrorClass::Arg);
        assert_eq!(grid.shift(2, 1).unwrap_err().class(), ErrorClass::Dims);
        Ok(())
    });
}

/// Reordering follows the processes that the ranks run in; `cart_map` and `graph_map` predict it.
#[test]
fn maps_say_what_rank_one_gets_in_a_topology() {
    for_each_topology(|_, make_vms| {
        let ran = try_run(|vr| {
            let vms = make_vms(vr, 2)?;
            let ranks = [1, 0, 1, 0, 0].map(|vm: usize| vms[vm.min(vms.len() - 1)].clone());
            Ok(run_on(vr, &ranks, |world| {
                let map = world.cart_map(&[2, 2], &[true, true])?;
                let grid = world.cart_create(&[2, 2], &[true, true], true)?;
                assert_eq!(map, grid.map(|grid| grid.rank()));
                let pairs = [vec![1], vec![0], vec![]];
                let map = world.graph_map(&pairs)?;
                let graph = world.graph_create(&pairs, true)?;
                assert_eq!(map, graph.map(|graph| graph.rank()));
                Ok(map)
            })?)
        });
        let together = ran.unwrap();
        assert!([[0, 1, 2], [0, 2, 1]].iter().any(|order| together[..3] == order.map(Some)), "{together:?}");
    });
}

#[test]
fn graphs_know_their_neighbours() {
    world(4, |world| {
        let ring: Vec<Vec<usize>> = (0..3).map(|i| vec![(i + 2) % 3, (i + 1) % 3]).collect();
        let graph = world.graph_create(&ring, false)?;
        assert_eq!(graph.is_none(), world.rank() == 3);
        if let Some(graph) = graph {
            assert_eq!((graph.size(), graph.edges()), (3, 6));
            assert_eq!(graph.neighbors(1)?, [0, 2]);
            let dup = graph.dup()?;
            everybody_talks(&dup)?;
        }
        world.set_error_handler(ErrorHandler::Return);
        assert_eq!(world.graph_create(&[vec![1]], false).unwrap_err().class(), ErrorClass::Topology);
        assert_eq!(world.cart_create(&[5], &[true], false).unwrap_err().class(), ErrorClass::Dims);
        Ok(())
    });
}
