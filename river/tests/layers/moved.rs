//! Programs of each layer whose VRs, all of them, are moved between processes while they work: farmers and workers, servers
//! with live handles and their clients, ranks in the middle of a collective and their supervisor.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rand_core::Rng;
use river::core::{self, MigrateError, VmInfo, VmState};
use river::prelude::*;
use serde::{Deserialize, Serialize};

use super::programs::program;

/// How many VRs must have moved in the middle of what they do.
const MOVES: usize = 30;
/// Longest time between two moves. After a move, a VR without safepoints replays all of its inputs: if it is moved again
/// before it is through, it makes no progress.
const PACE: Duration = Duration::from_millis(60);
const LIMIT: Duration = Duration::from_secs(120);

/// Runs a program of a layer: the initiator itself stays where it is.
#[derive(Serialize, Deserialize)]
struct Runner {
    name: String,
    vms: Vec<VmInfo>,
}

impl VirtualResource for Runner {
    fn main(&mut self, vr: &Vr) -> river::Result {
        let result = program(&self.name)(vr, &self.vms)?;
        vr.send(vr.parent().expect("a parent"), msg! { result: result })?;
        Ok(())
    }
}

/// Repeatedly moves a random VR of the program that uses the VMs to a random one of them.
fn move_them(vms: &[VmInfo], moved: &AtomicUsize, over: &AtomicBool) -> Result<(), String> {
    let mut random = rand_pcg::Pcg64Mcg::new(u128::from(std::process::id()) | 1);
    let mut any = |count: usize| (random.next_u64() % count as u64) as usize;
    while !over.load(Ordering::Relaxed) {
        std::thread::sleep(PACE.mul_f64(any(1000) as f64 / 1000.0));
        // Nothing can be asked before something runs on the VM.
        let Ok(status) = core::program_status(&vms[any(vms.len())]) else { continue };
        // The first process is the initiator's.
        let reports = status.processes.into_iter().skip(1).filter_map(|process| process.report);
        let vrs: Vec<_> = reports.flat_map(|report| report.vrs).collect();
        if vrs.is_empty() {
            continue;
        }
        let (vr, to) = (&vrs[any(vrs.len())], &vms[any(vms.len())]);
        match core::migrate(&vms[0], &vr.id.to_string(), to) {
            Ok(migrated) => drop(moved.fetch_add(migrated.vrs, Ordering::Relaxed)),
            // The VR, or the program, has ended meanwhile.
            Err(MigrateError::Ended(_) | MigrateError::Unknown { .. } | MigrateError::Stopped) => {}
            Err(_) if over.load(Ordering::Relaxed) => {}
            Err(error) => return Err(format!("{} cannot be moved to {}: {error}", vr.name, to.name)),
        }
    }
    Ok(())
}

fn works_while_it_moves(name: &str) {
    let (moved, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let rounds = core::try_run_recoverable(|vr| {
        let vms = vr.start_local(3)?;
        let result = |vr: &Vr| -> river::Result<String> {
            let runner = vr.deploy(&vms[..1], |_| Runner { name: name.into(), vms: vms[..2].to_vec() })?[0];
            Ok(vr.recv(pat! { src: runner, result: ANY })?.get("result")?)
        };
        let expected = result(vr)?;
        let leased = VmState::Leased { program: vr.program(), name: String::new() };
        let known: Vec<VmInfo> =
            vms.iter().cloned().map(|vm| VmInfo { state: leased.clone(), ..vm }).collect();
        std::thread::scope(|scope| {
            let mover = scope.spawn(|| move_them(&known, &moved, &over));
            let start = Instant::now();
            let mut rounds = 0;
            let ended = loop {
                rounds += 1;
                match result(vr) {
                    Ok(result) if result != expected => break Err(format!("{result}, not {expected}")),
                    Ok(_) if moved.load(Ordering::Relaxed) >= MOVES || mover.is_finished() => break Ok(()),
                    Ok(_) if start.elapsed() > LIMIT => break Err(format!("only {moved:?} moves")),
                    Ok(_) => {}
                    Err(error) => break Err(error.to_string()),
                }
            };
            over.store(true, Ordering::Relaxed);
            mover.join().expect("the mover").map_err(river::VrError::msg)?;
            ended.map_err(river::VrError::msg)?;
            Ok(rounds)
        })
    });
    println!("{name}: {moved:?} moves in {} rounds", rounds.unwrap());
}

#[test]
fn a_farm_and_who_runs_it() {
    works_while_it_moves("farm");
}

#[test]
fn servers_with_live_handles_and_who_holds_them() {
    works_while_it_moves("objects");
}

#[test]
fn ranks_that_make_safepoints() {
    works_while_it_moves("safepoints");
}

#[test]
fn ranks_with_requests_in_the_middle_of_collectives() {
    works_while_it_moves("ranks");
}
