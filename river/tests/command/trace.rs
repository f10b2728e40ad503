//! `river trace`, and the page that it makes, in a browser.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use river::core::{Query, VirtualResource, Vr};
use river::prelude::{Sfm, msg, pat};
use river::trace::{Flow, Reason, Run, What, critical_path};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::browser::Page;
use crate::lab::{INITIATOR, INITIATOR_ARGS, Lab, text};

/// How many rounds of work each worker gets.
const ROUNDS: u64 = 5;

/// Adds up numbers until it is told to stop; or dies with its host.
#[derive(Serialize, Deserialize)]
struct Adder {
    dies: bool,
}

impl VirtualResource for Adder {
    fn main(&mut self, vr: &Vr) -> river::Result {
        let parent = vr.parent().unwrap();
        loop {
            let message = vr.recv(pat! {})?;
            if message.get::<String>("tag")? == "stop" {
                return Ok(());
            }
            if self.dies {
                std::process::abort();
            }
            let span = vr.span("adding");
            let sum: u64 = message.get::<Vec<u64>>("numbers")?.iter().sum();
            drop(span);
            vr.send(parent, msg! { tag: "sum", sum: sum })?;
        }
    }
}

/// Runs the program of that kind as the initiator, if it is one of these.
pub(crate) fn run(kind: &str) -> bool {
    if kind == "ranks" {
        river::mpi::try_run(2, |world| {
            world.barrier()?;
            let (other, mut got) = (1 - world.rank(), [0_u8]);
            world.sendrecv(&[7_u8], other, 0, &mut got, other, 0)?;
            Ok(())
        })
        .unwrap();
        return true;
    }
    if kind == "ranks-asleep" {
        river::mpi::try_run(2, |world| {
            world.barrier()?;
            println!("rank {} is asleep", world.rank());
            world.vr().recv(pat! { never: true })?;
            Ok(())
        })
        .unwrap();
        return true;
    }
    let dies = match kind {
        "trace" => false,
        "trace-lost" => true,
        _ => return false,
    };
    let ended = river::try_run(|vr| {
        let vms = vr.allocate(vr.discover(Query::default())?, 2)?;
        let adders = vr.deploy(&vms, |i| Adder { dies: dies && i == 1 })?;
        for _ in 0..if dies { 1 } else { ROUNDS } {
            for adder in adders.iter() {
                vr.send(adder, msg! { tag: "work", numbers: (0..1000_u64).collect::<Vec<_>>() })?;
            }
            for _ in adders.iter() {
                match vr.recv(pat! { tag: "sum" }) {
                    Ok(message) => assert_eq!(message.get::<u64>("sum")?, 499_500),
                    Err(error) => println!("no sum: {error}"),
                }
            }
        }
        vr.send(adders[0], msg! { tag: "stop" })?;
        let _ = vr.send(adders[1], msg! { tag: "stop" });
        Ok(())
    });
    ended.unwrap();
    true
}

/// Traces the program of that kind, and returns the file.
fn traced(lab: &Lab, kind: &str, options: &[&str], name: &str) -> PathBuf {
    let output = lab.path(name);
    let mut command = lab.river(&["trace", "-o"]);
    command.arg(&output).args(options).arg(std::env::current_exe().unwrap());
    let ended = command.env(INITIATOR, kind).args(INITIATOR_ARGS).output().unwrap();
    assert!(ended.status.success(), "{}", text(&ended));
    assert!(text(&ended).contains("3 VRs on "), "{}", text(&ended));
    output
}

/// The data in a page.
fn data(page: &Path) -> Value {
    let page = fs::read_to_string(page).unwrap();
    let data = page.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
    serde_json::from_str(data).unwrap()
}

#[test]
fn the_page_of_a_run_shows_who_did_what_and_can_be_used() {
    let lab = Lab::new();
    let file = traced(&lab, "trace", &["-n", "2"], "run.html");
    let of = data(&file);
    assert_eq!(of["notes"], json!([]));
    let Some(mut page) = Page::open(&file) else { return };
    assert!(page.text("#summary").contains("3 VRs on 3 VMs"), "{}", page.text("#summary"));
    assert_eq!(page.get("performance.getEntriesByType('resource').length"), 0, "it loads nothing");
    // All messages, then those with a tag.
    let messages = |page: &mut Page| page.get("Number(document.getElementById('status').dataset.messages)");
    assert_eq!(messages(&mut page), 4 * ROUNDS + 2);
    page.click("#filter");
    page.call("Input.insertText", json!({"text": "work"}));
    page.eventually(&format!("document.getElementById('status').dataset.messages == {}", 2 * ROUNDS));
    // With keys: from message to message, and zooming in.
    page.get("document.getElementById('diagram').focus()");
    page.press("n");
    page.eventually("document.getElementById('info').textContent.includes('sfm: work')");
    let info = page.text("#info");
    assert!(info.contains("initiator → Adder") && info.contains("received at"), "{info}");
    let shown = page.text("#status");
    page.press("+");
    page.eventually(&format!("document.getElementById('status').textContent != {}", json!(shown)));
    // With the mouse: the wheel zooms out again, pointing at a name shows attributes, a click pins them.
    let (x, y) = page.place("#diagram");
    let zoomed = page.text("#status");
    page.mouse("mouseWheel", (x, y), json!({"deltaX": 0, "deltaY": 150}));
    page.eventually(&format!("document.getElementById('status').textContent != {}", json!(zoomed)));
    let corner = page.get("(() => { const r = document.getElementById('diagram').getBoundingClientRect(); return [r.x, r.y] })()");
    let name = (corner[0].as_f64().unwrap() + 30.0, corner[1].as_f64().unwrap() + 20.0 + 26.0 * 1.5);
    page.click_at(name);
    page.eventually("document.getElementById('info').textContent.startsWith('initiator on')");
    page.eventually("!document.getElementById('tip').hidden");
    // The panels.
    assert_eq!(page.count("#matrix .heat tbody tr"), 3);
    page.click("[data-panel=waits]");
    page.eventually("!document.getElementById('waits').hidden");
    assert!(page.count("#waits tbody tr") > 0);
    assert!(page.text("#waits").contains("receive") && page.text("#waits").contains("deploy"));
    // From very close, a click on the longest wait shows all of it.
    for _ in 0..12 {
        page.click("#in");
    }
    let part = format!("Number(document.getElementById('status').dataset.span) / {}", of["end"]);
    page.eventually(&format!("{part} < 0.01"));
    page.click("#waits tbody tr");
    page.eventually(&format!("{part} > 0.01"));
    page.click("[data-panel=critical]");
    assert!(page.text("#critical").contains("of messages"), "{}", page.text("#critical"));
    page.click("[data-panel=vrs]");
    assert_eq!(page.count("#vrs tbody tr"), 3);
    // Waits for a reason can be hidden.
    page.click("#fit");
    page.get("document.getElementById('filter').value = ''; document.getElementById('filter').oninput({target: {value: ''}})");
    page.eventually("Number(document.getElementById('status').dataset.waits) > 0");
    let waits = page.get("Number(document.getElementById('status').dataset.waits)");
    page.click("[data-reason=receive]");
    page.eventually(&format!("Number(document.getElementById('status').dataset.waits) < {waits}"));
    // Dark and light.
    let corner = "document.getElementById('diagram').getContext('2d').getImageData(2, 2, 1, 1).data[0]";
    for (scheme, bright) in [("dark", "< 60"), ("light", "> 200")] {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        page.call("Emulation.setEmulatedMedia", features);
        page.eventually(&format!("{corner} {bright}"));
    }
    assert_eq!(page.exceptions, Vec::<Value>::new());
}

#[test]
fn what_a_dead_host_did_is_lost_and_the_page_says_so() {
    let lab = Lab::new();
    let of = data(&traced(&lab, "trace-lost", &["-n", "2"], "run.html"));
    let notes = of["notes"].to_string();
    assert!(notes.contains("what the VRs on VM run-1 did is lost: signal 6 (SIGABRT)"), "{notes}");
    let lost: Vec<&Value> =
        of["vrs"].as_array().unwrap().iter().filter(|vr| vr["lost"].as_bool().unwrap()).collect();
    assert_eq!(lost.len(), 1, "{of}");
    assert!(of["messages"]["took"].as_array().unwrap().contains(&json!(-1)), "one was never received: {of}");
}

#[test]
fn perfetto_gets_an_arrow_for_every_message() {
    let lab = Lab::new();
    let file = traced(&lab, "trace", &["-n", "2", "--format", "perfetto"], "run.json");
    let trace: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let of = |ph: &str| events.iter().filter(|event| event["ph"] == ph).collect::<Vec<_>>();
    assert_eq!(of("s").len() as u64, 4 * ROUNDS + 2);
    for (begin, end) in of("s").iter().zip(of("f")) {
        assert_eq!(begin["id"], end["id"]);
        assert!(begin["ts"].as_f64() < end["ts"].as_f64());
    }
    let named = of("M").iter().filter(|event| event["name"] == "thread_name").count();
    assert_eq!(named, 3);
    assert!(
        events.iter().any(|event| event["cat"] == "wait")
            && events.iter().any(|event| event["cat"] == "span")
    );
}

/// A VM whose clock is a day ahead: on a machine that was started a day earlier.
#[test]
fn clocks_that_differ_are_aligned() {
    let mut lab = Lab::new();
    let unshare = ["--time", "--monotonic", "86400", "--fork", "--kill-child"];
    let there_is = Command::new("unshare").args(unshare).arg("true").stderr(Stdio::null()).status();
    if !there_is.is_ok_and(|status| status.success()) {
        eprintln!("skipped: clocks that differ (no time namespaces, or no root)");
        return;
    }
    lab.start_vms(1);
    lab.start_vms_in("unshare", &unshare, "ahead");
    let trace = lab.path("trace");
    let output = lab.program("trace").env("RIVER_TRACE", &trace).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let run = Run::read(&trace).unwrap();
    assert!(run.whole && run.vms.len() == 3, "{run:?}");
    let ahead = run.vms.iter().find(|vm| vm.name == "ahead").unwrap();
    assert!(ahead.clock_error > 0, "its clock had to be compared");
    let own = run.vms.iter().find(|vm| vm.name.starts_with("lab")).unwrap();
    assert_eq!(own.clock_error, 0, "one kernel, one clock");
    assert!(run.end < 3_600_000_000_000, "not a day: {}", run.end);
    let flow = Flow::new(run);
    assert_eq!(flow.messages.len() as u64, 4 * ROUNDS + 2);
    for message in &flow.messages {
        if let (Some(sent), Some(received)) = (message.sent, message.received) {
            assert!(sent < received, "{message:?}");
        }
    }
    let path = critical_path(&flow);
    assert_eq!(path.last().unwrap().times().1, flow.run.vrs[0].ended);
}

#[test]
fn what_is_no_river_program_leaves_no_trace() {
    let lab = Lab::new();
    let (_, error) = lab.ends(&["trace", "-o", "x.html", "-n", "1", "true"], 125);
    assert!(error.contains("true wrote no trace: is it a River program?"), "{error}");
    let (_, error) = lab.ends(&["trace", "-o", "x.html", "--read", "nothing"], 125);
    assert!(error.contains("cannot read the trace nothing: No such file"), "{error}");
    let (_, error) = lab.ends(&["trace", "-o", "x.html", "--read", "/proc/self/exe"], 125);
    assert!(error.contains("it is not a trace of this version of River"), "{error}");
    lab.ends(&["trace", "-o", "x.html", "./is-not-there"], 127);
}

#[test]
fn a_page_that_cannot_be_written_is_refused_before_the_program_runs() {
    let lab = Lab::new();
    let ran = lab.path("ran");
    for (output, why) in [("nowhere/run.html", "No such file"), (".", "Is a directory")] {
        let (_, stderr) = lab.ends(&["trace", "-o", output, "-n", "1", "touch", ran.to_str().unwrap()], 125);
        assert!(stderr.contains(&format!("cannot write {output}: {why}")), "{stderr}");
        assert!(!ran.exists());
    }
}

#[test]
fn every_event_is_there_of_a_program_that_traces_itself() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("run.rivertrace");
    let launch = river::Launch::new().trace(&file);
    let ended = launch.try_run(|vr| {
        assert!(vr.is_traced());
        let adders = vr.deploy(&vr.start_local(1)?, |_| Adder { dies: false })?;
        vr.send(adders[0], msg! { tag: "work", numbers: vec![1_u64, 2] })?;
        vr.recv(pat! { tag: "sum" })?;
        vr.send(adders[0], msg! { tag: "stop" })?;
        vr.watch(adders[0]);
        assert!(vr.recv(pat! { src: adders[0] }).is_err());
        Ok(adders[0])
    });
    let adder = ended.unwrap();
    let run = Run::read(&file).unwrap();
    assert!(run.whole && run.losses.is_empty() && run.vrs.len() == 2, "{run:?}");
    let [initiator, worker] = &run.vrs[..] else { panic!("{run:?}") };
    assert_eq!((initiator.name.as_str(), worker.id, worker.parent), ("initiator", adder, Some(initiator.id)));
    let has = |what: fn(&What) -> bool, count: usize, of: &river::trace::VrTrace| {
        let found = of.events.iter().filter(|event| what(&event.what)).count();
        assert!(found == count, "{found}, not {count}: {of:?}");
    };
    has(|what| matches!(what, What::Send { .. }), 2, initiator);
    has(|what| matches!(what, What::Receive { .. }), 1, initiator);
    has(|what| matches!(what, What::Deploy { .. }), 1, initiator);
    has(|what| matches!(what, What::Down { .. }), 1, initiator);
    has(|what| matches!(what, What::Receive { .. }), 2, worker);
    has(|what| matches!(what, What::Span { .. }), 1, worker);
    let deploys =
        |event: &river::trace::Event| matches!(event.what, What::Wait { reason: Reason::Deploy, .. });
    assert!(initiator.events.iter().any(deploys), "it waited for the host: {initiator:?}");
    assert_eq!(worker.failure, None);
    let sent = initiator.events.iter().find(|event| matches!(event.what, What::Send { .. })).unwrap();
    assert_eq!(initiator.label(sent), Some("sfm: work"));
}

#[test]
fn ranks_are_called_by_their_numbers() {
    let lab = Lab::new();
    let of = data(&traced(&lab, "ranks", &["-n", "2"], "run.html"));
    let mut names: Vec<&str> =
        of["vrs"].as_array().unwrap().iter().map(|vr| vr["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["initiator", "rank 0", "rank 1"]);
}

#[test]
fn messages_between_ranks_of_one_process_are_shown_too() {
    let lab = Lab::new();
    let of = data(&traced(&lab, "ranks", &["-n", "1"], "run.html"));
    let names: Vec<&str> =
        of["vrs"].as_array().unwrap().iter().map(|vr| vr["name"].as_str().unwrap()).collect();
    let pairs: Vec<[u64; 4]> = serde_json::from_value(of["pairs"].clone()).unwrap();
    for ranks in [["rank 0", "rank 1"], ["rank 1", "rank 0"]] {
        let [from, to] = ranks.map(|rank| names.iter().position(|name| *name == rank).unwrap() as u64);
        let count = pairs.iter().find(|pair| pair[..2] == [from, to]).map(|pair| pair[2]);
        // One of the barrier, and one of `sendrecv`.
        assert_eq!(count, Some(2), "{ranks:?} in {pairs:?}");
    }
}

#[test]
fn a_run_that_is_not_traced_and_a_trace_that_is_cut_off_are_told() {
    let mut lab = Lab::new();
    lab.start_vms(2);
    let (trace, page) = (lab.path("trace"), lab.path("page.html"));
    for told in [false, true] {
        let output = lab.program("trace").env("RIVER_TRACE", &trace).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        assert_eq!(
            text(&output).contains("[river: not traced: RIVER_TRACE names "),
            told,
            "{}",
            text(&output)
        );
    }
    let read = ["trace", "-o", page.to_str().unwrap(), "--read", trace.to_str().unwrap()];
    assert!(!lab.ends(&read, 0).1.contains("incomplete"));
    let whole = fs::read(&trace).unwrap();
    fs::write(&trace, &whole[..whole.len() - 1]).unwrap();
    assert!(lab.ends(&read, 0).1.contains("; the trace is incomplete]"));
}
