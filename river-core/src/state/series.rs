//! A series of checkpoints: what they and the executables that they need are called, which one counts, and what is needed
//! no longer. The same in a directory and in a store. Pure.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;

use super::file::{Content, FileError, Header, Writer};
use crate::error::StateError;
use crate::id::{ImageHash, ProgramId};

/// Set by `river run` and `river restore`, which find the program's checkpoints by its value, however often the program is
/// restarted from one.
const RUN: &str = "RIVER_CHECKPOINT_RUN";
/// The port of VMs that `river run` has started just for this run: later, there are none on it.
const OWN_PORT: &str = "RIVER_OWN_PORT";

pub(super) const IMAGE: &str = "image-";

pub(super) fn name_of(number: u64) -> String {
    format!("checkpoint-{number:06}.river")
}

pub(super) fn image_name(hash: ImageHash) -> String {
    format!("{IMAGE}{hash}")
}

/// Parses the number of a checkpoint from its name.
pub(super) fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix("checkpoint-")?.strip_suffix(".river")?.parse().ok()
}

/// The numbers of the checkpoints among these names, ascending.
pub(super) fn numbers(names: &[String]) -> Vec<u64> {
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| number_of(name)).collect();
    numbers.sort_unstable();
    numbers
}

/// The number of the next checkpoint.
pub(super) fn next(numbers: &[u64]) -> u64 {
    numbers.last().map_or(1, |last| last.saturating_add(1))
}

/// Finds the newest complete checkpoint, and also returns the errors of newer ones. If a run is given, only its checkpoints
/// count. Returns the error of the newest one if none is complete, and `None` if there is none.
pub(super) fn newest(
    numbers: &[u64],
    of: Option<ProgramId>,
    read: impl Fn(u64) -> Result<Content, StateError>,
) -> Result<Option<(u64, Content, Vec<StateError>)>, StateError> {
    let mut broken = Vec::new();
    for &number in numbers.iter().rev() {
        match read(number) {
            Ok(content) if of.is_some() && content.run != of => {}
            Ok(content) => return Ok(Some((number, content, broken))),
            Err(error) => broken.push(error),
        }
    }
    broken.into_iter().next().map_or(Ok(None), Err)
}

/// Divides the numbers of checkpoints into those to be removed and the newest ones, at least one.
pub(super) fn retire(numbers: &[u64], keep: usize) -> (&[u64], &[u64]) {
    numbers.split_at(numbers.len().saturating_sub(keep.max(1)))
}

/// The images that the checkpoints that are kept do not need. Fails if one of them does not say which one it needs.
pub(super) fn needless_images(
    names: Vec<String>,
    kept: &[u64],
    image_of: impl Fn(u64) -> Result<ImageHash, FileError>,
) -> Result<Vec<String>, FileError> {
    let mut images = names;
    images.retain(|name| name.starts_with(IMAGE));
    if images.len() > 1 {
        let needed = kept.iter().map(|number| Ok(image_name(image_of(*number)?)));
        let needed: HashSet<String> = needed.collect::<Result<_, FileError>>()?;
        images.retain(|name| !needed.contains(name));
    } else {
        images.clear();
    }
    Ok(images)
}

/// Returns the run for which this process takes checkpoints, if it was told one.
pub(crate) fn run_id() -> Option<ProgramId> {
    std::env::var(RUN).ok().and_then(|run| run.parse().ok()).map(ProgramId::from_uuid)
}

/// Adds what a checkpoint has besides the VRs.
pub(super) fn complete<W: Write>(writer: &mut Writer<W>, header: &Header) -> Result<(), FileError> {
    if let Some(run) = run_id() {
        writer.run(run)?;
    }
    writer.header(&Header { environment: lasting(&header.environment), ..header.clone() })
}

/// The environment for restarting the program: without a port that was for this run only.
fn lasting(environment: &[(Vec<u8>, Vec<u8>)]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let own = std::env::var_os(OWN_PORT).map(OsString::into_vec);
    let lasts = |(name, value): &&(Vec<u8>, Vec<u8>)| name != b"RIVER_PORT" || Some(value) != own.as_ref();
    environment.iter().filter(lasts).cloned().collect()
}
