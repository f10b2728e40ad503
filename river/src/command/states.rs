//! `river states`.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::ValueHint;
use river::core::Stored;

use super::print;

/// Show what the newest checkpoint in a directory holds
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  river states state               the VRs of the newest checkpoint in ./state

Exit status:
  0  there is one
  1  an error, told on stderr: there is none, or none that is whole
  2  the command line makes no sense")]
pub(crate) struct Args {
    /// Where the checkpoints are
    #[arg(value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
    directory: PathBuf,
}

pub(crate) fn run(args: &Args) -> river::Result {
    let stored = Stored::latest(&args.directory)?;
    for error in &stored.broken {
        eprintln!("passed over a checkpoint: {error}");
    }
    Ok(print(&table(&stored))?)
}

fn table(stored: &Stored) -> String {
    let ago = stored.taken.elapsed().unwrap_or_default().as_secs();
    let arguments: Vec<_> = stored.arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    let mut text = format!(
        "checkpoint {} of {}, taken {} ago\ncommand: {}\n\n",
        stored.number,
        stored.program,
        duration(ago),
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

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}
