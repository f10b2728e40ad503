//! The objects of a server, the functions that it has exported, and which clients may use them.

use std::any::TypeId;
use std::collections::{HashMap, HashSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use river_core::{VrId, catch_panic};

use crate::protocol::{Capability, Export, Failure, Function, ObjectId, Reference, Target};
use crate::references::References;
use crate::trampoline::{Kept, identity};

/// The state of a server, also used by the functions that run there and by its helpers, if any. No user code runs while
/// it is locked.
#[derive(Default)]
pub(crate) struct Store {
    inner: Mutex<Inner>,
    /// Signalled when an object is put back that a VR waits for.
    back: Condvar,
}

#[derive(Default)]
struct Inner {
    objects: HashMap<ObjectId, Kept>,
    /// Objects that are taken out, and by which VR.
    out: HashMap<ObjectId, VrId>,
    /// VRs that wait for an object that another VR has taken out.
    waiting: HashMap<VrId, ObjectId>,
    references: References,
    names: HashMap<String, ObjectId>,
    /// The name of each object that has one.
    named: HashMap<ObjectId, String>,
    exports: HashMap<String, Export>,
    /// The functions that may be called by code pointer on a restricted server: exactly its exports. `None`: all.
    allowed: Option<HashMap<TypeId, Option<Capability>>>,
    shown: HashSet<(VrId, Capability)>,
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Restricts calls to these functions from now on.
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

    /// Returns the code that a client designates, if it may call it.
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

    /// The object that the target designates, if it exists.
    pub(crate) fn meant(&self, target: &Target) -> Option<ObjectId> {
        self.lock().meant(target)
    }

    /// The object that a reference is to. An unknown reference is the first one to an object that is being created.
    pub(crate) fn object_of(&self, reference: Reference) -> ObjectId {
        let first = ObjectId { owner: reference.by, number: reference.number };
        self.lock().references.object(reference).unwrap_or(first)
    }

    /// Takes an object out for a VR, waiting for another VR to put it back if necessary. Returns `None` if there is no
    /// such object, or if this VR would wait forever, as it already has the object, or has one for which the VR that
    /// has this object waits.
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

    /// Stores a new object, to which its creator has the first reference.
    pub(crate) fn add(&self, object: ObjectId, kept: Kept) {
        let mut inner = self.lock();
        inner.objects.insert(object, kept);
        inner.references.add(object.first_reference(), object, object.owner);
    }

    /// Gives an object a name. The previous object of that name loses the reference that the name was.
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

    /// Adds a reference to the designated object, which is returned.
    pub(crate) fn grant(&self, reference: Reference, target: &Target, to: VrId) -> Option<ObjectId> {
        let mut inner = self.lock();
        // Every object has a holder, whether it is here or taken out.
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

    /// Frees the objects that only a client that is gone has held.
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

    /// Whether the VR that has an object waits, perhaps through others, for an object of this VR, or is this VR.
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

    /// Returns the object that had the name before. An object has at most one name.
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

/// An object that is taken out. Dropping this puts it back, unless nobody holds it any more.
pub(crate) struct Out<'a> {
    store: &'a Store,
    object: ObjectId,
    /// `None` while it is lent out.
    pub(crate) kept: Option<Kept>,
}

impl Out<'_> {
    /// Removes it for all its holders.
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

/// Drops an object. Its destructor is user code and may panic.
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
