//! A trace as a single self-contained page for a browser: the data, and a script that draws them.

use serde_json::{Value, json};

use super::critical::{Step, critical_path};
use super::flow::{Flow, Message, Wait};
use river_core::trace::{Reason, What};

/// The most messages, and the most waits, in a page, which stays below 20 MB and is drawn at once.
const MOST: usize = 200_000;
/// The most VRs that have a line.
const LINES: usize = 20_000;
/// How many of the longest waits are listed.
const LONGEST: usize = 200;
/// A VR that waits for messages in a span of this name waits for all others; such waits have their own colour.
const BARRIER: &str = "barrier";
/// The most pairs of communicating VRs that are listed.
const PAIRS: usize = 5_000;

/// Returns the page: HTML, with its style, its script and its data.
///
/// If there are too many messages, only every nth is included; if there are too many waits, only the longest are. The page
/// says so then. Sums include everything.
#[must_use]
pub fn page(flow: &Flow) -> String {
    // Within a script element, only `<` can end it or begin a comment.
    let data = data(flow).to_string().replace('<', "\\u003c");
    let title = escape(&flow.run.program);
    let parts = [
        ("{{title}}", title.as_str()),
        ("{{style}}", include_str!("page/page.css")),
        ("{{data}}", &data),
        ("{{script}}", include_str!("page/page.js")),
    ];
    let mut rest = include_str!("page/page.html");
    let mut page = String::with_capacity(data.len() + (64 << 10));
    for (mark, text) in parts {
        let (before, after) = rest.split_once(mark).unwrap_or((rest, ""));
        page.push_str(before);
        page.push_str(text);
        rest = after;
    }
    page + rest
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

fn data(flow: &Flow) -> Value {
    let run = &flow.run;
    let lines = run.vrs.len().min(LINES);
    let shown = |vr: usize| vr < lines;
    let messages: Vec<&Message> = flow.messages.iter().filter(|m| shown(m.from) && shown(m.to)).collect();
    let every = messages.len().div_ceil(MOST).max(1);
    let path = critical_path(flow);
    let messages: Vec<&Message> = messages.into_iter().step_by(every).collect();
    let mut waits: Vec<&Wait> = flow.waits.iter().filter(|wait| shown(wait.vr)).collect();
    let all_waits = waits.len();
    if waits.len() > MOST {
        waits.select_nth_unstable_by_key(MOST, |wait| std::cmp::Reverse(wait.nanos));
        waits.truncate(MOST);
        waits.sort_by_key(|wait| wait.at);
    }
    let mut spans: Vec<(usize, u64, u64, &str)> = Vec::new();
    let mut deploys = Vec::new();
    for (vr, trace) in run.vrs.iter().enumerate().take(lines) {
        for event in &trace.events {
            match event.what {
                What::Span { nanos } => {
                    spans.push((vr, event.at, nanos, trace.label(event).unwrap_or_default()));
                }
                What::Deploy { child } => {
                    let child = flow.index(child).filter(|child| shown(*child));
                    deploys.extend(child.map(|child| json!([vr, child, event.at])));
                }
                _ => {}
            }
        }
    }
    let all_spans = spans.len();
    if spans.len() > MOST {
        spans.select_nth_unstable_by_key(MOST, |span| std::cmp::Reverse(span.2));
        spans.truncate(MOST);
    }
    spans.sort_by_key(|span| span.1);
    let mut labels = flow.labels.clone();
    let span_labels: Vec<usize> = spans.iter().map(|span| number(&mut labels, span.3)).collect();
    let sampled = [
        (every > 1).then(|| format!("one message in {every} is drawn; sums are of all")),
        (all_waits > waits.len())
            .then(|| format!("of {all_waits} waits the longest {} are drawn", waits.len())),
        (all_spans > spans.len())
            .then(|| format!("of {all_spans} spans the longest {} are drawn", spans.len())),
        (run.vrs.len() > lines).then(|| format!("of {} VRs the first {lines} have a line", run.vrs.len())),
    ];
    let bytes: u64 = flow.messages.iter().map(|message| message.bytes).fold(0, u64::saturating_add);
    json!({
        "program": run.program,
        "end": run.end,
        "notes": notes(flow).into_iter().chain(sampled.into_iter().flatten()).collect::<Vec<_>>(),
        "total": {"messages": flow.messages.len(), "bytes": bytes, "waits": flow.waits.len()},
        "reasons": Reason::ALL.map(Reason::name).into_iter().chain([BARRIER]).collect::<Vec<_>>(),
        "labels": labels,
        "vms": run.vms.iter().map(|vm| json!({"name": vm.name})).collect::<Vec<_>>(),
        "vrs": (0..lines).map(|vr| line(flow, vr)).collect::<Vec<_>>(),
        "messages": {
            "at": deltas(messages.iter().map(|message| message.first())),
            "took": messages.iter().map(|message| took(message)).collect::<Vec<_>>(),
            "from": column(&messages, |message| message.from),
            "to": column(&messages, |message| message.to),
            "bytes": messages.iter().map(|message| message.bytes).collect::<Vec<_>>(),
            "label": column(&messages, |message| message.label),
        },
        "waits": {
            "at": deltas(waits.iter().map(|wait| wait.at)),
            "nanos": waits.iter().map(|wait| wait.nanos).collect::<Vec<_>>(),
            "vr": column(&waits, |wait| wait.vr),
            "on": waits.iter().map(|wait| on(wait, lines)).collect::<Vec<_>>(),
            "reason": waits.iter().map(|wait| reason(flow, wait)).collect::<Vec<_>>(),
            "label": column(&waits, |wait| wait.label),
        },
        "spans": {
            "at": deltas(spans.iter().map(|span| span.1)),
            "nanos": spans.iter().map(|span| span.2).collect::<Vec<_>>(),
            "vr": spans.iter().map(|span| span.0).collect::<Vec<_>>(),
            "label": span_labels,
        },
        "deploys": deploys,
        "path": path.iter().filter_map(|step| step_line(step, lines)).collect::<Vec<_>>(),
        "pairs": flow.pairs().iter().filter(|pair| shown(pair.from) && shown(pair.to)).take(PAIRS)
            .map(|pair| json!([pair.from, pair.to, pair.messages, pair.bytes])).collect::<Vec<_>>(),
        "longest": flow.longest_waits(LONGEST).iter().filter(|wait| shown(wait.vr))
            .map(|wait| json!([wait.vr, wait.at, wait.nanos, reason(flow, wait), on(wait, lines), wait.label]))
            .collect::<Vec<_>>(),
    })
}

fn line(flow: &Flow, vr: usize) -> Value {
    let trace = &flow.run.vrs[vr];
    json!({
        "name": flow.name(vr), "type": trace.name, "vm": trace.vm, "began": trace.began, "ended": trace.ended,
        "failure": trace.failure, "lost": trace.lost, "dropped": trace.dropped,
    })
}

fn number(labels: &mut Vec<String>, label: &str) -> usize {
    labels.iter().position(|known| known == label).unwrap_or_else(|| {
        labels.push(label.to_owned());
        labels.len() - 1
    })
}

fn column<T>(lines: &[&T], of: impl Fn(&T) -> usize) -> Vec<usize> {
    lines.iter().map(|line| of(line)).collect()
}

fn deltas(times: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut last = 0;
    times.map(|time| time - std::mem::replace(&mut last, time)).collect()
}

/// How long a message took; -1 if it was never received, -2 if it is not known when it was sent.
fn took(message: &Message) -> i64 {
    match (message.sent, message.received) {
        (Some(sent), Some(received)) => i64::try_from(received.saturating_sub(sent)).unwrap_or(i64::MAX),
        (Some(_), None) => -1,
        (None, _) => -2,
    }
}

fn on(wait: &Wait, lines: usize) -> i64 {
    wait.on.filter(|on| *on < lines).and_then(|on| i64::try_from(on).ok()).unwrap_or(-1)
}

fn reason(flow: &Flow, wait: &Wait) -> usize {
    if wait.reason == Reason::Receive && flow.labels[wait.label] == BARRIER {
        return Reason::ALL.len();
    }
    Reason::ALL.iter().position(|reason| *reason == wait.reason).unwrap_or(0)
}

fn step_line(step: &Step, lines: usize) -> Option<Value> {
    let (at, end) = step.times();
    let nanos = end - at;
    let (line, vrs) = match *step {
        Step::Run { vr, waited, .. } => {
            (json!({"kind": "run", "vr": vr, "at": at, "nanos": nanos, "waited": waited}), [vr, vr])
        }
        Step::Message { from, to, label, .. } => (
            json!({"kind": "message", "from": from, "to": to, "at": at, "nanos": nanos, "label": label}),
            [from, to],
        ),
        Step::Deploy { parent, child, .. } => (
            json!({"kind": "deploy", "from": parent, "to": child, "at": at, "nanos": nanos}),
            [parent, child],
        ),
    };
    vrs.iter().all(|vr| *vr < lines).then_some(line)
}

/// Caveats that a reader of the page must know.
fn notes(flow: &Flow) -> Vec<String> {
    let run = &flow.run;
    let mut notes = Vec::new();
    if !run.whole {
        notes.push("the trace is incomplete: the program was killed, or could not write it".into());
    }
    for loss in &run.losses {
        notes.push(format!("what the VRs on VM {} did is lost: {}", loss.vm, loss.why));
    }
    let dropped: u64 = run.vrs.iter().map(|vr| vr.dropped).sum();
    if dropped > 0 {
        let vrs = run.vrs.iter().filter(|vr| vr.dropped > 0).count();
        notes.push(format!("{dropped} older events of {vrs} VRs were not kept: see --events"));
    }
    if run.forgotten > 0 {
        notes.push(format!("{} VRs are not here, for want of memory", run.forgotten));
    }
    let error = run.vms.iter().map(|vm| vm.clock_error).max().unwrap_or(0);
    if error > 0 {
        let micros = error as f64 / 1000.0;
        notes.push(format!("clocks of other machines are known to {micros:.1} µs"));
    }
    if run.corrected > 0 {
        notes.push(format!(
            "{} events were moved to a later time, so that no message goes back",
            run.corrected
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use river_core::VrId;
    use river_core::trace::{Event, Run, VrTrace};

    use super::*;

    fn long_run(messages: u64) -> Run {
        let (a, b) = (VrId::fresh(), VrId::fresh());
        let mut run = Run::default();
        run.program = "</script><b>&".into();
        run.vms.push(Default::default());
        run.vrs = vec![VrTrace::new(a, None, 0, 0), VrTrace::new(b, Some(a), 0, 1)];
        for seq in 0..messages {
            let (at, bytes) = (1_000_000_000_000 + seq * 1_000_003, 123_456_789);
            let wait = What::Wait { reason: Reason::Receive, on: Some(a), nanos: 500_000 + seq };
            run.vrs[0].events.push(Event { at, what: What::Send { to: b, seq, bytes }, label: 0 });
            run.vrs[1].events.push(Event { at: at - 400_000, what: wait, label: 0 });
            let received = What::Receive { from: a, seq, bytes };
            run.vrs[1].events.push(Event { at: at + 100_001 + seq, what: received, label: 0 });
            run.end = at + 200_000;
        }
        run.vrs.iter_mut().for_each(|vr| vr.ended = run.end);
        run
    }

    #[test]
    fn a_page_of_very_many_messages_stays_below_20_mb_and_says_what_is_left_out() {
        let page = page(&Flow::new(long_run(600_000)));
        assert!(page.len() < 20_000_000, "{}", page.len());
        assert!(page.contains("one message in 3 is drawn"));
        assert!(page.contains("of 600000 waits the longest 200000"));
        assert!(page.contains("\"messages\":600000"));
    }

    #[test]
    fn no_text_leaves_its_place() {
        let page = page(&Flow::new(long_run(1)));
        assert_eq!(page.matches("</script>").count(), 2);
        assert!(page.contains("<title>&lt;/script>&lt;b>&amp;</title>"));
        assert!(!page.contains("{{"));
    }
}
