//! The server: a VR that does what it is asked.

use std::collections::{HashSet, VecDeque};

use river_core::{RecvError, Result, SendError, VirtualResource, Vr, VrId};
use serde::{Deserialize, Serialize};

use crate::current;
use crate::exports::Exports;
use crate::foreign;
use crate::intake::{Arrival, Intake};
use crate::pool::Pool;
use crate::protocol::{Failure, Op, Order};
use crate::store::Store;
use crate::wire::{self, Request};
use crate::work::{self, Job};

/// A VR that calls functions and keeps objects for others (Trickle paper, section 4).
///
/// It serves until its parent or the program is gone, or it is told to stop. A function that panics costs its caller
/// an error and hurts no one else.
///
/// ```no_run
/// # fn example(vr: &river_core::Vr) -> river_core::Result {
/// use river_rai::{Rai, RaiServer};
///
/// let vms = vr.start_local(1)?;
/// let servers = vr.deploy(&vms, |_| RaiServer::unrestricted())?;
/// let r = Rai::connect(vr, servers[0]);
/// assert_eq!(r.call(|x: i64| x + 10, (5,))?, 15);
/// # Ok(()) }
/// ```
#[derive(Debug, Serialize, Deserialize)]
pub struct RaiServer {
    /// `None`: everything in the image can be called.
    exports: Option<Exports>,
    /// Whose end ends the server, if not its parent's.
    guardian: Option<VrId>,
    /// How many calls are served at a time, if not one by the server's own VR.
    helpers: Option<usize>,
    /// Under which name other programs find it.
    published: Option<String>,
}

impl RaiServer {
    /// A server that exposes everything in its image: every function that its program calls remotely anywhere.
    #[must_use]
    pub fn unrestricted() -> Self {
        Self { exports: None, guardian: None, helpers: None, published: None }
    }

    /// A server that exposes only what is exported, and of that to each client only what it may use.
    ///
    /// ```no_run
    /// # fn example(vr: &river_core::Vr, vms: Vec<river_core::VmInfo>) -> river_core::Result {
    /// use river_rai::{Capability, Exports, Rai, RaiServer};
    ///
    /// fn add(a: i64, b: i64) -> i64 {
    ///     a + b
    /// }
    ///
    /// fn shut_the_valve() {}
    ///
    /// let operator = Capability::fresh();
    /// let exports = Exports::new()
    ///     .function("add", add)
    ///     .and(Exports::new().function("shut", shut_the_valve).only_with(operator));
    /// let servers = vr.deploy(&vms, |_| RaiServer::restricted(exports.clone()))?;
    /// let r = Rai::connect(vr, servers[0]);
    /// assert_eq!(r.call_named::<i64, _>("add", (1_i64, 2_i64))?, 3);
    /// assert!(r.call(shut_the_valve, ()).is_err()); // refused
    /// r.show(operator)?;
    /// r.call(shut_the_valve, ())?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn restricted(exports: Exports) -> Self {
        Self { exports: Some(exports), guardian: None, helpers: None, published: None }
    }

    /// The same, but serving up to so many calls at a time, each on a VR of its own: for functions that wait for something,
    /// or for more than one core. The calls of one object still run one at a time, in order; those of functions, and of
    /// different objects, in any.
    ///
    /// ```no_run
    /// # fn example(vr: &river_core::Vr, vms: Vec<river_core::VmInfo>) -> river_core::Result {
    /// use river_rai::RaiServer;
    ///
    /// let servers = vr.deploy(&vms, |_| RaiServer::unrestricted().concurrent(8))?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn concurrent(mut self, calls: usize) -> Self {
        self.helpers = Some(calls);
        self
    }

    /// The same, known by that name to other programs, which [look it up](crate::Rai::look_up). They may call what is
    /// exported, by name, and hold objects that exported constructors have made; nothing else, though the server be
    /// unrestricted.
    ///
    /// ```no_run
    /// use river_core::{ExitCode, Result, VirtualResource, Vr};
    /// use river_rai::{Exports, RaiServer};
    ///
    /// fn program(vr: &Vr) -> Result {
    ///     let exports = Exports::new().function("add", |a: i64, b: i64| a + b);
    ///     RaiServer::restricted(exports).published("calculator").main(vr) // serves until it is killed
    /// }
    ///
    /// fn main() -> ExitCode {
    ///     river_core::run(program)
    /// }
    /// ```
    #[must_use]
    pub fn published(mut self, name: &str) -> Self {
        self.published = Some(name.into());
        self
    }

    /// The same, but ending with that VR instead of with its parent.
    #[must_use]
    pub fn ends_with(mut self, guardian: VrId) -> Self {
        self.guardian = Some(guardian);
        self
    }
}

impl VirtualResource for RaiServer {
    fn main(&mut self, vr: &Vr) -> Result {
        let guardian = self.guardian.or(vr.parent());
        if let Some(guardian) = guardian {
            vr.watch(guardian);
        }
        let (store, intake) = (current::store(vr), vr.slot::<Intake>());
        if let Some(exports) = &self.exports {
            store.restrict(&exports.list);
        }
        if let Some(name) = &self.published {
            vr.publish(name)?;
        }
        let pool = self.helpers.map(|size| Pool::start(vr, size, &store, intake.handed_out())).transpose()?;
        let known = HashSet::new();
        let mut server = Server { vr, store: &store, guardian, pool, known, stopping: false };
        while !server.is_done() {
            let served = match intake.next(vr) {
                Arrival::Request(request) => server.serve(request),
                Arrival::Cancelled { client, ticket } => {
                    wire::send_reply(vr, client, ticket, Err(Failure::Cancelled))
                }
                Arrival::News(RecvError::Down(down)) if Some(down.who) == guardian => return Ok(()),
                Arrival::News(RecvError::Down(down)) => {
                    server.known.remove(&down.who);
                    store.forget(down.who);
                    intake.forget(down.who);
                    Ok(())
                }
                Arrival::News(RecvError::Stopped) => return Ok(()),
                Arrival::News(error) => return Err(error.into()),
            };
            match served {
                Ok(()) => {}
                Err(SendError::Stopped(_)) => return Ok(()),
                // A client that is gone needs no reply; the notice of its death comes on its own.
                Err(error) => tracing::debug!(%error, "a reply was not sent"),
            }
        }
        Ok(())
    }
}

struct Server<'a> {
    vr: &'a Vr,
    store: &'a Store,
    guardian: Option<VrId>,
    pool: Option<Pool>,
    /// Clients and holders whose death will be told.
    known: HashSet<VrId>,
    /// It was told to end.
    stopping: bool,
}

impl Server<'_> {
    fn serve(&mut self, request: Request) -> std::result::Result<(), SendError> {
        let Request { client, order: Order { ticket, op }, args } = request;
        if let Op::Back(object) = op {
            return match self.pool.as_mut().filter(|pool| pool.is_helper(client)) {
                Some(pool) => {
                    let waiting = pool.back(object);
                    self.do_all(waiting)
                }
                None => Ok(()),
            };
        }
        // What it leaves here goes when it goes.
        self.know(client);
        if self.vr.is_foreign(client)
            && let Err(failure) = foreign::admit(&op)
        {
            return work::answer(self.vr, client, ticket, Err(failure));
        }
        if op == Op::Stop {
            // Not everybody who may call something may end it.
            self.stopping |= !self.store.is_restricted() || Some(client) == self.guardian;
            return Ok(());
        }
        if let Op::Grant { to, .. } = &op {
            self.know(*to);
        }
        self.do_all(VecDeque::from([Job { client, ticket, op, args }]))
    }

    /// Does jobs, or has them done, in order.
    fn do_all(&mut self, mut jobs: VecDeque<Job>) -> std::result::Result<(), SendError> {
        while let Some(job) = jobs.pop_front() {
            let mine = match &mut self.pool {
                Some(pool) => pool.take(job, self.store),
                None => Some(job),
            };
            if let Some(job) = mine {
                job.run(self.vr, self.store)?;
            }
        }
        Ok(())
    }

    /// Whether it was told to end and nobody waits for anything; what helpers still do is waited for by who drops the pool.
    fn is_done(&self) -> bool {
        self.stopping && self.pool.as_ref().is_none_or(|pool| !pool.is_awaited())
    }

    fn know(&mut self, who: VrId) {
        if self.known.insert(who) {
            self.vr.watch(who);
        }
    }
}
