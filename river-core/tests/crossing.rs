//! Two programs that look each other up at the same moment.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use river_core::{Channel, RecvError, Result, Selector, Vr, VrError, VrId};

const CHANNEL: Channel = Channel::named("test");
/// A visit that the other side has ended is over after a second.
const QUIET: Duration = Duration::from_millis(2500);

fn meet(vr: &Vr, own: &str, other: &str, together: &Barrier) -> Result<()> {
    // Nobody must be left waiting if one of them fails.
    let published = vr.publish(own);
    together.wait();
    let other = vr.look_up(other);
    together.wait();
    let heard = published.map_err(Into::into).and_then(|()| talk(vr, other?.vr));
    together.wait();
    heard
}

fn talk(vr: &Vr, other: VrId) -> Result<()> {
    vr.watch(other);
    vr.send_bytes(other, CHANNEL, 0, vec![])?;
    vr.receive(Selector::on(CHANNEL).from(other))?;
    let until = Some(Instant::now() + QUIET);
    match vr.receive_until(Selector::on(CHANNEL).from(other), until, |_| true) {
        Err(RecvError::Timeout { .. }) => Ok(()),
        heard => Err(VrError::msg(format!("{heard:?}"))),
    }
}

#[test]
fn both_stay_in_touch() {
    // Not all of them dial at the very same moment.
    const PAIRS: usize = 6;
    let together = [(); PAIRS].map(|()| Barrier::new(2));
    std::thread::scope(|scope| {
        for (pair, together) in together.iter().enumerate() {
            let name = |side: &str| format!("{side}-{pair}-{}", std::process::id());
            for (own, other) in [("left", "right"), ("right", "left")].map(|(a, b)| (name(a), name(b))) {
                scope.spawn(move || river_core::try_run(|vr| meet(vr, &own, &other, together)).unwrap());
            }
        }
    });
}
