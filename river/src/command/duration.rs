//! Human-readable durations, formatted alike in all commands.

use std::time::Duration;

/// Formats a duration: `3.2 s` if it is below a minute, otherwise hours, minutes and seconds: `0:02:01`.
pub(crate) fn short(time: Duration) -> String {
    match time.as_secs() {
        0..60 => format!("{}.{} s", time.as_secs(), time.subsec_millis() / 100),
        seconds => format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_where_the_form_changes() {
        let shown = [0, 3_290, 59_999, 60_000, 121_000, 360_059_000];
        let shown = shown.map(|millis| short(Duration::from_millis(millis)));
        assert_eq!(shown, ["0.0 s", "3.2 s", "59.9 s", "0:01:00", "0:02:01", "100:00:59"]);
    }
}
