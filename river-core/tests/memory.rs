//! Checkpoints in the memory of VMs.

use std::path::Path;
use std::time::Duration;

use river_core::{
    Channel, KeepIn, Launch, ProgramId, Result, Selector, StateError, Stored, VirtualResource, Vm, VmConfig,
    VmInfo, Vr, kept,
};
use serde::{Deserialize, Serialize};

/// Does nothing but exist.
#[derive(Serialize, Deserialize)]
struct Sleeper;

impl VirtualResource for Sleeper {
    fn main(&mut self, vr: &Vr) -> Result {
        vr.receive(Selector::on(Channel::named("nothing")))?;
        Ok(())
    }
}

/// Leases the VMs, and runs something there.
fn use_all(vr: &Vr, infos: &[VmInfo]) -> Result {
    let vms = vr.allocate(infos.to_vec(), infos.len())?;
    vr.deploy(&vms, |_| Sleeper)?;
    Ok(())
}

fn vms(config: &VmConfig, count: usize) -> (Vec<Vm>, Vec<VmInfo>) {
    let vms = Vm::start_many(&config.clone().hidden(), count).unwrap();
    let infos = vms.iter().map(Vm::info).collect();
    (vms, infos)
}

/// Takes two checkpoints; after each, copies what the VMs have into a directory, omitting each VM in turn. Returns whether it
/// was resumed.
fn body(vr: &Vr, infos: &[VmInfo], directory: &Path) -> Result<(ProgramId, bool)> {
    use_all(vr, infos)?;
    let state = vec![7_u8; 3 << 20];
    for number in 1..=2 {
        vr.safepoint(&state)?;
        let taken = vr.checkpoint_in_memory()?;
        if taken.resumed {
            return Ok((vr.program(), true));
        }
        assert_eq!(taken.number, number);
        assert!(taken.bytes > 3 << 20);
        for missing in 0..infos.len() {
            let others: Vec<VmInfo> = infos.iter().filter(|vm| vm.id != infos[missing].id).cloned().collect();
            assert_eq!(kept::fetch(vr.program(), &others, directory)?, number);
        }
    }
    Ok((vr.program(), false))
}

#[test]
fn what_one_vm_keeps_another_one_has_too_and_all_is_gone_with_the_program() {
    let (_vms, infos) = vms(&VmConfig::default(), 3);
    let directory = tempfile::tempdir().unwrap();
    let (program, resumed) =
        river_core::try_run_recoverable(|vr| body(vr, &infos, directory.path())).unwrap();
    assert!(!resumed);
    let error = kept::fetch(program, &infos, directory.path()).unwrap_err();
    assert!(error.to_string().contains("none of the 3 VMs"), "{error}");
    // The copy is an ordinary checkpoint.
    assert_eq!(Stored::latest(directory.path()).unwrap().number, 2);
}

/// Ends its process when it is told to.
#[derive(Serialize, Deserialize)]
struct Mortal;

impl VirtualResource for Mortal {
    fn main(&mut self, vr: &Vr) -> Result {
        vr.receive(Selector::on(Channel::named("end")))?;
        std::process::exit(3);
    }
}

#[test]
fn what_a_vm_keeps_is_gone_with_the_program_though_its_host_has_died_before() {
    let (_vms, infos) = vms(&VmConfig::default(), 3);
    let body = |vr: &Vr| {
        use_all(vr, &infos)?;
        let mortal = vr.deploy(&infos[..1], |_| Mortal)?[0];
        vr.checkpoint_in_memory()?;
        vr.send_bytes(mortal, Channel::named("end"), 0, Vec::new())?;
        vr.receive(Selector::on(Channel::named("nothing")).from(mortal)).unwrap_err();
        vr.checkpoint_in_memory()?;
        Ok(vr.program())
    };
    let program = river_core::try_run_recoverable(body).unwrap();
    let error = kept::fetch(program, &infos, tempfile::tempdir().unwrap().path()).unwrap_err();
    assert!(error.to_string().contains("none of the 3 VMs"), "{error}");
}

#[test]
fn a_program_goes_on_from_what_was_kept() {
    let (_vms, infos) = vms(&VmConfig::default(), 2);
    let directory = tempfile::tempdir().unwrap();
    let body = |vr: &Vr| {
        let resumed: Option<u32> = vr.resumed()?;
        if resumed.is_none() {
            use_all(vr, &infos)?;
        }
        vr.safepoint(&1_u32)?;
        let taken = vr.checkpoint_in_memory()?;
        if !taken.resumed {
            vr.effect(|| kept::fetch(vr.program(), &infos, directory.path()).map(drop))??;
        }
        Ok((resumed.is_some(), taken.resumed))
    };
    assert_eq!(river_core::try_run_recoverable(body).unwrap(), (false, false));
    assert_eq!(river_core::restore(directory.path(), body).unwrap(), (true, true));
}

#[test]
fn a_program_is_checkpointed_by_itself_as_it_was_launched() {
    let (_vms, infos) = vms(&VmConfig::default(), 2);
    let directory = tempfile::tempdir().unwrap();
    let body = |vr: &Vr| {
        use_all(vr, &infos)?;
        while vr.effect(|| kept::fetch(vr.program(), &infos, directory.path()).is_err())? {
            std::thread::yield_now();
        }
        Ok(())
    };
    Launch::new().checkpoint_every(Duration::from_millis(20), KeepIn::Memory).try_run(body).unwrap();
}

#[test]
fn what_cannot_be_kept_is_refused_in_a_sentence() {
    let (_vms, infos) = vms(&VmConfig::default().checkpoint_memory(1 << 20), 2);
    let refused = |vr: &Vr| -> Result<String> {
        match vr.checkpoint_in_memory() {
            Err(error @ StateError::Memory(_)) => Ok(error.to_string()),
            other => panic!("{other:?}"),
        }
    };
    let body = |vr: &Vr| {
        vr.start_local(2)?;
        let none = refused(vr)?;
        assert!(none.contains("at least two are needed") && none.contains("the program has 0"), "{none}");
        use_all(vr, &infos)?;
        vr.safepoint(&vec![7_u8; 1000])?;
        assert_eq!(vr.checkpoint_in_memory()?.number, 1);
        // The smaller one is still there, and its memory is not leaked.
        vr.safepoint(&vec![7_u8; 2 << 20])?;
        let full = refused(vr)?;
        assert!(full.contains("has no room in its memory") && full.contains("of 1048576 bytes"), "{full}");
        let directory = tempfile::tempdir()?;
        assert_eq!(kept::fetch(vr.program(), &infos, directory.path())?, 1);
        vr.safepoint(&vec![7_u8; 1 << 19])?;
        vr.checkpoint_in_memory()?;
        Ok(())
    };
    river_core::try_run_recoverable(body).unwrap();
}
