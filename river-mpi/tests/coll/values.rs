//! Operations on values, blocking and started.

use river_core::testing::for_each_topology;
use river_mpi::testing::{try_world, world};
use river_mpi::{Communicator, ErrorClass, ErrorHandler, run_on, wait_all};

use super::{Result, same};

/// A rank's value: of a different length on each rank.
fn value(rank: usize) -> (String, Vec<u32>) {
    (format!("rank {rank}"), (0..(rank * 3000) as u32).collect())
}

fn everything(world: &Communicator) -> Result {
    let (me, p, root) = (world.rank(), world.size(), world.size() / 2);
    let values: Vec<_> = (0..p).map(value).collect();
    let given = if me == root { &values[..] } else { &[] };
    let for_each_rank: Vec<String> = (0..p).map(|to| format!("{me} to {to}")).collect();
    let from_each_rank: Vec<String> = (0..p).map(|from| format!("{from} to {me}")).collect();

    let mut told = if me == root { value(7) } else { value(0) };
    world.bcast_value(&mut told, root)?;
    same(world, &[told], &[value(7)], "bcast_value");
    let gathered = world.gather_values(&value(me), root)?;
    same(world, &[gathered], &[(me == root).then(|| values.clone())], "gather_values");
    let mine = world.scatter_values(given, root)?;
    same(world, &[mine], &[value(me)], "scatter_values");
    same(world, &world.allgather_values(&value(me))?, &values, "allgather_values");
    same(world, &world.alltoall_values(&for_each_rank)?, &from_each_rank, "alltoall_values");
    let joined = world.allreduce_value(format!("{me},"), |left, right| left + &right)?;
    let expected: String = (0..p).map(|rank| format!("{rank},")).collect();
    same(world, &[joined], std::slice::from_ref(&expected), "allreduce_value");

    // All at once, completed in another order.
    let (mut first, mut second) = (if me == root { value(5) } else { value(0) }, value(me));
    let bcast = world.ibcast_value(&mut first, root)?;
    let gather = world.igather_values(&value(me), root)?;
    let scatter = world.iscatter_values(given, root)?;
    let mut allgather = world.iallgather_values(&value(me))?;
    let alltoall = world.ialltoall_values(&for_each_rank)?;
    let allreduce = world.iallreduce_value(&format!("{me},"), |left, right| left + &right)?;
    let last = world.ibcast_value(&mut second, 0)?;
    same(world, &[allreduce.wait()?], &[expected], "iallreduce_value");
    same(world, &alltoall.wait()?, &from_each_rank, "ialltoall_values");
    let all = loop {
        if let Some(all) = allgather.test()? {
            break all;
        }
    };
    same(world, &all, &values, "iallgather_values");
    assert!(allgather.test()?.is_none(), "it was handed out");
    same(world, &[scatter.wait()?], &[value(me)], "iscatter_values");
    same(world, &[gather.wait()?], &[(me == root).then(|| values.clone())], "igather_values");
    wait_all(&mut [bcast, last])?;
    same(world, &[first, second], &[value(5), value(0)], "ibcast_value");
    Ok(())
}

#[test]
fn values_on_all_topologies() {
    for_each_topology(|name, make_vms| {
        let ran = river_core::try_run(|vr| Ok(run_on(vr, &make_vms(vr, 4)?, everything)?));
        assert_eq!(ran.expect(name), [(); 4]);
    });
}

#[test]
fn values_on_one_to_nine_ranks() {
    for ranks in 1..=9 {
        world(ranks, everything);
    }
}

#[test]
fn a_value_of_another_type_is_an_error() {
    let classes = try_world(2, |world| {
        world.set_error_handler(ErrorHandler::Return);
        if world.rank() == 0 {
            world.bcast_value(&mut 300_u32, 0)?;
            return Ok(None);
        }
        Ok(Some(world.bcast_value(&mut String::new(), 0).expect_err("300 is no text").class()))
    });
    assert_eq!(classes.expect("both end"), [None, Some(ErrorClass::Type)]);
}
