//! A search for VMs or for services: the state machine between a query and its result. The caller provides time and
//! datagrams.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::discovery::probe::{
    ANSWER_MAGIC, Announcement, ID_LEN, MAC_LEN, MAX_QUERY, MacKey, PROBE_LEN, PROBE_MAGIC, Query, VmInfo,
    begin,
};
use crate::key::ClusterKey;
use crate::noise::PROTOCOL;

/// How long a search lasts without a time-out of its own, unless it finds enough VMs earlier.
pub(crate) const SEARCH_TIME: Duration = Duration::from_millis(250);

/// How long a search for a name that should be unique goes on after the first answer, to find duplicates: a thousand times
/// as long as an answer takes within a network.
pub(crate) const GRACE: Duration = Duration::from_millis(50);

/// When the probe is sent: repeatedly, since datagrams get lost.
const SENDINGS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(150)];

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The VMs, sorted by name and then by id.
    pub vms: Vec<VmInfo>,
    /// How many other VMs of the same cluster speak each other version of the protocol.
    pub other_versions: BTreeMap<u16, usize>,
}

/// Why a search could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoverError {
    /// The query's texts are too long.
    #[error("the query takes {0} bytes, but at most {MAX_QUERY} fit in a probe: use a shorter name or label")]
    QueryTooLong(usize),
    /// No socket could be opened.
    #[error("cannot open a UDP socket to search for VMs")]
    Socket(#[source] io::Error),
    /// The probe could not be sent to anyone.
    #[error(
        "cannot send a search for VMs to any address: check that the loopback interface is up (`ip link`)"
    )]
    Unreachable(#[source] io::Error),
}

/// What a search does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send the probe to everyone, then ask again.
    Send,
    /// Wait for a datagram, but not longer than this; then ask again.
    Wait(Duration),
    /// The search has ended.
    Done,
}

/// What a search looks for: VMs or services.
pub(crate) trait Sought: DeserializeOwned {
    /// The magic of probes for it.
    const PROBE: [u8; 4];
    /// The magic of its answers.
    const ANSWER: [u8; 4];
    /// What is known of it once it was found.
    type Info;

    fn id(&self) -> Uuid;
    /// Adds the address that it answered from.
    fn at(self, ip: IpAddr) -> Self::Info;
    fn address(info: &Self::Info) -> SocketAddr;
}

impl Sought for Announcement {
    const PROBE: [u8; 4] = PROBE_MAGIC;
    const ANSWER: [u8; 4] = ANSWER_MAGIC;
    type Info = VmInfo;

    fn id(&self) -> Uuid {
        self.id.as_uuid()
    }

    fn at(self, ip: IpAddr) -> VmInfo {
        self.at(ip)
    }

    fn address(info: &VmInfo) -> SocketAddr {
        info.address
    }
}

/// A search under way: a state machine without sockets or a clock.
#[must_use = "a search does nothing unless its steps are taken"]
pub(crate) struct Search<A: Sought = Announcement> {
    version: u16,
    key: MacKey,
    nonce: [u8; 16],
    probe: Vec<u8>,
    count: Option<u32>,
    timeout: Duration,
    /// How long it goes on once something was found.
    grace: Option<Duration>,
    sent: usize,
    found: HashMap<Uuid, A::Info>,
    /// Those of other protocol versions, by id and not only counted, as each answers several times.
    others: HashMap<Uuid, u16>,
}

impl Search {
    /// A search that lasts [`SEARCH_TIME`], unless it finds enough VMs earlier.
    ///
    /// # Errors
    ///
    /// If the query does not fit into a probe.
    pub(crate) fn new(key: &ClusterKey, query: &Query) -> Result<Self, DiscoverError> {
        Self::with_version(PROTOCOL, key, query)
    }

    fn with_version(version: u16, key: &ClusterKey, query: &Query) -> Result<Self, DiscoverError> {
        Self::of(version, key, query, query.count)
    }

    /// What was found.
    #[must_use]
    pub(crate) fn finish(self) -> Found {
        let other_versions = self.other_versions();
        let mut vms = self.into_found();
        vms.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        Found { vms, other_versions }
    }
}

impl<A: Sought> Search<A> {
    /// A search that ends once it has found `count`.
    pub(super) fn of(
        version: u16,
        key: &ClusterKey,
        query: &impl Serialize,
        count: Option<u32>,
    ) -> Result<Self, DiscoverError> {
        let key = MacKey::new(key);
        let nonce = *Uuid::new_v4().as_bytes();
        let mut probe = begin(A::PROBE, version, &nonce);
        // Postcard cannot fail on strings and numbers; if it did, the body would be refused as too long below.
        let body = postcard::to_stdvec(query).unwrap_or_else(|_| vec![0; PROBE_LEN]);
        if body.len() > MAX_QUERY {
            return Err(DiscoverError::QueryTooLong(body.len()));
        }
        probe.extend_from_slice(&body);
        probe.resize(PROBE_LEN - MAC_LEN, 0);
        key.seal(&mut probe);
        let (found, others) = (HashMap::new(), HashMap::new());
        Ok(Self {
            version,
            key,
            nonce,
            probe,
            count,
            timeout: SEARCH_TIME,
            grace: None,
            sent: 0,
            found,
            others,
        })
    }

    /// Limits the search to `timeout`.
    pub(crate) fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Ends the search `grace` after something was found.
    pub(super) fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// The probe.
    #[must_use]
    pub(crate) fn datagram(&self) -> &[u8] {
        &self.probe
    }

    /// What to do now, `elapsed` after the search began.
    pub(crate) fn poll(&mut self, elapsed: Duration) -> Step {
        if !self.found.is_empty()
            && let Some(grace) = self.grace.take()
        {
            self.timeout = self.timeout.min(elapsed + grace);
        }
        if self.enough() || elapsed >= self.timeout {
            return Step::Done;
        }
        match SENDINGS.get(self.sent) {
            Some(due) if *due <= elapsed => {
                // Sendings that were missed because this process was suspended are skipped.
                self.sent = SENDINGS.iter().filter(|due| **due <= elapsed).count();
                Step::Send
            }
            Some(due) => Step::Wait((*due).min(self.timeout) - elapsed),
            None => Step::Wait(self.timeout - elapsed),
        }
    }

    /// Takes an untrusted datagram that came from `from`, and returns whether it made something new known.
    pub(crate) fn handle(&mut self, datagram: &[u8], from: SocketAddr) -> bool {
        self.try_handle(datagram, from).unwrap_or(false)
    }

    fn try_handle(&mut self, datagram: &[u8], from: SocketAddr) -> Option<bool> {
        let (version, nonce, body) = self.key.open(A::ANSWER, datagram)?;
        if nonce != self.nonce {
            return None;
        }
        let (id, body) = body.split_first_chunk::<ID_LEN>()?;
        let id = Uuid::from_bytes(*id);
        if version != self.version {
            self.others.insert(id, version);
            return Some(false);
        }
        let announcement = postcard::from_bytes(body).ok().filter(|sought: &A| sought.id() == id)?;
        let info = announcement.at(from.ip());
        let is_local = |info: &A::Info| A::address(info).ip().is_loopback();
        // VMs on this machine answer from each of its addresses, of which loopback is the fastest.
        let better = self.found.get(&id).is_none_or(|known| is_local(&info) && !is_local(known));
        Some(better && self.found.insert(id, info).is_none())
    }

    /// Whether enough have been found.
    #[must_use]
    pub(crate) fn enough(&self) -> bool {
        self.count.is_some_and(|count| self.found.len() as u64 >= u64::from(count))
    }

    /// How many were found of each other version of the protocol.
    pub(super) fn other_versions(&self) -> BTreeMap<u16, usize> {
        let mut other_versions = BTreeMap::new();
        for version in self.others.values() {
            *other_versions.entry(*version).or_default() += 1;
        }
        other_versions
    }

    /// What was found, in no particular order.
    pub(super) fn into_found(self) -> Vec<A::Info> {
        self.found.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::discovery::probe::tests::answer;
    use crate::discovery::probe::tests::{key, vm};
    use crate::discovery::probe::{HEADER_LEN, answer_as};

    fn local() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 999))
    }

    fn search(query: &Query) -> Search {
        Search::new(&key(), query).unwrap()
    }

    #[test]
    fn a_vm_is_found_with_all_it_said() {
        let ours = vm("one");
        let mut search = search(&Query::default());
        let answer = answer(&key(), &ours, search.datagram()).unwrap();
        assert!(search.handle(&answer, local()));
        let found = search.finish();
        assert_eq!(found.vms, [ours.at(local().ip())]);
        assert_eq!(found.vms[0].address, SocketAddr::from(([127, 0, 0, 1], 4711)));
        assert!(found.other_versions.is_empty());
    }

    #[test]
    fn strangers_get_no_answer_and_are_not_believed() {
        let stranger = ClusterKey::from_bytes([8; 32]);
        let ours = vm("one");
        let mut search = search(&Query::default());
        assert_eq!(answer(&stranger, &ours, search.datagram()), None);
        let mut theirs = Search::new(&stranger, &Query::default()).unwrap();
        let forged = answer(&stranger, &ours, theirs.datagram()).unwrap();
        assert!(theirs.handle(&forged, local()));
        assert!(!search.handle(&forged, local()));
        // An answer to an earlier search is authentic but stale.
        let old = answer(&key(), &ours, Search::new(&key(), &Query::default()).unwrap().datagram()).unwrap();
        assert!(!search.handle(&old, local()));
        // A probe is not an answer, and an answer is not a probe.
        let probe = search.datagram().to_vec();
        assert!(!search.handle(&probe, local()));
        assert_eq!(answer(&key(), &ours, &old), None);
    }

    #[test]
    fn a_flipped_bit_anywhere_silences() {
        let ours = vm("one");
        let mut search = search(&Query::default());
        let flipped = |datagram: &[u8], bit: usize| {
            let mut datagram = datagram.to_vec();
            datagram[bit / 8] ^= 1 << (bit % 8);
            datagram
        };
        for bit in 0..PROBE_LEN * 8 {
            assert_eq!(answer(&key(), &ours, &flipped(search.datagram(), bit)), None);
        }
        let answer = answer(&key(), &ours, search.datagram()).unwrap();
        for bit in 0..answer.len() * 8 {
            assert!(!search.handle(&flipped(&answer, bit), local()));
        }
        for length in 0..answer.len() {
            assert!(!search.handle(&answer[..length], local()));
        }
        assert_eq!(search.finish(), Found::default());
    }

    #[test]
    fn each_vm_counts_once_and_its_loopback_address_is_preferred() {
        let lan = SocketAddr::from(([10, 0, 0, 7], 999));
        let mut search = search(&Query { count: Some(2), ..Query::default() });
        let (b, a) = (vm("b"), vm("a"));
        for (from, new) in [(lan, true), (lan, false), (local(), false), (lan, false)] {
            let answer = answer(&key(), &b, search.datagram()).unwrap();
            assert_eq!(search.handle(&answer, from), new);
            assert!(!search.enough());
        }
        let answer = answer(&key(), &a, search.datagram()).unwrap();
        assert!(search.handle(&answer, lan));
        assert!(search.enough());
        assert_eq!(search.finish().vms, [a.at(lan.ip()), b.at(local().ip())]);
    }

    #[test]
    fn vms_of_other_versions_are_counted() {
        let mut search = search(&Query { name: Some("nobody".to_owned()), ..Query::default() });
        let (next, after) = (PROTOCOL + 1, PROTOCOL + 2);
        for version in [next, next, after] {
            let ours = vm("other");
            for _ in 0..3 {
                let answer = answer_as(version, &key(), &ours, search.datagram()).unwrap();
                assert_eq!(answer.len(), HEADER_LEN + ID_LEN + MAC_LEN);
                assert!(!search.handle(&answer, local()));
            }
        }
        let found = search.finish();
        assert!(found.vms.is_empty());
        assert_eq!(found.other_versions, BTreeMap::from([(next, 2), (after, 1)]));
    }

    #[test]
    fn the_probe_is_sent_three_times() {
        let at = Duration::from_millis;
        let mut search = search(&Query::default()).with_timeout(at(300));
        assert_eq!(search.poll(at(0)), Step::Send);
        assert_eq!(search.poll(at(0)), Step::Wait(at(50)));
        assert_eq!(search.poll(at(20)), Step::Wait(at(30)));
        assert_eq!(search.poll(at(51)), Step::Send);
        assert_eq!(search.poll(at(51)), Step::Wait(at(99)));
        assert_eq!(search.poll(at(250)), Step::Send);
        assert_eq!(search.poll(at(250)), Step::Wait(at(50)));
        assert_eq!(search.poll(at(300)), Step::Done);
    }

    #[test]
    fn a_search_ends_early_and_is_cut_short() {
        let at = Duration::from_millis;
        let mut nothing = search(&Query { count: Some(0), ..Query::default() });
        assert_eq!(nothing.poll(at(0)), Step::Done);
        let mut short = search(&Query::default()).with_timeout(at(30));
        assert_eq!(short.poll(at(0)), Step::Send);
        assert_eq!(short.poll(at(10)), Step::Wait(at(20)));
        let mut late = search(&Query::default());
        assert_eq!(late.poll(at(210)), Step::Send, "and not three times");
        assert_eq!(late.poll(at(210)), Step::Wait(at(40)));
    }

    #[test]
    fn a_query_that_does_not_fit_is_refused() {
        let query = Query { label: Some("x".repeat(2000)), ..Query::default() };
        assert!(matches!(Search::new(&key(), &query), Err(DiscoverError::QueryTooLong(_))));
    }

    proptest! {
        #[test]
        fn any_datagram_is_survived(
            body in proptest::collection::vec(any::<u8>(), 0..1100), version in 0..3_u16, sealed: bool,
        ) {
            let mut search = search(&Query::default());
            let mut datagram = body;
            if sealed {
                // The sender has the key, but not the same layout of the body.
                datagram.truncate(MAX_QUERY);
                datagram = [begin(ANSWER_MAGIC, version, &search.nonce), datagram].concat();
                MacKey::new(&key()).seal(&mut datagram);
            }
            prop_assert!(!search.handle(&datagram, local()));
            prop_assert!(search.finish().vms.is_empty());
        }
    }
}
