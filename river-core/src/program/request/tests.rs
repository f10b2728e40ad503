use std::any::Any;
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use super::*;
use crate::code::{Trampoline, code_ptr};
use crate::discovery::Reach;
use crate::error::Result;
use crate::key::ClusterKey;
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
    Program::start(key, Reach::default(), recoverable, None, None).unwrap()
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
