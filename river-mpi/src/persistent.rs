//! Persistent requests: operations that are set up once and can be started repeatedly (MPI 1.3, section 3.9).
//!
//! They own their buffer, so the program can change it between two starts, and only then.

use crate::communicator::Communicator;
use crate::element::{self, Element};
use crate::engine::Mode;
use crate::error::{MpiError, Result};
use crate::matching::Key;
use crate::peer::{Peer, Tag};
use crate::request::{Request, Stage};
use crate::status::Status;
use crate::target::Target;

/// An operation that can be started repeatedly, together with its buffer.
///
/// ```
/// # river_mpi::testing::world(2, |world| {
/// let other = 1 - world.rank();
/// let mut halo = world.recv_init(vec![0.0; 100], other, 0)?;
/// let mut edge = world.send_init(vec![0.0; 100], other, 0)?;
/// for step in 0..10 {
///     edge.buffer_mut()?.fill(f64::from(step));
///     halo.start()?;
///     edge.start()?;
///     halo.wait()?;
///     edge.wait()?;
///     assert_eq!(halo.buffer()?[99], f64::from(step));
/// }
/// # Ok(()) });
/// ```
///
/// It owns its buffer, which therefore cannot be part of a structure that several operations use. Data that a
/// [`Datatype`](crate::Datatype) describes is packed into the buffer, and unpacked from it:
///
/// ```
/// # river_mpi::testing::world(2, |world| {
/// use river_mpi::Datatype;
///
/// let column = Datatype::of::<f64>().vector(3, 1, 4).commit();
/// let mut matrix = [world.rank() as f64; 12];
/// let other = 1 - world.rank();
/// let mut halo = world.recv_init(vec![0_u8; column.pack_size(1)], other, 0)?;
/// let mut edge = world.send_init(Vec::new(), other, 0)?;
/// for _ in 0..10 {
///     edge.buffer_mut()?.clear();
///     column.pack_onto(&matrix[1..], 1, edge.buffer_mut()?)?;
///     halo.start()?;
///     edge.start()?;
///     halo.wait()?;
///     edge.wait()?;
///     column.unpack(halo.buffer()?, &mut matrix, 1)?;
///     assert_eq!(matrix[4], other as f64);
/// }
/// # Ok(()) });
/// ```
#[derive(Debug)]
#[must_use = "a persistent request does nothing until it is started"]
pub struct Persistent<'v, T> {
    comm: Communicator<'v>,
    buffer: Vec<T>,
    action: Action,
    peer: Peer,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Send { tag: i32, mode: Mode, buffered: bool },
    Recv { tag: Tag },
}

impl<'v> Communicator<'v> {
    /// Sets up a standard send of a buffer.
    ///
    /// # Errors
    /// [`MpiError::Rank`] or [`MpiError::Tag`] if the rank or tag is invalid.
    pub fn send_init<T: Element>(
        &self,
        buffer: Vec<T>,
        dest: impl Into<Peer>,
        tag: i32,
    ) -> Result<Persistent<'v, T>> {
        self.init_send(buffer, dest.into(), Action::Send { tag, mode: Mode::Standard, buffered: false })
    }

    /// Sets up a synchronous send of a buffer.
    ///
    /// # Errors
    /// Those of [`send_init`](Self::send_init).
    pub fn ssend_init<T: Element>(
        &self,
        buffer: Vec<T>,
        dest: impl Into<Peer>,
        tag: i32,
    ) -> Result<Persistent<'v, T>> {
        self.init_send(buffer, dest.into(), Action::Send { tag, mode: Mode::Synchronous, buffered: false })
    }

    /// Sets up a buffered send of a buffer.
    ///
    /// # Errors
    /// Those of [`send_init`](Self::send_init).
    pub fn bsend_init<T: Element>(
        &self,
        buffer: Vec<T>,
        dest: impl Into<Peer>,
        tag: i32,
    ) -> Result<Persistent<'v, T>> {
        self.init_send(buffer, dest.into(), Action::Send { tag, mode: Mode::Standard, buffered: true })
    }

    /// Sets up a ready send of a buffer: see [`rsend`](Self::rsend).
    ///
    /// # Errors
    /// Those of [`send_init`](Self::send_init).
    pub fn rsend_init<T: Element>(
        &self,
        buffer: Vec<T>,
        dest: impl Into<Peer>,
        tag: i32,
    ) -> Result<Persistent<'v, T>> {
        self.send_init(buffer, dest, tag)
    }

    /// Sets up a receive into a buffer.
    ///
    /// # Errors
    /// Those of [`send_init`](Self::send_init).
    pub fn recv_init<T: Element>(
        &self,
        buffer: Vec<T>,
        source: impl Into<Peer>,
        tag: impl Into<Tag>,
    ) -> Result<Persistent<'v, T>> {
        let (peer, tag) = (source.into(), tag.into());
        self.guard(self.ask(peer, tag))?;
        Ok(Persistent::new(self, buffer, Action::Recv { tag }, peer))
    }

    fn init_send<T: Element>(&self, buffer: Vec<T>, peer: Peer, action: Action) -> Result<Persistent<'v, T>> {
        if let Action::Send { tag, .. } = action {
            self.guard(self.destination(peer).and_then(|_| self.key(tag)))?;
        }
        Ok(Persistent::new(self, buffer, action, peer))
    }
}

impl<'v, T: Element> Persistent<'v, T> {
    fn new(comm: &Communicator<'v>, buffer: Vec<T>, action: Action, peer: Peer) -> Self {
        Self { comm: comm.clone(), buffer, action, peer, stage: Stage::INACTIVE }
    }

    /// Starts the operation. A send sends the current contents of the buffer.
    ///
    /// # Errors
    /// [`MpiError::Request`] if it is already under way, and those of the operation.
    pub fn start(&mut self) -> Result {
        let result = self.inactive().and_then(|()| self.begin());
        self.comm.guard(result)
    }

    /// Waits until the operation is complete; it can then be started again. Returns at once if it was not started.
    ///
    /// # Errors
    /// Those of the operation.
    ///
    /// # Blocking
    /// Until it is complete.
    pub fn wait(&mut self) -> Result<Status> {
        self.request().wait()
    }

    /// Completes the operation if possible; returns `None` if it is not complete yet. Does not block.
    ///
    /// # Errors
    /// Those of the operation.
    pub fn test(&mut self) -> Result<Option<Status>> {
        self.request().test()
    }

    /// Asks for the operation to be cancelled, as [`Request::cancel`] does. It must still be completed. Does nothing if it
    /// was not started.
    ///
    /// # Errors
    /// Those of [`Request::cancel`].
    pub fn cancel(&mut self) -> Result {
        self.request().cancel()
    }

    /// Lends the started operation as a [`Request`], for [`wait_all`](crate::wait_all) and the like. If the request is
    /// dropped before it is complete, the operation returns to this object and continues. If the operation was not started,
    /// the request is complete.
    ///
    /// ```
    /// # river_mpi::testing::world(2, |world| {
    /// use river_mpi::{start_all, wait_all};
    ///
    /// let other = 1 - world.rank();
    /// let mut halos = [world.recv_init(vec![0.0; 9], other, 0)?, world.recv_init(vec![0.0; 9], other, 1)?];
    /// let mut edges = [world.send_init(vec![1.0; 9], other, 0)?, world.send_init(vec![2.0; 9], other, 1)?];
    /// for _ in 0..3 {
    ///     start_all(halos.iter_mut().chain(&mut edges))?;
    ///     wait_all(&mut halos.iter_mut().chain(&mut edges).map(|each| each.request()).collect::<Vec<_>>())?;
    ///     assert_eq!(halos[1].buffer()?[8], 2.0);
    /// }
    /// # Ok(()) });
    /// ```
    pub fn request(&mut self) -> Request<'_> {
        let target = match self.action {
            Action::Send { .. } => Target::Source(element::bytes_of(&self.buffer)),
            Action::Recv { .. } => Target::slice(&mut self.buffer),
        };
        Request::lent(&self.comm, &mut self.stage, target)
    }

    /// Whether the operation was started and is not complete yet.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.stage.is_active()
    }

    /// The contents of the buffer.
    ///
    /// # Errors
    /// [`MpiError::Request`] while the operation is under way.
    pub fn buffer(&self) -> Result<&[T]> {
        self.comm.guard(self.inactive())?;
        Ok(&self.buffer)
    }

    /// The buffer, for changing it.
    ///
    /// # Errors
    /// [`MpiError::Request`] while the operation is under way.
    pub fn buffer_mut(&mut self) -> Result<&mut Vec<T>> {
        self.comm.guard(self.inactive())?;
        Ok(&mut self.buffer)
    }

    fn inactive(&self) -> Result {
        if self.is_active() {
            return Err(MpiError::Request(
                "the persistent operation is under way: complete it with `wait` or `test` first".into(),
            ));
        }
        Ok(())
    }

    fn begin(&mut self) -> Result {
        let engine = self.comm.engine();
        self.stage = match self.action {
            Action::Recv { tag } => {
                self.comm.ask(self.peer, tag)?.map(|ask| engine.post(&ask)).transpose()?.into()
            }
            Action::Send { tag, buffered: true, .. } => {
                self.comm.start_buffered(element::bytes_of(&self.buffer), self.peer, tag)?.into()
            }
            Action::Send { tag, mode, .. } => {
                let key: Key = self.comm.key(tag)?;
                let data = element::bytes_of(&self.buffer);
                let send = |to| engine.isend_lent(to, key, data, mode);
                self.comm.destination(self.peer)?.map(send).transpose()?.into()
            }
        };
        Ok(())
    }
}

impl<T> Drop for Persistent<'_, T> {
    fn drop(&mut self) {
        if let Some(op) = self.stage.op() {
            self.comm.engine().detach(op);
        }
    }
}

/// Starts several operations (`MPI_Startall`).
///
/// # Errors
/// The error of the first operation that cannot be started; those before it were started.
pub fn start_all<'a, 'v: 'a, T: Element>(
    requests: impl IntoIterator<Item = &'a mut Persistent<'v, T>>,
) -> Result {
    requests.into_iter().try_for_each(Persistent::start)
}
