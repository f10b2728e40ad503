//! Expressions for parts of a recorded VR, and their values over time: `river states --watch`.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::str::FromStr;
use std::time::UNIX_EPOCH;

use river::VrError;
use river::core::{Envelope, Happening, RecordedStep, RecordedVr, Recording};
use river::sfm::Message;
use serde_json::Value;

use super::replay;

/// An expression: `recv.NAME`, `send.NAME`, `state`, or `state.FIELD.FIELD...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Watch {
    /// An attribute of messages that have arrived.
    Recv(String),
    /// An attribute of messages that were sent.
    Send(String),
    /// The state at safepoints, and the path to a part of it: fields by name, elements by number.
    State(Vec<String>),
}

impl FromStr for Watch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, rest) = text.split_once('.').unwrap_or((text, ""));
        let parts = || rest.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        match first {
            "recv" if !rest.is_empty() => Ok(Watch::Recv(rest.to_owned())),
            "send" if !rest.is_empty() => Ok(Watch::Send(rest.to_owned())),
            "state" => Ok(Watch::State(parts())),
            _ => Err("it must be recv.ATTRIBUTE, send.ATTRIBUTE, state or state.FIELD".into()),
        }
    }
}

/// Formats values as CSV: a line for each step at which one of the expressions has a value, with the seconds since the
/// program began, the VR, the line of its record, and the values.
pub(super) fn csv(
    directory: &Path,
    recording: &Recording,
    vrs: &[RecordedVr],
    names: &[String],
    watches: &[Watch],
) -> river::Result<String> {
    let mut text =
        format!("time,vr,line,{}\n", names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(","));
    let sends = watches.iter().any(|watch| matches!(watch, Watch::Send(_)));
    let mut rows = Vec::new();
    for vr in vrs {
        let states = if watches.iter().any(|watch| matches!(watch, Watch::State(_))) {
            states(directory, recording, vr)?
        } else {
            Vec::new()
        };
        for step in if sends { recording.steps(vr.id)? } else { recording.outline(vr.id)? } {
            let values: Vec<Option<String>> =
                watches.iter().map(|watch| watch.value(&step, &states)).collect();
            if values.iter().any(Option::is_some) {
                rows.push((step.time, vr.id, step.line, values));
            }
        }
    }
    rows.sort_by_key(|(time, ..)| *time);
    let began = recording.began().duration_since(UNIX_EPOCH).unwrap_or_default();
    for (time, vr, line, values) in rows {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(began);
        let values: Vec<String> =
            values.into_iter().map(|value| quoted(&value.unwrap_or_default())).collect();
        let _ = writeln!(text, "{:.3},{},{line},{}", since.as_secs_f64(), vr.short(), values.join(","));
    }
    Ok(text)
}

impl Watch {
    fn value(&self, step: &RecordedStep, states: &[Value]) -> Option<String> {
        match (self, &step.what) {
            (Watch::Recv(name), Happening::Arrived(envelope)) => attribute(envelope, name),
            (Watch::Send(name), Happening::Sent(_, Some(envelope))) => attribute(envelope, name),
            (Watch::State(path), Happening::Safepoint(number, _)) => {
                let state = states.get(usize::try_from(*number).ok()?.checked_sub(1)?)?;
                Some(plain(path.iter().try_fold(state, |value, part| part_of(value, part))?))
            }
            _ => None,
        }
    }
}

fn part_of<'a>(value: &'a Value, part: &str) -> Option<&'a Value> {
    match value {
        Value::Array(elements) => elements.get(part.parse::<usize>().ok()?),
        other => other.get(part),
    }
}

/// An attribute of a message, if the envelope carries a message that has it.
fn attribute(envelope: &Envelope, name: &str) -> Option<String> {
    let message = Message::of(envelope)?;
    let attr = message.attrs().find(|attr| attr.name() == name)?;
    // Text without its quotation marks: CSV adds its own.
    message.get::<String>(name).ok().or_else(|| Some(attr.to_string()))
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Quotes a field for CSV (RFC 4180).
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// The states of a VR at its safepoints, found by running it again.
fn states(directory: &Path, recording: &Recording, vr: &RecordedVr) -> river::Result<Vec<Value>> {
    let file = tempfile::NamedTempFile::new()?;
    let mut command = replay::program(directory, recording, vr.id, None, None)?;
    command.env("RIVER_REPLAY_STATES", file.path()).stdin(Stdio::null()).stdout(Stdio::null());
    let output = command.stderr(Stdio::piped()).spawn()?.wait_with_output()?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(VrError::msg(format!("VR {} cannot be replayed: {error}", vr.id.short())));
    }
    let lines = std::fs::read_to_string(file.path())?;
    lines.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        assert_eq!("recv.count".parse::<Watch>(), Ok(Watch::Recv("count".into())));
        assert_eq!("send.a.b".parse::<Watch>(), Ok(Watch::Send("a.b".into())));
        assert_eq!("state".parse::<Watch>(), Ok(Watch::State(Vec::new())));
        assert_eq!("state.rows.3".parse::<Watch>(), Ok(Watch::State(vec!["rows".into(), "3".into()])));
        for wrong in ["recv", "recv.", "count", ""] {
            assert!(wrong.parse::<Watch>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn parts_of_states() {
        let state = serde_json::json!({ "rows": [1, { "name": "a,b" }] });
        let value =
            |path: &[&str]| path.iter().try_fold(&state, |value, part| part_of(value, part)).map(plain);
        assert_eq!(value(&["rows", "0"]).as_deref(), Some("1"));
        assert_eq!(value(&["rows", "1", "name"]).as_deref(), Some("a,b"));
        assert_eq!(value(&["rows", "2"]), None);
        assert_eq!((quoted("a,b"), quoted("say \"x\"")), ("\"a,b\"".into(), "\"say \"\"x\"\"\"".into()));
    }
}
