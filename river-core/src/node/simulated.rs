//! A node on a simulated network, driven by one thread.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock};

use crossbeam_channel::Receiver;

use super::Node;
use super::arrivals::Deliver;
use super::connect::Ways;
use super::courier::Notice;
use super::foreign::Published;
use super::mirrors::Mirrors;
use super::requests::Requests;
use crate::discovery::Network;
use crate::id::ProgramId;
use crate::inboxes::Inboxes;
use crate::key::ClusterKey;
use crate::limit::Gates;
use crate::link::SimNet;
use crate::protocol::{Place, Reply, Request};
use crate::state::Registry;

impl Node {
    /// Returns the node, and the notices that its courier thread would send.
    pub(crate) fn simulated(
        place: Place,
        net: &Arc<SimNet>,
        answer: Arc<dyn Fn(Request) -> Option<Reply> + Send + Sync>,
    ) -> (Arc<Self>, Receiver<Notice>) {
        let (courier, notices) = crossbeam_channel::unbounded();
        let local = Arc::new(Inboxes::default());
        let node = Arc::new(Self {
            place,
            program: ProgramId::fresh(),
            vm: "sim".into(),
            key: ClusterKey::from_bytes([0; 32]),
            local: local.clone(),
            book: Mutex::default(),
            requests: Requests::Sim(answer),
            ways: Ways::Sim(net.clone()),
            gates: Gates::default(),
            courier,
            recoverable: false,
            states: Registry::default(),
            traces: OnceLock::new(),
            leaving: Mutex::default(),
            any_leaving: AtomicBool::new(false),
            published: Published::on(Network::Loopback),
            moves: AtomicU64::new(0),
            mirrors: Mirrors::default(),
        });
        let sink = Deliver::to(local);
        sink.belongs_to(&node);
        net.add(place.host, Arc::new(sink));
        (node, notices)
    }

    /// Sends the pending notices.
    pub(crate) fn carry_now(&self, notices: &Receiver<Notice>) {
        while let Ok(notice) = notices.try_recv() {
            self.carry(notice);
        }
    }
}
