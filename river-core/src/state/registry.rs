//! The recorders of a process, and what the control plane does with all of them at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::base::Origin;
use super::record::Record;
use super::recorder::Recorder;
use super::tape::Unwritten;
use crate::id::VrId;
use crate::protocol::Counts;

#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    recorders: HashMap<VrId, Arc<Recorder>>,
    /// VRs that are not recorded, and their types.
    unrecorded: HashMap<VrId, String>,
    /// How much VRs that have ended had sent to others, until it is known to have arrived.
    graves: HashMap<(VrId, VrId), u64>,
    frozen: bool,
    /// Set if VRs are recorded to files: the name of this VM.
    taped: Option<String>,
    /// What remains to be written for VRs that have ended.
    last: Vec<(VrId, Unwritten)>,
}

impl Registry {
    /// Adds a recorded VR that begins or goes on.
    pub(crate) fn add(&self, origin: Origin, record: Record) -> Arc<Recorder> {
        let mut inner = self.inner();
        let id = origin.id;
        let recorder = match &inner.taped {
            None => Recorder::new(origin, record, inner.frozen),
            Some(vm) => Recorder::taped(origin, record, inner.frozen, vm),
        };
        inner.recorders.insert(id, recorder.clone());
        recorder
    }

    /// Lets VRs that begin from now on be recorded to files as well.
    pub(crate) fn tape(&self, vm: &str) {
        self.inner().taped = Some(vm.to_owned());
    }

    /// What to append to the files of VRs.
    pub(crate) fn flush(&self) -> Vec<(VrId, Vec<u8>)> {
        let (mut unwritten, recorders) = {
            let mut inner = self.inner();
            (std::mem::take(&mut inner.last), inner.recorders.clone())
        };
        let living = recorders.values().filter_map(|recorder| Some((recorder.origin.id, recorder.flush()?)));
        unwritten.extend(living);
        let bytes = unwritten.into_iter().map(|(vr, unwritten)| (vr, unwritten.encode()));
        bytes.filter(|(_, bytes)| !bytes.is_empty()).collect()
    }

    /// Adds a VR that is not recorded, which checkpoints must know about.
    pub(crate) fn add_unrecorded(&self, vr: VrId, name: &str) {
        self.inner().unrecorded.insert(vr, name.to_owned());
    }

    /// VRs that are not recorded, and their types.
    pub(crate) fn unrecorded(&self) -> Vec<(VrId, String)> {
        self.inner().unrecorded.iter().map(|(vr, name)| (*vr, name.clone())).collect()
    }

    /// Removes a VR that has ended, once everybody who must know does.
    pub(crate) fn remove(&self, vr: VrId) {
        let mut inner = self.inner();
        inner.unrecorded.remove(&vr);
        let Some(recorder) = inner.recorders.remove(&vr) else { return };
        inner.last.extend(recorder.flush().map(|last| (vr, last)));
        recorder.look(|record, _| {
            inner.graves.extend(record.sent().iter().map(|(to, sent)| ((vr, *to), *sent)));
        });
    }

    /// Removes a VR that lives on elsewhere, which takes its counts of sends with it.
    pub(crate) fn forget(&self, vr: VrId) -> Option<Arc<Recorder>> {
        self.inner().recorders.remove(&vr)
    }

    /// Stops all VRs at their next call.
    pub(crate) fn freeze(&self) {
        let mut inner = self.inner();
        inner.frozen = true;
        inner.recorders.values().for_each(|recorder| recorder.freeze());
    }

    pub(crate) fn thaw(&self) {
        let mut inner = self.inner();
        inner.frozen = false;
        inner.recorders.values().for_each(|recorder| recorder.thaw());
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.inner().frozen
    }

    /// Whether the last send of any VR may yet be refused, and so may not count.
    pub(crate) fn is_undecided(&self) -> bool {
        self.inner().recorders.values().any(|recorder| recorder.is_undecided())
    }

    pub(crate) fn get(&self, vr: VrId) -> Option<Arc<Recorder>> {
        self.inner().recorders.get(&vr).cloned()
    }

    /// All recorders.
    pub(crate) fn all(&self) -> Vec<Arc<Recorder>> {
        self.inner().recorders.values().cloned().collect()
    }

    /// How much each VR of this process has sent to each other one, including VRs that have ended.
    pub(crate) fn sent(&self) -> Counts {
        let inner = self.inner();
        let mut sent: Counts = inner.graves.iter().map(|((from, to), sent)| (*to, *from, *sent)).collect();
        for (id, recorder) in &inner.recorders {
            recorder.look(|record, _| sent.extend(record.sent().iter().map(|(to, sent)| (*to, *id, *sent))));
        }
        sent
    }

    /// Notes that everything sent has arrived, so VRs that have ended can be forgotten.
    pub(crate) fn settled(&self) {
        self.inner().graves.clear();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::envelope::{Channel, Payload};
    use crate::id::ProgramId;
    use crate::state::{Base, Refusal, Sending, Sent};

    /// If a process reported its VRs' sends while one is undecided, it would report one too many if that is refused.
    #[test]
    fn a_send_counts_before_it_is_made_and_is_undecided_until_then() {
        let (registry, id, to) = (Registry::default(), VrId::fresh(), VrId::fresh());
        let (name, program) = ("sender".into(), ProgramId::fresh());
        let origin = Origin { id, parent: None, code: None, name, program };
        let recorder = registry.add(origin, Record::new(Base::new(id, Bytes::new())));
        let sent = || Sent::new(to, Channel::named("test"), 0, &Payload::from(Vec::new()));
        for refused in [true, false] {
            assert!(!registry.is_undecided());
            assert_eq!(recorder.send(sent()), Ok(Sending::Due(0)));
            // It stops here, whatever it is doing.
            registry.freeze();
            assert!(registry.is_undecided());
            assert_eq!(registry.sent(), [(to, id, 1)]);
            if refused {
                recorder.refused(Refusal::Full);
            }
            recorder.decided();
            assert!(!registry.is_undecided());
            assert_eq!(registry.sent(), [(to, id, u64::from(!refused))]);
            registry.thaw();
        }
    }
}
