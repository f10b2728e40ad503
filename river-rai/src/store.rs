//! The objects of a server, the functions that it has exported, and who may use them.

use std::any::TypeId;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use river_core::{VrId, catch_panic};

use crate::protocol::{Capability, Export, Failure, Function, ObjectId, Reference, Target};
use crate::references::References;
use crate::trampoline::{Kept, identity};

/// What a server has. The functions which run there, and its helpers if it has any, use it too. No user's code runs while it is
/// locked.
#[derive(Default)]
pub(crate) struct Store(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    objects: HashMap<ObjectId, Kept>,
    references: References,
    names: HashMap<String, ObjectId>,
    exports: HashMap<String, Export>,
    /// What a restricted server lets be called by code pointer: exactly its exports. `None`: everything.
    allowed: Option<HashMap<TypeId, Option<Capability>>>,
    shown: HashSet<(VrId, Capability)>,
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

    pub(crate) fn object(&self, target: &Target) -> Result<ObjectId, Failure> {
        let found = match target {
            Target::Object(id) => Some(*id),
            Target::Named(name) => self.lock().names.get(name).copied(),
        };
        found.ok_or_else(|| Failure::NoSuchObject(target.clone()))
    }

    /// Takes an object out, to be put back by [`keep`](Self::keep).
    pub(crate) fn take(&self, object: ObjectId) -> Option<Kept> {
        self.lock().objects.remove(&object)
    }

    /// Puts back what was taken out, unless nobody holds it any more.
    pub(crate) fn keep(&self, object: ObjectId, kept: Kept) {
        let unwanted = {
            let mut inner = self.lock();
            if inner.references.is_held(object) {
                inner.objects.insert(object, kept);
                None
            } else {
                Some(kept)
            }
        };
        unwanted.into_iter().for_each(discard);
    }

    /// Keeps a new object, to which its creator has the first reference.
    pub(crate) fn add(&self, object: ObjectId, kept: Kept) {
        let mut inner = self.lock();
        inner.objects.insert(object, kept);
        inner.references.add(Reference { by: object.owner, number: object.number }, object, object.owner);
    }

    /// Gives an object a name. What had it before loses the reference that went with the name.
    pub(crate) fn name(&self, name: String, object: ObjectId) {
        let before = self.lock().names.insert(name, object);
        if let Some(before) = before {
            self.release(Reference { by: before.owner, number: before.number });
        }
    }

    pub(crate) fn unname(&self, name: &str) {
        let before = self.lock().names.remove(name);
        if let Some(before) = before {
            self.release(Reference { by: before.owner, number: before.number });
        }
    }

    pub(crate) fn grant(&self, reference: Reference, object: ObjectId, to: VrId) -> Result<(), Failure> {
        let mut inner = self.lock();
        if !inner.objects.contains_key(&object) {
            return Err(Failure::NoSuchObject(Target::Object(object)));
        }
        inner.references.add(reference, object, to);
        Ok(())
    }

    pub(crate) fn release(&self, reference: Reference) {
        let freed = {
            let mut inner = self.lock();
            let freed = inner.references.release(reference);
            freed.and_then(|object| inner.drop_object(object))
        };
        freed.into_iter().for_each(discard);
    }

    /// An object was taken by its user, and is no more.
    pub(crate) fn gone(&self, object: ObjectId) {
        let left = {
            let mut inner = self.lock();
            inner.references.remove(object);
            inner.drop_object(object)
        };
        left.into_iter().for_each(discard);
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
    fn drop_object(&mut self, object: ObjectId) -> Option<Kept> {
        self.names.retain(|_, named| *named != object);
        self.objects.remove(&object)
    }
}

/// Drops an object, whose destructor is the user's code and may panic.
pub(crate) fn discard(kept: Kept) {
    if let Err(text) = catch_panic(|| drop(kept)) {
        tracing::warn!(%text, "the destructor of an object panicked");
    }
}
