//! The versions of River and of its protocol.

use river::core::PROTOCOL;

use super::finding::Finding;

pub(super) fn check() -> Finding {
    Finding::ok("version", format!("river {}, protocol {PROTOCOL}", env!("RIVER_VERSION")))
}
