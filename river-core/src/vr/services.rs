//! What a VR has to do with other programs.

use super::Vr;
use super::queue::ONLY_LOOKS;
use crate::error::ServiceError;
use crate::id::VrId;
use crate::service;

/// A VR that was found by the name under which it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Service {
    /// The VR, which can be sent to, and watched, like one of this program.
    pub vr: VrId,
    /// Its process, for people: executable, number and machine.
    pub process: String,
}

impl Vr {
    /// Makes this VR known by a name to other programs, until it ends. Those that run with the same key, on this machine or
    /// on the network if this process listens there, find it by [`look_up`](Self::look_up) and can send to it then; the
    /// rest of this program stays out of their reach.
    ///
    /// A VR may have several names. Names are not reserved: if another program publishes the same one, those who look it up
    /// get an error that says so.
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
    /// [`ServiceError`]: the name is none, another VR of this process has it, searches cannot be answered, or this VR is
    /// recoverable.
    pub fn publish(&self, name: &str) -> Result<(), ServiceError> {
        if self.journal.is_some() {
            return Err(ServiceError::Recoverable);
        }
        service::publish(&self.node, name, self.id)
    }

    /// Finds the VR that has [published](Self::publish) that name, most often in another program.
    ///
    /// From then on this VR can send to it and watch it, and gets what it sends. When its process ends, is killed, or is
    /// silent for eight seconds, its `Down` comes as for a VR of this program; a process that was only out of reach can be
    /// looked up again then.
    ///
    /// # Errors
    /// [`ServiceError`]: nobody or more than one publishes it, whoever does speaks another version of the protocol or does
    /// not talk to this program, or this VR is recoverable.
    ///
    /// # Blocking
    /// For 50 ms after the first answer, as somebody else might have published the name too; for a quarter of a second if
    /// there is none.
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

    /// Whether a VR is one of another program, which this one has looked up, or which has sent something. What comes from
    /// such a VR was sent by other code than this program's; code pointers in it mean nothing here.
    #[must_use]
    pub fn is_foreign(&self, vr: VrId) -> bool {
        self.node.is_foreign(vr)
    }

    /// Forgets that a VR of another program was gone: it may be found again.
    pub(super) fn start_afresh(&self, vr: VrId) {
        self.routes.borrow_mut().remove(&vr);
        self.observed.borrow_mut().remove(&vr);
        let revived = self.with_mailbox(|mailbox, swap| {
            // Old news may have arrived that no receive has seen.
            mailbox.status(swap);
            mailbox.revive(vr);
        });
        revived.expect(ONLY_LOOKS);
    }
}
