//! Memory that two processes share: the only unsafe part of the link.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use crate::protocol::MemoryName;

/// Nobody can change the size any more: an access within it never faults.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

const TOKEN: usize = 16;

/// A piece of memory that another process may have, too, and may write to at any moment. All access is by atomics or
/// by copies, never by references to its bytes.
#[derive(Debug)]
pub(super) struct Memory {
    start: NonNull<u8>,
    length: usize,
    file: OwnedFd,
}

// SAFETY: the mapping belongs to no thread, and every access is atomic or a copy through a raw pointer.
unsafe impl Send for Memory {}
// SAFETY: as above; who may copy where at one time is the ring's protocol, and a peer that breaks it only garbles
// bytes, which are checked as those of a socket are.
unsafe impl Sync for Memory {}

impl Memory {
    /// New memory of that many bytes, all zero but for a token at the beginning.
    pub(super) fn create(length: usize) -> io::Result<Self> {
        let file = rustix::fs::memfd_create("river", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&file, length as u64)?;
        rustix::fs::fcntl_add_seals(&file, SEALS)?;
        let memory = Self::map(file, length)?;
        memory.write(0, uuid::Uuid::new_v4().as_bytes());
        Ok(memory)
    }

    /// How another process can open it, for as long as this one has it.
    pub(super) fn name(&self) -> MemoryName {
        let mut token = [0; TOKEN];
        self.read(0, &mut token);
        let descriptor = self.file.as_raw_fd();
        MemoryName { process: std::process::id(), descriptor, length: self.length as u64, token }
    }

    /// The memory of another process, if it has exactly the length that is expected and cannot change it.
    pub(super) fn open(name: &MemoryName, length: usize) -> io::Result<Self> {
        let wrong = |what| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        if name.length != length as u64 {
            return wrong("the peer's memory has another size");
        }
        let path = format!("/proc/{}/fd/{}", name.process, name.descriptor);
        let file: OwnedFd = File::options().read(true).write(true).open(path)?.into();
        // A file of another kind has no seals.
        if !rustix::fs::fcntl_get_seals(&file)?.contains(SEALS) {
            return wrong("the peer could change the size of its memory");
        }
        if rustix::fs::fstat(&file)?.st_size as u64 != name.length {
            return wrong("the peer's memory has another size than it says");
        }
        let memory = Self::map(file, length)?;
        let mut token = [0; TOKEN];
        memory.read(0, &mut token);
        if token != name.token {
            return wrong("the memory of that name is not the peer's");
        }
        Ok(memory)
    }

    fn map(file: OwnedFd, length: usize) -> io::Result<Self> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of this program.
        let start = unsafe { rustix::mm::mmap(ptr::null_mut(), length, protection, flags, file.as_fd(), 0)? };
        let Some(start) = NonNull::new(start.cast()) else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        Ok(Self { start, length, file })
    }

    /// The 32-bit number at that offset.
    ///
    /// # Panics
    /// If it does not lie within, at a multiple of its size: offsets are constants.
    pub(super) fn u32_at(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.length);
        // SAFETY: within the mapping, aligned (the mapping starts at a page), and only ever used as an atomic.
        unsafe { AtomicU32::from_ptr(self.start.as_ptr().add(offset).cast()) }
    }

    /// The 64-bit number at that offset. Panics as [`u32_at`](Self::u32_at).
    pub(super) fn u64_at(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.length);
        // SAFETY: as above.
        unsafe { AtomicU64::from_ptr(self.start.as_ptr().add(offset).cast()) }
    }

    /// Has the processor fetch the cache line at that offset, as it will be written to soon; a hint that changes nothing.
    pub(super) fn fetch_to_write(&self, offset: usize) {
        assert!(offset < self.length);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch has no effect that a program could see, and the address lies within the mapping. (What the
        // standard library has makes a fetch for reading of it where the target is not said to know it.)
        unsafe {
            let line = self.start.as_ptr().add(offset);
            std::arch::asm!("prefetchw [{}]", in(reg) line, options(nostack, preserves_flags, readonly));
        }
    }

    /// The same, as it will be read.
    pub(super) fn fetch_to_read(&self, offset: usize) {
        assert!(offset < self.length);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        unsafe {
            let line = self.start.as_ptr().add(offset);
            std::arch::asm!("prefetcht0 [{}]", in(reg) line, options(nostack, preserves_flags, readonly));
        }
    }

    /// Copies bytes in. Panics if they do not fit.
    pub(super) fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset <= self.length && bytes.len() <= self.length - offset);
        // SAFETY: the target lies within the mapping, and the source, being a Rust slice, does not overlap it.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr().add(offset), bytes.len());
        }
    }

    /// Copies bytes out. Panics if there are not that many.
    pub(super) fn read(&self, offset: usize, bytes: &mut [u8]) {
        assert!(offset <= self.length && bytes.len() <= self.length - offset);
        // SAFETY: the source lies within the mapping, and the target, being a Rust slice, does not overlap it.
        unsafe {
            ptr::copy_nonoverlapping(self.start.as_ptr().add(offset), bytes.as_mut_ptr(), bytes.len());
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and nothing refers to it any more.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_the_same_bytes() {
        let ours = Memory::create(8192).unwrap();
        let theirs = Memory::open(&ours.name(), 8192).unwrap();
        ours.write(5000, b"hello");
        let mut bytes = [0; 5];
        theirs.read(5000, &mut bytes);
        assert_eq!(&bytes, b"hello");
    }

    #[test]
    fn what_is_not_the_peers_memory_is_refused() {
        let memory = Memory::create(4096).unwrap();
        let name = memory.name();
        assert!(Memory::open(&name, 8192).is_err());
        assert!(Memory::open(&MemoryName { token: [0; TOKEN], ..name }, 4096).is_err());
        assert!(Memory::open(&MemoryName { descriptor: 1 << 20, ..name }, 4096).is_err());
        let plain = tempfile::tempfile().unwrap();
        plain.set_len(4096).unwrap();
        assert!(Memory::open(&MemoryName { descriptor: plain.as_raw_fd(), ..name }, 4096).is_err());
    }
}
