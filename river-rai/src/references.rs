//! Which VR holds which object: the reference counts of a server, as a state machine.
//!
//! An object lives as long as there is a reference to it. A reference belongs to one VR, and ends when that VR releases
//! it or dies. A reference made for another VR belongs to that VR as soon as the server hears of it, so it does not
//! matter whether the granting VR lives until it arrives. Releases are idempotent.

use river_core::VrId;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::protocol::{ObjectId, Reference};

/// Hashed deterministically: a server that is replayed from its record frees objects in the same order.
#[derive(Debug, Default)]
pub(crate) struct References {
    held: FxHashMap<Reference, (ObjectId, VrId)>,
    objects: FxHashMap<ObjectId, FxHashSet<Reference>>,
}

impl References {
    /// Adds a reference. A reference that is already known stays as it is.
    pub(crate) fn add(&mut self, reference: Reference, object: ObjectId, holder: VrId) {
        if self.held.contains_key(&reference) {
            return;
        }
        self.held.insert(reference, (object, holder));
        self.objects.entry(object).or_default().insert(reference);
    }

    /// Releases a reference; returns the object if nobody holds it any more.
    pub(crate) fn release(&mut self, reference: Reference) -> Option<ObjectId> {
        let (object, _) = self.held.remove(&reference)?;
        let left = self.objects.get_mut(&object)?;
        left.remove(&reference);
        left.is_empty().then(|| {
            self.objects.remove(&object);
            object
        })
    }

    /// The object that a reference is to.
    pub(crate) fn object(&self, reference: Reference) -> Option<ObjectId> {
        self.held.get(&reference).map(|(object, _)| *object)
    }

    /// Whether any VR holds an object.
    pub(crate) fn is_held(&self, object: ObjectId) -> bool {
        self.objects.contains_key(&object)
    }

    /// Drops the references of a VR that is gone; returns the objects that nobody holds any more.
    pub(crate) fn forget(&mut self, holder: VrId) -> Vec<ObjectId> {
        let lost: Vec<Reference> =
            self.held.iter().filter(|(_, (_, by))| *by == holder).map(|(&reference, _)| reference).collect();
        lost.into_iter().filter_map(|reference| self.release(reference)).collect()
    }

    /// Removes an object, regardless of its holders.
    pub(crate) fn remove(&mut self, object: ObjectId) {
        for reference in self.objects.remove(&object).unwrap_or_default() {
            self.held.remove(&reference);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Add { object: u64, holder: usize },
        Release(usize),
        Die(usize),
        Remove(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..4u64, 0..4usize).prop_map(|(object, holder)| Step::Add { object, holder }),
            4 => any::<usize>().prop_map(Step::Release),
            1 => (0..4usize).prop_map(Step::Die),
            1 => (0..4u64).prop_map(Step::Remove),
        ]
    }

    proptest! {
        /// An object is freed when, and only when, the last of the references to it is gone.
        #[test]
        fn an_object_lives_as_long_as_somebody_holds_it(steps in prop::collection::vec(step(), 1..80)) {
            let holders: Vec<VrId> = (0..4).map(|_| VrId::fresh()).collect();
            let id = |number| ObjectId { owner: holders[0], number };
            let mut references = References::default();
            let mut model: Vec<(u64, Option<(u64, usize)>)> = Vec::new();
            let alive = |model: &[(u64, Option<(u64, usize)>)], object| {
                model.iter().any(|(_, held)| held.is_some_and(|(o, _)| o == object))
            };
            for step in steps {
                match step {
                    Step::Add { object, holder } => {
                        let number = model.len() as u64;
                        references.add(Reference { by: holders[holder], number }, id(object), holders[holder]);
                        model.push((number, Some((object, holder))));
                    }
                    Step::Release(n) => {
                        if model.is_empty() { continue }
                        let n = n % model.len();
                        let by = model[n].1.map_or(0, |(_, holder)| holder);
                        let freed = references.release(Reference { by: holders[by], number: model[n].0 });
                        let before = model[n].1.take();
                        let expected = before.map(|(object, _)| object).filter(|&o| !alive(&model, o));
                        prop_assert_eq!(freed, expected.map(id));
                    }
                    Step::Die(holder) => {
                        let mut freed = references.forget(holders[holder]);
                        let mut touched: Vec<u64> = Vec::new();
                        for (_, held) in &mut model {
                            if let Some((object, _)) = held.take_if(|(_, by)| *by == holder) {
                                touched.push(object);
                            }
                        }
                        touched.sort_unstable();
                        touched.dedup();
                        touched.retain(|&object| !alive(&model, object));
                        freed.sort_by_key(|object| object.number);
                        prop_assert_eq!(freed, touched.into_iter().map(id).collect::<Vec<_>>());
                    }
                    Step::Remove(object) => {
                        references.remove(id(object));
                        for (_, held) in &mut model {
                            held.take_if(|(o, _)| *o == object);
                        }
                    }
                }
            }
        }
    }
}
