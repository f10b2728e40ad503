//! Messages of more bytes than 32 bits can count.

use river_core::{Channel, Payload, Result, Selector, VirtualResource, Vr};
use serde::{Deserialize, Serialize};

const CHANNEL: Channel = Channel::named("large");
const PART: usize = 64 << 20;
const PARTS: usize = 65;
/// The memory that the receiving process needs: for the message, and for a smaller copy while its memory grows.
const NEEDED: u64 = 10 << 30;

#[derive(Serialize, Deserialize)]
struct Receiver;

impl VirtualResource for Receiver {
    fn main(&mut self, vr: &Vr) -> Result {
        let envelope = vr.receive(Selector::on(CHANNEL))?;
        let (length, bytes) = (envelope.payload.len(), envelope.payload.to_bytes());
        // A few bytes of every part show whether all are in place.
        let right = (0..PARTS).all(|i| bytes[i * PART] == 1 && bytes[i * PART + PART - 1] == 2);
        vr.send_bytes(envelope.src, CHANNEL, 0, format!("{length} {right}").into_bytes())?;
        Ok(())
    }
}

fn available_memory() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|text| text.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) << 10
}

#[test]
fn a_message_of_more_than_four_gibibytes_arrives_whole() {
    if available_memory() < NEEDED {
        println!("skipped: needs {} GiB of free memory", NEEDED >> 30);
        return;
    }
    let mut part = vec![0; PART];
    (part[0], part[PART - 1]) = (1, 2);
    let part = bytes::Bytes::from(part);
    let mut payload = Payload::default();
    (0..PARTS).for_each(|_| payload.push(part.clone()));
    let answer = river_core::try_run(|vr| {
        let vms = vr.start_local(1)?;
        let receiver = vr.deploy(&vms, |_| Receiver)?;
        vr.send_bytes(receiver[0], CHANNEL, 0, payload)?;
        let answer = vr.receive(Selector::on(CHANNEL).from(receiver[0]))?;
        Ok(String::from_utf8(answer.payload.to_bytes().to_vec())?)
    });
    assert_eq!(answer.unwrap(), format!("{} true", PARTS * PART));
}
