//! Starting a job: which VMs, and how many ranks on each.

use std::collections::HashMap;
use std::io::Write as _;
use std::process::Termination;
use std::thread::available_parallelism;

use river_core::code::code_ptr;
use river_core::{ExitCode, Query, VmInfo, Vr, VrError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::communicator::Communicator;
use crate::error::{MpiError, Result};
use crate::job::{Life, Place};
use crate::rank::{Body, RankVr};
use crate::supervise::supervise;

/// The variable by which `river run -n` says how many VMs a program may use.
const RIVER_VMS: &str = "RIVER_VMS";

/// How many ranks a job has: `4`, or `..` for as many as `river run -n` says, otherwise one for each VM that is idle,
/// otherwise one for each core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranks(Option<usize>);

impl From<usize> for Ranks {
    fn from(count: usize) -> Self {
        Self(Some(count))
    }
}

impl From<std::ops::RangeFull> for Ranks {
    fn from(_: std::ops::RangeFull) -> Self {
        Self(None)
    }
}

impl From<Option<usize>> for Ranks {
    fn from(count: Option<usize>) -> Self {
        Self(count)
    }
}

/// Runs a program of so many ranks: `body` becomes the life of each, on virtual machines that were found, or, if none
/// was, as threads of one process on this machine. Call it first thing in `main`.
///
/// ```no_run
/// use river_mpi::{Communicator, ExitCode};
///
/// fn hello(world: &Communicator) -> river_core::Result {
///     println!("Hello from rank {} of {}", world.rank(), world.size());
///     Ok(())
/// }
///
/// fn main() -> ExitCode {
///     river_mpi::run(4, hello)
/// }
/// ```
///
/// `body` may be a function or a closure that captures nothing; the program's command line is the same on all ranks.
/// If a rank fails, the others end too, its error is printed, and the exit code is 1, or what
/// [`abort_with`](Communicator::abort_with) says; otherwise it is that of what rank 0 returns.
pub fn run<T, F>(ranks: impl Into<Ranks>, body: F) -> ExitCode
where
    T: Termination + Serialize + DeserializeOwned + 'static,
    F: Fn(&Communicator<'_>) -> river_core::Result<T> + Copy + Send + 'static,
{
    Launch::new(ranks).run(body)
}

/// As [`run`], but returns what the ranks have returned, in their order.
///
/// ```no_run
/// # fn f() -> river_core::Result {
/// let squares = river_mpi::try_run(3, |world| Ok(world.rank() * world.rank()))?;
/// assert_eq!(squares, [0, 1, 4]);
/// # Ok(()) }
/// ```
///
/// # Errors
/// That of the rank that failed first, or why they could not be started.
///
/// # Blocking
/// Until all have ended.
pub fn try_run<T, F>(ranks: impl Into<Ranks>, body: F) -> river_core::Result<Vec<T>>
where
    T: Serialize + DeserializeOwned + 'static,
    F: Fn(&Communicator<'_>) -> river_core::Result<T> + Copy + Send + 'static,
{
    Launch::new(ranks).try_run(body)
}

/// Runs a job of one rank on each of the VMs given, within a program that goes on afterwards; a VM given twice has two.
///
/// ```no_run
/// # fn program(vr: &river_core::Vr) -> river_core::Result {
/// let vms = vr.start_local(2)?;
/// let names = river_mpi::run_on(vr, &vms, |world| Ok(world.processor_name().to_owned()))?;
/// assert_eq!(names.len(), 2);
/// # Ok(()) }
/// ```
///
/// # Errors
/// That of the rank that failed first, or why they could not be started. The other ranks end as soon as they wait.
///
/// # Blocking
/// Until all have ended.
pub fn run_on<T, F>(vr: &Vr, vms: &[VmInfo], body: F) -> Result<Vec<T>>
where
    T: Serialize + DeserializeOwned + 'static,
    F: Fn(&Communicator<'_>) -> river_core::Result<T> + Copy + Send + 'static,
{
    Launch::new(vms.len()).run_on(vr, vms, body)
}

/// How a job is started.
///
/// ```no_run
/// use river_mpi::Launch;
///
/// fn main() -> river_mpi::ExitCode {
///     Launch::new(8).per_vm(4).run(|world| {
///         println!("rank {} on {}", world.rank(), world.processor_name());
///         Ok(())
///     })
/// }
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Launch {
    ranks: Ranks,
    per_vm: Option<usize>,
    survive: bool,
    recoverable: bool,
}

impl Launch {
    /// A job of so many ranks.
    pub fn new(ranks: impl Into<Ranks>) -> Self {
        Self { ranks: ranks.into(), per_vm: None, survive: false, recoverable: false }
    }

    /// At most so many ranks on one VM, where they are threads of one process.
    ///
    /// By default ranks are spread evenly over the VMs that are idle, or, if there are none, all are on one that is started here.
    /// With a limit, as many VMs as needed are started if none is idle (with 1, every rank has a process of its own); if some are
    /// idle but too few, that is an error.
    pub fn per_vm(mut self, ranks: usize) -> Self {
        self.per_vm = Some(ranks.max(1));
        self
    }

    /// Lets the other ranks go on when one fails: operations that need it return [`MpiError::ProcFailed`] to them. They
    /// should have set [`ErrorHandler::Return`](crate::ErrorHandler::Return).
    pub fn survive_failures(mut self) -> Self {
        self.survive = true;
        self
    }

    /// Has all ranks recorded, so that the job can be checkpointed, by a rank (`world.vr().checkpoint(directory)`) or by
    /// `river checkpoint`, whatever the ranks are doing: in the middle of a collective, say. As `river run --recoverable`;
    /// docs/guide/state.md says what a rank must not do then.
    pub fn recoverable(mut self) -> Self {
        self.recoverable = true;
        self
    }

    /// As [`run`](crate::run).
    pub fn run<T, F>(self, body: F) -> ExitCode
    where
        T: Termination + Serialize + DeserializeOwned + 'static,
        F: Fn(&Communicator<'_>) -> river_core::Result<T> + Copy + Send + 'static,
    {
        let program = |vr: &Vr| {
            let vms = self.find(vr)?;
            exit_code(self.run_each(vr, &vms, body))
        };
        if self.recoverable { river_core::run_recoverable(program) } else { river_core::run(program) }
    }

    /// As [`try_run`](crate::try_run).
    ///
    /// # Errors
    /// As [`try_run`](crate::try_run).
    pub fn try_run<T, F>(self, body: F) -> river_core::Result<Vec<T>>
    where
        T: Serialize + DeserializeOwned + 'static,
        F: Fn(&Communicator<'_>) -> river_core::Result<T> + Copy + Send + 'static,
    {
        let program = |vr: &Vr| {
            let vms = self.find(vr)?;
            Ok(self.run_on(vr, &vms, body)?)
        };
        if self.recoverable { river_core::try_run_recoverable(program) } else { river_core::try_run(program) }
    }

    /// As [`run_on`](crate::run_on): one rank for each VM given, which may be given several times. The number of ranks that
    /// [`new`](Self::new) was told is not used.
    ///
    /// # Errors
    /// As [`run_on`](crate::run_on). If the others survive, that of the first rank, by number, that failed.
    pub fn run_on<T, F>(self, vr: &Vr, vms: &[VmInfo], body: F) -> Result<Vec<T>>
    where
        T: Serialize + DeserializeOwned + 'static,
        F: Fn(&Communicator<'_>) -> river_core::Result<T> + Copy + Send + 'static,
    {
        self.run_each(vr, vms, body)?.into_iter().collect()
    }

    /// As [`run_on`](Self::run_on), and says of each rank what it returned or how it failed.
    ///
    /// # Errors
    /// Why the job failed as a whole: the ranks could not be started, all wait for each other, or one has failed and
    /// the others are not to survive it.
    ///
    /// # Blocking
    /// Until all have ended.
    pub fn run_each<T, F>(self, vr: &Vr, vms: &[VmInfo], body: F) -> Result<Vec<Result<T>>>
    where
        T: Serialize + DeserializeOwned + 'static,
        F: Fn(&Communicator<'_>) -> river_core::Result<T> + Copy + Send + 'static,
    {
        let body = code_ptr::<Body<T>, F>(body);
        let rank = |rank| {
            RankVr(Life {
                rank: u32::try_from(rank).unwrap_or(u32::MAX),
                body,
                survive: self.survive,
                past: None,
            })
        };
        let ranks = vr.deploy(vms, rank)?;
        let results = supervise(vr, ranks.ids(), places(vms), self.survive)?;
        let decode = |result: Result<Vec<u8>>| {
            postcard::from_bytes(&result?).map_err(|error| MpiError::Value {
                kind: std::any::type_name::<T>(),
                error: error.to_string(),
            })
        };
        Ok(results.into_iter().map(decode).collect())
    }

    /// A VM for each rank, leased or started.
    fn find(self, vr: &Vr) -> river_core::Result<Vec<VmInfo>> {
        let allowed = std::env::var(RIVER_VMS).ok().and_then(|text| text.parse().ok());
        let wanted = self.ranks.0.or(allowed.filter(|&count| count > 0));
        if wanted == Some(0) {
            return Err(VrError::msg("a job needs at least one rank"));
        }
        let vms_for = |ranks: usize| self.per_vm.map_or(ranks, |per_vm| ranks.div_ceil(per_vm));
        let count = wanted.map(|ranks| u32::try_from(vms_for(ranks)).unwrap_or(u32::MAX));
        let found = vr.discover(Query { count, idle_only: true, ..Query::default() })?;
        let (vms, ranks) = if found.is_empty() {
            let ranks = wanted.unwrap_or_else(|| available_parallelism().map_or(1, usize::from));
            (vr.start_local(self.per_vm.map_or(1, |_| vms_for(ranks)))?, ranks)
        } else {
            let leased = vr.allocate(found, ..)?;
            let ranks = wanted.unwrap_or_else(|| leased.len() * self.per_vm.unwrap_or(1));
            if vms_for(ranks) > leased.len() && self.per_vm.is_some() {
                let (needed, there) = (vms_for(ranks), leased.len());
                let how = match allowed {
                    Some(allowed) if allowed < needed => {
                        format!("let it have more by `river run -n {needed}`")
                    }
                    _ => format!("start more with `river vm -n {}`", needed - there),
                };
                return Err(VrError::msg(format!(
                    "{ranks} ranks need {needed} VMs, it has {there}: {how}, or allow more ranks on each"
                )));
            }
            (leased, ranks)
        };
        Ok((0..ranks).map(|rank| vms[rank * vms.len() / ranks].clone()).collect())
    }
}

/// The exit code of a program that was a job. What an abort said is printed here, as an error would give another code.
fn exit_code<T: Termination>(ends: Result<Vec<Result<T>>>) -> river_core::Result<ExitCode> {
    let ends = match ends {
        Err(MpiError::Aborted { rank, text, code }) => {
            // If the terminal is gone, there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "error: rank {rank}: {text}");
            return Ok(ExitCode::from(code));
        }
        ends => ends?,
    };
    match ends.into_iter().next() {
        Some(first) => Ok(first?.report()),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Which ranks share a host, and which a machine.
fn places(vms: &[VmInfo]) -> Vec<Place> {
    let (mut hosts, mut machines) = (HashMap::new(), HashMap::new());
    let places = vms.iter().map(|vm| {
        let next = u32::try_from(hosts.len()).unwrap_or(u32::MAX);
        let host = *hosts.entry(vm.id).or_insert(next);
        let next = u32::try_from(machines.len()).unwrap_or(u32::MAX);
        let machine = *machines.entry(vm.address.ip()).or_insert(next);
        Place { host, machine }
    });
    places.collect()
}

/// For tests: ranks that are threads of the calling process.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn run_threads<T: Send>(
    ranks: usize,
    survive: bool,
    body: impl Fn(&Communicator<'_>) -> river_core::Result<T> + Sync,
) -> Result<Vec<Result<T>>> {
    use std::sync::Mutex;

    use crate::engine::{LANE, REPORTS};
    use crate::job::Report;
    use crate::rank::be_rank;

    let results: Vec<Mutex<Option<T>>> = (0..ranks).map(|_| Mutex::new(None)).collect();
    let mut ends = river_core::testing::threads(ranks + 1, |vr, index, ids| {
        if index == ranks {
            let places = vec![Place { host: 0, machine: 0 }; ranks];
            return Some(supervise(vr, &ids[..ranks], places, survive));
        }
        let rank = u32::try_from(index).unwrap_or(u32::MAX);
        let body = |world: &Communicator<'_>| {
            let result = body(world)?;
            *results[index].lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(result);
            Ok(Vec::new())
        };
        // The thread ends well or by a panic; an error that ends a VR has to be told.
        if let Err(error) = be_rank(vr, (rank, survive), ids[ranks], None, &body) {
            let report = Report::Failed { text: error.to_string(), because_of: None };
            let bytes = postcard::to_stdvec(&report).unwrap_or_default();
            let _ = vr.send_bytes(ids[ranks], REPORTS, LANE, bytes);
        }
        None
    });
    let ends = ends.pop().flatten().unwrap_or(Err(MpiError::Stopped))?;
    let take = |(end, result): (Result<Vec<u8>>, Mutex<Option<T>>)| {
        let result = result.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        end.and_then(|_| result.ok_or(MpiError::Stopped))
    };
    Ok(ends.into_iter().zip(results).map(take).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_an_exit_code() {
        let code = |ends: Result<Vec<Result<ExitCode>>>| exit_code(ends).map(|code| format!("{code:?}")).ok();
        let is = |code: u8| Some(format!("{:?}", ExitCode::from(code)));
        assert_eq!(code(Ok(vec![Ok(ExitCode::from(3)), Ok(ExitCode::from(4))])), is(3));
        let aborted = MpiError::Aborted { rank: 1, text: "no input".into(), code: 7 };
        assert_eq!(code(Err(aborted)), is(7));
        // What prints it ends with 1.
        assert_eq!(code(Err(MpiError::Stopped)), None);
        assert_eq!(code(Ok(vec![Err(MpiError::Stopped)])), None);
    }
}
