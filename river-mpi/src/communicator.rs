//! Communicators: a group of ranks and a context in which their messages are matched.

mod safepoint;

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::rc::Rc;

use river_core::{Vr, VrId};

use crate::attribute::Attributes;
use crate::coll::{Hosts, Planner, Sides, Tuning};
use crate::engine::{Ask, Engine, Sources};
use crate::error::{MpiError, Result};
use crate::fast_path::{LocalPath, ShmPath};
use crate::group::{Comparison, Group};
use crate::job::{Place, Report};
use crate::matching::{Key, Pattern};
use crate::peer::{Peer, Tag, number, sendable};

/// What happens when an operation on a communicator fails (MPI 1.3, section 7.2).
#[derive(Clone, Default)]
pub enum ErrorHandler {
    /// The job ends, with the error on the terminal of who started it. The default.
    #[default]
    Fatal,
    /// The operation returns the error, and the program deals with it.
    Return,
    /// This function is called, then the operation returns the error.
    Call(Rc<dyn Fn(&MpiError)>),
}

impl fmt::Debug for ErrorHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fatal => "Fatal",
            Self::Return => "Return",
            Self::Call(_) => "Call",
        })
    }
}

/// A group of ranks that talk to each other, and to nobody else, in a context of their own.
///
/// A clone is another handle on the same communicator; [`dup`](Self::dup) makes a new one. It belongs to the rank's
/// thread. An *inter*communicator has two groups: ranks in its operations are those of the other one.
///
/// # Standard section
/// MPI 1.3, chapter 5.
#[derive(Clone)]
pub struct Communicator<'v> {
    inner: Rc<Inner<'v>>,
    planner: Rc<Planner>,
}

struct Inner<'v> {
    engine: Rc<Engine<'v>>,
    /// For point-to-point messages; the next one is for collective operations.
    context: u32,
    local: Group,
    remote: Option<Group>,
    /// Of an intercommunicator: the members of the own group among themselves.
    own: Option<Communicator<'v>>,
    rank: usize,
    handler: RefCell<ErrorHandler>,
    attributes: RefCell<Attributes>,
    collectives: Cell<u32>,
    agreements: Cell<u32>,
    /// The way to ranks of the own group in this process, if there are any; made when it is needed.
    local_path: OnceCell<Option<LocalPath>>,
    shm_path: OnceCell<Option<ShmPath>>,
    /// Of an intercommunicator: both groups together; made when they are needed.
    sides: OnceCell<Sides>,
}

impl Drop for Inner<'_> {
    fn drop(&mut self) {
        self.engine.forget_name(self.context);
    }
}

impl<'v> Communicator<'v> {
    pub(crate) fn world(engine: Rc<Engine<'v>>, tuning: Tuning) -> Self {
        let members: Vec<u32> = (0..).take(engine.world_size()).collect();
        let rank = engine.me() as usize;
        let planner = Planner::new(rank, hosts(&engine, &members), tuning);
        Self {
            planner: Rc::new(planner),
            inner: Rc::new(Inner {
                engine,
                context: 0,
                local: Group::of(members),
                remote: None,
                own: None,
                rank,
                handler: RefCell::default(),
                attributes: RefCell::default(),
                collectives: Cell::new(0),
                agreements: Cell::new(0),
                local_path: OnceCell::new(),
                shm_path: OnceCell::new(),
                sides: OnceCell::new(),
            }),
        }
    }

    /// A new communicator with the error handler of this one. `None` if this rank is not in its group.
    pub(crate) fn derive(&self, context: u32, local: Group) -> Option<Self> {
        self.make(context, local, None, None)
    }

    /// An intercommunicator between the group of `local` and another one. The members of each group get a communicator of their
    /// own, which has the next context.
    pub(crate) fn derive_inter(&self, context: u32, local: &Self, remote: Group) -> Option<Self> {
        let own = local.derive(context + 2, local.group())?;
        self.make(context, own.group(), Some(remote), Some(own))
    }

    fn make(&self, context: u32, local: Group, remote: Option<Group>, own: Option<Self>) -> Option<Self> {
        let rank = local.rank_of(self.inner.engine.me())?;
        self.inner.engine.use_contexts_below(context + 2);
        let hosts = hosts(&self.inner.engine, local.members());
        let planner = Planner::new(rank, hosts, self.planner.tuning().clone());
        Some(Self {
            planner: Rc::new(planner),
            inner: Rc::new(Inner {
                engine: self.inner.engine.clone(),
                context,
                local,
                remote,
                own,
                rank,
                handler: RefCell::new(self.inner.handler.borrow().clone()),
                attributes: RefCell::default(),
                collectives: Cell::new(0),
                agreements: Cell::new(0),
                local_path: OnceCell::new(),
                shm_path: OnceCell::new(),
                sides: OnceCell::new(),
            }),
        })
    }

    /// This rank, 0 to [`size`](Self::size) - 1.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.inner.rank
    }

    /// How many ranks there are; of an intercommunicator, in this rank's own group.
    #[must_use]
    pub fn size(&self) -> usize {
        self.inner.local.size()
    }

    /// The group; of an intercommunicator, this rank's own.
    #[must_use]
    pub fn group(&self) -> Group {
        self.inner.local.clone()
    }

    /// Whether there are two groups, whose members talk to those of the other one.
    #[must_use]
    pub fn is_inter(&self) -> bool {
        self.inner.remote.is_some()
    }

    /// How many ranks the other group of an intercommunicator has; 0 if there is none.
    #[must_use]
    pub fn remote_size(&self) -> usize {
        self.inner.remote.as_ref().map_or(0, Group::size)
    }

    /// The other group of an intercommunicator.
    #[must_use]
    pub fn remote_group(&self) -> Option<Group> {
        self.inner.remote.clone()
    }

    /// The VR that this rank is: for time, other layers' messages, and whatever else MPI does not do.
    #[must_use]
    pub fn vr(&self) -> &'v Vr {
        self.inner.engine.vr()
    }

    /// The VR that a rank is (of the other group, if there are two).
    ///
    /// # Errors
    /// [`MpiError::Rank`] if there is no such rank.
    pub fn vr_of(&self, rank: usize) -> Result<VrId> {
        Ok(self.inner.engine.id_of(self.guard(self.member(rank))?))
    }

    /// The name of the VM that this rank runs on (`MPI_Get_processor_name`).
    #[must_use]
    pub fn processor_name(&self) -> &str {
        self.vr().vm()
    }

    /// Whether a rank is a thread of this one's process: long messages between them are copied once.
    ///
    /// # Errors
    /// [`MpiError::Rank`] if there is no such rank.
    pub fn shares_host_with(&self, rank: usize) -> Result<bool> {
        Ok(self.guard(self.place_of(rank))?.host == self.place_of_mine().host)
    }

    /// Whether a rank runs on the same machine as this one.
    ///
    /// # Errors
    /// [`MpiError::Rank`] if there is no such rank.
    pub fn shares_machine_with(&self, rank: usize) -> Result<bool> {
        Ok(self.guard(self.place_of(rank))?.machine == self.place_of_mine().machine)
    }

    /// What errors call this communicator. By default "the world" or "communicator 3".
    #[must_use]
    pub fn name(&self) -> String {
        self.inner.engine.name_of(self.inner.context)
    }

    /// Gives it a name, for errors and lists of who waits for what in a deadlock.
    pub fn set_name(&self, name: impl Into<String>) {
        self.inner.engine.set_name(self.inner.context, name.into());
    }

    /// How two communicators compare (MPI 1.3, section 5.4.1).
    #[must_use]
    pub fn compare(&self, other: &Self) -> Comparison {
        if Rc::ptr_eq(&self.inner, &other.inner) {
            return Comparison::Identical;
        }
        let remote = match (&self.inner.remote, &other.inner.remote) {
            (None, None) => Comparison::Identical,
            (Some(a), Some(b)) => a.compare(b),
            _ => return Comparison::Unequal,
        };
        match (self.inner.local.compare(&other.inner.local), remote) {
            (Comparison::Identical, Comparison::Identical) => Comparison::Congruent,
            (Comparison::Unequal, _) | (_, Comparison::Unequal) => Comparison::Unequal,
            _ => Comparison::Similar,
        }
    }

    /// What happens when an operation fails. Communicators that are made from this one inherit it.
    pub fn set_error_handler(&self, handler: ErrorHandler) {
        *self.inner.handler.borrow_mut() = handler;
    }

    /// What happens when an operation fails.
    #[must_use]
    pub fn error_handler(&self) -> ErrorHandler {
        self.inner.handler.borrow().clone()
    }

    /// Ends the job at once, also one that survives failures, with that text on the terminal of who started it
    /// (`MPI_Abort`). Returns an error that the caller returns in turn.
    #[must_use = "return this error, so that this rank ends too"]
    pub fn abort(&self, text: impl Into<String>) -> MpiError {
        self.abort_with(1, text)
    }

    /// As [`abort`](Self::abort), and the program that started the job by [`run`](crate::run) ends with that exit code.
    #[must_use = "return this error, so that this rank ends too"]
    pub fn abort_with(&self, code: u8, text: impl Into<String>) -> MpiError {
        let text = text.into();
        self.inner.engine.report(&Report::Aborted { text: text.clone(), code });
        MpiError::Aborted { rank: self.inner.engine.me() as usize, text, code }
    }

    /// Another handle on this communicator that uses other algorithms in collective operations. All ranks have to do
    /// the same; communicators that are made from it inherit them.
    ///
    /// ```
    /// # river_mpi::testing::world(3, |world| {
    /// use river_mpi::coll::{Tuning, allreduce};
    /// use river_mpi::SUM;
    ///
    /// let world = world.with_tuning(Tuning::default().allreduce(allreduce::Ring));
    /// let mut sum = [1];
    /// world.allreduce_in_place(&mut sum, &SUM)?;
    /// assert_eq!(sum, [3]);
    /// # Ok(()) });
    /// ```
    #[must_use]
    pub fn with_tuning(&self, tuning: Tuning) -> Self {
        Self { inner: self.inner.clone(), planner: Rc::new(self.planner.with_tuning(tuning)) }
    }

    /// Which algorithms it uses in collective operations.
    #[must_use]
    pub fn tuning(&self) -> &Tuning {
        self.planner.tuning()
    }

    // ---- for the modules above ----

    pub(crate) fn planner(&self) -> &Planner {
        &self.planner
    }

    pub(crate) fn engine(&self) -> &Rc<Engine<'v>> {
        &self.inner.engine
    }

    pub(crate) fn context(&self) -> u32 {
        self.inner.context
    }

    /// The ranks that operations name: those of the other group, if there is one.
    pub(crate) fn peers(&self) -> &Group {
        self.inner.remote.as_ref().unwrap_or(&self.inner.local)
    }

    pub(crate) fn local(&self) -> &Group {
        &self.inner.local
    }

    /// Of an intercommunicator: the members of the own group among themselves.
    pub(crate) fn local_comm(&self) -> Option<Self> {
        self.inner.own.clone()
    }

    pub(crate) fn attributes(&self) -> &RefCell<Attributes> {
        &self.inner.attributes
    }

    /// The way to ranks of the own group that share this one's process, for operations that wait.
    pub(crate) fn local_path(&self) -> Option<&LocalPath> {
        let Inner { engine, context, local, rank, local_path, .. } = &*self.inner;
        local_path.get_or_init(|| LocalPath::new(engine, *context, local.members(), *rank)).as_ref()
    }

    /// The way to ranks that are other processes of this machine, in operations whose messages all are short.
    pub(crate) fn shm_path(&self) -> Option<&ShmPath> {
        let Inner { engine, context, local, rank, shm_path, .. } = &*self.inner;
        shm_path.get_or_init(|| ShmPath::new(engine, *context, local.members(), *rank)).as_ref()
    }

    /// Both groups together, if there are two.
    #[inline]
    pub(crate) fn sides(&self) -> Option<&Sides> {
        let Inner { engine, local, remote, sides, .. } = &*self.inner;
        let remote = remote.as_ref()?;
        let make = || Sides::new(local.members(), remote.members(), |members| hosts(engine, members));
        Some(sides.get_or_init(make))
    }

    /// The number of the next collective operation: the same on all ranks, as all call them in the same order.
    pub(crate) fn next_collective(&self) -> i32 {
        let number = self.inner.collectives.get();
        self.inner.collectives.set(number.wrapping_add(1));
        (number & 0x7fff_ffff).cast_signed()
    }

    pub(crate) fn next_agreement(&self) -> u32 {
        let number = self.inner.agreements.get();
        self.inner.agreements.set(number.wrapping_add(1));
        number
    }

    /// Has the error handler look at a result.
    #[inline]
    pub(crate) fn guard<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| self.raise(error))
    }

    /// The same without a value. The other form copies what is no error with the room for one, which waits until the message
    /// that was just sent has left this core's store buffer: see decision 78.
    #[inline]
    pub(crate) fn guard_sent(&self, result: Result) -> Result {
        if let Err(error) = result {
            return Err(self.raise(error));
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn raise(&self, error: MpiError) -> MpiError {
        match self.error_handler() {
            ErrorHandler::Fatal => {
                let because_of = match &error {
                    MpiError::Stopped => return error,
                    MpiError::ProcFailed { rank, .. } => u32::try_from(*rank).ok(),
                    _ => None,
                };
                self.inner.engine.report(&Report::Failed { text: error.to_string(), because_of });
            }
            ErrorHandler::Return => {}
            ErrorHandler::Call(function) => function(&error),
        }
        error
    }

    /// The rank in the world to send to; `None` for nobody.
    #[inline]
    pub(crate) fn destination(&self, peer: Peer) -> Result<Option<u32>> {
        match peer {
            Peer::Null => Ok(None),
            Peer::Rank(rank) => {
                self.inner.engine.check(self.inner.context)?;
                self.member(rank).map(Some)
            }
            Peer::Any => Err(self.no_rank(peer)),
        }
    }

    /// The rank in the world of one that operations name.
    #[inline]
    pub(crate) fn member(&self, rank: usize) -> Result<u32> {
        self.peers().world_rank(rank).ok_or_else(|| self.no_rank(Peer::Rank(rank)))
    }

    /// Where a rank runs.
    pub(crate) fn place_of(&self, rank: usize) -> Result<Place> {
        Ok(self.inner.engine.place_of(self.member(rank)?))
    }

    fn place_of_mine(&self) -> Place {
        self.inner.engine.place_of(self.inner.engine.me())
    }

    /// What a message of this rank is matched by.
    #[inline]
    pub(crate) fn key(&self, tag: i32) -> Result<Key> {
        Ok(Key { context: self.inner.context, source: self.source_of_mine(), tag: sendable(tag)? })
    }

    /// This rank as receivers see it.
    pub(crate) fn source_of_mine(&self) -> u32 {
        number(self.inner.rank)
    }

    /// What a receive asks for; `None` if from nobody.
    #[inline]
    pub(crate) fn ask(&self, source: Peer, tag: Tag) -> Result<Option<Ask>> {
        let tag = tag.pattern()?;
        let context = self.inner.context;
        let (source, sources) = match source {
            Peer::Null => return Ok(None),
            Peer::Any => (None, Sources::Any(self.peers().members().clone())),
            Peer::Rank(rank) => (u32::try_from(rank).ok(), Sources::One(self.member(rank)?)),
        };
        Ok(Some(Ask { pattern: Pattern { context, source, tag }, sources }))
    }

    #[cold]
    fn no_rank(&self, peer: Peer) -> MpiError {
        let rank = match peer {
            Peer::Rank(rank) => rank.to_string(),
            Peer::Any => "ANY_SOURCE to send to".into(),
            Peer::Null => "PROC_NULL".into(),
        };
        MpiError::Rank { rank, comm: self.name(), size: self.peers().size() }
    }
}

/// Which of these ranks share a host.
fn hosts(engine: &Engine<'_>, members: &[u32]) -> Hosts {
    Hosts::new(members.iter().map(|&rank| engine.place_of(rank).host))
        .on_one_machine(engine.share_machine(members))
}

impl fmt::Debug for Communicator<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Communicator({}, rank {} of {})", self.name(), self.rank(), self.size())
    }
}
