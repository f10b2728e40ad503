//! Where a VR's replies come in: the one loop in which the layer receives.
//!
//! Whoever waits for one call files what arrives for others. Notices of deaths are told by the core once, to
//! whichever receive comes first, so two things need care: a notice that concerns somebody else has to be given
//! back, and a notice that somebody else has seen has to be asked for again. Handlers that call something wait in here while
//! others wait further out, so a wait ends after handlers have run, for another look at what is filed.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use river_core::{Channel, Down, RecvError, Selector, SendError, Vr, VrId};

use crate::calls::Calls;
use crate::protocol::Op;
use crate::wire;

/// Nothing is ever sent on this channel: to receive on it is to ask whether somebody is dead.
const DEATHS: Channel = Channel::named("rai.deaths");

/// The open calls of a VR, kept with it.
#[derive(Default)]
pub(crate) struct Post {
    calls: RefCell<Calls>,
    /// What servers have to be told that had no room for it, oldest first.
    untold: RefCell<Vec<(VrId, Op)>>,
}

/// A VR's post, opened by who waits for something.
pub(crate) struct Open<'a> {
    vr: &'a Vr,
    post: Rc<Post>,
    /// Deaths that concern somebody else, if only besides.
    foreign: Vec<VrId>,
    /// Servers that were told to end, and are watched for as long as this waits.
    dismissed: Vec<VrId>,
}

impl Post {
    pub(crate) fn of(vr: &Vr) -> Rc<Self> {
        vr.slot::<Self>()
    }

    /// Looks at, or changes, the open calls. `look` must not send or receive.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&mut Calls) -> R) -> R {
        look(&mut self.calls.borrow_mut())
    }

    /// Tells a server something that has no answer. If there is no room for it, it is told with the next call or answer.
    pub(crate) fn tell(&self, vr: &Vr, server: VrId, op: Op) {
        // A server that is gone needs to know nothing.
        if let Err(SendError::Full(_)) = wire::tell(vr, server, op.clone()) {
            self.untold.borrow_mut().push((server, op));
        }
    }

    /// Tries once more to tell what there was no room for.
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
                // Comes only when no reply is left, so what the server had answered is filed.
                Err(RecvError::Down(down)) => self.down(&down),
                Err(error) => return Err(error),
            }
        }
    }

    /// Has the end of a server told to who waits, even if somebody has received the notice before, or has taken the watch back.
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

    /// Waits until a server is gone, which then is no news for anybody.
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

    /// Files a death, behind the replies that came in with the notice; true if it is that server's.
    fn ends(&mut self, server: VrId, down: &Down) -> Result<bool, RecvError> {
        self.collect()?;
        self.down(down);
        Ok(down.who == server)
    }

    /// Waits for one reply or notice and files it. The end of `server` is heard of also if nobody watches it.
    ///
    /// False: it has filed nothing, but handlers have run. What they wait for themselves files whatever comes in meanwhile, and
    /// they may have seen notices.
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
        // What a client leaves on a server that has called it, the server has to free.
        if is_client || !is_server {
            self.foreign.push(down.who);
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        // To watch who is dead already is to be told by the next receive, which is not ours.
        for who in self.foreign.drain(..) {
            self.vr.watch(who);
        }
        for server in self.dismissed.drain(..) {
            self.vr.unwatch(server);
        }
    }
}
