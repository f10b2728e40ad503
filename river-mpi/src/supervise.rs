//! The supervisor's side of a job: starts the ranks, and passes their reports to the [`Supervisor`], whose actions it carries
//! out.

use std::collections::HashMap;

use river_core::{RecvError, Selector, Vr, VrId};

use crate::coll::Names;
use crate::engine::{self, LANE, MESSAGES, REPORTS};
use crate::error::{MpiError, Result};
use crate::header::{Header, Kind};
use crate::job::{Order, Place};
use crate::matching::Key;
use crate::supervisor::{Action, Event, Supervisor};

/// Sends the ranks the order to start, for which they wait, and watches over them until the job is over.
pub(crate) fn supervise(
    vr: &Vr,
    ranks: &[VrId],
    places: Vec<Place>,
    survive: bool,
) -> Result<Vec<Result<Vec<u8>>>> {
    if ranks.is_empty() {
        // Without ranks, no report would ever end the job.
        return Err(MpiError::Arg("a job needs at least one rank".to_owned()));
    }
    engine::describe(vr);
    let numbers: HashMap<VrId, u32> = ranks.iter().copied().zip(0..).collect();
    let tell = |rank: u32, order: &Order| {
        let header = Header { kind: Kind::Job, from: u32::MAX, key: Key::NONE, ticket: 0, length: 0 };
        match postcard::to_stdvec(order) {
            // If the rank is gone, a notice will arrive.
            Ok(bytes) => drop(vr.send_bytes(ranks[rank as usize], MESSAGES, LANE, header.with(&bytes))),
            Err(error) => tracing::error!(%error, "an order cannot be encoded"),
        }
    };
    let all = || (0..).take(ranks.len());
    let start = Order::Start { ranks: ranks.to_vec(), places, algorithms: Names::from_env() };
    for rank in all() {
        vr.watch(ranks[rank as usize]);
        tell(rank, &start);
    }
    let mut supervisor = Supervisor::new(ranks.len(), survive);
    // Notices about VRs that are not part of this job.
    let mut foreign = Vec::new();
    let end = loop {
        let envelope = vr
            .receive_where(Selector::on(REPORTS).lane(LANE), |envelope| numbers.contains_key(&envelope.src));
        let (rank, event) = match envelope {
            Ok(envelope) => match postcard::from_bytes(&envelope.payload.to_bytes()) {
                Ok(report) => (numbers[&envelope.src], Event::Report(report)),
                Err(error) => {
                    tracing::warn!(%error, "a report that cannot be read");
                    continue;
                }
            },
            Err(RecvError::Down(down)) => match numbers.get(&down.who) {
                Some(&rank) => (rank, Event::Gone { why: down.why.to_string() }),
                None => {
                    foreign.push(down.who);
                    continue;
                }
            },
            Err(RecvError::Reentrant) => break Err(MpiError::Reentrant),
            Err(_) => break Err(MpiError::Stopped),
        };
        let mut end = None;
        for action in supervisor.hear(rank, event) {
            match action {
                Action::Tell(rank, message) => tell(rank, &message.into()),
                Action::Over(results) => end = Some(Ok(results)),
                Action::Failed(error) => end = Some(Err(error)),
            }
        }
        if let Some(end) = end {
            break end;
        }
    };
    if end.is_err() {
        all().for_each(|rank| tell(rank, &Order::End));
    }
    ranks.iter().for_each(|&rank| vr.unwatch(rank));
    foreign.into_iter().for_each(|who| vr.watch(who));
    end
}
