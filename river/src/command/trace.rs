//! `river trace`.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::{ValueEnum, ValueHint};
use river::VrError;
use river::trace::{Flow, Run, page, perfetto};

use super::run::{End, provide_vms, run_to_the_end};
use super::{count, exit, tell};

/// Run a program and draw what its virtual resources did
///
/// Every send and receive, every wait and what for, deployments and failures are recorded, on one clock for all machines, and
/// drawn as a page that any browser opens: a space-time diagram, who talks to whom, the longest waits, the critical path. The
/// page loads nothing from elsewhere.
///
/// VMs are found or started as by `river run`. If a host is killed, what it had recorded is lost, and the page says so.
#[derive(clap::Args)]
#[command(
    override_usage = "river trace [OPTIONS] -o FILE PROGRAM [ARGS]...\n       river trace [OPTIONS] -o FILE --read TRACE",
    after_help = "\
Examples:
  river trace -o run.html ./pi 1000              run it on running VMs, or on one per core, and draw it
  river trace -o run.html -n 4 cargo run         on four VMs, built by cargo first
  river trace -o run.json --format perfetto ./pi open run.json at https://ui.perfetto.dev
  river trace -o run.html --read run.rivertrace  draw a trace that a program has written itself:
                                                 Launch::new().trace(\"run.rivertrace\")

Exit status: that of PROGRAM, as with `river run`;
  125  River failed: there is no trace, or it could not be written"
)]
pub(crate) struct Args {
    /// The file to write
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: PathBuf,
    /// The format of that file
    #[arg(long, value_enum, default_value_t = Format::Html)]
    format: Format,
    /// How many VMs
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = count)]
    count: Option<NonZeroUsize>,
    /// How many events of each VR to keep: the newest, 48 bytes each
    #[arg(long, value_name = "N", default_value_t = river::core::trace::EVENTS)]
    events: u32,
    /// Read this trace instead of running a program
    #[arg(long, value_name = "TRACE", value_hint = ValueHint::FilePath, conflicts_with_all = ["command", "count"])]
    read: Option<PathBuf>,
    /// The program and its arguments
    #[arg(
        value_name = "PROGRAM [ARGS]",
        required_unless_present = "read",
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_hint = ValueHint::CommandWithArguments
    )]
    command: Vec<OsString>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// A page for a browser
    Html,
    /// JSON for the viewer at ui.perfetto.dev
    Perfetto,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let result = match &args.read {
        Some(trace) => draw(args, trace).map(|()| 0),
        None => try_run(args),
    };
    exit(result)
}

fn try_run(args: &Args) -> river::Result<u8> {
    let [program, arguments @ ..] = &args.command[..] else {
        return Err(VrError::msg("no PROGRAM was given"));
    };
    let mut command = Command::new(program);
    command.args(arguments);
    writable(&args.output)?;
    let scratch = tempfile::tempdir()?;
    let trace = scratch.path().join("trace");
    command.env("RIVER_TRACE", &trace).env("RIVER_TRACE_EVENTS", args.events.to_string());
    // VMs that were started live until the program has ended.
    let _vms = provide_vms(args.count.map(NonZeroUsize::get), &mut command)?;
    let end = run_to_the_end(&mut command)?;
    if let End::NotRun(code) = end {
        return Ok(code);
    }
    if !trace.exists() {
        return Err(VrError::msg(format!(
            "{} wrote no trace: is it a River program? (its exit code is {})",
            program.display(),
            end.code()
        )));
    }
    draw(args, &trace)?;
    Ok(end.code())
}

/// Checks, before the program runs, that the page can be written: a run of hours must not be lost to a wrong name.
fn writable(output: &Path) -> river::Result {
    let there = output.exists();
    if there && !output.is_file() && !output.is_dir() {
        return Ok(()); // a pipe, say, whose reader is to see one writer only
    }
    fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(output)
        .map_err(|error| cannot_write(output, &error))?;
    if !there {
        fs::remove_file(output)?;
    }
    Ok(())
}

fn cannot_write(output: &Path, error: &io::Error) -> VrError {
    VrError::msg(format!("cannot write {}: {error}", output.display()))
}

/// Reads a trace, and writes the requested output.
fn draw(args: &Args, trace: &Path) -> river::Result {
    let run = Run::read(trace)
        .map_err(|error| VrError::msg(format!("cannot read the trace {}: {error}", trace.display())))?;
    let flow = Flow::new(run);
    let text = match args.format {
        Format::Html => page(&flow),
        Format::Perfetto => perfetto(&flow),
    };
    fs::write(&args.output, text).map_err(|error| cannot_write(&args.output, &error))?;
    let run = &flow.run;
    tell(format_args!(
        "[river trace: {}: {} VRs on {} VMs, {} messages, {} waits, {:.3} s{}]",
        args.output.display(),
        run.vrs.len(),
        run.vms.len(),
        flow.messages.len(),
        flow.waits.len(),
        run.end as f64 / 1e9,
        if run.whole { "" } else { "; the trace is incomplete" }
    ));
    Ok(())
}
