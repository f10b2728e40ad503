//! Attributes: values that libraries attach to a communicator.

use std::any::Any;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::error::Result;

type CopyOf<T> = Rc<dyn Fn(&T) -> Result<Option<T>>>;
type DeleteOf<T> = Rc<dyn Fn(&T) -> Result>;
/// A [`CopyOf`] whose type `T` only the key knows.
type Copy = Rc<dyn Fn(&dyn Any) -> Result<Option<Rc<dyn Any>>>>;
type Delete = Rc<dyn Fn(&dyn Any) -> Result>;

/// The key of an attribute of type `T`, with callbacks for when the communicator is duplicated or freed. An error that a
/// callback returns, [`MpiError::Other`](crate::MpiError::Other) for instance, is returned by the call that ran it.
///
/// ```
/// # river_mpi::testing::world(2, |world| {
/// use river_mpi::Keyval;
///
/// let depth = Keyval::new().on_copy(|depth: &u32| Ok(Some(depth + 1)));
/// world.set_attribute(&depth, 0)?;
/// assert_eq!(*world.dup()?.attribute(&depth).unwrap(), 1);
/// # Ok(()) });
/// ```
///
/// # Standard section
/// MPI 1.3, section 5.7.
#[derive(Clone)]
pub struct Keyval<T> {
    number: u64,
    copy: Option<CopyOf<T>>,
    delete: Option<DeleteOf<T>>,
}

impl<T> std::fmt::Debug for Keyval<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keyval({})", self.number)
    }
}

impl<T: 'static> Default for Keyval<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: 'static> Keyval<T> {
    /// Creates a new key. Its attributes are not copied by `dup` (`MPI_NULL_COPY_FN`).
    #[must_use]
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { number: NEXT.fetch_add(1, Relaxed), copy: None, delete: None }
    }

    /// Sets the function that makes the new communicator's value in [`dup`](crate::Communicator::dup). If it returns `None`,
    /// the new communicator does not get the attribute; if it fails, no communicator is created.
    #[must_use]
    pub fn on_copy(mut self, copy: impl Fn(&T) -> Result<Option<T>> + 'static) -> Self {
        self.copy = Some(Rc::new(copy));
        self
    }

    /// Sets the function that is called when the attribute is replaced or deleted, or when its communicator's last handle is
    /// dropped. If it fails, the attribute is kept, unless the communicator is gone.
    #[must_use]
    pub fn on_delete(mut self, delete: impl Fn(&T) -> Result + 'static) -> Self {
        self.delete = Some(Rc::new(delete));
        self
    }
}

/// One attribute. Dropping it runs its key's delete function.
pub(crate) struct Attribute {
    number: u64,
    value: Rc<dyn Any>,
    copy: Option<Copy>,
    delete: Option<Delete>,
}

impl Drop for Attribute {
    fn drop(&mut self) {
        if let Err(error) = self.delete() {
            tracing::warn!(%error, "an attribute of a communicator that is gone was not deleted well");
        }
    }
}

impl Attribute {
    /// Runs the delete function of its key, and does not run it again unless it failed.
    fn delete(&mut self) -> Result {
        if let Some(delete) = &self.delete {
            delete(&*self.value)?;
        }
        self.delete = None;
        Ok(())
    }
}

/// The attributes of one communicator.
#[derive(Default)]
pub(crate) struct Attributes(Vec<Attribute>);

impl Attributes {
    /// Sets an attribute. The previous value is deleted.
    pub(crate) fn set<T: 'static>(&mut self, key: &Keyval<T>, value: T) -> Result {
        self.remove(key)?;
        let copy = key.copy.clone().map(|copy| -> Copy {
            Rc::new(move |value| {
                let copied = value.downcast_ref().map(&*copy).transpose()?.flatten();
                Ok(copied.map(|copied| Rc::new(copied) as Rc<dyn Any>))
            })
        });
        let delete = key
            .delete
            .clone()
            .map(|delete| -> Delete { Rc::new(move |value| value.downcast_ref().map_or(Ok(()), &*delete)) });
        self.0.push(Attribute { number: key.number, value: Rc::new(value), copy, delete });
        Ok(())
    }

    pub(crate) fn get<T: 'static>(&self, key: &Keyval<T>) -> Option<Rc<T>> {
        let attribute = self.0.iter().find(|attribute| attribute.number == key.number)?;
        attribute.value.clone().downcast().ok()
    }

    /// Removes an attribute. Returns `false` if there was none.
    pub(crate) fn remove<T: 'static>(&mut self, key: &Keyval<T>) -> Result<bool> {
        let Some(at) = self.0.iter().position(|attribute| attribute.number == key.number) else {
            return Ok(false);
        };
        self.0[at].delete()?;
        self.0.remove(at);
        Ok(true)
    }

    /// The attributes that a duplicate of the communicator gets.
    pub(crate) fn copied(&self) -> Result<Self> {
        let copied = self.0.iter().filter_map(|Attribute { number, value, copy, delete }| {
            let value = copy.as_ref()?(&**value).transpose()?;
            Some(value.map(|value| Attribute {
                number: *number,
                value,
                copy: copy.clone(),
                delete: delete.clone(),
            }))
        });
        Ok(Self(copied.collect::<Result<_>>()?))
    }
}
