//! The interface of storage that a program brings along for its checkpoints.

use std::io;

/// Storage for checkpoints elsewhere than in a directory: an object store, a database, the memory of some service. It holds
/// contents under names; River decides what is kept and what is removed.
///
/// A program gets its store from [`Launch::store`](crate::Launch::store), and continues from the newest complete checkpoint
/// in it with [`Launch::restore`](crate::Launch::restore). The names are those of the files that a directory of checkpoints
/// has, and so are the contents: if they are written to files, `river restore` and [`Stored`](crate::Stored) take them.
/// Contents are those of the program's memory, unencrypted.
///
/// All methods are called in the initiator's process, and may block: the program's VRs are not stopped meanwhile. An error
/// of one is an error of the checkpoint, and leaves the program and its older checkpoints alone. Only one program at a time
/// may use a store: two would write under the same names.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::io;
/// use std::sync::{Arc, Mutex};
///
/// use river_core::{Launch, Result, Store, Vr};
///
/// #[derive(Clone, Default)]
/// struct Map(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);
///
/// impl Store for Map {
///     fn names(&self) -> io::Result<Vec<String>> {
///         Ok(self.0.lock().unwrap().keys().cloned().collect())
///     }
///
///     fn read(&self, name: &str) -> io::Result<Vec<u8>> {
///         self.0.lock().unwrap().get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
///     }
///
///     fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
///         self.0.lock().unwrap().insert(name.into(), content.into());
///         Ok(())
///     }
///
///     fn remove(&self, name: &str) -> io::Result<()> {
///         self.0.lock().unwrap().remove(name);
///         Ok(())
///     }
/// }
///
/// fn program(vr: &Vr) -> Result<bool> {
///     Ok(vr.checkpoint_in_store()?.resumed)
/// }
///
/// let store = Map::default();
/// assert!(!Launch::new().store(store.clone()).try_run(program)?);
/// assert!(Launch::new().store(store).restore(program)?);
/// # Ok::<_, river_core::VrError>(())
/// ```
pub trait Store: Send + Sync {
    /// The names of all contents, in any order. Names that River has not given are ignored.
    ///
    /// # Errors
    /// If it cannot be found out.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Returns a content.
    ///
    /// # Errors
    /// If there is none of this name, or it cannot be read.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// Stores a content, instead of any that has the name already. When this returns, the content must be as safe as it is
    /// meant to be, and at no time may [`names`](Self::names) list a part of one.
    ///
    /// # Errors
    /// If the content is not stored; what had the name before may be lost.
    fn write(&self, name: &str, content: &[u8]) -> io::Result<()>;

    /// Removes a content.
    ///
    /// # Errors
    /// If it is still there. River removes it with a later checkpoint.
    fn remove(&self, name: &str) -> io::Result<()>;
}
