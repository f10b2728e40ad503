//! A trace for the viewer at <https://ui.perfetto.dev>: the JSON of the Trace Event Format.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::flow::{Flow, Message};
use river_core::trace::What;

/// Returns the trace as JSON: a process for each VM, a thread for each VR, a slice for each wait, span, send and receive,
/// and a flow arrow for each message.
#[must_use]
pub fn perfetto(flow: &Flow) -> String {
    let mut out = String::from("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n");
    let mut first = true;
    let mut event = |value: Value| {
        let comma = if std::mem::take(&mut first) { "" } else { ",\n" };
        // Writing to a string does not fail.
        let _ = write!(out, "{comma}{value}");
    };
    for (vm, trace) in flow.run.vms.iter().enumerate() {
        let name = format!("VM {}", trace.name);
        event(json!({"ph": "M", "name": "process_name", "pid": vm + 1, "args": {"name": name}}));
    }
    for (vr, trace) in flow.run.vrs.iter().enumerate() {
        let (pid, tid, name) = (trace.vm + 1, vr + 1, flow.name(vr));
        event(json!({"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": name}}));
        event(json!({
            "ph": "X", "name": name, "cat": "vr", "pid": pid, "tid": tid, "ts": micros(trace.began),
            "dur": micros(trace.ended.saturating_sub(trace.began)),
            "args": {
                "id": trace.id, "type": trace.name, "failure": trace.failure, "events dropped": trace.dropped,
                "lost": trace.lost,
            },
        }));
        for happened in &trace.events {
            let label = trace.label(happened).unwrap_or_default();
            let (name, cat, nanos) = match happened.what {
                What::Wait { reason, nanos, .. } => (format!("wait: {}", reason.name()), "wait", nanos),
                What::Span { nanos } => (label.to_owned(), "span", nanos),
                What::Deploy { .. } => ("deploy".into(), "deploy", 0),
                What::Down { .. } => ("told of a death".into(), "down", 0),
                _ => continue,
            };
            event(json!({
                "ph": "X", "name": name, "cat": cat, "pid": pid, "tid": tid, "ts": micros(happened.at),
                "dur": micros(nanos), "args": {"label": label},
            }));
        }
    }
    for (id, message) in flow.messages.iter().enumerate() {
        ends(flow, id, message).into_iter().flatten().for_each(&mut event);
    }
    out.push_str("\n]}\n");
    out
}

/// Both ends of a message: a slice of zero length, and the end of an arrow within it.
fn ends(flow: &Flow, id: usize, message: &Message) -> [Option<Value>; 4] {
    let Message { from, to, sent, received, bytes, label } = *message;
    let label = &flow.labels[label];
    let place = |vr: usize| (flow.run.vrs[vr].vm + 1, vr + 1);
    let slice = |vr: usize, at: u64, what: &str, peer: usize| {
        let (pid, tid) = place(vr);
        json!({
            "ph": "X", "name": format!("{what} {label}"), "cat": "message", "pid": pid, "tid": tid,
            "ts": micros(at), "dur": 0, "args": {"bytes": bytes, "peer": flow.name(peer)},
        })
    };
    let arrow = |vr: usize, at: u64, ph: &str| {
        let (pid, tid) = place(vr);
        json!({
            "ph": ph, "bp": "e", "id": id + 1, "name": label, "cat": "message", "pid": pid, "tid": tid,
            "ts": micros(at),
        })
    };
    let whole = sent.zip(received);
    [
        sent.map(|at| slice(from, at, "send", to)),
        whole.map(|(at, _)| arrow(from, at, "s")),
        received.map(|at| slice(to, at, "receive", from)),
        whole.map(|(_, at)| arrow(to, at, "f")),
    ]
}

/// Microseconds, the format's unit, with nanoseconds as fractions.
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1000.0
}
