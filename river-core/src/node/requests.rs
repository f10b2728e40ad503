//! Requests of VRs to the program, and how they get to the process that answers.

#[cfg(test)]
use std::sync::Arc;

use crossbeam_channel::Sender;

use super::Node;
use crate::id::HostId;
use crate::protocol::{Reply, Request};
use crate::rt;

/// A request, and the channel for its answer.
pub(crate) type Asked = (Request, Sender<Reply>);

/// What answers the requests of VRs to the program.
pub(super) enum Requests {
    Program(rt::Sender<Asked>),
    #[cfg(test)]
    Sim(Arc<dyn Fn(Request) -> Option<Reply> + Send + Sync>),
}

impl std::fmt::Debug for Requests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Requests")
    }
}

impl Node {
    /// Sends a request to the program. Blocks until it answers; `None` if it has ended.
    pub(crate) fn ask(&self, request: Request) -> Option<Reply> {
        match &self.requests {
            Requests::Program(requests) => {
                let (answer, reply) = crossbeam_channel::bounded(1);
                requests.try_send((request, answer)).ok()?;
                reply.recv().ok()
            }
            #[cfg(test)]
            Requests::Sim(answer) => answer(request),
        }
    }

    /// Asks the program for a verdict on a host, which comes back as [`host_down`](Self::host_down).
    pub(super) fn report(&self, host: HostId, error: String) {
        let request = Request::Verdict { host, error };
        match &self.requests {
            Requests::Program(requests) => {
                let (answer, _) = crossbeam_channel::bounded(1);
                let _ = requests.try_send((request, answer));
            }
            #[cfg(test)]
            Requests::Sim(answer) => drop(answer(request)),
        }
    }
}
