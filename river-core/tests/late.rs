//! A VR may learn of another one only after that has ended, while messages from it are still on their way.

use std::time::{Duration, Instant};

use river_core::testing::for_each_topology;
use river_core::{Channel, RecvError, Result, Selector, VirtualResource, Vr, VrId};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

const DATA: Channel = Channel::named("data");
const TALK: Channel = Channel::named("talk");
const ROUNDS: usize = 10;
const COUNT: u64 = 200;

/// Says hello to `to`; when told to go, sends it [`COUNT`] messages, and ends.
#[derive(Serialize, Deserialize)]
struct Sender {
    to: VrId,
}

impl VirtualResource for Sender {
    fn main(&mut self, vr: &Vr) -> Result {
        vr.send_bytes(self.to, TALK, 0, vec![])?;
        vr.receive(Selector::on(TALK).from(vr.parent().unwrap()))?;
        for _ in 0..COUNT {
            vr.send_bytes(self.to, DATA, 0, vec![0; 1000])?;
        }
        Ok(())
    }
}

/// Learns who the sender is only after the sender's end; then receives from it until its notice.
#[derive(Serialize, Deserialize)]
struct Late;

impl VirtualResource for Late {
    fn main(&mut self, vr: &Vr) -> Result {
        let parent = vr.parent().unwrap();
        // The hello shows that the connections are there.
        vr.receive(Selector::on(TALK))?;
        vr.receive(Selector::on(TALK))?;
        vr.send_bytes(parent, TALK, 0, std::process::id().to_le_bytes().to_vec())?;
        let sender = vr.receive(Selector::on(TALK).from(parent))?;
        let sender = VrId::from_uuid(uuid::Uuid::from_slice(sender.payload.head())?);
        let mut got = 0_u64;
        while vr.receive(Selector::on(DATA).from(sender)).is_ok() {
            got += 1;
        }
        vr.send_bytes(parent, TALK, 0, got.to_le_bytes().to_vec())?;
        Ok(())
    }
}

#[test]
fn who_asks_late_gets_everything_before_the_notice() {
    for_each_topology(|name, make_vms| {
        // On one VM, stopping the receiver's process would stop the sender, too.
        let rounds = if name == "one VM" { 0 } else { ROUNDS };
        for _ in 0..rounds {
            let got = river_core::try_run(|vr| {
                let vms = make_vms(vr, 2)?;
                let deadline = || Some(Instant::now() + Duration::from_secs(20));
                let late = vr.deploy(&vms[..1], |_| Late)?[0];
                let sender = vr.deploy(&vms[1..], |_| Sender { to: late })?[0];
                vr.send_bytes(late, TALK, 0, vec![])?;
                let pid = vr.receive_until(Selector::on(TALK), deadline(), |_| true)?;
                let pid = i32::from_le_bytes(pid.payload.head()[..].try_into()?);
                let pid = Pid::from_raw(pid).expect("a process id");
                kill_process(pid, Signal::STOP)?;
                vr.send_bytes(sender, TALK, 0, vec![])?;
                let end = vr.receive_until(Selector::on(DATA).from(sender), deadline(), |_| true);
                assert!(matches!(end, Err(RecvError::Down(_))), "{end:?}");
                vr.send_bytes(late, TALK, 0, sender.as_uuid().as_bytes().to_vec())?;
                kill_process(pid, Signal::CONT)?;
                let got = vr.receive_until(Selector::on(TALK).from(late), deadline(), |_| true)?;
                Ok(u64::from_le_bytes(got.payload.head()[..].try_into()?))
            });
            assert_eq!(got.unwrap(), COUNT, "{name}");
        }
    });
}
