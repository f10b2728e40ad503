//! Many VRs on one VM, and many VMs in one program.

use river_core::{Channel, Result, Selector, VirtualResource, Vr, VrId};
use serde::{Deserialize, Serialize};

const CHANNEL: Channel = Channel::named("scale");

/// Sends its number to its neighbour, and reports to its parent its neighbour's number and how many sockets its process has.
#[derive(Serialize, Deserialize)]
struct Neighbour {
    number: u32,
}

impl VirtualResource for Neighbour {
    fn main(&mut self, vr: &Vr) -> Result {
        let parent = vr.parent().expect("it was deployed");
        let next: VrId =
            postcard::from_bytes(&vr.receive(Selector::on(CHANNEL).from(parent))?.payload.to_bytes())?;
        vr.send_bytes(next, CHANNEL, 0, self.number.to_le_bytes().to_vec())?;
        let said = vr.receive_where(Selector::on(CHANNEL), |envelope| envelope.src != parent)?;
        let heard = u32::from_le_bytes(said.payload.to_bytes()[..].try_into()?);
        vr.send_bytes(parent, CHANNEL, 0, postcard::to_stdvec(&(self.number, heard, sockets()))?)?;
        // No connection ends before all are counted.
        vr.receive(Selector::on(CHANNEL).from(parent))?;
        Ok(())
    }
}

fn sockets() -> usize {
    let files = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let targets = files.filter_map(|file| std::fs::read_link(file.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

/// A ring over these places. Returns the most sockets that a process had.
fn ring(vr: &Vr, places: &[river_core::VmInfo]) -> Result<usize> {
    let ring = vr.deploy(places, |index| Neighbour { number: index as u32 })?;
    let count = ring.len();
    for (index, vr_id) in ring.iter().enumerate() {
        vr.send_bytes(vr_id, CHANNEL, 0, postcard::to_stdvec(&ring[(index + 1) % count])?)?;
    }
    let mut most = 0;
    for vr_id in ring.iter() {
        let told = vr.receive(Selector::on(CHANNEL).from(vr_id))?.payload.to_bytes();
        let (number, heard, sockets): (u32, u32, usize) = postcard::from_bytes(&told)?;
        assert_eq!((heard as usize + 1) % count, number as usize);
        most = most.max(sockets);
    }
    for vr_id in ring.iter() {
        vr.send_bytes(vr_id, CHANNEL, 0, vec![])?;
    }
    Ok(most)
}

#[test]
fn thousands_of_vrs_share_a_vm() {
    river_core::try_run(|vr| {
        let vm = vr.start_local(1)?.swap_remove(0);
        ring(vr, &vec![vm; 3000])?;
        Ok(())
    })
    .unwrap();
}

#[test]
fn who_never_talks_has_no_connection() {
    river_core::try_run(|vr| {
        let vms = vr.start_local(100)?;
        let most = ring(vr, &vms)?;
        // A listener, the control connection, one connection each way with the initiator and the two neighbours, and those of
        // the runtime itself; if every pair were connected, it would be a hundred.
        assert!(most < 20, "{most} sockets");
        Ok(())
    })
    .unwrap();
}
