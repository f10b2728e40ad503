//! `river replay`.

use std::os::unix::process::CommandExt;
use std::path::{self, Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::ValueHint;
use river::VrError;
use river::core::{Recording, VrId};

use super::states::is_recording;
use super::{exit, is_there};

/// Replay one VR of a recording, alone
///
/// The program's executable is started as that VR only. The VR receives what it received, and does and prints the same again;
/// what it sends is compared with the recording and discarded. It ends where the recording ends.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  river replay tape --vr initiator                   the VR that the program starts with
  river replay tape --vr 5f3a                        the one whose id begins with 5f3a (see `river states tape`)
  river replay tape --vr 5f3a --from 3               from its third safepoint on
  river replay tape --vr 5f3a --debugger 'gdb --args'
                                                     in a debugger, as often as needed
  river replay tape --vr 5f3a --debugger \"gdb -ex 'b main' --args\"
                                                     words are quoted as in a shell
  river replay tape --vr 5f3a --program target/debug/app
                                                     with another copy of the same executable, such as one with symbols

Exit status:
    0  the VR did what was recorded
    1  it did something else, reported on stderr: it is not deterministic, or the recording was altered
    2  the command line is invalid
  125  there is no such recording or VR, or the program cannot be started")]
pub(crate) struct Args {
    /// The recording
    #[arg(value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
    directory: PathBuf,
    /// Which VR: the beginning of its id, or `initiator`
    #[arg(long, value_name = "ID")]
    vr: String,
    /// Begin at this safepoint instead of the beginning
    #[arg(long, value_name = "N", default_value_t = 0)]
    from: usize,
    /// Print every line of the record to stderr as the VR reaches it
    #[arg(long)]
    trace: bool,
    /// Start this command with the program and its arguments appended; quoted as in a shell
    #[arg(long, value_name = "COMMAND")]
    debugger: Option<String>,
    /// Use this executable instead of the one in the recording
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    program: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    exit(replayed(args).and_then(|mut command| {
        // Returns only if it cannot be started.
        let error = command.exec();
        Err(VrError::msg(format!("cannot run {}: {error}", command.get_program().display())))
    }))
}

fn replayed(args: &Args) -> river::Result<Command> {
    is_there(&args.directory)?;
    if !is_recording(&args.directory) {
        return Err(VrError::msg(format!(
            "{} contains no recording: `river record` writes one",
            args.directory.display()
        )));
    }
    let recording = Recording::open(&args.directory)?;
    // If the recording is unusable, this command reports it better than the program would.
    let vr = recording.vr(find(&recording, &args.vr)?)?.id;
    let mut command =
        program(&args.directory, &recording, vr, args.program.as_deref(), args.debugger.as_deref())?;
    if args.from > 0 {
        command.env("RIVER_REPLAY_FROM", args.from.to_string());
    }
    if args.trace {
        command.env("RIVER_REPLAY_TRACE", "1");
    }
    Ok(command)
}

/// Finds the VR that is meant, without reading the recording of any VR.
pub(super) fn find(recording: &Recording, wanted: &str) -> river::Result<VrId> {
    let is_meant = |vr: &&VrId| match wanted {
        "initiator" => **vr == recording.initiator(),
        id => !id.is_empty() && vr.to_string().starts_with(id),
    };
    let found: Vec<&VrId> = recording.ids().iter().filter(is_meant).collect();
    match found[..] {
        [vr] => Ok(*vr),
        [] => Err(VrError::msg(format!(
            "no VR {wanted} was recorded: `river states DIRECTORY` lists those that were"
        ))),
        _ => Err(VrError::msg(format!(
            "the ids of {} VRs begin with {wanted}: give more of the id",
            found.len()
        ))),
    }
}

/// Splits a command line into words, as a shell does.
fn words(command: &str) -> river::Result<Vec<String>> {
    shell_words::split(command).map_err(|error| VrError::msg(format!("--debugger {command}: {error}")))
}

/// The command that starts the program as one VR of its recording.
pub(super) fn program(
    directory: &Path,
    recording: &Recording,
    vr: VrId,
    executable: Option<&Path>,
    debugger: Option<&str>,
) -> river::Result<Command> {
    let executable = path::absolute(executable.unwrap_or(&recording.executable()))?;
    let arguments = recording.arguments();
    let mut command = match debugger.map(words).transpose()? {
        None => {
            let mut command = Command::new(executable);
            if let Some(name) = arguments.first() {
                command.arg0(name);
            }
            command
        }
        Some(words) => {
            let (first, more) = words.split_first().ok_or_else(|| VrError::msg("--debugger is empty"))?;
            let mut command = Command::new(first);
            command.args(more).arg(executable);
            command
        }
    };
    command.args(arguments.iter().skip(1)).envs(recording.environment());
    command.env("RIVER_REPLAY", path::absolute(directory)?).env("RIVER_REPLAY_VR", vr.to_string());
    if recording.working_directory().is_dir() {
        command.current_dir(recording.working_directory());
    }
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_debugger_are_those_of_a_shell() {
        assert_eq!(words("gdb -ex 'b main' --args").unwrap(), ["gdb", "-ex", "b main", "--args"]);
        assert!(words("gdb 'b").unwrap_err().to_string().contains("--debugger gdb 'b"));
        assert!(words(" ").unwrap().is_empty());
    }
}
