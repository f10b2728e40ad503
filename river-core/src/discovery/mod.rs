//! Discovery: how programs find virtual machines that never announce themselves.
//!
//! * [`probe`]: probes and answers, as authenticated datagrams.
//! * [`search`]: a search as a state machine, without sockets or a clock.
//! * [`service`]: probes and answers for services of programs.
//! * [`replay`]: limits what replaying a recorded probe can achieve.
//! * [`names`]: resolves the names of machines that are probed directly.
//! * [`network`]: how far a process reaches beyond its machine.
//! * [`net`]: discovery on real sockets.
//! * [`hear`]: tests whether a VM on this machine would hear a search.

mod hear;
mod names;
mod net;
mod network;
mod probe;
mod replay;
mod search;
mod service;

pub use hear::{Heard, hear_self};
#[cfg(any(test, feature = "testing"))]
pub(crate) use net::bind_responder;
pub use net::{DISCOVERY_PORT, FindError, PortError, ResponderError, discovery_port, find};
pub(crate) use net::{Ears, bind_ear, bind_ears, responder_ears, search, search_service};
pub use network::NetworkError;
pub(crate) use network::{Ear, Network, Reach, key_for};
pub(crate) use probe::{Announcement, answer, is_answer, relayed, scope};
pub use probe::{Query, VmInfo, VmState};
#[cfg(any(test, feature = "testing"))]
pub(crate) use probe::{answer_as, sealed_answer, sealed_probe};
pub(crate) use replay::Replays;
pub(crate) use search::SEARCH_TIME;
pub use search::{DiscoverError, Found};
#[cfg(any(test, feature = "testing"))]
pub(crate) use search::{Search, Sought};
#[cfg(any(test, feature = "testing"))]
pub(crate) use service::ServiceQuery;
pub(crate) use service::{ServiceAnnouncement, ServiceInfo, answer_service};
