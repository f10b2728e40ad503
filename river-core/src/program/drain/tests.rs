use super::*;
use crate::discovery::{Reach, VmInfo};
use crate::down::{Down, Why};
use crate::key::ClusterKey;
use crate::program::scripted::{self, Voice};
use crate::protocol::{FromHost, Report, Step, ToHost};

/// One that goes on as if its initiator were there.
fn program() -> Arc<Program> {
    let program =
        Program::start(ClusterKey::from_bytes([7; 32]), Reach::default(), true, None, None, None).unwrap();
    program.register(VrId::fresh());
    program
}

/// A VM of the program, and its host.
async fn vm(
    program: &Arc<Program>,
    name: &str,
    deaf: bool,
    hears: impl Fn(&Voice, ToHost) + Clone + Send + Sync + 'static,
) -> (Arc<Leased>, HostId) {
    let info: VmInfo = scripted::vm(program, name, deaf, || async {}, hears);
    let host = program.host_of_vm(info.clone()).await.unwrap();
    (program.state().leased(info.id).unwrap(), host)
}

#[test]
fn who_was_leased_to_stand_for_others_is_given_back_with_them() {
    let [drained, other, instead] = [(); 3].map(|()| VmId::fresh());
    let mut state = State::default();
    state.replace(drained, instead, false);
    // Even if it already stands for another one.
    state.replace(other, instead, true);
    assert!(!state.aliases.contains_key(&instead));
}

#[test]
fn a_drain_that_fails_undoes_nothing_of_others() {
    let [failing, drained, target, stood_for, released] = [(); 5].map(|()| VmId::fresh());
    let mut state = State::default();
    state.aliases.extend([(stood_for, failing), (released, failing)]);
    let replaced = state.replace(failing, target, true);
    assert_eq!([failing, stood_for, released].map(|vm| state.alias(vm)), [target; 3]);
    // Meanwhile.
    state.replace(drained, target, true);
    state.aliases.remove(&released);
    state.put_back(failing, replaced);
    assert_eq!([failing, stood_for].map(|vm| state.alias(vm)), [failing; 2]);
    assert_eq!(state.alias(drained), target);
    assert!(!state.aliases.contains_key(&released));
}

#[test]
fn a_vr_that_ends_and_a_host_that_dies_are_no_reason_to_give_a_drain_up() {
    let program = program();
    let [ends, moves] = [(); 2].map(|()| VrId::fresh());
    rt::block_on(async {
        let (drained, from) = vm(&program, "drained", false, move |voice, message| match message {
            ToHost::State { round, step: Step::Give(vrs) } if vrs.contains(&ends) => {
                let ended = MigrateError::Ended(Down { who: ends, why: Why::Unknown });
                voice.report(round, Report::Given(Err(ended)));
                voice.say(FromHost::Ended { vr: ends, why: Why::Finished });
            }
            ToHost::State { round, step: Step::Give(vrs) } => {
                vrs.into_iter().for_each(|vr| {
                    voice.say(FromHost::Copy { round, vr, last: true, piece: vec![1] });
                });
                voice.report(round, Report::Given(Ok(())));
            }
            message => voice.obey(message),
        })
        .await;
        let (target, to) = vm(&program, "second", false, Voice::obey).await;
        // The VM that stands for the drained one at first.
        vm(&program, "first", false, |voice, message| match message {
            ToHost::State { step: Step::Freeze, .. } => voice.exit(),
            message => voice.obey(message),
        })
        .await;
        [ends, moves].iter().for_each(|vr| program.state().directory.enter(*vr, from));
        assert_eq!(program.drain(&drained).await.unwrap().vrs, 1);
        let state = program.state();
        assert_eq!(state.directory.host_of(moves), Some(to));
        assert!(!state.vms.contains_key(&drained.info.id));
        assert_eq!(state.alias(drained.info.id), target.info.id);
        // Of those that are left.
        assert_eq!(state.directory.lost_hosts(), 1);
    });
    program.finish().unwrap();
}

#[test]
fn a_drained_vm_that_does_not_answer_any_more_is_given_up() {
    let program = program();
    rt::block_on(async {
        let (drained, host) = vm(&program, "drained", true, |voice, message| match message {
            ToHost::Stop => {}
            message => voice.obey(message),
        })
        .await;
        vm(&program, "target", false, Voice::obey).await;
        program.drain(&drained).await.unwrap();
        assert!(program.state().directory.has_died(host));
    });
    program.finish().unwrap();
}

#[test]
fn a_vm_is_wanted_back_by_the_ids_that_the_program_knows() {
    let [first, second, now, own] = [(); 4].map(|()| VmId::fresh());
    let program = program();
    program.state().aliases.extend([(first, now), (second, now)]);
    [now, own].iter().for_each(|vm| program.ask_for(*vm));
    let leaving = program.node.leaving();
    assert_eq!(leaving.len(), 3);
    assert!([first, second, own].iter().all(|vm| leaving.contains(vm)));
    rt::block_on(program.release(&[first]));
    assert!(!program.node.leaving().contains(&first));
    program.finish().unwrap();
}
