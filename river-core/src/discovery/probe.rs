//! Discovery: a searcher sends a probe, and every VM that matches the query answers. Nobody sends unsolicited.
//!
//! ```text
//!          0      4        6         8      24         40
//! probe    "RVRP" version  flags     nonce  query, padded with zeros               MAC   1024 bytes
//! answer   "RVRA" version  zero      nonce  VM's id    announcement                MAC   at most as long
//! ```
//!
//! Numbers are little-endian, bodies are postcard. Both datagrams end with a MAC of 32 bytes under a key derived from the
//! cluster key. A probe without a valid MAC gets no answer at all, so strangers can neither see the VMs nor use them to
//! amplify traffic. An answer repeats the probe's nonce, so an old answer is useless.
//!
//! Services of programs are searched for in the same way, with `RVSP` and `RVSA`, and with their own bodies
//! (`discovery::service`).
//!
//! Everything except the bodies has the same layout in every protocol version. A VM that is probed in another version
//! answers without a body, so that the searcher can report that the VM exists but has to be updated.
//!
//! Datagrams are made and read here; `search` is the searcher's state machine, `net` has the sockets.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::discovery::search::Sought;
use crate::id::{ProgramId, VmId};
use crate::key::ClusterKey;
use crate::noise::PROTOCOL;

/// The length of a probe, and the maximum length of an answer.
pub(crate) const PROBE_LEN: usize = 1024;
pub(crate) const PROBE_MAGIC: [u8; 4] = *b"RVRP";
pub(crate) const ANSWER_MAGIC: [u8; 4] = *b"RVRA";
pub(crate) const SERVICE_PROBE_MAGIC: [u8; 4] = *b"RVSP";
pub(crate) const SERVICE_ANSWER_MAGIC: [u8; 4] = *b"RVSA";
pub(crate) const HEADER_LEN: usize = 24;
pub(crate) const ID_LEN: usize = 16;
pub(crate) const MAC_LEN: usize = 32;
pub(crate) const MAX_QUERY: usize = PROBE_LEN - HEADER_LEN - MAC_LEN;
pub(super) const MAX_ANNOUNCEMENT: usize = MAX_QUERY - ID_LEN;
/// Texts of an announcement that is too long are cut to this length.
const MAX_TEXT: usize = 64;

/// Which VMs to search for, and how many. The default matches every VM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// The search ends as soon as this many VMs are found. Default: none, search for the whole time.
    pub count: Option<u32>,
    /// Only the VM with this name.
    pub name: Option<String>,
    /// Only VMs that were started with this label.
    pub label: Option<String>,
    /// Only VMs with at least this many cores.
    pub min_cores: u32,
    /// Only VMs with at least this many bytes of memory.
    pub min_memory: u64,
    /// Only VMs of this architecture (`x86_64`) or this full target triple.
    pub arch: Option<String>,
    /// Only VMs that are not leased.
    pub idle_only: bool,
}

/// Whether a VM is free to be leased.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VmState {
    /// No program has leased it.
    Idle,
    /// A program has leased it.
    Leased {
        /// The program.
        program: ProgramId,
        /// The program's name, for people.
        name: String,
    },
}

/// What a VM reports about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// The VM.
    pub id: VmId,
    /// Its name, by default the machine's.
    pub name: String,
    /// The TCP port where it listens.
    pub port: u16,
    /// How many cores it lends.
    pub cores: u32,
    /// How many bytes of memory its machine has.
    pub memory: u64,
    /// The target that it was built for; it runs programs for this architecture and system.
    pub triple: String,
    /// The labels with which it was started.
    pub labels: Vec<String>,
    /// Whether it can be leased.
    pub state: VmState,
    /// How long it has been running.
    pub uptime: Duration,
    /// Its version of River.
    pub version: String,
}

/// A VM that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmInfo {
    /// The VM.
    pub id: VmId,
    /// Its name, by default the machine's.
    pub name: String,
    /// The address to connect to: the one that it answered from, with the port that it announced.
    pub address: SocketAddr,
    /// How many cores it lends.
    pub cores: u32,
    /// How many bytes of memory its machine has.
    pub memory: u64,
    /// The target that it was built for; it runs programs for this architecture and system.
    pub triple: String,
    /// The labels with which it was started; not all of them if there are very many.
    pub labels: Vec<String>,
    /// Whether it could be leased when it answered.
    pub state: VmState,
    /// How long it had been running.
    pub uptime: Duration,
    /// Its version of River.
    pub version: String,
}

impl Query {
    /// Whether a VM matches the query.
    #[must_use]
    pub fn matches(&self, vm: &Announcement) -> bool {
        let architecture = vm.triple.split('-').next().unwrap_or_default();
        self.name.as_ref().is_none_or(|name| *name == vm.name)
            && self.label.as_ref().is_none_or(|label| vm.labels.contains(label))
            && self.arch.as_ref().is_none_or(|arch| *arch == architecture || *arch == vm.triple)
            && vm.cores >= self.min_cores
            && vm.memory >= self.min_memory
            && (!self.idle_only || vm.state == VmState::Idle)
    }
}

impl fmt::Display for VmState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Idle => f.write_str("idle"),
            Self::Leased { name, .. } => write!(f, "leased by {name}"),
        }
    }
}

impl Announcement {
    pub(crate) fn at(self, ip: IpAddr) -> VmInfo {
        let Self { id, name, port, cores, memory, triple, labels, state, uptime, version } = self;
        let address = SocketAddr::new(ip, port);
        VmInfo { id, name, address, cores, memory, triple, labels, state, uptime, version }
    }

    /// The body of an answer, shortened only if it would not fit.
    fn encode(&self) -> Option<Vec<u8>> {
        let body = postcard::to_stdvec(self).ok()?;
        if body.len() <= MAX_ANNOUNCEMENT {
            return Some(body);
        }
        let clip = |text: &str| text[..text.floor_char_boundary(MAX_TEXT)].to_owned();
        let mut short = Self {
            name: clip(&self.name),
            triple: clip(&self.triple),
            labels: Vec::new(),
            state: match &self.state {
                VmState::Leased { program, name } => VmState::Leased { program: *program, name: clip(name) },
                VmState::Idle => VmState::Idle,
            },
            version: clip(&self.version),
            ..*self
        };
        // A label takes its own bytes plus its length (two bytes, if it is longer than 127), and as many labels as fit make
        // the count of labels one byte longer.
        let mut room = MAX_ANNOUNCEMENT.checked_sub(postcard::to_stdvec(&short).ok()?.len() + 1)?;
        for label in &self.labels {
            if let Some(rest) = room.checked_sub(label.len() + 2) {
                short.labels.push(label.clone());
                room = rest;
            }
        }
        postcard::to_stdvec(&short).ok().filter(|body| body.len() <= MAX_ANNOUNCEMENT)
    }
}

/// The key of all discovery datagrams.
pub(crate) struct MacKey([u8; MAC_LEN]);

impl MacKey {
    pub(crate) fn new(key: &ClusterKey) -> Self {
        Self(key.derive("river discovery v1"))
    }

    /// Appends the MAC.
    pub(crate) fn seal(&self, datagram: &mut Vec<u8>) {
        let mac = blake3::keyed_hash(&self.0, datagram);
        datagram.extend_from_slice(mac.as_bytes());
    }

    /// Returns version, nonce and body of a datagram, if it is of the right kind and its MAC is valid.
    pub(crate) fn open<'a>(&self, magic: [u8; 4], datagram: &'a [u8]) -> Option<(u16, [u8; 16], &'a [u8])> {
        if datagram.len() > PROBE_LEN || !datagram.starts_with(&magic) {
            return None;
        }
        let (content, mac) = datagram.split_last_chunk::<MAC_LEN>()?;
        let (header, body) = content.split_first_chunk::<HEADER_LEN>()?;
        // `Hash` compares in constant time, so that nobody can guess a MAC byte by byte.
        if blake3::keyed_hash(&self.0, content) != *mac {
            return None;
        }
        let nonce = header.last_chunk::<16>()?;
        Some((u16::from_le_bytes([header[4], header[5]]), *nonce, body))
    }
}

pub(crate) fn begin(magic: [u8; 4], version: u16, nonce: &[u8; 16]) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(PROBE_LEN);
    datagram.extend_from_slice(&magic);
    datagram.extend_from_slice(&version.to_le_bytes());
    datagram.extend_from_slice(&[0, 0]);
    datagram.extend_from_slice(nonce);
    datagram
}

/// A VM's answer to a datagram, if any. Only authentic probes whose query matches the VM get an answer; `ours` is not
/// called for others.
#[must_use]
pub(crate) fn answer(
    key: &ClusterKey,
    id: VmId,
    ours: impl FnOnce() -> Announcement,
    datagram: &[u8],
) -> Option<Vec<u8>> {
    answer_of(PROTOCOL, key, id, ours, datagram)
}

/// The origin of a probe. Trust it only if the probe's MAC is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    /// It was sent to one VM, which passes it on to the others of its machine.
    pub(crate) relayed: bool,
    /// The searcher is on another machine, so only VMs that listen on the network are of use to it.
    pub(crate) from_network: bool,
}

const FLAGS: usize = 6;
const RELAYED: u8 = 1;
const FROM_NETWORK: u8 = 2;

pub(crate) fn scope(probe: &[u8]) -> Scope {
    let flags = probe.get(FLAGS).copied().unwrap_or_default();
    Scope { relayed: flags & RELAYED != 0, from_network: flags & FROM_NETWORK != 0 }
}

/// The probe by which a VM that alone received an authentic one passes it on to the other VMs of its machine.
pub(crate) fn relayed(key: &ClusterKey, probe: &[u8], from_network: bool) -> Option<Vec<u8>> {
    let key = MacKey::new(key);
    if probe.len() != PROBE_LEN || scope(probe).relayed {
        return None;
    }
    key.open(PROBE_MAGIC, probe).or_else(|| key.open(SERVICE_PROBE_MAGIC, probe))?;
    let mut relayed = probe[..PROBE_LEN - MAC_LEN].to_vec();
    relayed[FLAGS] |= RELAYED | if from_network { FROM_NETWORK } else { 0 };
    key.seal(&mut relayed);
    Some(relayed)
}

/// Whether a datagram is an authentic answer to a probe.
pub(crate) fn is_answer(key: &ClusterKey, probe: &[u8], datagram: &[u8]) -> bool {
    let nonce = probe.get(..HEADER_LEN).and_then(|header| header.last_chunk::<16>());
    let key = MacKey::new(key);
    let answered = key.open(ANSWER_MAGIC, datagram).or_else(|| key.open(SERVICE_ANSWER_MAGIC, datagram));
    answered.is_some_and(|(_, answered, _)| nonce == Some(&answered))
}

/// A probe for VMs or for a service with a valid MAC and an arbitrary body, for fuzzers: without a valid MAC, the body is never
/// parsed.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn sealed_probe<A: Sought>(key: &ClusterKey, body: &[u8]) -> Vec<u8> {
    let mut probe = begin(A::PROBE, PROTOCOL, &[7; 16]);
    probe.extend_from_slice(&body[..body.len().min(MAX_QUERY)]);
    probe.resize(PROBE_LEN - MAC_LEN, 0);
    MacKey::new(key).seal(&mut probe);
    probe
}

/// An answer to that probe with a valid MAC and an arbitrary body, for fuzzers.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn sealed_answer<A: Sought>(key: &ClusterKey, probe: &[u8], body: &[u8]) -> Vec<u8> {
    let nonce = probe.get(..HEADER_LEN).and_then(|header| header.last_chunk::<16>());
    let mut answer = begin(A::ANSWER, PROTOCOL, nonce.unwrap_or(&[0; 16]));
    answer.extend_from_slice(&body[..body.len().min(MAX_QUERY)]);
    MacKey::new(key).seal(&mut answer);
    answer
}

/// Like [`answer`], in another protocol version.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn answer_as(
    version: u16,
    key: &ClusterKey,
    ours: &Announcement,
    datagram: &[u8],
) -> Option<Vec<u8>> {
    answer_of(version, key, ours.id, || ours.clone(), datagram)
}

fn answer_of(
    version: u16,
    key: &ClusterKey,
    id: VmId,
    ours: impl FnOnce() -> Announcement,
    datagram: &[u8],
) -> Option<Vec<u8>> {
    answer_with::<Announcement, Query>(version, key, id.as_uuid(), datagram, |query| {
        let ours = ours();
        query.matches(&ours).then(|| ours.encode())?
    })
}

/// The answer to a probe for an `A`; `body` returns its body if the query matches.
pub(super) fn answer_with<A: Sought, Q: DeserializeOwned>(
    version: u16,
    key: &ClusterKey,
    id: Uuid,
    datagram: &[u8],
    body: impl FnOnce(Q) -> Option<Vec<u8>>,
) -> Option<Vec<u8>> {
    // A shorter datagram than the answer could be used for amplification.
    if datagram.len() != PROBE_LEN {
        return None;
    }
    let key = MacKey::new(key);
    let (theirs, nonce, query) = key.open(A::PROBE, datagram)?;
    let mut answer = begin(A::ANSWER, version, &nonce);
    answer.extend_from_slice(id.as_bytes());
    if theirs == version {
        let (query, _padding) = postcard::take_from_bytes::<Q>(query).ok()?;
        answer.extend_from_slice(&body(query)?);
    }
    key.seal(&mut answer);
    Some(answer)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn answer(key: &ClusterKey, ours: &Announcement, datagram: &[u8]) -> Option<Vec<u8>> {
        answer_as(PROTOCOL, key, ours, datagram)
    }

    pub(crate) fn key() -> ClusterKey {
        ClusterKey::from_bytes([7; 32])
    }

    pub(crate) fn vm(name: &str) -> Announcement {
        Announcement {
            id: VmId::fresh(),
            name: name.to_owned(),
            port: 4711,
            cores: 8,
            memory: 1 << 34,
            triple: "x86_64-linux-gnu".to_owned(),
            labels: vec!["gpu".to_owned(), "lab".to_owned()],
            state: VmState::Leased { program: ProgramId::fresh(), name: "pi".to_owned() },
            uptime: Duration::from_millis(123_456),
            version: "0.1.0".to_owned(),
        }
    }

    #[test]
    fn a_query_selects() {
        let ours = vm("one");
        let text = |text: &str| Some(text.to_owned());
        let all = Query::default();
        let cases = [
            (all.clone(), true),
            (Query { name: text("one"), ..all.clone() }, true),
            (Query { name: text("two"), ..all.clone() }, false),
            (Query { label: text("lab"), ..all.clone() }, true),
            (Query { label: text("la"), ..all.clone() }, false),
            (Query { min_cores: 8, min_memory: 1 << 34, ..all.clone() }, true),
            (Query { min_cores: 9, ..all.clone() }, false),
            (Query { min_memory: (1 << 34) + 1, ..all.clone() }, false),
            (Query { arch: text("x86_64"), ..all.clone() }, true),
            (Query { arch: text("x86_64-linux-gnu"), ..all.clone() }, true),
            (Query { arch: text("aarch64"), ..all.clone() }, false),
            (Query { idle_only: true, ..all }, false),
        ];
        for (query, fits) in cases {
            assert_eq!(query.matches(&ours), fits, "{query:?}");
        }
        assert!(
            Query { idle_only: true, ..Query::default() }
                .matches(&Announcement { state: VmState::Idle, ..ours })
        );
    }

    #[test]
    fn a_probe_is_relayed_once_and_by_who_has_the_key_only() {
        let mut probe = begin(PROBE_MAGIC, PROTOCOL, &[5; 16]);
        probe.extend(postcard::to_stdvec(&Query::default()).unwrap());
        probe.resize(PROBE_LEN - MAC_LEN, 0);
        MacKey::new(&key()).seal(&mut probe);
        assert_eq!(scope(&probe), Scope { relayed: false, from_network: false });
        let near = relayed(&key(), &probe, false).unwrap();
        assert_eq!(scope(&near), Scope { relayed: true, from_network: false });
        let far = relayed(&key(), &probe, true).unwrap();
        assert_eq!(scope(&far), Scope { relayed: true, from_network: true });
        assert!(relayed(&key(), &far, true).is_none());
        assert!(relayed(&ClusterKey::from_bytes([8; 32]), &probe, true).is_none());
        let mut forged = probe.clone();
        forged[FLAGS] = RELAYED;
        let ours = Announcement { state: VmState::Idle, ..vm("one") };
        assert!(answer(&key(), &ours, &forged).is_none(), "the flags are authenticated");
        let answered = answer(&key(), &ours, &far).unwrap();
        assert!(is_answer(&key(), &far, &answered) && is_answer(&key(), &probe, &answered));
        assert!(!is_answer(&key(), &far, &probe) && !is_answer(&key(), &far, &[]));
    }

    #[test]
    fn many_labels_use_the_room_there_is() {
        let labels: Vec<String> = (0..1000).map(|i| format!("label-{i}")).collect();
        let ours = Announcement { labels, ..vm("one") };
        let body = ours.encode().unwrap();
        assert!(body.len() > MAX_ANNOUNCEMENT - 200, "{}", body.len());
        let short: Announcement = postcard::from_bytes(&body).unwrap();
        assert_eq!(short, Announcement { labels: ours.labels[..short.labels.len()].to_vec(), ..ours });
    }

    proptest! {
        #[test]
        fn an_announcement_is_never_too_long(
            texts in proptest::collection::vec(".{0,300}", 4),
            labels in proptest::collection::vec(".{0,40}", 0..400),
            numbers: (u16, u32, u64, u64),
        ) {
            let ours = Announcement {
                id: VmId::fresh(),
                name: texts[0].clone(),
                port: numbers.0,
                cores: numbers.1,
                memory: numbers.2,
                triple: texts[1].clone(),
                labels,
                state: VmState::Leased { program: ProgramId::fresh(), name: texts[2].clone() },
                uptime: Duration::new(numbers.3, 999_999_999),
                version: texts[3].clone(),
            };
            let body = ours.encode().expect("a body");
            prop_assert!(body.len() <= MAX_ANNOUNCEMENT);
            let short: Announcement = postcard::from_bytes(&body).unwrap();
            prop_assert!(ours.name.starts_with(&short.name));
            prop_assert!(short.labels.iter().all(|label| ours.labels.contains(label)));
            prop_assert_eq!((short.id, short.cores, short.uptime), (ours.id, ours.cores, ours.uptime));
        }

        #[test]
        fn any_datagram_is_survived(
            body in proptest::collection::vec(any::<u8>(), 0..1100), magic in 0..3_usize, sealed: bool,
        ) {
            let mut datagram = body;
            if sealed {
                // The sender has the key, but not the same layout of the body.
                let magic = [PROBE_MAGIC, ANSWER_MAGIC, [0; 4]][magic];
                datagram.resize(MAX_QUERY, 0xff);
                datagram = [begin(magic, PROTOCOL, &[0; 16]), datagram].concat();
                MacKey::new(&key()).seal(&mut datagram);
            }
            let answer = answer(&key(), &vm("one"), &datagram);
            prop_assert!(sealed || answer.is_none());
            prop_assert!(answer.is_none_or(|answer| answer.len() <= PROBE_LEN));
        }
    }
}
