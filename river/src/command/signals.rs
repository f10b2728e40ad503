//! Signals that a command handles instead of being ended by them.

use std::io;

use signal_hook::iterator::Signals;

/// Handles these signals, except those that this process was started to ignore, by `nohup` for example: those stay ignored,
/// also by processes that it starts.
pub(crate) fn take(signals: &[i32]) -> io::Result<Signals> {
    Signals::new(heeded(signals))
}

/// Those of the signals that this process does not ignore; all of them if the system does not tell.
pub(crate) fn heeded(signals: &[i32]) -> Vec<i32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // Bit 0 is signal 1.
    let ignored = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    signals.iter().copied().filter(|signal| ignored & 1 << (signal - 1) == 0).collect()
}
