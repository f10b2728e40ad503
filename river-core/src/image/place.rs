//! Where a VM keeps executables, and how many bytes of them, according to the environment.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use crate::image::directory::Directory;

/// How many bytes of images are kept, unless `RIVER_CACHE_LIMIT` says otherwise: 2 GiB.
pub(crate) const DEFAULT_LIMIT: u64 = 2 << 30;

/// Why the environment's settings for the cache are invalid.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The limit is not a number.
    #[error(
        "RIVER_CACHE_LIMIT is {0:?}: set it to a number of bytes, such as {DEFAULT_LIMIT}, or not at all"
    )]
    BadLimit(OsString),
}

/// Where a VM that starts now would keep executables.
#[derive(Debug)]
#[non_exhaustive]
pub struct CachePlace {
    /// The directory, if the environment names one.
    pub directory: Option<PathBuf>,
    /// The most bytes of executables that are kept.
    pub limit: u64,
    /// Why the directory is unusable, so that they are kept in memory.
    pub obstacle: Option<io::Error>,
}

/// Finds out where VMs of this user keep the executables of programs. Creates the directory, as a VM does.
///
/// # Errors
///
/// When `RIVER_CACHE_LIMIT` is not a number.
pub fn cache_place() -> Result<CachePlace, CacheError> {
    let variable = |name: &str| std::env::var_os(name);
    let limit = cache_limit(variable)?;
    let directory = cache_path(variable);
    let obstacle = match &directory {
        Some(path) => Directory::open(path, limit).err(),
        None => Some(io::Error::new(io::ErrorKind::NotFound, "HOME is not set")),
    };
    Ok(CachePlace { directory, limit, obstacle })
}

/// Returns how large the cache may be in this environment.
pub(super) fn cache_limit(variable: impl Fn(&str) -> Option<OsString>) -> Result<u64, CacheError> {
    match variable("RIVER_CACHE_LIMIT").filter(|text| !text.is_empty()) {
        None => Ok(DEFAULT_LIMIT),
        Some(text) => {
            text.to_str().and_then(|text| text.trim().parse().ok()).ok_or(CacheError::BadLimit(text))
        }
    }
}

/// Returns where the images are in this environment.
pub(super) fn cache_path(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(directory) = set("RIVER_CACHE") {
        return Some(directory);
    }
    // The XDG specification says to ignore relative paths.
    let cache = set("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    let cache = cache.or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("river").join("images"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_environment_says_where_the_images_are() {
        let path = |set: &'static [(&str, &str)]| {
            cache_path(|name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()))
        };
        let all = &[("RIVER_CACHE", "c"), ("XDG_CACHE_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(path(all).unwrap(), Path::new("c"));
        assert_eq!(path(&all[1..]).unwrap(), Path::new("/x/river/images"));
        assert_eq!(path(&all[2..]).unwrap(), Path::new("/h/.cache/river/images"));
        assert_eq!(path(&[("XDG_CACHE_HOME", "x")]), None);
    }
}
