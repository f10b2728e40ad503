//! What is said to people on a terminal that may be gone.

/// As `eprintln!`, but nothing happens if nobody can read it any more: a panic would take a task of the control plane with it.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

pub(crate) use say;
