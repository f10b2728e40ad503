use super::*;

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
