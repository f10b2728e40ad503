//! The lines of each view, computed from a snapshot and the one before it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use river::core::{HostId, ProcessReport, ProgramStatus, Usage, VmState, naming};

use super::gather::Snapshot;
use crate::command::duration;

/// The views.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum View {
    #[default]
    Vms,
    Programs,
    Vrs,
    Links,
}

impl View {
    pub(crate) const ALL: [View; 4] = [View::Vms, View::Programs, View::Vrs, View::Links];

    pub(crate) fn title(self) -> &'static str {
        ["VMs", "Programs", "VRs", "Links"][self as usize]
    }

    /// The column headers.
    pub(crate) fn header(self) -> &'static [&'static str] {
        match self {
            View::Vms => &["VM", "ADDRESS", "UP", "PROGRAM", "LEASE", "HEARD", "CPU %", "MEMORY"],
            View::Programs => {
                &["PROGRAM", "UP", "VMS", "VRS", "QUEUED", "MSG/S", "BYTES/S", "CPU %", "MEMORY", "SUSPECT"]
            }
            View::Vrs => &["VR", "ID", "VM", "PROGRAM", "QUEUED", "WAITING", "MSG/S", "BYTES/S", "ARRIVED"],
            View::Links => &["FROM", "TO", "KIND", "PROGRAM", "MSG/S", "BYTES/S", "MESSAGES", "BYTES"],
        }
    }
}

/// A cell: its text, and the number that it is sorted by, if it has one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cell {
    pub(crate) text: String,
    pub(crate) number: Option<f64>,
}

/// A line of a view.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) cells: Vec<Cell>,
    /// Its program and its VMs, by which lines can be limited: only a program has several.
    pub(crate) program: String,
    pub(crate) vms: Vec<String>,
    /// Whether something is wrong with it.
    pub(crate) bad: bool,
}

fn text(text: impl Into<String>) -> Cell {
    Cell { text: text.into(), number: None }
}

fn number(value: f64, text: String) -> Cell {
    Cell { text, number: Some(value) }
}

fn count(value: u64) -> Cell {
    number(value as f64, value.to_string())
}

fn nothing() -> Cell {
    number(-1.0, "-".into())
}

fn bytes(value: f64) -> Cell {
    let (mut scaled, mut unit) = (value, "B");
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if scaled < 1024.0 {
            break;
        }
        (scaled, unit) = (scaled / 1024.0, next);
    }
    number(value, if unit == "B" { format!("{scaled:.0} B") } else { format!("{scaled:.1} {unit}") })
}

fn time(time: Duration) -> Cell {
    number(time.as_secs_f64(), duration::short(time))
}

/// Two snapshots, of which the second is shown.
pub(crate) struct Looks<'a> {
    pub(crate) now: &'a Snapshot,
    pub(crate) before: Option<&'a Snapshot>,
}

/// Sums in the previous snapshot, by name.
type Before = HashMap<String, (u64, u64)>;

impl Looks<'_> {
    /// The lines of a view.
    pub(crate) fn lines(&self, view: View) -> Vec<Line> {
        match view {
            View::Vms => self.vms(),
            View::Programs => self.programs(),
            View::Vrs => self.vrs(),
            View::Links => self.links(),
        }
    }

    /// The rate per second; `None` if there is no previous snapshot.
    fn rate(&self, now: u64, before: Option<u64>) -> Option<f64> {
        let seconds = self.now.at.duration_since(self.before?.at).as_secs_f64();
        Some(now.saturating_sub(before?) as f64 / seconds.max(0.001))
    }

    fn rates(&self, now: (u64, u64), before: Option<(u64, u64)>) -> [Cell; 2] {
        let rate = self.rate(now.0, before.map(|before| before.0));
        let flow = self.rate(now.1, before.map(|before| before.1));
        [
            rate.map_or_else(nothing, |rate| number(rate, format!("{rate:.0}"))),
            flow.map_or_else(nothing, bytes),
        ]
    }

    fn cpu(&self, now: Usage, before: &HashMap<String, u64>, key: &str) -> Cell {
        let rate = self.rate(now.cpu.as_micros() as u64, before.get(key).copied());
        rate.map_or_else(nothing, |rate| number(rate / 1e4, format!("{:.0}", rate / 1e4)))
    }

    fn vms(&self) -> Vec<Line> {
        let host = |snapshot: &Snapshot| -> HashMap<String, u64> {
            let usage = |(vm, status): &(river::core::VmInfo, Option<river::core::VmStatus>)| {
                let host = status.as_ref()?.lease.as_ref()?.host?;
                Some((format!("{} {}", vm.id, host.process), host.cpu.as_micros() as u64))
            };
            snapshot.vms.iter().filter_map(usage).collect()
        };
        let before = self.before.map(host).unwrap_or_default();
        let line = |(vm, status): &(river::core::VmInfo, Option<river::core::VmStatus>)| {
            let program = match &vm.state {
                VmState::Idle => String::new(),
                VmState::Leased { name, .. } => name.clone(),
            };
            let lease = status.as_ref().and_then(|status| status.lease.as_ref());
            let suspected = self.now.programs.iter().flat_map(|program| &program.vms);
            let suspected = suspected.filter(|leased| leased.id == vm.id).any(|leased| leased.suspected);
            let heard = lease.map_or_else(nothing, |lease| time(lease.renewed));
            let host = lease.and_then(|lease| lease.host);
            let state = match lease {
                None if status.is_none() => "silent",
                None => "idle",
                Some(_) if suspected => "SUSPECTED",
                Some(lease) if lease.draining => "draining",
                Some(_) => "leased",
            };
            let cpu = |host: Usage| self.cpu(host, &before, &format!("{} {}", vm.id, host.process));
            Line {
                cells: vec![
                    text(&vm.name),
                    text(vm.address.to_string()),
                    time(vm.uptime),
                    text(if program.is_empty() { "-" } else { program.as_str() }),
                    text(state),
                    heard,
                    host.map_or_else(nothing, cpu),
                    host.map_or_else(nothing, |host| bytes(host.memory as f64)),
                ],
                program,
                vms: vec![vm.name.clone()],
                bad: suspected || status.is_none(),
            }
        };
        self.now.vms.iter().map(line).collect()
    }

    fn programs(&self) -> Vec<Line> {
        let mut cpu_before = HashMap::new();
        let mut before = Before::new();
        for program in self.before.iter().flat_map(|before| &before.programs) {
            let sums = Sums::of(program);
            cpu_before.insert(program.id.to_string(), sums.cpu.as_micros() as u64);
            before.insert(program.id.to_string(), (sums.arrived, sums.bytes));
        }
        let line = |program: &ProgramStatus| {
            let sums = Sums::of(program);
            let key = program.id.to_string();
            let [rate, flow] = self.rates((sums.arrived, sums.bytes), before.get(&key).copied());
            let mut usage = Usage::default();
            usage.cpu = sums.cpu;
            let suspected = program.processes.iter().filter(|process| process.suspected).count()
                + program.vms.iter().filter(|vm| vm.suspected).count();
            Line {
                cells: vec![
                    text(&program.name),
                    time(program.age),
                    count(program.vms.len() as u64),
                    count(sums.vrs),
                    count(sums.queued),
                    rate,
                    flow,
                    self.cpu(usage, &cpu_before, &key),
                    bytes(sums.memory as f64),
                    count(suspected as u64),
                ],
                program: program.name.clone(),
                vms: program
                    .vms
                    .iter()
                    .map(|vm| &vm.name)
                    .chain(program.processes.iter().map(|process| &process.vm))
                    .cloned()
                    .collect(),
                bad: suspected > 0,
            }
        };
        self.now.programs.iter().map(line).collect()
    }

    fn vrs(&self) -> Vec<Line> {
        let mut before = Before::new();
        for (_, _, report) in self.before.iter().flat_map(|before| reports(before)) {
            before.extend(report.vrs.iter().map(|vr| (vr.id.to_string(), (vr.arrived, vr.bytes))));
        }
        let mut lines = Vec::new();
        for (program, process, report) in reports(self.now) {
            for vr in &report.vrs {
                let [rate, flow] =
                    self.rates((vr.arrived, vr.bytes), before.get(&vr.id.to_string()).copied());
                lines.push(Line {
                    cells: vec![
                        text(called(&vr.name)),
                        text(vr.id.short().to_string()),
                        text(&process.vm),
                        text(&program.name),
                        count(vr.queued),
                        vr.waiting.map_or_else(nothing, time),
                        rate,
                        flow,
                        count(vr.arrived),
                    ],
                    program: program.name.clone(),
                    vms: vec![process.vm.clone()],
                    bad: process.suspected,
                });
            }
        }
        lines
    }

    fn links(&self) -> Vec<Line> {
        let mut before = Before::new();
        for (_, process, report) in self.before.iter().flat_map(|before| reports(before)) {
            let sums = |link: &river::core::LinkStatus| {
                (format!("{} {}", process.host, link.to), (link.messages, link.bytes))
            };
            before.extend(report.links.iter().map(sums));
        }
        let mut lines = Vec::new();
        for (program, process, report) in reports(self.now) {
            let called = |host: HostId| {
                let to = program.processes.iter().find(|process| process.host == host);
                to.map_or_else(|| "gone".to_owned(), |process| process.vm.clone())
            };
            for link in &report.links {
                let key = format!("{} {}", process.host, link.to);
                let [rate, flow] = self.rates((link.messages, link.bytes), before.get(&key).copied());
                lines.push(Line {
                    cells: vec![
                        text(&process.vm),
                        text(called(link.to)),
                        text(&link.kind),
                        text(&program.name),
                        rate,
                        flow,
                        count(link.messages),
                        bytes(link.bytes as f64),
                    ],
                    program: program.name.clone(),
                    vms: vec![process.vm.clone()],
                    bad: process.suspected,
                });
            }
        }
        lines
    }
}

/// The processes that have answered.
fn reports(
    snapshot: &Snapshot,
) -> impl Iterator<Item = (&ProgramStatus, &river::core::ProcessStatus, &ProcessReport)> {
    snapshot.programs.iter().flat_map(|program| {
        let processes = program.processes.iter();
        processes.filter_map(move |process| Some((program, process, process.report.as_ref()?)))
    })
}

/// Sums over a program's processes.
#[derive(Default)]
struct Sums {
    vrs: u64,
    queued: u64,
    arrived: u64,
    bytes: u64,
    cpu: Duration,
    memory: u64,
}

impl Sums {
    fn of(program: &ProgramStatus) -> Self {
        let mut sums = Self::default();
        for report in program.processes.iter().filter_map(|process| process.report.as_ref()) {
            sums.cpu += report.usage.cpu;
            sums.memory += report.usage.memory;
            for vr in &report.vrs {
                sums.vrs += 1;
                sums.queued += vr.queued;
                sums.arrived += vr.arrived;
                sums.bytes += vr.bytes;
            }
        }
        sums
    }
}

/// The name to show for a VR of that type.
fn called(name: &str) -> &str {
    if name.is_empty() { "-" } else { naming::last_part(name).unwrap_or(name) }
}

/// All views, one below the other.
pub(crate) fn all_as_text(snapshot: &Snapshot) -> String {
    let looks = Looks { now: snapshot, before: None };
    let mut out = String::new();
    for view in View::ALL {
        let header = view.header().iter().map(|head| (*head).to_owned()).collect::<Vec<_>>();
        let lines = looks.lines(view);
        let cells = lines.iter().map(|line| line.cells.iter().map(|cell| cell.text.clone()).collect());
        let rows: Vec<Vec<String>> = std::iter::once(header).chain(cells).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..view.header().len()).map(width).collect();
        let _ = writeln!(out, "{}", view.title());
        for row in &rows {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            let _ = writeln!(out, "  {}", cells.join("  ").trim_end());
        }
    }
    for error in &snapshot.errors {
        let _ = writeln!(out, "{error}");
    }
    out
}
