//! What a rank is told when its call makes no sense, or differs from the calls of the others.

use river_mpi::coll::consecutive;
use river_mpi::testing::{surviving_world, try_world, world};
use river_mpi::{Communicator, Datatype, ErrorClass, ErrorHandler, MpiError, ROOT, Root, SUM};

/// The error that the first rank to fail gets.
fn error(ranks: usize, call: impl Fn(&Communicator) -> river_mpi::Result + Sync) -> String {
    try_world(ranks, |world| Ok(call(world)?)).unwrap_err().to_string()
}

#[test]
fn lengths_that_do_not_fit_are_errors() {
    let text = error(3, |world| world.allgather(&[1, 2], &mut [0; 5]));
    assert!(text.contains("the receive buffer: expected 6 elements, found 5"), "{text}");
    let text = error(3, |world| world.allreduce(&[1, 2], &mut [0; 3], &SUM));
    assert!(text.contains("expected 2 elements, found 3"), "{text}");
    let text = error(3, |world| world.alltoall(&[1; 4], &mut [0; 4]));
    assert!(text.contains("the send buffer: 4 elements are no equal blocks for 3 ranks"), "{text}");
    let text = error(2, |world| world.gatherv(&[1], &mut [0; 2], &[0..1, 0..1], 0));
    assert!(text.contains("blocks 0..1 and 0..1 overlap"), "{text}");
    let text = error(2, |world| world.scatterv(&[1], &[0..1, 1..3], &mut [0], 0));
    assert!(text.contains("1 elements, and no block 1..3"), "{text}");
    let text = error(2, |world| world.allgatherv(&[1], &mut [0], &consecutive(&[1])));
    assert!(text.contains("1 blocks for 2 ranks"), "{text}");
    let text = error(2, |world| world.bcast(&mut [1], 2));
    assert!(text.contains("root 2 is not in the world, which has ranks 0..2"), "{text}");
    let text = error(2, |world| world.bcast(&mut [1], ROOT));
    assert!(text.contains("one group only"), "{text}");
}

#[test]
fn ranks_that_call_with_different_counts_are_told() {
    let text = error(2, |world| world.bcast(&mut vec![1_u64; 2 + world.rank()], 0));
    assert!(
        text.contains("bcast on the world: rank 0 of the job sent 16 bytes where 24 were expected"),
        "{text}"
    );
    // A different call is also noticed by its length; between two groups, ranks are named as they are in the world.
    let text = error(2, |world| match world.rank() {
        0 => world.bcast(&mut [1_u8; 5], 0),
        _ => world.scatter(&[], &mut [0_u8; 3], 0),
    });
    assert!(text.contains("scatter on the world: rank 0 of the job sent 5 bytes where 3 were"), "{text}");
    let text = error(3, |world| {
        let odd = world.rank() % 2;
        let half = world.split(Some(odd), 0)?.ok_or(MpiError::Stopped)?;
        let inter = half.create_intercomm(0, world, 1 - odd, 3)?;
        inter.bcast(&mut vec![1_u64; 3 - odd], if odd == 1 { ROOT } else { Root::Rank(0) })
    });
    assert!(text.contains("rank 1 of the job sent 16 bytes where 24 were expected"), "{text}");
}

#[test]
fn whoever_needs_a_rank_that_is_gone_is_told() {
    let ended = surviving_world(4, |world| {
        world.set_error_handler(ErrorHandler::Return);
        if world.rank() == 2 {
            return Err(river_core::VrError::msg("rank 2 has had enough"));
        }
        let failed = world.barrier().and_then(|()| world.barrier());
        Ok(failed.map_err(|error| error.class()))
    });
    let ended = ended.expect("the others go on");
    for (rank, result) in ended.into_iter().enumerate().filter(|(rank, _)| *rank != 2) {
        let failed = result.expect("it handles its error");
        assert_eq!(failed, Err(ErrorClass::ProcFailed), "rank {rank}");
    }
}

/// An operation that one rank refuses counts there as it does on the others, so the next one matches everywhere.
#[test]
fn what_is_refused_on_some_ranks_counts_on_all() {
    world(3, |world| {
        world.set_error_handler(ErrorHandler::Return);
        let is_root = world.rank() == 0;
        let number = Datatype::of::<u64>();
        let (dense, on_itself) = (number.commit(), number.with_bounds(0, 0).commit());
        let mut buffer = [0_u64; 6];
        let in_step = |class: Option<ErrorClass>, result: river_mpi::Result| {
            assert_eq!(result.map_err(|error| error.class()).err(), class, "rank {}", world.rank());
            let mut sum = [1];
            world.allreduce_in_place(&mut sum, &SUM)?;
            assert_eq!(sum, [3]);
            world.ibarrier()?.wait()
        };
        let refused = Some(ErrorClass::Type);
        let (at_root, elsewhere) = if is_root { (refused, None) } else { (None, refused) };
        // Giving one element twice is no error, but receiving it twice is.
        in_step(elsewhere, world.bcast_as(&mut buffer, (2, &on_itself), 0))?;
        in_step(at_root, world.gather_as(&[1_u64], (1, &dense), &mut buffer, (2, &on_itself), 0))?;
        in_step(elsewhere, world.ibcast_as(&mut buffer, (2, &on_itself), 0).map(drop))?;
        let at_root = at_root.map(|_| ErrorClass::Count);
        in_step(at_root, world.gather(&[1_u64], &mut buffer, 0))?;
        in_step(at_root, world.igather(&[1_u64], &mut buffer, 0).map(drop))?;
        Ok(())
    });
}

#[test]
fn what_only_a_root_has_in_place_is_an_error_elsewhere() {
    let blocks = [0..1, 1..3];
    let text = error(2, |world| match world.rank() {
        0 => world.gatherv_in_place(&mut [1, 0, 0], &blocks, 0),
        _ => world.gatherv_in_place::<i32>(&mut [], &blocks, 0),
    });
    assert!(text.contains("where there is a root, it alone"), "{text}");
    let text = error(2, |world| match world.rank() {
        0 => world.scatterv_in_place(&[1, 2, 3], &blocks, 0),
        _ => world.scatterv_in_place::<i32>(&[], &blocks, 0),
    });
    assert!(text.contains("where there is a root, it alone"), "{text}");
}
