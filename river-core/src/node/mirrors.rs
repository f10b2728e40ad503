//! Mirrored VRs, as a process knows them: where they and their twins are, the twins that are here, and what has to be sent and
//! taken twice.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use super::{Node, Notice, SYSTEM};
use crate::down::Why;
use crate::envelope::{Envelope, Payload};
use crate::frame::Kind;
use crate::id::{HostId, IdMap, VrId};
use crate::inbox::{Event, Inbox, Refused};
use crate::link::Link;
use crate::protocol::{Counts, Pair};
use crate::state::{Recorder, Saved, Shipment, Twin};

/// What the lane of a [`Kind::Mirror`] frame says.
mod lane {
    /// A part of the VR's log for its twin.
    pub(super) const LOG: u64 = 1;
    /// The twin has the log up to that number.
    pub(super) const LOGGED: u64 = 2;
    /// The twin is of no use.
    pub(super) const USELESS: u64 = 3;
    /// So many envelopes of the VR have arrived at a receiver, whose name is the payload.
    pub(super) const ARRIVED: u64 = 4;
    /// The same, at the receiver's twin.
    pub(super) const ARRIVED_AT_TWIN: u64 = 5;
}

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
    /// It lives here: the numbers of the next envelopes, of those who send copies.
    Main(IdMap<VrId, u64>),
}

#[derive(Debug, Default)]
pub(super) struct Mirrors {
    /// There is, or was, one.
    any: AtomicBool,
    places: RwLock<IdMap<VrId, Places>>,
    /// Taken before any inbox.
    here: Mutex<IdMap<VrId, Here>>,
    /// (watcher, watched): who waits to hear whether a twin takes over.
    orphans: Mutex<Vec<(VrId, VrId)>>,
    said: Mutex<Said>,
    /// Held by who delivers what has come of another process.
    delivering: RwLock<()>,
}

/// What the processes of twins were told of what has arrived.
#[derive(Debug, Default)]
struct Said {
    /// Of a mirrored VR, whose twin is there, at a receiver or at its twin.
    counts: HashMap<(VrId, HostId, VrId, bool), u64>,
    /// (mirrored VR, receiver): receivers that have ended and need nothing any more.
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

    /// Whether the end of a VR's process need not be its own. Then who watches it is told later.
    pub(super) fn adopt_orphan(&self, watcher: VrId, watched: VrId) -> bool {
        if !self.any() {
            return false;
        }
        // Before the look, so that nobody is forgotten who is entered when the others are told.
        let mut orphans = self.orphans();
        let is_mirrored = self.places(watched).is_some();
        if is_mirrored {
            orphans.push((watcher, watched));
        }
        is_mirrored
    }

    /// Held while something that has come of another process is delivered; free if nobody is mirrored.
    pub(super) fn deliver(&self) -> Option<RwLockReadGuard<'_, ()>> {
        self.any().then(|| self.delivering.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Node {
    // ---- who is mirrored ----

    /// These VRs have twins from now on. To be called while all VRs are frozen.
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
                // The numbers of those who send are looked up when they do.
                self.mirrors.here().insert(vr, Here::Main(IdMap::default()));
                if let Some(recorder) = self.states.get(vr) {
                    recorder.lead(twin.host);
                }
            }
            self.mirrors.set(vr, Some(Places { main: main.host, twin: twin.host }));
        }
    }

    /// A VR has no twin any more. If it has ended: why.
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

    /// The process of twins is gone: VRs whose twins were there go on without.
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

    /// A VR has ended here.
    pub(super) fn ended_with_copies(&self, vr: VrId) {
        if !self.mirrors.any() {
            return;
        }
        self.mirrors.here().remove(&vr);
        if let Some(recorder) = self.states.get(vr) {
            let senders: Vec<VrId> = recorder.look(|record, _| record.received().keys().copied().collect());
            let mirrored = senders.into_iter().filter(|sender| self.mirrors.places(*sender).is_some());
            self.mirrors.said().last.extend(mirrored.map(|sender| (sender, vr)));
        }
    }

    /// Nothing is waited for any more: the program ends.
    pub(super) fn stop_mirrors(&self) {
        self.states.all().iter().for_each(|recorder| recorder.unlead(None));
    }

    /// Forgets the twin of a VR that is here.
    pub(super) fn drop_twin(&self, vr: VrId) {
        let mut here = self.mirrors.here();
        if matches!(here.get(&vr), Some(Here::Twin(_))) {
            here.remove(&vr);
        }
    }

    /// VRs have moved: those who waited to hear of them watch them where they are.
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

    // ---- sending ----

    /// Whether any VR has, or had, a twin.
    pub(crate) fn has_mirrors(&self) -> bool {
        self.mirrors.any()
    }

    /// Whether a VR has a twin.
    pub(crate) fn is_mirrored(&self, vr: VrId) -> bool {
        self.mirrors.places(vr).is_some()
    }

    /// Sends to a mirrored VR and to its twin. `None`: it is not mirrored, and nothing was sent. May block.
    pub(crate) fn send_mirrored(&self, envelope: &Envelope) -> Option<Result<(), Refused>> {
        let vr = envelope.dst;
        let mut places = self.mirrors.places(vr)?;
        if places.main != self.place.host && !self.pass(vr) {
            return Some(Err(Refused::Full));
        }
        let mut reached = Vec::new();
        loop {
            for host in [places.main, places.twin] {
                if reached.contains(&host) {
                    continue;
                }
                match self.send_copy(host, envelope) {
                    Ok(()) => reached.push(host),
                    Err(Refused::Full) if reached.is_empty() => return Some(Err(Refused::Full)),
                    Err(_) => {}
                }
            }
            // It may have been taken over meanwhile, and its new place not know of this.
            match self.mirrors.places(vr) {
                Some(now) if now == places => break,
                Some(now) => places = now,
                None => {
                    let now = self.whereabouts(vr);
                    if now.is_some_and(|now| !reached.contains(&now)) {
                        // It moves as others do now.
                        return None;
                    }
                    break;
                }
            }
        }
        Some(if reached.is_empty() { Err(Refused::Closed) } else { Ok(()) })
    }

    /// Sends what may have been sent before, with the same number. May block.
    pub(crate) fn send_again(&self, envelope: &Envelope) {
        if self.send_mirrored(envelope).is_some() {
            return;
        }
        // If the receiver is gone, it does not matter.
        match self.route(envelope.dst) {
            Ok(Link::Local(_)) => drop(self.take_copy(envelope.clone(), None)),
            Ok(link) => drop(link.notify(Kind::Copy, envelope)),
            Err(_) => {}
        }
    }

    fn whereabouts(&self, vr: VrId) -> Option<HostId> {
        if self.inbox(vr).is_some() {
            return Some(self.place.host);
        }
        self.book().located.get(&vr).copied()
    }

    fn send_copy(&self, host: HostId, envelope: &Envelope) -> Result<(), Refused> {
        if host == self.place.host {
            return self.take_copy(envelope.clone(), None);
        }
        let link = self.connect(host).map_err(|_| Refused::Closed)?;
        link.notify(Kind::Copy, envelope).map_err(|()| {
            // Who has died is for the program to say, which then has somebody take over.
            self.report(host, "the connection broke".into());
            Refused::Closed
        })
    }

    // ---- taking ----

    /// Takes a copy: of another process, or (`None`) of a VR of this one, which waits if the mailbox is full.
    pub(super) fn take_copy(&self, envelope: Envelope, from: Option<HostId>) -> Result<(), Refused> {
        let (src, dst) = (envelope.src, envelope.dst);
        let mut here = self.mirrors.here();
        if let Some(Here::Twin(twin)) = here.get_mut(&dst) {
            twin.copy(envelope);
            return Ok(());
        }
        let Some(inbox) = self.inbox(dst) else { return Err(Refused::Closed) };
        let main = here.entry(dst).or_insert_with(|| Here::Main(IdMap::default()));
        let Here::Main(numbers) = main else { return Err(Refused::Closed) };
        let next = numbers.entry(src).or_insert_with(|| {
            self.received_by(dst, &inbox).and_then(|counts| counts.get(&src).copied()).unwrap_or_default()
        });
        if envelope.seq < *next {
            return Ok(());
        }
        *next = envelope.seq + 1;
        match from {
            Some(from) => {
                let full = |full| self.gate(from, dst, Some(full));
                inbox.arrive(envelope, from, full).map_err(|_| Refused::Closed)
            }
            None => {
                // Waits for room perhaps; nobody else sends in the name of this VR.
                drop(here);
                let seq = envelope.seq;
                let taken = inbox.offer(envelope);
                if taken == Err(Refused::Full)
                    && let Some(Here::Main(numbers)) = self.mirrors.here().get_mut(&dst)
                {
                    numbers.insert(src, seq);
                }
                taken
            }
        }
    }

    /// How many envelopes of each other VR have reached a VR of this process; `None` if it is not recorded, or has ended.
    pub(crate) fn received_counts(&self, vr: VrId) -> Option<IdMap<VrId, u64>> {
        self.received_by(vr, &*self.inbox(vr)?)
    }

    fn received_by(&self, vr: VrId, inbox: &Inbox) -> Option<IdMap<VrId, u64>> {
        let recorder = self.states.get(vr)?;
        // In this order: what the VR takes out meanwhile is in its record before it can be looked at.
        let waiting = inbox.waiting();
        let mut counts = recorder.look(|record, ended| ended.is_none().then(|| record.received().clone()))?;
        for event in waiting {
            if let Event::Envelope(envelope) = event {
                let count = counts.entry(envelope.src).or_default();
                *count = (envelope.seq + 1).max(*count);
            }
        }
        Some(counts)
    }

    // ---- the log ----

    /// Something of a VR of this process is about to be seen outside: waits until its twin, if it has one, knows all that the
    /// VR was told.
    pub(crate) fn commit(&self, recorder: &Recorder) {
        if !self.mirrors.any() {
            return;
        }
        if let Some((to, number)) = self.ship(recorder) {
            recorder.wait_logged(to, number);
        }
    }

    /// Sends to the twin of a VR what it has to know. Who has to confirm it, up to which number, before anything of the VR is seen.
    pub(crate) fn ship(&self, recorder: &Recorder) -> Option<(HostId, u64)> {
        let Shipment { to, number, bytes, binding } = recorder.due()?;
        if !self.tell_mirror(to, recorder.origin.id, lane::LOG, number, bytes) {
            // The program says whether it is dead, and then nobody waits for it.
            self.report(to, "the connection broke".into());
        }
        binding.then_some((to, number))
    }

    fn tell_mirror(&self, to: HostId, vr: VrId, lane: u64, seq: u64, payload: Vec<u8>) -> bool {
        let payload = Payload::from(payload);
        let envelope = Envelope { src: vr, dst: vr, seq, channel: SYSTEM, lane, payload };
        if to == self.place.host {
            self.mirror_frame(to, &envelope);
            return true;
        }
        self.connect(to).is_ok_and(|link| link.notify(Kind::Mirror, &envelope).is_ok())
    }

    /// Sends what processes say to each other about mirrored VRs. May block.
    pub(super) fn carry_mirror(&self, to: HostId, vr: VrId, lane: u64, number: u64) {
        let _ = self.tell_mirror(to, vr, lane, number, Vec::new());
    }

    /// Something about a mirrored VR has come. Must not block.
    pub(super) fn mirror_frame(&self, from: HostId, envelope: &Envelope) {
        let vr = envelope.dst;
        match envelope.lane {
            lane::LOG => {
                let mut here = self.mirrors.here();
                let logged = match here.get_mut(&vr) {
                    Some(Here::Twin(twin)) => twin.log(envelope.seq, &envelope.payload.to_bytes()),
                    // It lives here already: the other one is not heard of any more.
                    Some(Here::Main(_)) => return,
                    None => None,
                };
                let (lane, number) = match logged {
                    Some(number) => (lane::LOGGED, number),
                    None => {
                        tracing::error!(%vr, "what a mirrored VR was told makes no sense: it has no twin any more");
                        here.remove(&vr);
                        (lane::USELESS, 0)
                    }
                };
                let _ = self.courier.send(Notice::Mirror { to: from, vr, lane, number });
            }
            lane::LOGGED => {
                if let Some(recorder) = self.states.get(vr) {
                    recorder.acknowledge(from, envelope.seq);
                }
            }
            lane::USELESS => {
                if let Some(recorder) = self.states.get(vr) {
                    recorder.unlead(Some(from));
                }
            }
            lane::ARRIVED | lane::ARRIVED_AT_TWIN => {
                let at_twin = envelope.lane == lane::ARRIVED_AT_TWIN;
                let Ok(bytes) = <[u8; 16]>::try_from(&envelope.payload.to_bytes()[..]) else { return };
                if let Some(Here::Twin(twin)) = self.mirrors.here().get_mut(&vr) {
                    twin.acknowledge(VrId::from_uuid(uuid::Uuid::from_bytes(bytes)), at_twin, envelope.seq);
                }
            }
            _ => {}
        }
    }

    /// Tells the processes of twins what has arrived here of their VRs, so that they can forget what they need not send again.
    /// May block.
    pub(crate) fn report_arrivals(&self) {
        let mirrored = self.mirrors.all();
        let mut news = Vec::new();
        {
            let said = &mut *self.mirrors.said();
            let is_known =
                |vr: VrId, twin| mirrored.iter().any(|(other, at)| *other == vr && at.twin == twin);
            said.counts.retain(|(vr, twin, _, _), _| is_known(*vr, *twin));
            for (vr, to) in said.last.drain(..) {
                if let Some((_, at)) = mirrored.iter().find(|(other, _)| *other == vr) {
                    news.push((at.twin, vr, lane::ARRIVED, u64::MAX, to));
                    news.push((at.twin, vr, lane::ARRIVED_AT_TWIN, u64::MAX, to));
                }
            }
            let mut note = |vr: VrId, twin: HostId, to: VrId, at_twin: bool, count: u64| {
                if count > 0 && said.counts.insert((vr, twin, to, at_twin), count) != Some(count) {
                    let lane = if at_twin { lane::ARRIVED_AT_TWIN } else { lane::ARRIVED };
                    news.push((twin, vr, lane, count, to));
                }
            };
            for recorder in self.states.all() {
                let to = recorder.origin.id;
                let Some(counts) = self.received_counts(to) else { continue };
                for (vr, at) in &mirrored {
                    note(*vr, at.twin, to, false, counts.get(vr).copied().unwrap_or_default());
                }
            }
            for (to, here) in &*self.mirrors.here() {
                if let Here::Twin(twin) = here {
                    mirrored.iter().for_each(|(vr, at)| note(*vr, at.twin, *to, true, twin.arrived(*vr)));
                }
            }
        }
        for (twin, vr, lane, count, to) in news {
            let _ = self.tell_mirror(twin, vr, lane, count, to.as_uuid().as_bytes().to_vec());
        }
        let places = |vr| self.mirrors.places(vr).is_some();
        for here in self.mirrors.here().values_mut() {
            if let Here::Twin(twin) = here {
                twin.trim(places);
            }
        }
    }

    // ---- taking over ----

    /// Keeps what a VR is that lives elsewhere.
    pub(crate) fn keep_twin(&self, saved: Saved) {
        self.mirrors.any.store(true, Release);
        let vr = saved.origin.id;
        self.mirrors.here().insert(vr, Here::Twin(Box::new(Twin::new(saved))));
    }

    /// Whether nothing of a process is heard any more.
    pub(crate) fn is_buried(&self, host: HostId) -> bool {
        self.book().peers.get(&host).is_some_and(|peer| peer.down.is_some())
    }

    /// How much of these VRs, whose process is buried, has arrived here.
    pub(crate) fn mourn(&self, vrs: &[VrId]) -> Counts {
        // Whoever took it to live when it looked has delivered by now.
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

    /// The twin of a VR lives from now on: `adopt` takes it up. `None`: there is none here.
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
        // Copies that come meanwhile wait for the lock.
        let adopted = adopt(saved);
        here.insert(vr, Here::Main(numbers));
        Some(adopted)
    }
}
