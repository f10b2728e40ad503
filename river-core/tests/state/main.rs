//! Programs that are checkpointed, killed and restored.

mod killed;
mod limited;
mod refused;
mod resume;

use river_core::{Channel, Result, Selector, VirtualResource, Vr};
use serde::{Deserialize, Serialize};

const CHANNEL: Channel = Channel::named("test");

/// Mixes what it receives into its sum, and answers with that.
#[derive(Serialize, Deserialize)]
struct Adder {
    sum: u64,
}

impl VirtualResource for Adder {
    fn main(&mut self, vr: &Vr) -> Result {
        loop {
            vr.safepoint(self)?;
            let asked = vr.receive(Selector::on(CHANNEL))?;
            let value = u64::from_le_bytes(asked.payload.head()[..].try_into()?);
            self.sum = self.sum.rotate_left(3).wrapping_add(value ^ 5);
            vr.send_bytes(asked.src, CHANNEL, 1, self.sum.to_le_bytes().to_vec())?;
        }
    }
}

/// Ends when it is told to.
#[derive(Serialize, Deserialize)]
struct Sleeper;

impl VirtualResource for Sleeper {
    fn main(&mut self, vr: &Vr) -> Result {
        vr.receive(Selector::on(CHANNEL))?;
        Ok(())
    }
}

/// Returns the result that a process of a test has printed.
fn result_of(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let start = text.find('[').unwrap_or_else(|| panic!("no result in {text}"));
    text[start..].lines().next().unwrap_or_default().to_owned()
}
