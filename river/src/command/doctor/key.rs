//! The key, and who can read it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use river::VrError;
use river::core::{ClusterKey, KeyError};

use super::finding::Finding;

const CHECK: &str = "key";

/// Checks the key; also returns whether there is a usable one.
pub(super) fn check(for_network: bool) -> (Finding, bool) {
    let path = match ClusterKey::path() {
        Ok(path) => path,
        Err(error) => {
            return (
                Finding::fail(CHECK, "HOME is not set", format!("set it, or RIVER_KEY_FILE ({error})")),
                false,
            );
        }
    };
    let loaded = ClusterKey::load_at(&path);
    let usable = loaded.is_ok();
    (judge(&path, loaded.map(|key| key.fingerprint()), for_network), usable)
}

fn judge(path: &Path, loaded: Result<String, KeyError>, for_network: bool) -> Finding {
    let shown = path.display();
    match loaded {
        Ok(fingerprint) => exposed_directory(path)
            .unwrap_or_else(|| Finding::ok(CHECK, format!("{shown}, fingerprint {fingerprint}"))),
        Err(KeyError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            if for_network {
                return Finding::fail(
                    CHECK,
                    format!("there is none at {shown}, and the network requires one"),
                    "`river key export | ssh OTHER river key import` on a machine that has it; for the first machine: \
                     `river key new`",
                );
            }
            match can_be_made(path) {
                Ok(()) => {
                    Finding::ok(CHECK, format!("there is none yet: the first VM or program creates {shown}"))
                }
                Err(error) => Finding::fail(
                    CHECK,
                    format!("there is none, and {shown} cannot be created: {error}"),
                    "set RIVER_KEY_FILE to a path that you can write to",
                ),
            }
        }
        Err(KeyError::Exposed { mode, .. }) => Finding::fail(
            CHECK,
            format!("{shown} is open to others (mode {mode:03o}), so they may know it or have changed it"),
            format!(
                "`chmod 600 {shown}` if you trust them, otherwise `river key new --force`, and import that key on the other \
                 machines"
            ),
        ),
        Err(KeyError::Foreign { owner, user, .. }) => Finding::fail(
            CHECK,
            format!("{shown} belongs to user {owner}, but this is user {user}"),
            "copy it to a file of your own, and set RIVER_KEY_FILE to that",
        ),
        Err(KeyError::Malformed { .. }) => Finding::fail(
            CHECK,
            format!("{shown} is not a key (64 hexadecimal digits in a file)"),
            "import it again from another machine (`river key import --force`), or create a new one (`river key new --force`)",
        ),
        Err(error) => Finding::fail(
            CHECK,
            VrError::from(error).to_string(),
            "make the file readable for yourself, or set RIVER_KEY_FILE to another one",
        ),
    }
}

/// Anyone who can write to the directory can replace the key.
fn exposed_directory(path: &Path) -> Option<Finding> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mode = std::fs::metadata(directory).ok()?.mode() & 0o7777;
    // With the sticky bit, as on /tmp, others cannot replace files that are not theirs.
    (mode & 0o022 != 0 && mode & 0o1000 == 0).then(|| {
        Finding::warn(
            CHECK,
            format!("others can replace it, as they can write to {} (mode {mode:03o})", directory.display()),
            format!("`chmod go-w {}`", directory.display()),
        )
    })
}

/// Whether a file can be created in the nearest directory that exists. The file has no name, and vanishes at once.
fn can_be_made(path: &Path) -> io::Result<()> {
    let there = path.ancestors().skip(1).find(|directory| directory.exists());
    tempfile::tempfile_in(there.unwrap_or(Path::new("."))).map(drop)
}
