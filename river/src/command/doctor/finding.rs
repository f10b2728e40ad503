//! The result of a check.

use std::fmt;

use serde::Serialize;

/// The severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// It works.
    Ok,
    /// It works, but may not do so for long, or not as well as it could.
    Warn,
    /// It does not work.
    Fail,
}

/// A line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) check: &'static str,
    pub(super) verdict: Verdict,
    pub(super) message: String,
    /// What to do about it, unless it is fine.
    pub(super) fix: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, message: message.into(), fix: None }
    }

    pub(super) fn warn(check: &'static str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warn, message: message.into(), fix: Some(fix.into()) }
    }

    pub(super) fn fail(check: &'static str, message: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Fail, message: message.into(), fix: Some(fix.into()) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = ["ok", "warn", "fail"][self.verdict as usize];
        writeln!(f, "{verdict:<4}  {:<16}  {}", self.check, self.message)?;
        match &self.fix {
            Some(fix) => writeln!(f, "{:24}to fix it: {fix}", ""),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_and_how_to_fix_it() {
        assert_eq!(Finding::ok("cores", "2").to_string(), "ok    cores             2\n");
        let fail = Finding::fail("key", "none", "make one").to_string();
        assert_eq!(fail, "fail  key               none\n                        to fix it: make one\n");
    }
}
