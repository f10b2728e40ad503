//! Connections between programs. A VR that is published under a name is found by other programs of the same cluster, which
//! then exchange messages with it as with VRs of their own.
//!
//! Names are kept nowhere. Each process answers searches for the services of its own VRs, as VMs answer searches for VMs, on
//! the same port and with the same key. A process that finds a service *visits* the process of that service: it opens a
//! control connection, on which both send a heartbeat every second. While it lasts, envelopes go both ways on data
//! connections like those within a program. When it ends, each side declares the other's VRs gone on its own, since no
//! program knows the hosts of another. What is known of a process that is gone is forgotten, so it can be found and visited
//! again.
//!
//! Only bytes pass. Code pointers mean nothing in another program; a layer that accepts some from others must check
//! [`Vr::is_foreign`](crate::Vr::is_foreign).

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::control::{self, Connection, Incoming};
use crate::discovery::{self, Reach, ServiceAnnouncement, ServiceInfo};
use crate::error::ServiceError;
use crate::id::{HostId, VrId};
use crate::lease;
use crate::machine::process_name;
use crate::node::{Node, VisitEnd};
use crate::noise::PROTOCOL;
use crate::protocol::{Hello, Place, Visiting, Visitor, Welcome};
use crate::rt;
use crate::searches::{self, Answers};

/// How long a process may take to admit a visitor.
const ANSWER: Duration = Duration::from_secs(5);
/// A process that is silent for this long is dead, as within a program.
const DEAD: Duration = Duration::from_secs(8);
/// For this long after the end of a visit, the last envelopes are read.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long a program that ends waits until its visitors have been told.
const FAREWELL: Duration = Duration::from_secs(1);

/// Publishes a VR of this process to other programs, until it ends.
pub(crate) fn publish(node: &Arc<Node>, name: &str, vr: VrId) -> Result<(), ServiceError> {
    if name.is_empty() || name.len() > ServiceError::MAX_NAME {
        return Err(ServiceError::Name(name.into()));
    }
    if !node.publish(name, vr) {
        return Err(ServiceError::Taken(name.into()));
    }
    let started = node.answer_by(|| {
        let port = discovery::discovery_port().map_err(|error| error.to_string())?;
        let answers = Arc::new(Services { node: Arc::downgrade(node), process: process_name() });
        let task = searches::start(answers, node.key().clone(), node.network(), port);
        task.map(rt::spawn).map_err(|error| error.to_string())
    });
    started.map_err(|error| {
        node.withdraw(vr);
        ServiceError::Listen { name: name.into(), error }
    })
}

/// Answers searches for what the process has published.
struct Services {
    node: Weak<Node>,
    process: String,
}

impl Answers for Services {
    fn answer(&self, probe: &[u8]) -> Option<Vec<u8>> {
        let node = self.node.upgrade().filter(|node| node.publishes_something())?;
        let Place { host, address } = node.place;
        discovery::answer_service(node.key(), host, probe, |name| {
            let vr = node.service(name)?;
            let (program, process) = (node.program, self.process.clone());
            Some(ServiceAnnouncement { host, port: address.port(), vr, program, process })
        })
    }

    fn is_over(&self) -> bool {
        self.node.strong_count() == 0
    }

    fn stands_for_machine(&self) -> bool {
        false
    }
}

/// Finds the service of that name and visits its process: from then on that VR can be sent to, and may send to `asker`.
/// Returns the VR, and a description of its process for people. Blocks for 50 ms after the first answer, or for the whole
/// time of a search.
pub(crate) fn look_up(node: &Arc<Node>, name: &str, asker: VrId) -> Result<(VrId, String), ServiceError> {
    let failed = |error: String| ServiceError::Search { name: name.into(), error };
    if name.is_empty() || name.len() > ServiceError::MAX_NAME {
        return Err(ServiceError::Name(name.into()));
    }
    let port = discovery::discovery_port().map_err(|error| failed(error.to_string()))?;
    let reach = Reach::from_env().map_err(|error| failed(error.to_string()))?.from(node.network());
    let found = discovery::search_service(node.key(), name, port, &reach);
    let found = found.map_err(|error| failed(error.to_string()))?;
    let mut services = found.services;
    let Some(service) = services.pop() else {
        let most = found.other_versions.iter().max_by_key(|(_, count)| **count);
        return Err(match most {
            None => ServiceError::NotFound(name.into()),
            Some((&theirs, _)) => {
                let count = found.other_versions.values().sum();
                ServiceError::OtherVersion { name: name.into(), count, theirs, ours: PROTOCOL }
            }
        });
    };
    if !services.is_empty() {
        services.push(service);
        let processes = services.into_iter().map(|service| service.process).collect();
        return Err(ServiceError::Ambiguous { name: name.into(), processes });
    }
    let ServiceInfo { host, address, vr, program, process } = service.clone();
    if program == node.program {
        node.learn(vr, Place { host, address });
    } else {
        // One at a time: a second visit would end the first.
        let turn = node.turn_to_visit();
        let visited = rt::block_on(visit(node, service));
        drop(turn);
        visited.map_err(|error| ServiceError::Unreachable {
            name: name.into(),
            process: process.clone(),
            error,
        })?;
        node.open(asker);
        node.learn_foreign(vr, host);
    }
    Ok((vr, process))
}

/// Visits a process of another program, unless either of the two already visits the other.
async fn visit(node: &Arc<Node>, service: ServiceInfo) -> Result<(), String> {
    let host = service.host;
    if node.is_visited_by(host) {
        return Ok(());
    }
    node.dials(host);
    let visit = dial(node, service).await;
    node.has_dialled(host, visit.as_ref().ok().copied());
    visit.map(drop)
}

/// Begins a visit, and returns its number.
async fn dial(node: &Arc<Node>, service: ServiceInfo) -> Result<u64, String> {
    let Place { host, address } = node.place;
    let this = Visitor { program: node.program, host, port: address.port(), process: process_name() };
    let dialled = control::dial(service.address, node.key(), &Hello::Visit(this)).await;
    let (welcome, connection) = dialled.map_err(|error| error.to_string())?;
    if !matches!(welcome, Welcome::Host(host, _) if host == service.host) {
        return Err(format!("another process answers at {}", service.address));
    }
    let (to, mut from) = control::split::<Visiting, Visiting>(connection);
    match rt::timeout(ANSWER, from.next()).await {
        Ok(Ok(Some(Visiting::Admitted))) => {}
        Ok(Ok(Some(Visiting::Refused(why)))) => return Err(why),
        Ok(Ok(_)) => return Err("it closed the connection".into()),
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(format!("it did not answer within {ANSWER:?}")),
    }
    let ServiceInfo { host, program, process, .. } = service;
    let port = service.address.port();
    begin_anew(node, host).await;
    let visit = node.admit(&Visitor { program, host, port, process }, service.address);
    let number = node.enter_visit(to.clone());
    rt::spawn(stay(Arc::downgrade(node), host, (visit, number), to, from));
    Ok(visit)
}

/// Serves a process of another program that visits this one, until it is gone.
pub(crate) async fn receive(node: Arc<Node>, visitor: Visitor, connection: Connection) {
    let Ok(peer) = connection.peer_addr() else { return };
    let (to, from) = control::split::<Visiting, Visiting>(connection);
    if !node.publishes_something() {
        let _ = to.try_send(Visiting::Refused("it publishes nothing any more".into()));
        return;
    }
    tracing::info!(process = visitor.process, "another program talks to this one");
    begin_anew(&node, visitor.host).await;
    let visit = node.admit(&visitor, SocketAddr::new(peer.ip(), visitor.port));
    let number = node.enter_visit(to.clone());
    let _ = to.try_send(Visiting::Admitted);
    let node = {
        let weak = Arc::downgrade(&node);
        drop(node);
        weak
    };
    stay(node, visitor.host, (visit, number), to, from).await;
}

/// Ends an earlier visit of, or to, that process, and waits, for a bounded time, until nothing more can arrive from it.
async fn begin_anew(node: &Node, host: HostId) {
    node.end_visit_of(host);
    let heard = async {
        while node.hears_of_earlier(host) {
            rt::sleep(Duration::from_millis(1)).await;
        }
    };
    let _ = rt::timeout(LAST_WORDS, heard).await;
}

/// Sends a heartbeat every second, and expects those of the other process, until either process stops.
async fn stay(
    node: Weak<Node>,
    host: HostId,
    (visit, number): (u64, u64),
    to: rt::Sender<Visiting>,
    mut from: Incoming<Visiting>,
) {
    let heart = rt::spawn({
        let node = node.clone();
        async move {
            // If this process has given up the other because a connection broke, ending this connection tells the other one.
            while node.upgrade().is_some_and(|node| node.is_visit(host, visit))
                && to.send(Visiting::Alive).await.is_ok()
            {
                rt::sleep(lease::RENEWAL).await;
            }
            node.upgrade().inspect(|node| node.leave_visit(number));
        }
    });
    let (end, may_be_heard) = loop {
        // Check for arrivals before the clock: this process may itself have been stopped.
        match rt::timeout(DEAD, from.next()).await {
            Ok(Ok(Some(Visiting::Ended))) => break (VisitEnd::Ended, true),
            Ok(Ok(Some(_))) => {}
            Ok(Ok(None)) => break (VisitEnd::Lost("it closed the connection".into()), true),
            Ok(Err(error)) => break (VisitEnd::Lost(error.to_string()), true),
            Err(_) => break (VisitEnd::Lost(format!("it has not been heard of for {DEAD:?}")), false),
        }
    };
    // The other process may end as soon as the connection does, and this one must know by then why that happened.
    if let Some(node) = node.upgrade() {
        node.leave_visit(number);
        node.visit_over(host, visit, end.clone(), may_be_heard);
    }
    rt::cancel(heart);
    drop(from);
    if may_be_heard {
        rt::sleep(LAST_WORDS).await;
        if let Some(node) = node.upgrade() {
            node.visit_over(host, visit, end, false);
        }
    }
}

/// Waits, for a bounded time, until the processes that visit this one, or are visited, know that it ends.
pub(crate) async fn farewell(node: &Node) {
    let all_gone = async {
        while node.has_visits() {
            rt::sleep(Duration::from_micros(500)).await;
        }
    };
    let _ = rt::timeout(FAREWELL, all_gone).await;
}
