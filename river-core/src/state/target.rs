//! Where checkpoints go, as seen by the code that takes them.

use super::file::Header;
use crate::error::StateError;
use crate::id::HostId;
use crate::image::Image;

/// Where checkpoints go: into a [directory](super::Directory), a [store](super::StoreTarget), or the memory of VMs. Everything
/// may block.
pub(crate) trait Target: Send {
    /// Begins a checkpoint of the program with that image. Whatever can fail before VRs are stopped fails here.
    fn begin(&self, image: &Image) -> Result<Box<dyn Draft>, StateError>;
}

/// A checkpoint that is being taken. Leaves nothing behind if it is dropped.
pub(crate) trait Draft: Send {
    /// Its number, higher than that of any earlier one.
    fn number(&self) -> u64;

    /// Adds a VR of that process, encoded by [`Saved::encode`](super::Saved::encode).
    fn vr(&mut self, of: HostId, saved: &[u8]) -> Result<(), StateError>;

    /// Publishes the checkpoint, to which all VRs have been added: from now on it can be restored, and all but the newest
    /// `keep` are retired. Returns its length in bytes.
    fn publish(self: Box<Self>, header: &Header, keep: usize) -> Result<u64, StateError>;
}
