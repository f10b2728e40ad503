//! The clock. River does not depend on clocks of different machines agreeing, but logs and file times do.

use std::time::{Duration, SystemTime};

use super::finding::Finding;

/// A clock this far ahead of the build of this program is wrong.
const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);

pub(super) fn check() -> Finding {
    let built = env!("RIVER_COMMIT_TIME")
        .parse()
        .map_or(SystemTime::UNIX_EPOCH, |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    judge(SystemTime::now(), built)
}

fn judge(now: SystemTime, built: SystemTime) -> Finding {
    let fix = "`timedatectl set-ntp true`, or set it with `date`";
    match now.duration_since(built) {
        Err(early) => Finding::warn(
            "clock",
            format!(
                "it is {} days earlier than the build of this program, so logs and files get wrong times",
                days(early.duration())
            ),
            fix,
        ),
        Ok(late) if late > CENTURY => Finding::warn(
            "clock",
            format!("it is {} days later than the build of this program", days(late)),
            fix,
        ),
        Ok(_) => Finding::ok("clock", "it is later than the build of this program"),
    }
}

fn days(time: Duration) -> u64 {
    time.as_secs() / 86_400
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::doctor::finding::Verdict::{Ok, Warn};

    #[test]
    fn a_clock_that_was_never_set_is_seen() {
        let built = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let day = Duration::from_secs(86_400);
        assert_eq!(judge(SystemTime::UNIX_EPOCH, built).verdict, Warn);
        assert!(judge(built - 3 * day, built).message.contains("3 days earlier"));
        assert_eq!(judge(built + 300 * day, built).verdict, Ok);
        assert_eq!(judge(built + 200 * 365 * day, built).verdict, Warn);
    }
}
