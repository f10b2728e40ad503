//! Receives a VR's replies: the one loop in which this layer receives.
//!
//! An operation that waits for one call also files the answers to others. The core delivers a death notice once, to
//! whichever receive comes first, so two things need care: a notice that concerns other code must be given back, and a
//! notice that other code has received must be requested again. A handler that makes a call waits in here while an outer
//! call waits, too; so a wait ends after handlers have run, in order to look again at what has been filed.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use river_core::{Channel, Down, RecvError, Selector, SendError, Vr, VrId};

use crate::calls::Calls;
use crate::protocol::Op;
use crate::wire;

/// Nothing is ever sent on this channel: a receive on it only reports whether a VR is dead.
const DEATHS: Channel = Channel::named("rai.deaths");

/// The open calls of a VR, kept with it.
#[derive(Default)]
pub(crate) struct Post {
    calls: RefCell<Calls>,
    /// What could not be sent to servers for lack of room, oldest first.
    untold: RefCell<Vec<(VrId, Op)>>,
}

/// A VR's post, opened by an operation that waits.
pub(crate) struct Open<'a> {
    vr: &'a Vr,
    post: Rc<Post>,
    /// Deaths that concern other code, too or only.
    foreign: Vec<VrId>,
    /// Servers that were told to stop, and are watched only while this operation waits.
    dismissed: Vec<VrId>,
}

impl Post {
    pub(crate) fn of(vr: &Vr) -> Rc<Self> {
        vr.slot::<Self>()
    }

    /// Gives access to the open calls. `look` must not send or receive.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&mut Calls) -> R) -> R {
        look(&mut self.calls.borrow_mut())
    }

    /// Sends a server a request without an answer. If there is no room for it, it is sent with the next call or wait.
    pub(crate) fn tell(&self, vr: &Vr, server: VrId, op: Op) {
        // A server that is gone need not be told.
        if let Err(SendError::Full(_)) = wire::tell(vr, server, op.clone()) {
            self.untold.borrow_mut().push((server, op));
        }
    }

    /// Retries the requests for which there was no room.
    pub(crate) fn tell_again(&self, vr: &Vr) {
        if !self.untold.borrow().is_empty() {
            let untold = self.untold.take();
            untold.into_iter().for_each(|(server, op)| self.tell(vr, server, op));
        }
    }
}

impl<'a> Open<'a> {
    pub(crate) fn of(vr: &'a Vr) -> Self {
        Self { vr, post: Post::of(vr), foreign: Vec::new(), dismissed: Vec::new() }
    }

    pub(crate) fn with<R>(&self, look: impl FnOnce(&mut Calls) -> R) -> R {
        self.post.with(look)
    }

    /// Files everything that has arrived; does not block.
    pub(crate) fn collect(&mut self) -> Result<(), RecvError> {
        loop {
            match wire::try_recv_reply(self.vr) {
                Ok(Some((ticket, outcome))) => self.with(|calls| calls.reply(ticket, outcome)),
                Ok(None) => return Ok(()),
                // Reported only when no reply is left, so everything that the server had answered is filed.
                Err(RecvError::Down(down)) => self.down(&down),
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes sure that the operation that waits learns of the server's end, even if other code has received the notice
    /// before or has cancelled the watch.
    pub(crate) fn watch(&mut self, server: VrId) -> Result<(), RecvError> {
        self.vr.watch(server);
        if self.with(|calls| calls.is_dismissed(server)) {
            self.dismissed.push(server);
        }
        let selector = Selector::on(DEATHS).lane(1).from(server);
        loop {
            match self.vr.try_receive_where(selector, |_| false) {
                Ok(_) => return Ok(()),
                Err(RecvError::Down(down)) if self.ends(server, &down)? => return Ok(()),
                Err(RecvError::Down(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until a server is gone, and consumes the notice.
    pub(crate) fn wait_for_end(&mut self, server: VrId, deadline: Option<Instant>) -> Result<(), RecvError> {
        let selector = Selector::on(DEATHS).lane(1).from(server);
        loop {
            match self.vr.receive_until(selector, deadline, |_| false) {
                Err(RecvError::Down(down)) if self.ends(server, &down)? => return Ok(()),
                Ok(_) | Err(RecvError::Down(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Files a death, after the replies that arrived before the notice; returns `true` if it is that of `server`.
    fn ends(&mut self, server: VrId, down: &Down) -> Result<bool, RecvError> {
        self.collect()?;
        self.down(down);
        Ok(down.who == server)
    }

    /// Waits for one reply or notice and files it. Notices the end of `server` even if nothing watches it.
    ///
    /// Returns `false` if it has filed nothing, but handlers have run: a call that a handler waits for files whatever arrives
    /// meanwhile, and the handler may have seen notices.
    pub(crate) fn wait(
        &mut self,
        server: Option<VrId>,
        deadline: Option<Instant>,
    ) -> Result<bool, RecvError> {
        self.post.tell_again(self.vr);
        match wire::recv_reply(self.vr, server, deadline) {
            Ok(Some((ticket, outcome))) => self.with(|calls| calls.reply(ticket, outcome)),
            Ok(None) => return Ok(false),
            Err(RecvError::Down(down)) => self.down(&down),
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    fn down(&mut self, down: &Down) {
        let (is_server, is_client) =
            self.with(|calls| (calls.is_server(down.who), calls.is_client(down.who)));
        if is_server {
            self.with(|calls| calls.down(down));
        }
        // If the server is also a client, the server part of this VR must free what it left here.
        if is_client || !is_server {
            self.foreign.push(down.who);
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        // Watching a dead VR makes the next receive report its death; that receive belongs to other code.
        for who in self.foreign.drain(..) {
            self.vr.watch(who);
        }
        for server in self.dismissed.drain(..) {
            self.vr.unwatch(server);
        }
    }
}
