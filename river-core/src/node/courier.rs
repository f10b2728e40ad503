//! The courier: a thread that sends what those must not send themselves who must not block.

use std::io;
use std::sync::Weak;
use std::thread;

use crossbeam_channel::Receiver;

use super::{Node, SYSTEM};
use crate::down::Down;
use crate::envelope::Envelope;
use crate::frame::{Kind, gate};
use crate::id::{HostId, VrId};
use crate::limit::WhenFull;

/// A notice that some thread that must not block wants sent.
#[derive(Debug)]
pub(crate) enum Notice {
    Down {
        to: VrId,
        down: Down,
    },
    /// For a process: the mailbox of a VR of this one is full, or has room again.
    Gate {
        to: HostId,
        vr: VrId,
        full: Option<WhenFull>,
    },
    /// A watch on a VR that is elsewhere now.
    Watch {
        watcher: VrId,
        watched: VrId,
    },
    /// About a mirrored VR, for the process that has it or its twin.
    Mirror {
        to: HostId,
        vr: VrId,
        lane: u64,
        number: u64,
    },
}

/// Starts the courier of a node, with which it ends.
pub(super) fn start(node: Weak<Node>, notices: Receiver<Notice>) -> io::Result<()> {
    let deliver = move || {
        while let Ok(notice) = notices.recv() {
            let Some(node) = node.upgrade() else { return };
            node.carry(notice);
        }
    };
    thread::Builder::new().name("river-notices".into()).spawn(deliver).map(drop)
}

impl Node {
    /// Tells a process that the mailbox of a VR of this one is full, or has room again. Does not block.
    pub(crate) fn gate(&self, to: HostId, vr: VrId, full: Option<WhenFull>) {
        let _ = self.courier.send(Notice::Gate { to, vr, full });
    }

    fn tell_gate(&self, to: HostId, vr: VrId, full: Option<WhenFull>) {
        if let Ok(link) = self.connect(to) {
            let payload = vec![gate::encode(full)].into();
            let _ = link.notify(
                Kind::Gate,
                &Envelope { src: vr, dst: vr, seq: 0, channel: SYSTEM, lane: 0, payload },
            );
        }
    }

    /// Sends a notice. May block.
    pub(super) fn carry(&self, notice: Notice) {
        match notice {
            Notice::Down { to, down } => self.tell(to, &down),
            Notice::Gate { to, vr, full } => self.tell_gate(to, vr, full),
            Notice::Watch { watcher, watched } => self.pass_on_watch(watcher, watched),
            Notice::Mirror { to, vr, lane, number } => self.carry_mirror(to, vr, lane, number),
        }
    }
}
