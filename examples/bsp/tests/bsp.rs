//! The guarantees of the bulk-synchronous model, across virtual machines.

use bsp::Bsp;
use river_core::testing::for_each_topology;
use river_core::{Channel, RecvError, Result, Selector, VmInfo, Vr};

fn everywhere(places: usize, body: impl Fn(&Vr, &[VmInfo]) -> Result) {
    for_each_topology(|name, make_vms| {
        river_core::try_run(|vr| body(vr, &make_vms(vr, places)?))
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    });
}

/// A ring: each process's value is passed all the way round.
fn ring(bsp: &mut Bsp<'_>, rounds: usize) -> Result<Vec<String>> {
    let mut seen = vec![format!("from {}", bsp.pid())];
    for round in 0..rounds {
        assert_eq!(bsp.superstep(), round as u64);
        bsp.put((bsp.pid() + 1) % bsp.nprocs(), "größe", &seen[round]);
        bsp.sync()?;
        seen.push(bsp.value("größe")?);
    }
    Ok(seen)
}

#[test]
fn what_is_put_is_there_in_the_next_superstep() {
    everywhere(3, |vr, vms| {
        let seen = bsp::spmd(vr, vms, ring, 3)?;
        assert_eq!(seen[0], ["from 0", "from 2", "from 1", "from 0"]);
        assert_eq!(seen[2], ["from 2", "from 1", "from 0", "from 2"]);
        Ok(())
    });
}

/// Every process puts into the `x` of every process, and reads it too.
fn puts_and_gets(bsp: &mut Bsp<'_>, _: ()) -> Result<(Vec<usize>, usize, bool)> {
    bsp.set("x", &(100 + bsp.pid()));
    let gets: Vec<_> = (0..bsp.nprocs()).map(|pid| bsp.get::<usize>(pid, "x")).collect();
    for pid in 0..bsp.nprocs() {
        bsp.put(pid, "x", &"overwritten");
        bsp.put(pid, "x", &bsp.pid());
    }
    assert_eq!(bsp.value::<usize>("x")?, 100 + bsp.pid());
    bsp.sync()?;
    let got = gets.iter().map(|get| bsp.take(get)).collect::<Result<Vec<_>>>()?;
    bsp.sync()?;
    Ok((got, bsp.value("x")?, bsp.take(&gets[0]).is_err()))
}

#[test]
fn gets_come_before_puts_and_the_highest_process_counts() {
    everywhere(3, |vr, vms| {
        for (got, x, late) in bsp::spmd(vr, vms, puts_and_gets, ())? {
            assert_eq!((got, x, late), (vec![100, 101, 102], 2, true));
        }
        Ok(())
    });
}

/// Heat flow on a rod that is cut into pieces, each with a copy of its neighbours' cells at its ends.
fn heat(bsp: &mut Bsp<'_>, (cells, steps): (usize, usize)) -> Result<Vec<f64>> {
    let (pid, p) = (bsp.pid(), bsp.nprocs());
    let range = cells * pid / p..cells * (pid + 1) / p;
    let mut rod: Vec<f64> = range.map(|cell| if cell == 0 { 100.0 } else { 0.0 }).collect();
    for _ in 0..steps {
        if pid > 0 {
            bsp.put(pid - 1, "right", &rod[0]);
        }
        if pid + 1 < p {
            bsp.put(pid + 1, "left", &rod[rod.len() - 1]);
        }
        bsp.sync()?;
        let left = if pid > 0 { bsp.value("left")? } else { rod[0] };
        let right = if pid + 1 < p { bsp.value("right")? } else { rod[rod.len() - 1] };
        rod = step(&rod, left, right);
    }
    Ok(rod)
}

fn step(rod: &[f64], left: f64, right: f64) -> Vec<f64> {
    let at = |i: isize| match usize::try_from(i) {
        Err(_) => left,
        Ok(i) => rod.get(i).copied().unwrap_or(right),
    };
    let cells = 0..rod.len() as isize;
    cells.map(|i| at(i) + 0.25 * (at(i - 1) - 2.0 * at(i) + at(i + 1))).collect()
}

#[test]
fn a_computation_gives_what_it_gives_alone() {
    everywhere(3, |vr, vms| {
        let (cells, steps) = (20, 50);
        let mut alone: Vec<f64> = (0..cells).map(|cell| if cell == 0 { 100.0 } else { 0.0 }).collect();
        for _ in 0..steps {
            alone = step(&alone, alone[0], alone[cells - 1]);
        }
        assert_eq!(bsp::spmd(vr, vms, heat, (cells, steps))?.concat(), alone);
        Ok(())
    });
}

#[test]
fn the_end_of_somebody_else_is_news_for_after_the_computation() {
    everywhere(2, |vr, vms| {
        let gone = vr.spawn("somebody else", |_| Ok(()))?;
        vr.watch(gone);
        let news = || vr.receive(Selector::on(Channel::named("never"))).unwrap_err();
        assert!(matches!(news(), RecvError::Down(down) if down.who == gone));
        // Whoever receives next is told once more.
        vr.watch(gone);
        assert_eq!(bsp::spmd(vr, vms, ring, 3)?.len(), 2);
        assert!(matches!(news(), RecvError::Down(down) if down.who == gone));
        Ok(())
    });
}

#[test]
fn who_dies_ends_the_computation_with_a_reason() {
    everywhere(3, |vr, vms| {
        let dies = |bsp: &mut Bsp<'_>, how: u8| -> Result<u8> {
            bsp.sync()?;
            match (bsp.pid(), how) {
                (1, 0) => panic!("process 1 has had enough"),
                (1, _) => return Ok(0),
                _ => bsp.sync()?,
            }
            Ok(1)
        };
        let error = bsp::spmd(vr, vms, dies, 0).unwrap_err().to_string();
        assert!(error.contains("process 1 has had enough"), "{error}");
        let error = bsp::spmd(vr, vms, dies, 1).unwrap_err().to_string();
        assert!(error.contains("has finished"), "{error}");
        let nothing = |bsp: &mut Bsp<'_>, _: ()| Ok(bsp.get::<u8>(0, "nothing")).and_then(|_| bsp.sync());
        let error = bsp::spmd(vr, vms, nothing, ()).unwrap_err().to_string();
        assert!(error.contains("no value `nothing`"), "{error}");
        Ok(())
    });
}
