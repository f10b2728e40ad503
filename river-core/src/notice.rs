//! Printing messages for people on a terminal that may be closed.

/// Like `eprintln!`, but ignores errors if nobody can read the output any more: a panic would take a task of the control
/// plane with it. Written in one piece, so that lines of several processes do not mix.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let line = format!("{}\n", format_args!($($text)*));
        let _ = std::io::stderr().write_all(line.as_bytes());
    }};
}

pub(crate) use say;
