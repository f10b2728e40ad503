//! Tells the `river` command which commit it was made from: `RIVER_VERSION`, and `RIVER_COMMIT_TIME` in seconds since 1970.
//!
//! Without git, or outside a checkout, there is no commit, and that is fine. Debug builds have none either: otherwise every
//! commit would recompile everything that depends on this crate.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let commit = (env::var("PROFILE").as_deref() == Ok("release")).then(commit).flatten();
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let (said, time) = match commit {
        Some(Commit { hash, day, time }) => (format!("{version} ({hash} {day})"), time),
        None => (version, "0".to_owned()),
    };
    // Set for reproducible builds.
    let time = env::var("SOURCE_DATE_EPOCH").unwrap_or(time);
    println!("cargo::rustc-env=RIVER_VERSION={said}");
    println!("cargo::rustc-env=RIVER_COMMIT_TIME={time}");
}

struct Commit {
    hash: String,
    day: String,
    time: String,
}

fn commit() -> Option<Commit> {
    // A copy of this crate within the checkout of another project does not belong to that commit.
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    // Every commit and checkout writes to it.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    println!("cargo::rerun-if-changed={log}");
    let shown = git(&["show", "--no-patch", "--abbrev=9", "--date=short", "--format=%h %cd %ct", "HEAD"])?;
    let mut words = shown.split(' ').map(str::to_owned);
    Some(Commit { hash: words.next()?, day: words.next()?, time: words.next()? })
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
