//! The objects of a server, the functions that it has exported, and who may use them.

use std::any::TypeId;
use std::collections::{HashMap, HashSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use river_core::{VrId, catch_panic};

use crate::protocol::{Capability, Export, Failure, Function, ObjectId, Reference, Target};
use crate::references::References;
use crate::trampoline::{Kept, identity};

/// What a server has. The functions which run there, and its helpers if it has any, use it too. No user's code runs while it is
/// locked.
#[derive(Default)]
pub(crate) struct Store {
    inner: Mutex<Inner>,
    /// An object was put back, for which somebody waits.
    back: Condvar,
}

#[derive(Default)]
struct Inner {
    objects: HashMap<ObjectId, Kept>,
    /// Objects that are taken out, and by which VR.
    out: HashMap<ObjectId, VrId>,
    /// VRs that wait for what another one has taken out.
    waiting: HashMap<VrId, ObjectId>,
    references: References,
    names: HashMap<String, ObjectId>,
    /// The name of each object that has one.
    named: HashMap<ObjectId, String>,
    exports: HashMap<String, Export>,
    /// What a restricted server lets be called by code pointer: exactly its exports. `None`: everything.
    allowed: Option<HashMap<TypeId, Option<Capability>>>,
    shown: HashSet<(VrId, Capability)>,
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on only these functions can be called.
    pub(crate) fn restrict(&self, exports: &[Export]) {
        let mut inner = self.lock();
        inner.allowed = Some(HashMap::new());
        for export in exports {
            if let (Some(allowed), Some(id)) = (&mut inner.allowed, identity(export.code)) {
                allowed.insert(id, export.capability);
            }
            inner.exports.insert(export.name.clone(), export.clone());
        }
    }

    pub(crate) fn is_restricted(&self) -> bool {
        self.lock().allowed.is_some()
    }

    pub(crate) fn export(&self, export: Export) {
        self.lock().exports.insert(export.name.clone(), export);
    }

    pub(crate) fn show(&self, client: VrId, capability: Capability) {
        self.lock().shown.insert((client, capability));
    }

    /// The code that a client means, if it may have it called.
    pub(crate) fn find(
        &self,
        client: VrId,
        function: &Function,
    ) -> Result<river_core::code::CodePtr, Failure> {
        let inner = self.lock();
        let (code, needed) = match function {
            Function::Named { name, signature } => {
                let Some(export) = inner.exports.get(name) else {
                    let mut names: Vec<&str> = inner.exports.keys().map(String::as_str).collect();
                    names.sort_unstable();
                    let names = if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
                    return Err(Failure::NoSuchFunction(format!("it exports {names}")));
                };
                if export.signature.digest != *signature {
                    return Err(Failure::Signature {
                        exported: export.signature.text.clone(),
                        called: *signature,
                    });
                }
                (export.code, export.capability)
            }
            Function::Code(code) => match &inner.allowed {
                None => (*code, None),
                Some(allowed) => match identity(*code).and_then(|id| allowed.get(&id)) {
                    Some(needed) => (*code, *needed),
                    None => return Err(Failure::Refused("the server does not export it".into())),
                },
            },
        };
        match needed {
            Some(capability) if !inner.shown.contains(&(client, capability)) => {
                Err(Failure::Refused("it needs a capability that this client has not shown".into()))
            }
            _ => Ok(code),
        }
    }

    /// The object that is meant, if there is one of that name.
    pub(crate) fn meant(&self, target: &Target) -> Option<ObjectId> {
        self.lock().meant(target)
    }

    /// The object that a reference is to. One that nobody has heard of is the first to an object that is being made.
    pub(crate) fn object_of(&self, reference: Reference) -> ObjectId {
        let first = ObjectId { owner: reference.by, number: reference.number };
        self.lock().references.object(reference).unwrap_or(first)
    }

    /// Takes an object out for a VR; if another one has it, when that has put it back. `None` if there is no such
    /// object, or this VR would wait for ever, as it has the object already, or what another one waits for that has it.
    pub(crate) fn take(&self, target: &Target, by: VrId) -> Option<Out<'_>> {
        let mut inner = self.lock();
        loop {
            let object = inner.meant(target)?;
            if let Some(kept) = inner.objects.remove(&object) {
                inner.out.insert(object, by);
                return Some(Out { store: self, object, kept: Some(kept) });
            }
            if !inner.out.contains_key(&object) || inner.would_wait_for_ever(by, object) {
                return None;
            }
            inner.waiting.insert(by, object);
            inner = self.back.wait(inner).unwrap_or_else(PoisonError::into_inner);
            inner.waiting.remove(&by);
        }
    }

    /// Keeps a new object, to which its creator has the first reference.
    pub(crate) fn add(&self, object: ObjectId, kept: Kept) {
        let mut inner = self.lock();
        inner.objects.insert(object, kept);
        inner.references.add(object.first_reference(), object, object.owner);
    }

    /// Gives an object a name. What had it before loses the reference that went with the name.
    pub(crate) fn name(&self, name: String, object: ObjectId) {
        let before = self.lock().give_name(name, object);
        if let Some(before) = before {
            self.release(before.first_reference());
        }
    }

    pub(crate) fn unname(&self, name: &str) {
        let before = self.lock().take_name(name);
        if let Some(before) = before {
            self.release(before.first_reference());
        }
    }

    /// Notes a reference to what is meant, which is returned.
    pub(crate) fn grant(&self, reference: Reference, target: &Target, to: VrId) -> Option<ObjectId> {
        let mut inner = self.lock();
        // Somebody holds every object, be it here or taken out.
        let object = inner.meant(target).filter(|&object| inner.references.is_held(object))?;
        inner.references.add(reference, object, to);
        Some(object)
    }

    pub(crate) fn release(&self, reference: Reference) {
        let freed = {
            let mut inner = self.lock();
            let freed = inner.references.release(reference);
            freed.and_then(|object| inner.drop_object(object))
        };
        freed.into_iter().for_each(discard);
    }

    /// Frees what only a client that is gone has held.
    pub(crate) fn forget(&self, client: VrId) {
        let freed: Vec<Kept> = {
            let mut inner = self.lock();
            inner.shown.retain(|(by, _)| *by != client);
            let freed = inner.references.forget(client);
            freed.into_iter().filter_map(|object| inner.drop_object(object)).collect()
        };
        freed.into_iter().for_each(discard);
    }
}

impl Inner {
    fn meant(&self, target: &Target) -> Option<ObjectId> {
        match target {
            Target::Object(id) => Some(*id),
            Target::Named(name) => self.names.get(name).copied(),
        }
    }

    /// Whether who has an object waits, perhaps by way of others, for what this VR has, or is this VR.
    fn would_wait_for_ever(&self, by: VrId, object: ObjectId) -> bool {
        let mut next = Some(object);
        while let Some(holder) = next.and_then(|object| self.out.get(&object)) {
            if *holder == by {
                return true;
            }
            next = self.waiting.get(holder).copied();
        }
        false
    }

    /// What had the name before. An object has one name at most.
    fn give_name(&mut self, name: String, object: ObjectId) -> Option<ObjectId> {
        let before = self.take_name(&name);
        if let Some(other) = self.named.insert(object, name.clone()) {
            self.names.remove(&other);
        }
        self.names.insert(name, object);
        before
    }

    fn take_name(&mut self, name: &str) -> Option<ObjectId> {
        let object = self.names.remove(name)?;
        self.named.remove(&object);
        Some(object)
    }

    fn drop_object(&mut self, object: ObjectId) -> Option<Kept> {
        if let Some(name) = self.named.remove(&object) {
            self.names.remove(&name);
        }
        self.objects.remove(&object)
    }
}

/// An object that is taken out. Dropped, it is put back, unless nobody holds it any more.
pub(crate) struct Out<'a> {
    store: &'a Store,
    object: ObjectId,
    /// `None` while it is lent further.
    pub(crate) kept: Option<Kept>,
}

impl Out<'_> {
    /// Takes it from all who hold it.
    pub(crate) fn remove(self) {
        let mut inner = self.store.lock();
        inner.references.remove(self.object);
        inner.drop_object(self.object);
    }
}

impl Drop for Out<'_> {
    fn drop(&mut self) {
        let mut inner = self.store.lock();
        inner.out.remove(&self.object);
        if inner.references.is_held(self.object)
            && let Some(kept) = self.kept.take()
        {
            inner.objects.insert(self.object, kept);
        }
        if !inner.waiting.is_empty() {
            self.store.back.notify_all();
        }
        drop(inner);
        self.kept.take().into_iter().for_each(discard);
    }
}

/// Drops an object, whose destructor is the user's code and may panic.
fn discard(kept: Kept) {
    if let Err(text) = catch_panic(|| drop(kept)) {
        tracing::warn!(%text, "the destructor of an object panicked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(store: &Store, objects: &[ObjectId]) {
        objects.iter().for_each(|object| store.add(*object, Kept { value: Box::new(()), kind: "()" }));
    }

    #[test]
    fn an_object_that_is_freed_leaves_no_name() {
        let (store, owner) = (Store::default(), VrId::fresh());
        let [first, second] = [1, 2].map(|number| ObjectId { owner, number });
        fill(&store, &[first, second]);
        let meant = |name: &str| store.meant(&Target::Named(name.into()));
        store.name("a".into(), first);
        store.name("b".into(), first);
        assert_eq!((meant("a"), meant("b")), (None, Some(first)));
        store.name("b".into(), second);
        assert_eq!(meant("b"), Some(second));
        store.forget(owner);
        assert_eq!(meant("b"), None);
        assert!(store.lock().named.is_empty());
    }
}
