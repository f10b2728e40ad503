//! The server: a VR that executes requests.

use std::collections::VecDeque;

use river_core::{RecvError, Result, VirtualResource, Vr, VrId};
use serde::{Deserialize, Serialize};

use crate::connection::from_now;
use crate::current;
use crate::exports::Exports;
use crate::foreign;
use crate::intake::{Arrival, Intake};
use crate::pool::{Done, Pool};
use crate::post::Post;
use crate::protocol::{Failure, Op, Order};
use crate::store::Store;
use crate::unsent::Unsent;
use crate::wire::{self, Reply, Request};
use crate::work::{self, Job};

/// A VR that calls functions and keeps objects for others (Trickle paper, section 4).
///
/// It serves until its parent or the program is gone, or it is told to stop. A function that panics causes an error for
/// its caller and affects nobody else.
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
    /// `None`: every function in the image can be called.
    exports: Option<Exports>,
    /// The VR whose end ends the server, if not its parent.
    guardian: Option<VrId>,
    /// How many calls are executed at a time, if not one by the server's own VR.
    helpers: Option<usize>,
    /// The name by which other programs find it.
    published: Option<String>,
}

impl RaiServer {
    /// Returns a server that exposes everything in its image: every function that its program calls remotely anywhere.
    #[must_use]
    pub fn unrestricted() -> Self {
        Self { exports: None, guardian: None, helpers: None, published: None }
    }

    /// Returns a server that exposes only its exports, and to each client only those that it may use.
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

    /// Executes up to `calls` calls at a time, each on a VR of its own: for functions that wait, or to use more than
    /// one core. The calls of one object still run one at a time, in order, and the value of a name is replaced or
    /// removed only after the calls that came before. Calls of functions, and of different objects, run in any order. A
    /// function may call others of the same server, provided that not all of these VRs wait for such calls at once:
    /// none would be left to execute them.
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

    /// Publishes the server under a name for other programs, which [look it up](crate::Rai::look_up). They may call
    /// what is exported, by name, and hold objects made by exported constructors; nothing else, even if the server is
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

    /// Makes the server end with that VR instead of with its parent.
    #[must_use]
    pub fn ends_with(mut self, guardian: VrId) -> Self {
        self.guardian = Some(guardian);
        self
    }
}

impl VirtualResource for RaiServer {
    fn main(&mut self, vr: &Vr) -> Result {
        let guardian = self.guardian.or(vr.parent());
        let (store, intake) = (current::store(vr), vr.slot::<Intake>());
        if let Some(exports) = &self.exports {
            store.restrict(&exports.list);
        }
        if let Some(name) = &self.published {
            vr.publish(name)?;
        }
        let pool = self.helpers.map(|size| Pool::start(vr, size, &store, intake.handed_out())).transpose()?;
        let (post, unsent) = (Post::of(vr), Unsent::default());
        let mut server = Server { vr, store: &store, post: &post, guardian, pool, unsent, stopping: false };
        if let Some(guardian) = guardian {
            intake.ends_with(guardian);
            server.know(guardian);
        }
        while !server.is_done() {
            match intake.next(vr, server.unsent.patience()) {
                Arrival::Request(request) => server.serve(request),
                Arrival::Cancelled { client, ticket } => {
                    server.sent(work::answer(vr, client, Some(ticket), Err(Failure::Cancelled)));
                }
                Arrival::News(RecvError::Down(down))
                    if Some(down.who) == guardian && server.pool.is_none() =>
                {
                    return Ok(());
                }
                Arrival::News(RecvError::Down(down)) => {
                    // Helpers may wait for an answer of this server, and have to hear that there is none.
                    server.stopping |= Some(down.who) == guardian;
                    server.forget(down.who);
                    intake.forget(down.who);
                }
                Arrival::News(RecvError::Stopped) => return Ok(()),
                Arrival::News(error) => return Err(error.into()),
                Arrival::Nothing => server.unsent.try_all(|reply| wire::send_reply(vr, reply)),
            }
            server.unsent.try_next(|reply| wire::send_reply(vr, reply));
            server.look_at_helpers();
        }
        server.take_leave()
    }
}

struct Server<'a> {
    vr: &'a Vr,
    store: &'a Store,
    post: &'a Post,
    guardian: Option<VrId>,
    pool: Option<Pool>,
    unsent: Unsent,
    /// Whether it was told to stop.
    stopping: bool,
}

impl Server<'_> {
    fn serve(&mut self, request: Request) {
        let Request { client, order: Order { ticket, op }, args } = request;
        if op == Op::Back {
            // Its only purpose was to wake the server.
            return;
        }
        // What the client leaves here is freed when it is gone.
        self.know(client);
        if self.vr.is_foreign(client)
            && let Err(failure) = foreign::admit(&op)
        {
            return self.sent(work::answer(self.vr, client, ticket, Err(failure)));
        }
        if op == Op::Stop {
            // Not every client that may call functions may stop the server.
            self.stopping |= !self.store.is_restricted() || Some(client) == self.guardian;
            return;
        }
        let job = Job { client, ticket, op, args };
        if self.stopping && job.calls() {
            // The helpers may have ended, and one of them may be waiting for this.
            let failure = Failure::Refused("it was told to end".into());
            return self.sent(work::answer(self.vr, client, ticket, Err(failure)));
        }
        self.do_all(VecDeque::from([job]));
    }

    /// Executes jobs in order, or hands them to helpers.
    fn do_all(&mut self, mut jobs: VecDeque<Job>) {
        while let Some(job) = jobs.pop_front() {
            let mine = match &mut self.pool {
                Some(pool) => pool.take(job, self.store),
                None => Some(job),
            };
            let Some(job) = mine else { continue };
            if let Op::Grant { to, .. } = &job.op {
                // It may have gone while this waited; then it is reported again.
                self.know(*to);
            }
            let refused = match &self.pool {
                Some(pool) => pool.run(job, self.vr, self.store),
                None => job.run(self.vr, self.store),
            };
            self.sent(refused);
        }
    }

    /// Processes the helpers' reports, and goes on with the jobs that waited for them. Returns `true` if no helper is
    /// left.
    fn look_at_helpers(&mut self) -> bool {
        let Some(pool) = &self.pool else { return true };
        let (done, ended) = pool.done();
        for Done { client, about, refused } in done {
            self.sent(refused);
            // It may have gone while this was executed, and have left something here; then it is reported again.
            self.know(client);
            if let Some(pool) = &mut self.pool {
                let waiting = pool.back(&about);
                self.do_all(waiting);
            }
        }
        ended
    }

    /// Keeps the answer, if any, for which there was no room.
    fn sent(&mut self, refused: Option<Reply>) {
        refused.into_iter().for_each(|reply| self.unsent.keep(reply));
    }

    /// Whether it was told to stop and everything is done. While helpers still work, their calls can be cancelled.
    fn is_done(&mut self) -> bool {
        if !self.stopping || self.pool.as_ref().is_some_and(Pool::is_awaited) {
            return false;
        }
        if let Some(pool) = &mut self.pool {
            pool.close();
        }
        self.look_at_helpers()
    }

    /// Tries to send the remaining answers, as long as clients take one now and then.
    fn take_leave(&mut self) -> Result {
        self.unsent.begin_last();
        while let Some(patience) = self.unsent.last_patience() {
            match wire::rest(self.vr, from_now(patience)) {
                RecvError::Timeout { .. } => self.unsent.try_all(|reply| wire::send_reply(self.vr, reply)),
                RecvError::Down(down) => self.unsent.forget(down.who),
                RecvError::Stopped => break,
                error => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Asks to be told of the death of a client or a holder.
    fn know(&self, who: VrId) {
        if self.post.with(|calls| calls.add_client(who)) {
            self.vr.watch(who);
        }
    }

    fn forget(&mut self, who: VrId) {
        self.post.with(|calls| calls.remove_client(who));
        self.store.forget(who);
        self.unsent.forget(who);
    }
}
