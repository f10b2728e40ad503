use std::any::Any;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::*;
use crate::code::{Trampoline, code_ptr};
use crate::control::{self, Connection};
use crate::discovery::Reach;
use crate::error::Result;
use crate::id::ProgramId;
use crate::image::ImageCache;
use crate::key::ClusterKey;
use crate::program::scripted::{self, Voice};
use crate::protocol::{Count, FromVm, Hello, ToVm, Welcome};
use crate::vm::{Vm, VmConfig};
use crate::vr::{Creation, Vr};

/// Makes a VR that leaves a trace in the file that its state names.
struct Make;

impl Trampoline<()> for Make {
    fn enter((): (), context: &mut dyn Any) {
        let creation = context.downcast_mut::<Creation>().unwrap();
        let path = OsString::from_vec(std::mem::take(&mut creation.state));
        let body = |_: &Vr| -> Result {
            let mut trace = OpenOptions::new().create(true).append(true).open(path)?;
            Ok(trace.write_all(b"x")?)
        };
        creation.made = Some(Ok(Box::new(Some(body))));
    }
}

fn program(recoverable: bool) -> Arc<Program> {
    let key = ClusterKey::from_bytes([7; 32]);
    Program::start(key, Reach::default(), recoverable, None, None, None).unwrap()
}

fn new_vr(program: &Program, trace: &Path) -> NewVr {
    NewVr {
        id: VrId::fresh(),
        code: code_ptr::<Make, ()>(()),
        name: "once".into(),
        state: trace.as_os_str().as_bytes().to_vec(),
        parent: VrId::fresh(),
        parent_at: program.node.place,
        recoverable: false,
    }
}

/// Like a twin that takes over a VR that died while deploying.
#[test]
fn who_asks_twice_for_the_same_vr_gets_one() {
    let scratch = tempfile::tempdir().unwrap();
    let trace = scratch.path().join("trace");
    let program = program(false);
    let new = new_vr(&program, &trace);
    let places = rt::block_on(async {
        let vm = program.start_local(1).await.unwrap()[0].id;
        // Both wait for the host to start.
        let both = [(); 2].map(|()| {
            let (program, new) = (program.clone(), new.clone());
            rt::spawn(async move { program.deploy(vec![(vm, new)]).await })
        });
        let mut places = Vec::new();
        for deployed in both {
            places.push(deployed.await.unwrap());
        }
        while !program.state().directory.has_ended(new.id) {
            rt::sleep(Duration::from_millis(1)).await;
        }
        places
    });
    program.finish().unwrap();
    assert_eq!((places[0].len(), &places[0]), (1, &places[1]));
    assert_eq!(fs::read(trace).unwrap(), b"x");
}

#[test]
fn a_vm_stays_leased_that_stands_for_a_drained_one_which_is_given_back() {
    let program = program(true);
    program.register(VrId::fresh());
    rt::block_on(async {
        let [drained, other] = program.start_local(2).await.unwrap().try_into().unwrap();
        let vm = program.state().leased(drained.id).unwrap();
        program.drain(&vm).await.unwrap();
        assert_eq!(program.state().alias(drained.id), other.id);
        program.release(&[drained.id]).await;
        assert!(program.state().is_leased(other.id));
        program.release(&[other.id]).await;
        assert!(!program.state().is_leased(other.id));
    });
    program.finish().unwrap();
}

/// `RIVER_VMS` limits what the program leases in total, however often it searches.
#[test]
fn a_program_that_has_as_many_vms_as_it_may_see_finds_no_others() {
    let program = program(false);
    rt::block_on(async {
        let vm = |name, state| {
            let vm = scripted::vm(&program, name, false, || async {}, Voice::obey);
            VmInfo { state, ..vm }
        };
        let in_use = || VmState::Leased { program: ProgramId::fresh(), name: "test".into() };
        let own = [vm("own-1", in_use()), vm("own-2", in_use())];
        let all = [vec![vm("other", in_use()), vm("idle", VmState::Idle)], own.to_vec()].concat();
        let first = |limit| {
            let mut vms = all.clone();
            program.state().keep_first(&mut vms, limit);
            vms.into_iter().map(|vm| vm.name).collect::<Vec<_>>()
        };
        assert_eq!(first(1), ["idle"]);
        program.allocate(own.to_vec(), Count::Exactly(2), Duration::ZERO).await.unwrap();
        assert_eq!(first(2), ["own-1", "own-2"]);
        assert_eq!(first(3), ["own-1", "own-2", "idle"]);
    });
    program.finish().unwrap();
}

/// Its disk takes longer than any other answer may.
#[test]
fn a_vm_that_looks_for_an_executable_is_waited_for_while_it_is_heard_of() {
    let program = program(false);
    let serve = |_: Hello, stream: Connection| async {
        let (to, mut from) = control::split::<FromVm, ToVm>(stream);
        while let Ok(Some(message)) = from.next().await {
            match message {
                ToVm::Acquire(_) => to.try_send(FromVm::Acquired).unwrap(),
                ToVm::Start(_) => {
                    for _ in 0..11 {
                        rt::sleep(Duration::from_secs(1)).await;
                        let _ = to.try_send(FromVm::Alive);
                    }
                    let _ = to.try_send(FromVm::Refused("it was on no disk".into()));
                }
                _ => {}
            }
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let id = VmId::fresh();
    let slow = rt::spawn(control::listen(listener.into(), program.key.clone(), Welcome::Vm(id), serve));
    let cache = Arc::new(ImageCache::in_memory(0));
    let like = Vm::start_with(VmConfig::default().hidden(), program.key.clone(), cache).unwrap();
    let info = VmInfo { id, name: "slow".into(), address, ..like.info() };
    let error = rt::block_on(async {
        program.allocate(vec![info], Count::Exactly(1), Duration::ZERO).await.unwrap();
        program.deploy(vec![(id, new_vr(&program, Path::new("nothing")))]).await.unwrap_err()
    });
    assert!(error.to_string().contains("it was on no disk"), "{error}");
    program.finish().unwrap();
    rt::cancel(slow);
}
