//! The cache of programs' executables.

use std::path::Path;

use river::core::{CachePlace, cache_place};

use super::finding::Finding;
use crate::command::size::mebibytes;

const CHECK: &str = "image cache";
/// About as much as a program's executable takes, or more.
const LITTLE: u64 = 256 << 20;

pub(super) fn check() -> Finding {
    let place = match cache_place() {
        Ok(place) => place,
        Err(error) => {
            return Finding::fail(CHECK, error.to_string(), "set RIVER_CACHE_LIMIT to a number, or unset it");
        }
    };
    let directory = place.directory.as_deref();
    judge(&place, directory.map_or(0, size_of), directory.and_then(free_space))
}

fn judge(place: &CachePlace, used: u64, free: Option<u64>) -> Finding {
    let Some(directory) = place.directory.as_deref().map(Path::display) else {
        return Finding::warn(
            CHECK,
            "HOME is not set, so executables are kept in memory and are sent again to each VM",
            "set RIVER_CACHE to a directory",
        );
    };
    if let Some(obstacle) = &place.obstacle {
        return Finding::warn(
            CHECK,
            format!("executables are kept in memory, since {directory} cannot be used: {obstacle}"),
            "make that directory yours alone (`chmod 700`), or set RIVER_CACHE to another one",
        );
    }
    if place.limit < LITTLE {
        return Finding::warn(
            CHECK,
            format!("at most {} of executables are kept in {directory}", mebibytes(place.limit)),
            "set RIVER_CACHE_LIMIT to more bytes, or unset it",
        );
    }
    match free {
        Some(free) if free < LITTLE => Finding::warn(
            CHECK,
            format!("only {} are free where {directory} is", mebibytes(free)),
            "free some space (everything in that directory may be deleted), or set RIVER_CACHE to another one",
        ),
        _ => Finding::ok(
            CHECK,
            format!("{directory}, {} of at most {}", mebibytes(used), mebibytes(place.limit)),
        ),
    }
}

fn size_of(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

fn free_space(directory: &Path) -> Option<u64> {
    let space = rustix::fs::statvfs(directory).ok()?;
    Some(space.f_bavail.saturating_mul(space.f_frsize))
}
