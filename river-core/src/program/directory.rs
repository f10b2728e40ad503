//! The program's directory: where its VRs are, which of them have ended, and which hosts have died.
//!
//! A state machine without hosts or clocks. Events may come in any order: a VR may be reported as ended after its host has
//! died, or be entered on a host that has died meanwhile. The first reason stands.

use crate::down::Why;
use crate::id::{HostId, IdMap, IdSet, VrId};

#[derive(Debug, Default)]
pub(super) struct Directory {
    at: IdMap<VrId, HostId>,
    ended: IdMap<VrId, Why>,
    died: IdMap<HostId, Why>,
    /// Hosts that are no longer needed: their death is no loss.
    dismissed: IdSet<HostId>,
}

impl Directory {
    /// Enters a VR that is, or is about to be, on that host.
    pub(super) fn enter(&mut self, vr: VrId, host: HostId) {
        self.at.insert(vr, host);
        if let Some(why) = self.died.get(&host) {
            self.ended.entry(vr).or_insert_with(|| why.clone());
        }
    }

    /// The host that a VR is, or was, on.
    pub(super) fn host_of(&self, vr: VrId) -> Option<HostId> {
        self.at.get(&vr).copied()
    }

    /// Notes that a VR has ended.
    pub(super) fn end(&mut self, vr: VrId, why: Why) {
        self.ended.entry(vr).or_insert(why);
    }

    pub(super) fn has_ended(&self, vr: VrId) -> bool {
        self.ended.contains_key(&vr)
    }

    /// The VRs that have ended, and why.
    pub(super) fn ends(&self) -> impl Iterator<Item = (VrId, &Why)> {
        self.ended.iter().map(|(vr, why)| (*vr, why))
    }

    /// The VRs that have not ended, and where they are.
    pub(super) fn living(&self) -> impl Iterator<Item = (VrId, HostId)> {
        self.at.iter().filter(|(vr, _)| !self.has_ended(**vr)).map(|(vr, host)| (*vr, *host))
    }

    /// Notes that a host has died, and with it the VRs that were on it and do not survive it. Returns `false` if that is
    /// already known.
    pub(super) fn die(&mut self, host: HostId, why: &Why, survives: impl Fn(VrId) -> bool) -> bool {
        if self.has_died(host) {
            return false;
        }
        self.died.insert(host, why.clone());
        for (vr, _) in self.at.iter().filter(|(vr, at)| **at == host && !survives(**vr)) {
            self.ended.entry(*vr).or_insert_with(|| why.clone());
        }
        true
    }

    pub(super) fn has_died(&self, host: HostId) -> bool {
        self.died.contains_key(&host)
    }

    pub(super) fn why_died(&self, host: HostId) -> Option<&Why> {
        self.died.get(&host)
    }

    /// How many hosts have died unexpectedly.
    pub(super) fn lost_hosts(&self) -> usize {
        let lost = |(host, why): &(&HostId, &Why)| !why.is_normal() && !self.dismissed.contains(*host);
        self.died.iter().filter(lost).count()
    }

    /// Notes that a host is no longer needed and is about to be ended. A host that was lost before stays lost.
    pub(super) fn dismiss(&mut self, host: HostId) {
        if !self.has_died(host) {
            self.dismissed.insert(host);
        }
    }

    pub(super) fn is_dismissed(&self, host: HostId) -> bool {
        self.dismissed.contains(&host)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    #[derive(Clone, Debug)]
    enum Told {
        Enter(u8, u8),
        End(u8),
        Die(u8),
    }

    fn vr(n: u8) -> VrId {
        VrId::from_uuid(Uuid::from_u128(u128::from(n) + 1))
    }

    fn host(n: u8) -> HostId {
        HostId::from_uuid(Uuid::from_u128(u128::from(n) + 1000))
    }

    /// A reason that names the event it comes from.
    fn why(event: usize) -> Why {
        Why::Failed(event.to_string())
    }

    fn told() -> impl Strategy<Value = Told> {
        prop_oneof![
            3 => (0..5u8, 0..3u8).prop_map(|(vr, host)| Told::Enter(vr, host)),
            2 => (0..5u8).prop_map(Told::End),
            1 => (0..3u8).prop_map(Told::Die),
        ]
    }

    /// The expected state of a VR after this list of events: its host, and why it has ended.
    fn model(list: &[Told], n: u8) -> (Option<u8>, Option<Why>) {
        let (mut at, mut end) = (None, None);
        let died =
            |list: &[Told], h: u8| list.iter().position(|told| matches!(told, Told::Die(d) if *d == h));
        for (index, told) in list.iter().enumerate() {
            match told {
                Told::Enter(v, h) if *v == n => {
                    at = Some(*h);
                    end = end.or(died(&list[..index], *h).map(why));
                }
                Told::End(v) if *v == n => end = end.or(Some(why(index))),
                Told::Die(h) if at == Some(*h) && died(&list[..index], *h).is_none() => {
                    end = end.or(Some(why(index)));
                }
                _ => {}
            }
        }
        (at, end)
    }

    #[test]
    fn a_host_is_lost_that_dies_before_it_is_dismissed() {
        let mut directory = Directory::default();
        directory.dismiss(host(0));
        directory.die(host(0), &why(0), |_| false);
        assert_eq!(directory.lost_hosts(), 0);
        directory.die(host(1), &why(1), |_| false);
        directory.dismiss(host(1));
        assert_eq!(directory.lost_hosts(), 1);
    }

    proptest! {
        #[test]
        fn it_says_what_the_list_of_all_that_was_told_says(list in prop::collection::vec(told(), 0..40)) {
            let mut directory = Directory::default();
            let mut dead = Vec::new();
            for (index, told) in list.iter().enumerate() {
                match told {
                    Told::Enter(v, h) => directory.enter(vr(*v), host(*h)),
                    Told::End(v) => directory.end(vr(*v), why(index)),
                    Told::Die(h) => {
                        prop_assert_eq!(directory.die(host(*h), &why(index), |_| false), !dead.contains(h));
                        dead.push(*h);
                    }
                }
            }
            for n in 0..5 {
                let (at, end) = model(&list, n);
                prop_assert_eq!(directory.host_of(vr(n)), at.map(host));
                prop_assert_eq!(directory.ends().find(|(v, _)| *v == vr(n)).map(|(_, why)| why.clone()), end.clone());
                let lives = directory.living().find(|(v, _)| *v == vr(n)).map(|(_, at)| at);
                prop_assert_eq!(lives, at.filter(|_| end.is_none()).map(host));
            }
            for h in 0..3 {
                let first = list.iter().position(|told| matches!(told, Told::Die(d) if *d == h));
                prop_assert_eq!(directory.why_died(host(h)).cloned(), first.map(why));
            }
        }
    }
}
