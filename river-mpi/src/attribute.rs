//! Attributes: what libraries keep with a communicator.

use std::any::Any;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

type CopyOf<T> = Rc<dyn Fn(&T) -> Option<T>>;
type DeleteOf<T> = Rc<dyn Fn(&T)>;
/// The same, of a type that is known to the key only.
type Copy = Rc<dyn Fn(&dyn Any) -> Option<Rc<dyn Any>>>;
type Delete = Rc<dyn Fn(&dyn Any)>;

/// The key of an attribute of type `T`, with what happens to it when the communicator is duplicated or gone.
///
/// ```
/// # river_mpi::testing::world(2, |world| {
/// use river_mpi::Keyval;
///
/// let depth = Keyval::new().on_copy(|depth: &u32| Some(depth + 1));
/// world.set_attribute(&depth, 0);
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
    /// A new key. Its attributes are not copied by `dup` (`MPI_NULL_COPY_FN`).
    #[must_use]
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { number: NEXT.fetch_add(1, Relaxed), copy: None, delete: None }
    }

    /// What [`dup`](crate::Communicator::dup) gives to the new communicator: `None` for nothing.
    #[must_use]
    pub fn on_copy(mut self, copy: impl Fn(&T) -> Option<T> + 'static) -> Self {
        self.copy = Some(Rc::new(copy));
        self
    }

    /// What is called when the attribute is replaced or deleted, or its communicator's last handle is gone.
    #[must_use]
    pub fn on_delete(mut self, delete: impl Fn(&T) + 'static) -> Self {
        self.delete = Some(Rc::new(delete));
        self
    }
}

/// One attribute; dropping it calls what its key says.
pub(crate) struct Attribute {
    number: u64,
    value: Rc<dyn Any>,
    copy: Option<Copy>,
    delete: Option<Delete>,
}

impl Drop for Attribute {
    fn drop(&mut self) {
        if let Some(delete) = &self.delete {
            delete(&*self.value);
        }
    }
}

/// The attributes of one communicator.
#[derive(Default)]
pub(crate) struct Attributes(Vec<Attribute>);

impl Attributes {
    /// What was there before is returned, to be dropped when nothing is borrowed.
    #[must_use]
    pub(crate) fn set<T: 'static>(&mut self, key: &Keyval<T>, value: T) -> Option<Attribute> {
        let before = self.remove(key);
        let copy = key.copy.clone().map(|copy| -> Copy {
            Rc::new(move |value| Some(Rc::new(copy(value.downcast_ref()?)?) as Rc<dyn Any>))
        });
        let delete = key.delete.clone().map(|delete| -> Delete {
            Rc::new(move |value| {
                if let Some(value) = value.downcast_ref() {
                    delete(value);
                }
            })
        });
        self.0.push(Attribute { number: key.number, value: Rc::new(value), copy, delete });
        before
    }

    pub(crate) fn get<T: 'static>(&self, key: &Keyval<T>) -> Option<Rc<T>> {
        let attribute = self.0.iter().find(|attribute| attribute.number == key.number)?;
        attribute.value.clone().downcast().ok()
    }

    /// As [`set`](Self::set), without a new value.
    #[must_use]
    pub(crate) fn remove<T: 'static>(&mut self, key: &Keyval<T>) -> Option<Attribute> {
        let at = self.0.iter().position(|attribute| attribute.number == key.number)?;
        Some(self.0.remove(at))
    }

    /// Those that a duplicate of the communicator gets.
    pub(crate) fn copied(&self) -> Self {
        let copied = self.0.iter().filter_map(|Attribute { number, value, copy, delete }| {
            let value = copy.as_ref()?(&**value)?;
            Some(Attribute { number: *number, value, copy: copy.clone(), delete: delete.clone() })
        });
        Self(copied.collect())
    }
}
