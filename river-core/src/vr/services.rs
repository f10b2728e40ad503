//! A VR's communication with other programs.

use super::Vr;
use super::queue::ONLY_LOOKS;
use crate::error::ServiceError;
use crate::id::VrId;
use crate::service;

/// A VR that was found by the name under which it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Service {
    /// The VR. It can be sent to and watched like one of this program.
    pub vr: VrId,
    /// A description of its process for people: executable, process id and machine.
    pub process: String,
}

impl Vr {
    /// Publishes this VR under a name to other programs, until it ends. Programs that run with the same key, on this machine
    /// or on the network if this process listens there, find it by [`look_up`](Self::look_up) and can then send to it; the
    /// rest of this program stays out of their reach.
    ///
    /// A VR may have several names. Names are not reserved: if another program publishes the same one, looking it up returns
    /// an error that says so.
    ///
    /// ```no_run
    /// # fn example(vr: &river_core::Vr) -> river_core::Result {
    /// use river_core::{Channel, Selector};
    /// const ECHO: Channel = Channel::named("echo");
    ///
    /// vr.publish("echo")?; // one program
    /// let envelope = vr.receive(Selector::on(ECHO))?;
    /// vr.send_bytes(envelope.src, ECHO, 0, envelope.payload)?;
    /// # Ok(()) }
    /// # fn other(vr: &river_core::Vr) -> river_core::Result {
    /// # use river_core::{Channel, Selector};
    /// # const ECHO: Channel = Channel::named("echo");
    ///
    /// let echo = vr.look_up("echo")?; // another
    /// vr.send_bytes(echo.vr, ECHO, 0, b"hello".to_vec())?;
    /// let hello = vr.receive(Selector::on(ECHO).from(echo.vr))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ServiceError`]: the name is invalid, another VR of this process has it, searches cannot be answered, or this VR is
    /// recoverable.
    pub fn publish(&self, name: &str) -> Result<(), ServiceError> {
        if self.journal.is_some() {
            return Err(ServiceError::Recoverable);
        }
        service::publish(&self.node, name, self.id)
    }

    /// Finds the VR that was [published](Self::publish) under a name, usually in another program.
    ///
    /// From then on this VR can send to it and watch it, and can receive what it sends. When its process ends, is killed, or
    /// is silent for eight seconds, its `Down` comes as for a VR of this program. If the process was only out of reach, the
    /// VR can then be looked up again.
    ///
    /// # Errors
    /// [`ServiceError`]: no process publishes the name, or more than one does; the process that does speaks another version
    /// of the protocol or does not admit this program; or this VR is recoverable.
    ///
    /// # Blocking
    /// For 50 ms after the first answer, as another process might have published the name too; for a quarter of a second if
    /// there is no answer.
    pub fn look_up(&self, name: &str) -> Result<Service, ServiceError> {
        if self.journal.is_some() {
            return Err(ServiceError::Recoverable);
        }
        let (vr, process) = service::look_up(&self.node, name, self.id)?;
        if self.node.is_foreign(vr) {
            self.start_afresh(vr);
        }
        Ok(Service { vr, process })
    }

    /// Whether a VR belongs to another program, and this one has looked it up or received something from it. Messages from
    /// such a VR were sent by code other than this program's; code pointers in them mean nothing here.
    #[must_use]
    pub fn is_foreign(&self, vr: VrId) -> bool {
        self.node.is_foreign(vr)
    }

    /// Forgets that a VR of another program was gone, as it may be found again.
    pub(super) fn start_afresh(&self, vr: VrId) {
        self.routes.borrow_mut().remove(&vr);
        self.observed.borrow_mut().remove(&vr);
        let revived = self.with_mailbox(|mailbox, swap| {
            // Take in old notices that have arrived and that no receive has seen.
            mailbox.status(swap);
            mailbox.revive(vr);
        });
        revived.expect(ONLY_LOOKS);
    }
}
