//! Checkpoints that River takes by itself.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::Program;
use super::checkpoint::Around;
use crate::error::StateError;
use crate::notice::say;
use crate::protocol::KeepIn;
use crate::rt;
use crate::state::KEEP;

/// A program that cannot survive the loss of a host fails within this time. A checkpoint taken in between would contain the
/// loss, and be useless to restart from.
const MOURNING: Duration = Duration::from_secs(2);

/// The shortest time between two automatic checkpoints.
const OFTEN: Duration = Duration::from_millis(1);

/// The value of `RIVER_CHECKPOINT` that means the memory of VMs. It cannot be confused with a directory, since `river run`
/// makes paths absolute.
const MEMORY: &str = "memory";

/// Automatic checkpoints: `RIVER_CHECKPOINT` says where, `RIVER_CHECKPOINT_EVERY` how often, in seconds.
pub(super) struct Regularly {
    to: KeepIn,
    every: Duration,
}

impl Regularly {
    pub(super) fn new((to, every): (KeepIn, Duration)) -> Self {
        Self { to, every: every.max(OFTEN) }
    }

    pub(super) fn from_env() -> io::Result<Option<Self>> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let (Some(directory), Some(every)) = (set("RIVER_CHECKPOINT"), set("RIVER_CHECKPOINT_EVERY")) else {
            return Ok(None);
        };
        let seconds =
            every.to_str().and_then(|text| text.parse().ok()).filter(|seconds: &f64| *seconds > 0.0);
        let every = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let wrong = || {
            io::Error::new(io::ErrorKind::InvalidInput, "RIVER_CHECKPOINT_EVERY is not a number of seconds")
        };
        let to = if directory == *MEMORY { KeepIn::Memory } else { KeepIn::Directory(directory.into()) };
        Ok(Some(Self { to, every: every.ok_or_else(wrong)? }))
    }
}

impl Program {
    /// Takes checkpoints periodically. A failure is reported on the terminal, and does not stop later ones.
    pub(super) async fn checkpoint_regularly(self: Arc<Self>, Regularly { to, every }: Regularly) {
        let (mut lost, mut said) = (0, String::new());
        loop {
            rt::sleep(every).await;
            let now = self.state().directory.lost_hosts();
            if std::mem::replace(&mut lost, now) != now {
                rt::sleep(MOURNING).await;
            }
            match self.checkpoint_if(to.clone(), KEEP, |around| self.is_mourned(around)).await {
                Ok(taken) => {
                    said.clear();
                    tracing::info!(taken.number, taken.bytes, pause = ?taken.pause, "checkpointed");
                }
                Err(StateError::Stopped) => return,
                Err(error) => {
                    let error = error.to_string();
                    if error != said {
                        say!("[river: no checkpoint was taken: {error}]");
                    }
                    said = error;
                }
            }
        }
    }

    /// Fails if a notice of a loss has arrived for a VR and no receive has reported it. A VR that is computing may receive much
    /// later than [`MOURNING`], and fail because of the loss then: a checkpoint taken before that would replace one that is of
    /// use. A VR that only asks for the lost VR later, without watching it, is not considered.
    fn is_mourned(&self, around: &Around) -> Result<(), StateError> {
        let state = self.state();
        let unheard = around.unheard.iter().find(|(_, lost)| state.directory.is_lost(*lost));
        unheard.map_or(Ok(()), |(vr, lost)| {
            let (vr, lost) = (vr.short(), lost.short());
            Err(StateError::GivenUp(format!(
                "VR {vr} has not heard yet that VR {lost} is gone with its host"
            )))
        })
    }
}
