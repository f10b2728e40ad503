use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use super::*;
use crate::control::{self, Connection};
use crate::discovery::Reach;
use crate::key::ClusterKey;
use crate::program::scripted;
use crate::protocol::{FromVm, Hello, ToHost, Welcome};

fn program() -> Arc<Program> {
    Program::start(ClusterKey::from_bytes([7; 32]), Reach::default(), false, None, None, None).unwrap()
}

/// A VM that the program did not start itself.
async fn vm_for(program: &Program) -> Vm {
    let cache = Arc::new(ImageCache::of_own_image(own_image().await.unwrap().hash));
    Vm::start_with(VmConfig::default().hidden(), program.key.clone(), cache).unwrap()
}

/// Dialling the silent one takes longer than a lease lasts.
#[test]
fn leases_are_renewed_while_another_vm_does_not_answer() {
    let (ours, theirs) = (program(), program());
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    rt::block_on(async {
        let vm = vm_for(&ours).await;
        let mut other = VmInfo { id: VmId::fresh(), name: "silent".into(), ..vm.info() };
        other.address = silent.local_addr().unwrap();
        let got = ours.try_allocate(vec![vm.info(), other], Count::AtLeast(1)).await.unwrap();
        assert_eq!(got.len(), 1);
        let refused = theirs.try_allocate(vec![vm.info()], Count::Exactly(1)).await;
        assert!(matches!(&refused, Err(DeployError::TooFew { busy, .. }) if busy.len() == 1), "{refused:?}");
        ours.finish().unwrap();
    });
    theirs.finish().unwrap();
}

#[test]
fn of_two_requests_for_the_same_vm_one_gets_it() {
    let program = program();
    rt::block_on(async {
        let vm = vm_for(&program).await;
        let both = [(); 2].map(|()| {
            let (program, info) = (program.clone(), vm.info());
            rt::spawn(async move { program.try_allocate(vec![info], Count::Exactly(1)).await })
        });
        let mut got = Vec::new();
        for allocated in both {
            got.push(allocated.await.is_ok());
        }
        got.sort_unstable();
        assert_eq!(got, [false, true]);
    });
    program.finish().unwrap();
}

/// Like two VRs that migrate to it.
#[test]
fn two_requests_for_the_process_on_a_vm_get_the_same_one() {
    let program = program();
    rt::block_on(async {
        let vm = vm_for(&program).await;
        let both = [(); 2].map(|()| {
            let (program, info) = (program.clone(), vm.info());
            rt::spawn(async move { program.host_of_vm(info).await })
        });
        let mut hosts = Vec::new();
        for host in both {
            hosts.push(host.await.unwrap());
        }
        assert_eq!(hosts[0], hosts[1]);
        assert!(!program.state().directory.has_died(hosts[0]));
    });
    program.finish().unwrap();
}

/// The VM takes its time before it is free again.
#[test]
fn who_wants_a_vm_that_is_being_given_back_waits_for_that() {
    let program = program();
    let (events, happened) = rt::unbounded();
    let serve = move |_: Hello, stream: Connection| {
        let events = events.clone();
        async move {
            let (to, mut from) = control::split::<FromVm, ToVm>(stream);
            while let Ok(Some(message)) = from.next().await {
                match message {
                    ToVm::Acquire(_) => {
                        events.try_send("leased").unwrap();
                        to.try_send(FromVm::Acquired).unwrap();
                    }
                    ToVm::Release => {
                        rt::sleep(Duration::from_millis(200)).await;
                        break;
                    }
                    _ => {}
                }
            }
            events.try_send("free").unwrap();
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let id = VmId::fresh();
    let vm = rt::spawn(control::listen(listener.into(), program.key.clone(), Welcome::Vm(id), serve));
    rt::block_on(async {
        let info = VmInfo { id, name: "slow".into(), address, ..vm_for(&program).await.info() };
        let allocate = || program.try_allocate(vec![info.clone()], Count::Exactly(1));
        allocate().await.unwrap();
        let giving = program.clone();
        let given = rt::spawn(async move { drop(giving.release(&[id]).await) });
        while program.state().is_leased(id) {
            rt::sleep(Duration::from_millis(1)).await;
        }
        allocate().await.unwrap();
        given.await;
    });
    let happened: Vec<&str> = std::iter::from_fn(|| happened.try_recv().ok()).collect();
    assert_eq!(happened, ["leased", "free", "leased"]);
    program.finish().unwrap();
    rt::cancel(vm);
}

#[test]
fn vms_that_are_given_back_are_not_wanted_back_any_more() {
    let program = program();
    rt::block_on(async {
        let [one, two] = program.start_local(2).await.unwrap().try_into().unwrap();
        // However often that is noted.
        [&one, &two, &one].iter().for_each(|vm| program.node.note_leaving(vm.id));
        assert_eq!(program.node.leaving(), [one.id, two.id]);
        program.release(&[one.id]).await;
        assert_eq!(program.node.leaving(), [two.id]);
    });
    program.finish().unwrap();
}

#[test]
fn nobody_waits_for_vms_when_the_program_has_ended() {
    let (ours, theirs) = (program(), program());
    rt::block_on(async {
        let vm = vm_for(&ours).await;
        theirs.try_allocate(vec![vm.info()], Count::Exactly(1)).await.unwrap();
        ours.finish().unwrap();
        let refused = ours.allocate(vec![vm.info()], Count::Exactly(1), Duration::ZERO).await;
        assert!(matches!(refused, Err(DeployError::Stopped)), "{refused:?}");
    });
    theirs.finish().unwrap();
}

#[test]
fn a_host_that_starts_when_the_program_ends_is_told_so() {
    let (program, told) = (program(), Arc::new(AtomicBool::new(false)));
    let (ending, hears) = (program.clone(), told.clone());
    let begins = move || {
        let program = ending.clone();
        async move {
            while !program.state().ending {
                rt::sleep(Duration::from_millis(1)).await;
            }
        }
    };
    let info = scripted::vm(&program, "slow", false, begins, move |voice, message| {
        hears.fetch_or(matches!(message, ToHost::Stop), SeqCst);
        voice.obey(message);
    });
    rt::block_on(async {
        program.try_allocate(vec![info.clone()], Count::Exactly(1)).await.unwrap();
        let vm = program.state().leased(info.id).unwrap();
        let starter = program.clone();
        let started = rt::spawn(async move { starter.host_of_vm(info).await.map(drop) });
        while vm.host().is_none() {
            rt::sleep(Duration::from_millis(1)).await;
        }
        program.finish().unwrap();
        drop(started);
    });
    assert!(told.load(SeqCst));
}

#[test]
fn another_vm_at_the_address_of_one_is_not_leased_in_its_place() {
    let program = program();
    rt::block_on(async {
        let vm = vm_for(&program).await;
        let before = VmInfo { id: VmId::fresh(), ..vm.info() };
        let refused = program.try_allocate(vec![before], Count::Exactly(1)).await.unwrap_err().to_string();
        assert!(refused.contains("another VM answers at its address: search again"), "{refused}");
        assert_eq!(program.try_allocate(vec![vm.info()], Count::Exactly(1)).await.unwrap().len(), 1);
    });
    program.finish().unwrap();
}
