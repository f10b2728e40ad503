//! Discovery: how programs find virtual machines that never announce themselves.
//!
//! * [`probe`]: what is asked and what is answered, as authenticated datagrams.
//! * [`search`]: a search as a state machine, without sockets and clock.
//! * [`net`]: both on real sockets.

mod net;
mod probe;
mod search;

pub use net::{DISCOVERY_PORT, FindError, PortError, ResponderError, find};
pub(crate) use net::{bind_responder, default_port, search};
#[cfg(any(test, feature = "testing"))]
pub(crate) use probe::answer_as;
pub(crate) use probe::{Announcement, answer};
pub use probe::{Query, VmInfo, VmState};
pub(crate) use search::SEARCH_TIME;
pub use search::{DiscoverError, Found};
