//! Handlers that have something done by the VMs while a farm waits for them.

use std::sync::atomic::{AtomicBool, Ordering};

use river_core::{Channel, Selector, VrId};
use river_rai::Rai;
use river_trickle::current;

use crate::scene::with_vms;

const EVENT: Channel = Channel::named("event");

/// The only item: no other answer brings the farm to look at this one.
#[test]
fn a_farm_ends_whose_last_answer_has_come_while_a_handler_waited_for_something() {
    static HANDLING: AtomicBool = AtomicBool::new(false);
    let work = |client: VrId| {
        current::with_vr(|vr| vr.send_bytes(client, EVENT, 0, vec![])).unwrap().unwrap();
        while !HANDLING.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        1
    };
    with_vms(1, |vms| {
        let (vr, server) = (vms.vr(), vms[0].rai().server());
        let action = move |vr: &river_core::Vr, _| {
            HANDLING.store(true, Ordering::SeqCst);
            // The VM answers in order.
            assert_eq!(Rai::connect(vr, server).call(|| 2, ()), Ok(2));
        };
        let _handler = vr.handle(Selector::on(EVENT), |_| true, action);
        // Nor does the clock, if nothing depends on it.
        assert_eq!(vms.forkgen(work, [vr.id()], 1).speculate(false).in_order(), Ok(vec![1]));
    });
}
