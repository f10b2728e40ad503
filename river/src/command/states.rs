//! `river states`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::ValueHint;
use river::VrError;
use river::core::{Happening, RecordedVr, Recording, Stored};

use super::watch::{self, Watch};
use super::{duration, is_there, print, replay, tell};

/// Show the newest checkpoint, or the recording, in a directory
///
/// A recording is a series of states: --vr lists those of one VR, and what happened between them. --watch prints the values of
/// an expression over time, as CSV.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  river states state                            the VRs of the newest checkpoint in ./state
  river states tape                             the VRs of a recording
  river states tape --vr 5f3a                   the states of one of them, and what happened between them
  river states tape --watch recv.count          attribute `count` of all messages that have arrived, over time
  river states tape --vr 5f3a --watch send.sum --watch state.round
                                                attribute `sum` of what one VR has sent, and field `round` of the
                                                states that it passed to safepoints

Expressions:
  recv.NAME    an attribute of the messages that have arrived
  send.NAME    an attribute of the messages that were sent and have arrived
  state.PATH   a part of the states that were passed to safepoints: fields by name, elements by number; the VR
               is replayed for that

Exit status:
  0  success
  1  an error, reported on stderr: there is nothing, or nothing that is complete
  2  the command line is invalid")]
pub(crate) struct Args {
    /// The directory of the checkpoints or of the recording
    #[arg(value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
    directory: PathBuf,
    /// One VR of a recording: the beginning of its id, or `initiator`
    #[arg(long, value_name = "ID")]
    vr: Option<String>,
    /// Print the values of this expression over time as CSV
    #[arg(long, value_name = "EXPR")]
    watch: Vec<String>,
}

pub(crate) fn run(args: &Args) -> river::Result {
    is_there(&args.directory)?;
    if is_recording(&args.directory) {
        return recorded(args);
    }
    if args.vr.is_some() || !args.watch.is_empty() {
        return Err(VrError::msg(format!(
            "{} contains no recording, which --vr and --watch need: see `river record`",
            args.directory.display()
        )));
    }
    let stored = Stored::latest(&args.directory)?;
    for error in &stored.broken {
        tell(format_args!("skipped a checkpoint: {error}"));
    }
    Ok(print(&table(&stored))?)
}

/// Whether a directory holds a recording.
pub(super) fn is_recording(directory: &Path) -> bool {
    directory.join("recording.river").exists()
}

fn recorded(args: &Args) -> river::Result {
    let recording = Recording::open(&args.directory)?;
    let one = args
        .vr
        .as_ref()
        .map(|vr| Ok::<_, VrError>(recording.vr(replay::find(&recording, vr)?)?))
        .transpose()?;
    if !args.watch.is_empty() {
        let wrong = |text: &str, error: String| VrError::msg(format!("--watch {text}: {error}"));
        let watches = args.watch.iter().map(|text| text.parse().map_err(|error| wrong(text, error)));
        let watches: Vec<Watch> = watches.collect::<river::Result<_>>()?;
        let vrs = one.as_ref().map_or_else(|| whole(&recording), std::slice::from_ref);
        return Ok(print(&watch::csv(&args.directory, &recording, vrs, &args.watch, &watches)?)?);
    }
    let text = match one {
        Some(vr) => series(&recording, &vr)?,
        None => vrs(&recording),
    };
    Ok(print(&text)?)
}

/// The VRs of a recording, except those whose recordings are too short, which are reported.
fn whole(recording: &Recording) -> &[RecordedVr] {
    for error in recording.broken() {
        tell(format_args!("skipped a VR: {error}"));
    }
    recording.vrs()
}

/// Lists the VRs of a recording.
fn vrs(recording: &Recording) -> String {
    let mut text = format!("recording of {}\n\n", recording.program());
    let _ = writeln!(
        text,
        "{:<10}{:<14}{:>11}{:>10}{:>12}  {:<40}  END",
        "VR", "VM", "SAFEPOINTS", "LINES", "BYTES", "TYPE"
    );
    for vr in whole(recording) {
        let end = vr.end.as_deref().unwrap_or("the recording ends before");
        let _ = writeln!(
            text,
            "{:<10}{:<14}{:>11}{:>10}{:>12}  {:<40}  {end}",
            vr.id.short(),
            vr.vm,
            vr.safepoints,
            vr.lines,
            vr.bytes,
            vr.name
        );
    }
    text
}

/// Lists the states of one VR: where a replay can begin, and what happened until the next such point.
fn series(recording: &Recording, vr: &RecordedVr) -> river::Result<String> {
    let mut text = format!("VR {} ({}) on {}\n\n", vr.id, vr.name, vr.vm);
    let _ = writeln!(
        text,
        "{:>9}{:>10}{:>10}{:>10}{:>10}{:>10}",
        "STATE", "TIME", "LINE", "BYTES", "ARRIVED", "SENT"
    );
    let (mut arrived, mut sent, mut open) = (0_u64, 0_u64, None);
    let mut close = |open: Option<String>, arrived: &mut u64, sent: &mut u64| {
        if let Some(row) = open {
            let _ = writeln!(text, "{row}{arrived:>10}{sent:>10}");
        }
        (*arrived, *sent) = (0, 0);
    };
    let mut last = None;
    for step in recording.outline(vr.id)? {
        let time = step.time.duration_since(recording.began()).unwrap_or_default().as_secs_f64();
        let row = |state: u64, bytes: usize| format!("{state:>9}{time:>10.3}{:>10}{bytes:>10}", step.line);
        match step.what {
            Happening::Began(bytes) => open = Some(row(0, bytes)),
            Happening::Safepoint(number, bytes) => {
                close(open.take(), &mut arrived, &mut sent);
                open = Some(row(number, bytes));
            }
            Happening::Arrived(_) => arrived += 1,
            Happening::Sent(..) => sent += 1,
            Happening::Ended(why) => last = Some(format!("it {why} after {time:.3} s")),
            _ => {}
        }
    }
    close(open, &mut arrived, &mut sent);
    let _ = writeln!(text, "\n{}", last.as_deref().unwrap_or("the recording ends before the VR does"));
    Ok(text)
}

fn table(stored: &Stored) -> String {
    let arguments: Vec<_> = stored.arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    let mut text = format!(
        "checkpoint {} of {}, taken {} ago\ncommand: {}\n\n",
        stored.number,
        stored.program,
        duration::short(stored.taken.elapsed().unwrap_or_default()),
        arguments.join(" ")
    );
    let _ = writeln!(
        text,
        "{:<10}{:<14}{:>11}{:>10}{:>8}{:>9}  TYPE",
        "VR", "VM", "SAFEPOINTS", "STATE", "LINES", "WAITING"
    );
    for vr in &stored.vrs {
        let _ = writeln!(
            text,
            "{:<10}{:<14}{:>11}{:>10}{:>8}{:>9}  {}",
            vr.id.short(),
            vr.vm.as_deref().unwrap_or("-"),
            vr.safepoints,
            vr.state,
            vr.lines,
            vr.waiting,
            vr.name
        );
    }
    text
}
