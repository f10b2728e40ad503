//! Starts programs.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Termination};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::code;
use crate::discovery::Reach;
use crate::down::Why;
use crate::error::{Result, StateError, VrError};
use crate::host;
use crate::id::VrId;
use crate::image;
use crate::notice::say;
use crate::program::Program;
use crate::protocol::KeepIn;
use crate::replay;
use crate::state::{Base, Content, Directory, Origin, Record, Recorder, Store, StoreTarget};
use crate::trace;
use crate::vr::Vr;

/// Runs a program: `body` becomes its initiator, on the calling thread. Everything that the program has started is gone when
/// this returns.
///
/// Call it first in `main`: in a process that a VM has started to run this program's VRs it never returns.
///
/// ```no_run
/// use river_core::{ExitCode, Result, Vr};
///
/// fn main() -> ExitCode {
///     river_core::run(program)
/// }
///
/// fn program(vr: &Vr) -> Result {
///     println!("I am VR {} on {}", vr.id(), vr.vm());
///     Ok(())
/// }
/// ```
///
/// The exit code is that of `body`; an error is printed to stderr and gives 1.
pub fn run<T: Termination>(body: impl FnOnce(&Vr) -> Result<T>) -> ExitCode {
    Launch::new().run(body)
}

fn report<T: Termination>(result: Result<T>) -> ExitCode {
    match result {
        Ok(value) => value.report(),
        Err(error) => {
            say!("error: {error}");
            if let Some(trace) = error.trace() {
                say!("the calls that led to the panic:\n{trace}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Names a file by which `river run` is told that the program failed after it had lost a host.
const LOST_FILE: &str = "RIVER_LOST_A_HOST";

/// Like [`run`], but returns what `body` returns. For tests, and for programs that do other work besides.
///
/// # Errors
/// What `body` returns, or why the program could not be started.
pub fn try_run<T>(body: impl FnOnce(&Vr) -> Result<T>) -> Result<T> {
    Launch::new().try_run(body)
}

fn run_as<T>(launch: &Launch, body: impl FnOnce(&Vr) -> Result<T>) -> Result<T> {
    host::become_host_if_asked();
    if let Some(directory) = replay::wanted() {
        replay::replay(directory, body);
    }
    match meant_for_this_process(RESTORE) {
        Some(checkpoint) => go_on_from(&checkpoint, launch, body),
        None => begin(launch, recording_directory(), body),
    }
}

/// Like [`try_run`], but the initiator and all VRs that are deployed are recoverable, as if the program were run by `river
/// run --recoverable`: it can be checkpointed ([`Vr::checkpoint`]) and restored. A restored program runs `body` again, which
/// gets to the same place.
///
/// # Errors
/// As [`try_run`].
pub fn try_run_recoverable<T>(body: impl FnOnce(&Vr) -> Result<T>) -> Result<T> {
    Launch::new().recoverable().try_run(body)
}

/// Like [`run`], but the initiator and all VRs that are deployed are recoverable: see [`try_run_recoverable`].
pub fn run_recoverable<T: Termination>(body: impl FnOnce(&Vr) -> Result<T>) -> ExitCode {
    Launch::new().recoverable().run(body)
}

/// Restores a program from the newest complete checkpoint in a directory, in this process. `body` is the same initiator as
/// when the program was run, and the executable must be the same.
///
/// The program's VMs are used again if they can be found. Otherwise others take their place, and share the work if they are
/// fewer. `river restore` does the same with the executable that is kept in the directory.
///
/// # Errors
/// Whatever `body` returns; [`StateError`](crate::StateError) if there is no usable checkpoint; an error if there are no VMs.
pub fn restore<T>(directory: impl AsRef<Path>, body: impl FnOnce(&Vr) -> Result<T>) -> Result<T> {
    host::become_host_if_asked();
    go_on_from(directory.as_ref(), &Launch::new(), body)
}

/// How a program is started: [`run`] and [`try_run`] with options.
///
/// ```no_run
/// use river_core::{ExitCode, Launch, Result, Vr};
///
/// fn main() -> ExitCode {
///     Launch::new().trace("run.rivertrace").run(program) // then: river trace --read run.rivertrace -o run.html
/// }
///
/// fn program(vr: &Vr) -> Result {
///     println!("I am VR {} on {}", vr.id(), vr.vm());
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug)]
#[must_use = "it starts nothing by itself"]
pub struct Launch {
    recoverable: bool,
    checkpoints: Option<(KeepIn, Duration)>,
    store: Option<StoreTarget>,
    trace: Option<PathBuf>,
    events: u32,
}

impl Default for Launch {
    fn default() -> Self {
        Self { recoverable: false, checkpoints: None, store: None, trace: None, events: trace::EVENTS }
    }
}

impl Launch {
    /// Starts without any option set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Records all VRs, so that the program can be checkpointed: see [`try_run_recoverable`].
    pub fn recoverable(mut self) -> Self {
        self.recoverable = true;
        self
    }

    /// Makes the program recoverable, and takes a checkpoint of it at this interval. If one cannot be taken, that is reported
    /// on stderr, and the program continues. `river run --checkpoint` does the same from outside, takes precedence, and
    /// restarts the program from the last checkpoint when it dies.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use river_core::{ExitCode, KeepIn, Launch, Result, Vr};
    ///
    /// fn main() -> ExitCode {
    ///     // From then on: river restore state
    ///     Launch::new().checkpoint_every(Duration::from_secs(10), KeepIn::Directory("state".into())).run(program)
    /// }
    ///
    /// fn program(vr: &Vr) -> Result {
    ///     println!("I am VR {} on {}", vr.id(), vr.vm());
    ///     Ok(())
    /// }
    /// ```
    pub fn checkpoint_every(mut self, every: Duration, to: KeepIn) -> Self {
        self.recoverable = true;
        self.checkpoints = Some((to, every));
        self
    }

    /// Makes the program recoverable, and gives it storage for checkpoints, in which [`Vr::checkpoint_in_store`] and
    /// [`KeepIn::Store`] keep them: see [`Store`]. Hosts, which execute `main` as well, never use it: call
    /// [`become_host_if_asked`](crate::become_host_if_asked) first if they should not even open it.
    pub fn store(mut self, store: impl Store + 'static) -> Self {
        self.recoverable = true;
        self.store = Some(StoreTarget::new(store));
        self
    }

    /// Writes what the VRs do to this file, for `river trace --read` and [`trace::Run::read`]. Without this option a program
    /// is traced if `RIVER_TRACE` names a file that does not exist yet; `river trace` sets that variable.
    pub fn trace(mut self, path: impl Into<PathBuf>) -> Self {
        self.trace = Some(path.into());
        self
    }

    /// Sets how many events of each VR a trace keeps: the newest ones, of 48 bytes each. Default: [`trace::EVENTS`], or
    /// `RIVER_TRACE_EVENTS`. All VRs of a process together keep four million.
    pub fn trace_events(mut self, events: u32) -> Self {
        self.events = events;
        self
    }

    /// Like [`run`].
    pub fn run<T: Termination>(self, body: impl FnOnce(&Vr) -> Result<T>) -> ExitCode {
        report(run_as(&self, body))
    }

    /// Like [`try_run`].
    ///
    /// # Errors
    /// As [`try_run`], and if the trace's file cannot be written.
    pub fn try_run<T>(self, body: impl FnOnce(&Vr) -> Result<T>) -> Result<T> {
        run_as(&self, body)
    }

    /// Like [`restore`], but from the newest complete checkpoint in the program's [`store`](Self::store). Under `river restore`,
    /// and after `river run --restarts` has restarted the program, from the checkpoint that those have chosen.
    ///
    /// # Errors
    /// As [`restore`]; [`StateError::Store`](crate::StateError::Store) if there is no usable checkpoint, or no store.
    pub fn restore<T>(self, body: impl FnOnce(&Vr) -> Result<T>) -> Result<T> {
        host::become_host_if_asked();
        // `river restore` and `river run --restarts` have said which one.
        if let Some(checkpoint) = meant_for_this_process(RESTORE) {
            return go_on_from(&checkpoint, &self, body);
        }
        let (number, content, broken) = self.store.as_ref().ok_or_else(StoreTarget::none)?.latest()?;
        if image::own_image()?.hash != content.header.image {
            return Err(VrError::msg(format!(
                "checkpoint {number} in the program's store was taken by another executable than this one: write what is in the \
                 store to files, and run `river restore` on their directory"
            )));
        }
        go_on((number, content, broken), "the program's store", &self, body)
    }

    fn program(&self, recoverable: bool) -> Result<Arc<Program>> {
        let reach = Reach::from_env()?;
        let trace = self.trace.clone().or_else(|| {
            let path = PathBuf::from(std::env::var_os(TRACE).filter(|path| !path.is_empty())?);
            // The variable was not meant for a program that a traced program has started.
            if path.exists() {
                say!("[river: not traced: {TRACE} names {}, which already exists]", path.display());
                return None;
            }
            Some(path)
        });
        let events = match std::env::var(TRACE_EVENTS) {
            Err(_) => self.events,
            Ok(text) => text
                .parse()
                .map_err(|_| VrError::msg(format!("{TRACE_EVENTS} is {text:?}, not a number of events")))?,
        };
        let trace = trace.as_deref().map(|path| (path, events));
        Ok(Program::start(
            reach.key()?,
            reach,
            recoverable,
            self.checkpoints.clone(),
            self.store.clone(),
            trace,
        )?)
    }
}

/// Set by `river trace` to the path of the trace.
const TRACE: &str = "RIVER_TRACE";
/// How many events of each VR are kept.
const TRACE_EVENTS: &str = "RIVER_TRACE_EVENTS";
/// Set by `river run --recoverable`.
const RECOVERABLE: &str = "RIVER_RECOVERABLE";
/// Set by `river record` to the directory of the recording.
const RECORD: &str = "RIVER_RECORD";
/// Set by `river restore` to its process id, a colon, and the checkpoint's file. Processes that the program starts inherit
/// the variable, but it is not meant for them.
const RESTORE: &str = "RIVER_RESTORE";

fn flag(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0")
}

/// Returns the path in a variable, if the process id in front of it is that of this process's parent.
fn meant_for_this_process(variable: &str) -> Option<PathBuf> {
    let value = std::env::var_os(variable)?.into_vec();
    let colon = value.iter().position(|byte| *byte == b':')?;
    let parent = rustix::process::getppid()?.as_raw_nonzero().to_string();
    (value[..colon] == *parent.as_bytes()).then(|| OsString::from_vec(value[colon + 1..].to_vec()).into())
}

/// Where this program is to be recorded. Processes that it starts inherit the variable, but it is not meant for them.
fn recording_directory() -> Option<PathBuf> {
    meant_for_this_process(RECORD)
}

fn begin<T>(launch: &Launch, recording: Option<PathBuf>, body: impl FnOnce(&Vr) -> Result<T>) -> Result<T> {
    let recoverable = launch.recoverable || flag(RECOVERABLE) || recording.is_some();
    if recoverable && code::foreign_exports().is_some() {
        return Err(VrError::msg(
            "a recoverable program cannot be started by a VR that runs in another image than its initiator: its checkpoints \
             would name the functions of that image",
        ));
    }
    let program = launch.program(recoverable)?;
    let id = VrId::fresh();
    if let Some(directory) = recording
        && let Err(error) = program.record(directory, id, &image::own_image()?)
    {
        end(&program);
        return Err(error.into());
    }
    let recorder = recoverable.then(|| {
        let (name, program_id) = ("initiator".into(), program.node.program);
        let origin = Origin { id, parent: None, code: None, name, program: program_id };
        program.node.states.add(origin, Record::new(Base::new(id, Bytes::new())))
    });
    if recorder.is_none() {
        program.node.states.add_unrecorded(id, "initiator");
    }
    let inbox = program.node.add(id);
    program.register(id);
    let node = program.node.clone();
    let vr = match &recorder {
        None => Vr::new(id, None, node, inbox),
        Some(recorder) => Vr::recorded(node, inbox, recorder.clone()),
    };
    finish(&program, vr, recorder, body)
}

/// Restores a program from a checkpoint: from this file, or the newest one in this directory.
fn go_on_from<T>(from: &Path, launch: &Launch, body: impl FnOnce(&Vr) -> Result<T>) -> Result<T> {
    let (directory, number, content, broken) = Directory::find(from)?;
    let (place, own) = (directory.path().display().to_string(), image::own_image()?.hash);
    if own != content.header.image {
        return Err(VrError::msg(format!(
            "checkpoint {number} in {place} was taken by another executable than this one: run `river restore {place}`, which \
             uses the one that is kept there"
        )));
    }
    go_on((number, content, broken), &place, launch, body)
}

/// Restores a program from a checkpoint of this executable, given the errors of newer ones.
fn go_on<T>(
    (number, content, broken): (u64, Content, Vec<StateError>),
    place: &str,
    launch: &Launch,
    body: impl FnOnce(&Vr) -> Result<T>,
) -> Result<T> {
    for error in broken {
        say!("[river: skipped a checkpoint: {error}]");
    }
    tracing::info!(number, place, vrs = content.vrs.len(), "continuing from a checkpoint");
    let program = launch.program(true)?;
    let vr = match program.restore(content) {
        Ok(vr) => vr,
        Err(error) => {
            if program.has_lost_a_host() {
                say_that_a_host_was_lost();
            }
            end(&program);
            return Err(error);
        }
    };
    program.goes_on_from(number);
    let recorder = program.node.states.get(vr.id());
    program.thaw(vr.id());
    finish(&program, vr, recorder, body)
}

/// Runs the initiator, ends the program with it, and returns its result.
fn finish<T>(
    program: &Program,
    vr: Vr,
    recorder: Option<Arc<Recorder>>,
    body: impl FnOnce(&Vr) -> Result<T>,
) -> Result<T> {
    let id = vr.id();
    vr.is_called("initiator");
    let mut result = panic::catch_unwind(AssertUnwindSafe(|| body(&vr)));
    // Values that handlers and layers keep in the VR belong to the user, so their destructors may panic too.
    let dropped = panic::catch_unwind(AssertUnwindSafe(|| drop(vr)));
    if result.is_ok()
        && let Err(panicked) = dropped
    {
        result = Err(panicked);
    }
    if let Some(recorder) = recorder
        && let Some(Why::Failed(error)) = recorder.finish(Why::Finished)
    {
        result = Ok(Err(VrError::msg(error)));
    }
    if let Some(traces) = program.node.traces.get() {
        let why = match &result {
            Ok(Ok(_)) => Why::Finished,
            Ok(Err(error)) => Why::Failed(error.to_string()),
            Err(_) => Why::Panicked("it panicked".into()),
        };
        traces.ended(id, &why);
    }
    let lost = program.has_lost_a_host();
    if !lost || matches!(result, Ok(Ok(_))) {
        program.forget_checkpoints();
    } else {
        say_that_a_host_was_lost();
    }
    match result {
        Ok(Ok(value)) => program.finish().map(|()| value).map_err(Into::into),
        failed => {
            end(program);
            failed.unwrap_or_else(|panic| panic::resume_unwind(panic))
        }
    }
}

/// Ends a program that has failed. If its trace cannot be written either, that is not reported as its error.
fn end(program: &Program) {
    if let Err(error) = program.finish() {
        say!("[river: {error}]");
    }
}

/// Tells `river run --restarts`, whatever the program makes of the error and whatever its exit code.
fn say_that_a_host_was_lost() {
    if let Some(file) = std::env::var_os(LOST_FILE) {
        let _ = std::fs::write(file, "a host was lost");
    }
}
