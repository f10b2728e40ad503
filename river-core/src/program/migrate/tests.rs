use super::*;

#[test]
fn who_was_leased_to_stand_for_others_is_given_back_with_them() {
    let [drained, other, instead] = [(); 3].map(|()| VmId::fresh());
    let mut state = State::default();
    state.replace(drained, instead, false);
    // Also though it is there already for another one.
    state.replace(other, instead, true);
    assert!(!state.aliases.contains_key(&instead));
}
