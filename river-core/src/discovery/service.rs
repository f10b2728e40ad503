//! Probes and answers for services that programs publish for one another.
//!
//! A process answers for the services that its own VRs have published. So do others that have published the same name, so
//! the searcher notices if a name stands for two services.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::discovery::probe::{MAX_ANNOUNCEMENT, SERVICE_ANSWER_MAGIC, SERVICE_PROBE_MAGIC, answer_with};
use crate::discovery::search::{DiscoverError, GRACE, Search, Sought};
use crate::id::{HostId, ProgramId, VrId};
use crate::key::ClusterKey;
use crate::noise::PROTOCOL;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServiceQuery {
    pub(crate) name: String,
}

/// What a process reports about a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServiceAnnouncement {
    /// The process.
    pub(crate) host: HostId,
    /// The TCP port where it listens.
    pub(crate) port: u16,
    pub(crate) vr: VrId,
    pub(crate) program: ProgramId,
    /// The executable's file name, its process id and its machine, for people.
    pub(crate) process: String,
}

/// A service that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceInfo {
    pub(crate) host: HostId,
    pub(crate) address: SocketAddr,
    pub(crate) vr: VrId,
    pub(crate) program: ProgramId,
    pub(crate) process: String,
}

/// What a search for a service found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FoundServices {
    pub(crate) services: Vec<ServiceInfo>,
    /// How many processes that publish services speak each other version of the protocol, so that what they publish cannot
    /// be read.
    pub(crate) other_versions: BTreeMap<u16, usize>,
}

impl Sought for ServiceAnnouncement {
    const PROBE: [u8; 4] = SERVICE_PROBE_MAGIC;
    const ANSWER: [u8; 4] = SERVICE_ANSWER_MAGIC;
    type Info = ServiceInfo;

    fn id(&self) -> Uuid {
        self.host.as_uuid()
    }

    fn at(self, ip: IpAddr) -> ServiceInfo {
        let Self { host, port, vr, program, process } = self;
        ServiceInfo { host, address: SocketAddr::new(ip, port), vr, program, process }
    }

    fn address(info: &ServiceInfo) -> SocketAddr {
        info.address
    }
}

impl Search<ServiceAnnouncement> {
    /// A search that goes on for a while after the first answer, to find duplicates of the name.
    pub(crate) fn service(key: &ClusterKey, query: &ServiceQuery) -> Result<Self, DiscoverError> {
        Ok(Self::of(PROTOCOL, key, query, None)?.with_grace(GRACE))
    }

    pub(super) fn finish(self) -> FoundServices {
        let other_versions = self.other_versions();
        let mut services = self.into_found();
        services.sort_by(|a, b| a.process.cmp(&b.process));
        FoundServices { services, other_versions }
    }
}

/// A process's answer to a datagram, if any: to an authentic probe for a service that `published` knows.
pub(crate) fn answer_service(
    key: &ClusterKey,
    host: HostId,
    datagram: &[u8],
    published: impl FnOnce(&str) -> Option<ServiceAnnouncement>,
) -> Option<Vec<u8>> {
    answer_service_as(PROTOCOL, key, host, datagram, published)
}

fn answer_service_as(
    version: u16,
    key: &ClusterKey,
    host: HostId,
    datagram: &[u8],
    published: impl FnOnce(&str) -> Option<ServiceAnnouncement>,
) -> Option<Vec<u8>> {
    answer_with::<ServiceAnnouncement, ServiceQuery>(version, key, host.as_uuid(), datagram, |query| {
        let body = postcard::to_stdvec(&published(&query.name)?).ok()?;
        (body.len() <= MAX_ANNOUNCEMENT).then_some(body)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::discovery::probe::tests::answer;
    use crate::discovery::probe::tests::{key, vm};
    use crate::discovery::probe::{PROBE_LEN, sealed_probe};
    use crate::discovery::search::Step;
    use crate::discovery::{is_answer, relayed};

    fn ours() -> ServiceAnnouncement {
        ServiceAnnouncement {
            host: HostId::fresh(),
            port: 4711,
            vr: VrId::fresh(),
            program: ProgramId::fresh(),
            process: "calculator (process 7 on lab)".into(),
        }
    }

    fn search(name: &str) -> Search<ServiceAnnouncement> {
        Search::service(&key(), &ServiceQuery { name: name.into() }).unwrap()
    }

    fn answered(search: &Search<ServiceAnnouncement>, ours: &ServiceAnnouncement) -> Option<Vec<u8>> {
        answer_service(&key(), ours.host, search.datagram(), |name| (name == "sums").then(|| ours.clone()))
    }

    fn from() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 999))
    }

    #[test]
    fn a_service_is_found_by_its_name_only() {
        let (ours, mut sums, other) = (ours(), search("sums"), search("sum"));
        assert!(sums.handle(&answered(&sums, &ours).unwrap(), from()));
        assert_eq!(answered(&other, &ours), None);
        let found = sums.finish();
        assert_eq!(found.services, [ours.at(from().ip())]);
        assert!(found.other_versions.is_empty());
    }

    #[test]
    fn whoever_else_has_the_name_is_found_too() {
        let mut sums = search("sums");
        for ours in [ours(), ours()] {
            let answer = answered(&sums, &ours).unwrap();
            assert!(sums.handle(&answer, from()));
            assert!(!sums.handle(&answer, from()), "each once");
        }
        assert!(!sums.enough(), "the search goes on");
        assert_eq!(sums.finish().services.len(), 2);
    }

    #[test]
    fn once_it_is_found_the_search_goes_on_for_a_while_only() {
        let (ours, mut sums, at) = (ours(), search("sums"), Duration::from_millis);
        assert_eq!(sums.poll(at(0)), Step::Send);
        assert!(sums.handle(&answered(&sums, &ours).unwrap(), from()));
        assert_eq!(sums.poll(at(2)), Step::Wait(at(48)));
        assert_eq!(sums.poll(at(50)), Step::Send, "an answer may have been lost");
        assert_eq!(sums.poll(at(50)), Step::Wait(at(2)));
        assert_eq!(sums.poll(at(52)), Step::Done);
        let (mut late, mut nothing) = (search("sums"), search("sums"));
        assert_eq!(nothing.poll(at(240)), Step::Send);
        assert_eq!(nothing.poll(at(240)), Step::Wait(at(10)));
        assert!(late.handle(&answered(&late, &ours).unwrap(), from()));
        assert_eq!(late.poll(at(240)), Step::Send);
        assert_eq!(late.poll(at(240)), Step::Wait(at(10)), "no search takes longer for it");
    }

    #[test]
    fn vms_and_services_do_not_answer_for_each_other() {
        let (ours, mut sums) = (ours(), search("sums"));
        assert_eq!(answer(&key(), &vm("one"), sums.datagram()), None);
        let vms = Search::new(&key(), &crate::discovery::Query::default()).unwrap();
        let answered = answer_service(&key(), ours.host, vms.datagram(), |_| Some(ours.clone()));
        assert_eq!(answered, None);
        let of_a_vm = answer(&key(), &vm("one"), vms.datagram()).unwrap();
        assert!(!sums.handle(&of_a_vm, from()));
    }

    #[test]
    fn strangers_get_no_answer() {
        let (ours, sums) = (ours(), search("sums"));
        let stranger = ClusterKey::from_bytes([8; 32]);
        assert_eq!(answer_service(&stranger, ours.host, sums.datagram(), |_| Some(ours.clone())), None);
        let short = &sums.datagram()[..PROBE_LEN - 1];
        assert_eq!(answer_service(&key(), ours.host, short, |_| Some(ours.clone())), None);
    }

    #[test]
    fn another_version_is_counted_whatever_its_name() {
        let mut sums = search("sums");
        let answer = answer_service_as(PROTOCOL + 1, &key(), HostId::fresh(), sums.datagram(), |_| None);
        assert!(!sums.handle(&answer.unwrap(), from()));
        let found = sums.finish();
        assert!(found.services.is_empty());
        assert_eq!(found.other_versions, BTreeMap::from([(PROTOCOL + 1, 1)]));
    }

    #[test]
    fn a_vm_passes_a_search_for_a_service_on() {
        let (ours, sums) = (ours(), search("sums"));
        let passed = relayed(&key(), sums.datagram(), true).unwrap();
        let answer = answer_service(&key(), ours.host, &passed, |_| Some(ours.clone())).unwrap();
        assert!(is_answer(&key(), sums.datagram(), &answer));
    }

    proptest! {
        #[test]
        fn any_body_is_survived(body in prop::collection::vec(any::<u8>(), 0..900)) {
            let probe = sealed_probe::<ServiceAnnouncement>(&key(), &body);
            let _ = answer_service(&key(), HostId::fresh(), &probe, |_| Some(ours()));
        }
    }
}
