//! Mirrored VRs, as a process knows them: where they and their twins are, the twins that are here, and what must be sent and
//! received twice.

mod copies;
mod log;

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use super::{Node, Notice};
use crate::down::Why;
use crate::id::{HostId, IdMap, VrId};
use crate::protocol::{Counts, Pair};
use crate::state::{Saved, Twin};

pub(super) use copies::Source;

/// Where a mirrored VR and its twin are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Places {
    main: HostId,
    twin: HostId,
}

/// What this process has of a VR to which copies are sent.
#[derive(Debug)]
enum Here {
    Twin(Box<Twin>),
    /// The VR itself, with the number of the next envelope from each sender of copies.
    Main(IdMap<VrId, u64>),
}

#[derive(Debug, Default)]
pub(super) struct Mirrors {
    /// Whether there is, or was, any mirrored VR.
    any: AtomicBool,
    places: RwLock<IdMap<VrId, Places>>,
    /// Taken before any inbox.
    here: Mutex<IdMap<VrId, Here>>,
    /// (watcher, watched): watchers that wait to hear whether a twin takes over.
    orphans: Mutex<Vec<(VrId, VrId)>>,
    said: Mutex<Said>,
    /// Held while anything that has come from another process is delivered.
    delivering: RwLock<()>,
}

/// What the processes of twins have been told of arrivals.
#[derive(Debug, Default)]
struct Said {
    /// Per mirrored VR, process of its twin, and receiver: envelopes that have arrived at the receiver or at its twin.
    counts: HashMap<(VrId, HostId, VrId, bool), u64>,
    /// (mirrored VR, receiver): receivers that have ended, so that nothing need be kept for them.
    last: Vec<(VrId, VrId)>,
}

impl Mirrors {
    fn any(&self) -> bool {
        self.any.load(Acquire)
    }

    fn places(&self, vr: VrId) -> Option<Places> {
        if !self.any() {
            return None;
        }
        self.places.read().unwrap_or_else(PoisonError::into_inner).get(&vr).copied()
    }

    fn set(&self, vr: VrId, places: Option<Places>) {
        self.any.fetch_or(places.is_some(), Release);
        let mut known = self.places.write().unwrap_or_else(PoisonError::into_inner);
        match places {
            Some(places) => drop(known.insert(vr, places)),
            None => drop(known.remove(&vr)),
        }
    }

    fn all(&self) -> Vec<(VrId, Places)> {
        let known = self.places.read().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|(vr, places)| (*vr, *places)).collect()
    }

    fn here(&self) -> MutexGuard<'_, IdMap<VrId, Here>> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn orphans(&self) -> MutexGuard<'_, Vec<(VrId, VrId)>> {
        self.orphans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a VR may survive the end of its process. Its watcher is then told later.
    pub(super) fn adopt_orphan(&self, watcher: VrId, watched: VrId) -> bool {
        if !self.any() {
            return false;
        }
        // Locked before the check, so that no watcher is added unnoticed while the others are told.
        let mut orphans = self.orphans();
        let is_mirrored = self.places(watched).is_some();
        if is_mirrored {
            orphans.push((watcher, watched));
        }
        is_mirrored
    }

    /// Returns a guard to hold while something from another process is delivered; none is needed if no VR is mirrored.
    pub(super) fn deliver(&self) -> Option<RwLockReadGuard<'_, ()>> {
        self.any().then(|| self.delivering.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Node {
    // ---- who is mirrored ----

    /// Records that these VRs have twins from now on. Call it only while all VRs are frozen.
    pub(crate) fn mirrored(&self, pairs: &[(VrId, Pair)]) {
        for &(vr, Pair { main, twin }) in pairs {
            self.learn(vr, main);
            if twin.host != self.place.host {
                self.book().peers.entry(twin.host).or_default().address.get_or_insert(twin.address);
                let mut here = self.mirrors.here();
                if matches!(here.get(&vr), Some(Here::Twin(_))) {
                    here.remove(&vr);
                }
            }
            if main.host == self.place.host {
                // The numbers of the senders are looked up when they send.
                self.mirrors.here().insert(vr, Here::Main(IdMap::default()));
                if let Some(recorder) = self.states.get(vr) {
                    recorder.lead(twin.host);
                }
            }
            self.mirrors.set(vr, Some(Places { main: main.host, twin: twin.host }));
        }
    }

    /// Records that a VR has no twin any more. `ended` says why, if the VR has ended.
    pub(crate) fn unmirror(&self, vr: VrId, ended: Option<&Why>) {
        self.mirrors.set(vr, None);
        self.drop_twin(vr);
        if let Some(recorder) = self.states.get(vr) {
            recorder.unlead(None);
        }
        let orphans: Vec<(VrId, VrId)> =
            self.mirrors.orphans().extract_if(.., |(_, watched)| *watched == vr).collect();
        if let Some(why) = ended {
            self.deliver_downs(orphans, why);
        }
    }

    /// The process of twins is gone: VRs whose twins were there continue without one.
    pub(super) fn unmirror_by(&self, host: HostId) {
        if !self.mirrors.any() {
            return;
        }
        for (vr, places) in self.mirrors.all() {
            if places.twin == host {
                self.mirrors.set(vr, None);
            }
        }
        self.states.all().iter().for_each(|recorder| recorder.unlead(Some(host)));
    }

    /// Records that a VR of this process has ended.
    pub(super) fn ended_with_copies(&self, vr: VrId) {
        if !self.mirrors.any() {
            return;
        }
        self.mirrors.here().remove(&vr);
        // This includes receivers that have not received all of it: nothing of that will be needed again.
        let mirrored = self.mirrors.all();
        self.mirrors.said().last.extend(mirrored.into_iter().map(|(sender, _)| (sender, vr)));
    }

    /// Releases everybody who waits for a twin, as the program ends.
    pub(super) fn stop_mirrors(&self) {
        self.states.all().iter().for_each(|recorder| recorder.unlead(None));
    }

    /// Drops the twin of a VR, if it is in this process.
    pub(super) fn drop_twin(&self, vr: VrId) {
        let mut here = self.mirrors.here();
        if matches!(here.get(&vr), Some(Here::Twin(_))) {
            here.remove(&vr);
        }
    }

    /// VRs have moved: their watchers that were waiting for news now watch them at their new places.
    pub(super) fn moved_mirrors(&self, vrs: impl Iterator<Item = VrId>) {
        if !self.mirrors.any() {
            return;
        }
        for vr in vrs {
            self.mirrors.set(vr, None);
            self.drop_twin(vr);
            if self.inbox(vr).is_none() {
                self.mirrors.here().remove(&vr);
            }
            for (watcher, watched) in self.mirrors.orphans().extract_if(.., |(_, watched)| *watched == vr) {
                let _ = self.courier.send(Notice::Watch { watcher, watched });
            }
        }
    }

    // ---- taking over ----

    /// Stores the twin of a VR that lives elsewhere.
    pub(crate) fn keep_twin(&self, saved: Saved) {
        self.mirrors.any.store(true, Release);
        let vr = saved.origin.id;
        self.mirrors.here().insert(vr, Here::Twin(Box::new(Twin::new(saved))));
    }

    /// Whether a process is gone and nothing from it is accepted any more.
    pub(crate) fn is_buried(&self, host: HostId) -> bool {
        self.book().peers.get(&host).is_some_and(|peer| peer.down.is_some())
    }

    /// Returns how many envelopes of these VRs, whose process is buried, have arrived here.
    pub(crate) fn mourn(&self, vrs: &[VrId]) -> Counts {
        // Any thread that had checked before the burial has delivered by now.
        drop(self.mirrors.delivering.write().unwrap_or_else(PoisonError::into_inner));
        let mut counts = Vec::new();
        let mut here = self.mirrors.here();
        for (to, here) in &mut *here {
            match here {
                Here::Twin(twin) => counts.extend(vrs.iter().map(|vr| (*to, *vr, twin.arrived(*vr)))),
                // Looked up anew when their twins send.
                Here::Main(numbers) => numbers.retain(|sender, _| !vrs.contains(sender)),
            }
        }
        drop(here);
        for recorder in self.states.all() {
            let to = recorder.origin.id;
            let received = self.received_counts(to).unwrap_or_default();
            counts.extend(vrs.iter().filter_map(|vr| Some((to, *vr, *received.get(vr)?))));
        }
        counts
    }

    /// Makes the twin of a VR the VR itself; `adopt` starts it. Returns `None` if the twin is not here.
    pub(crate) fn take_over<R>(
        &self,
        vr: VrId,
        arrived: &[(VrId, u64)],
        adopt: impl FnOnce(Saved) -> R,
    ) -> Option<R> {
        let mut here = self.mirrors.here();
        if !matches!(here.get(&vr), Some(Here::Twin(_))) {
            return None;
        }
        let Some(Here::Twin(twin)) = here.remove(&vr) else { return None };
        let is_mirrored = |vr| self.mirrors.places(vr).is_some();
        let (saved, numbers) = twin.take_over(arrived.iter().copied().collect(), is_mirrored)?;
        // Copies that arrive meanwhile wait for the lock.
        let adopted = adopt(saved);
        here.insert(vr, Here::Main(numbers));
        Some(adopted)
    }
}
