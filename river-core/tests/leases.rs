//! Programs that want the same virtual machines.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use river_core::{DeployError, Result, VirtualResource, Vm, VmConfig, VmInfo, Vr};
use serde::{Deserialize, Serialize};

fn vms(count: usize) -> (Vec<Vm>, Vec<VmInfo>) {
    let vms = Vm::start_many(&VmConfig::default().hidden(), count).unwrap();
    let infos = vms.iter().map(Vm::info).collect();
    (vms, infos)
}

#[test]
fn of_two_programs_that_want_three_of_four_one_gets_them() {
    let (_vms, infos) = vms(4);
    for _ in 0..10 {
        let (start, end, won) = (Barrier::new(2), Barrier::new(2), AtomicBool::new(false));
        let program = |backwards: bool| {
            let mut infos = infos.clone();
            if backwards {
                infos.reverse();
            }
            river_core::try_run(|vr| {
                start.wait();
                loop {
                    // Both may fail for a while, as each gets some: what counts is an attempt that began when one program had
                    // them all.
                    let is_late = won.load(SeqCst);
                    let got = vr.allocate_within(infos.clone(), 3, Duration::from_millis(500));
                    if got.is_ok() || is_late {
                        won.store(true, SeqCst);
                        end.wait();
                        return Ok(got);
                    }
                }
            })
            .unwrap()
        };
        let results = thread::scope(|scope| {
            let both = [scope.spawn(|| program(false)), scope.spawn(|| program(true))];
            both.map(|program| program.join().unwrap())
        });
        assert_eq!(results.iter().filter(|got| got.as_ref().is_ok_and(|got| got.len() == 3)).count(), 1);
        let error = results.iter().find_map(|got| got.as_ref().err()).unwrap();
        let DeployError::TooFew { wanted: 3, got, busy } = error else { panic!("{error}") };
        assert!(got.len() <= 1 && busy.len() >= 3, "{error}");
    }
}

#[test]
fn who_waits_gets_what_is_given_back() {
    let (_vms, infos) = vms(2);
    let held = Barrier::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            river_core::try_run(|vr| {
                let got = vr.allocate(infos.clone(), 2)?;
                held.wait();
                vr.release(&got)?;
                Ok(())
            })
            .unwrap();
        });
        held.wait();
        let patience = Duration::from_secs(20);
        let got = river_core::try_run(|vr| Ok(vr.allocate_within(infos.clone(), 2, patience)?.len()));
        assert_eq!(got.unwrap(), 2);
    });
}

#[test]
fn leases_end_with_their_program() {
    let (_vms, infos) = vms(2);
    for _ in 0..3 {
        let got = river_core::try_run(|vr| Ok(vr.allocate(infos.clone(), 2)?.len()));
        assert_eq!(got.unwrap(), 2);
    }
}

#[test]
fn a_program_learns_that_a_vm_was_stopped_before_anything_ran_there() {
    let (vms, infos) = vms(1);
    let error = river_core::try_run(|vr| {
        let got = vr.allocate(infos, 1)?;
        vms[0].stop();
        // The error may come from the VM's end being reported first, or from asking it.
        let first = vr.deploy(&got, |_| Idle).unwrap_err();
        let second = vr.deploy(&got, |_| Idle).unwrap_err();
        Ok([first, second].map(|error| error.to_string()))
    });
    for text in error.unwrap() {
        assert!(text.ends_with("the VM was stopped by its owner"), "{text}");
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Idle;

impl VirtualResource for Idle {
    fn main(&mut self, _: &Vr) -> Result {
        Ok(())
    }
}
