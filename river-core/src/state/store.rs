//! Where checkpoints are kept, as the code that takes them sees it.

use super::file::Header;
use crate::error::StateError;
use crate::id::HostId;
use crate::image::Image;

/// A place for checkpoints: a [directory](super::Directory), or the memory of VMs. All of it may block.
pub(crate) trait Store: Send {
    /// Begins a checkpoint of the program of that image. What can go wrong before VRs are stopped goes wrong here.
    fn begin(&self, image: &Image) -> Result<Box<dyn Draft>, StateError>;
}

/// A checkpoint that is being taken. Dropped, it leaves nothing behind.
pub(crate) trait Draft: Send {
    /// Its number, higher than those before it.
    fn number(&self) -> u64;

    /// Adds a VR, as [`Saved::encode`](super::Saved::encode) made it, of that process.
    fn vr(&mut self, of: HostId, saved: &[u8]) -> Result<(), StateError>;

    /// All VRs are there: from now on it can be gone on from, and all but the newest `keep` are retired. Its length in bytes.
    fn publish(self: Box<Self>, header: &Header, keep: usize) -> Result<u64, StateError>;
}
