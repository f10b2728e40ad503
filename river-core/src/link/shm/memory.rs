//! Memory that two processes share: the only unsafe part of the link.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::budget::Lease;
use super::lines::Line;
use crate::aliasing;
use crate::protocol::MemoryName;

/// Nobody can change the size any more, so an access within it never faults.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

const TOKEN: usize = 16;

/// A piece of memory that another process may share, and may write to at any time. All access is by atomics or by copies,
/// never by references to its bytes.
#[derive(Debug)]
pub(super) struct Memory {
    start: NonNull<u8>,
    length: usize,
    name: MemoryName,
    /// Set in the process that has created it; others open it by this file.
    file: Option<OwnedFd>,
    /// The part of the budget that it uses.
    lease: Option<Lease>,
}

// SAFETY: the mapping belongs to no thread, and every access is atomic or a copy through a raw pointer.
unsafe impl Send for Memory {}
// SAFETY: as above. The ring's protocol decides which side may copy where at any time; a peer that breaks it only garbles
// bytes, which are checked as those of a socket are.
unsafe impl Sync for Memory {}

impl Memory {
    /// Creates memory of this many bytes, all zero except for a token at the beginning.
    pub(super) fn create(length: usize) -> io::Result<Self> {
        let file = rustix::fs::memfd_create("river", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&file, length as u64)?;
        rustix::fs::fcntl_add_seals(&file, SEALS)?;
        let (process, descriptor, token) =
            (std::process::id(), file.as_raw_fd(), uuid::Uuid::new_v4().into_bytes());
        let name = MemoryName { process, descriptor, length: length as u64, token };
        let mut memory = Self::map(&file, name, length)?;
        memory.write(0, &token);
        memory.file = Some(file);
        Ok(memory)
    }

    /// Returns the name by which another process can open it, for as long as its creator has it.
    pub(super) fn name(&self) -> MemoryName {
        self.name
    }

    /// From now on no other process can open it.
    pub(super) fn close(&mut self) {
        self.file = None;
    }

    /// Returns the same memory, which keeps the lease.
    pub(super) fn with(mut self, lease: Lease) -> Self {
        self.lease = Some(lease);
        self
    }

    /// Opens the memory of another process, if it has exactly the expected length and that cannot change.
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
        let memory = Self::map(&file, *name, length)?;
        let mut token = [0; TOKEN];
        memory.read(0, &mut token);
        if token != name.token {
            return wrong("the memory of that name is not the peer's");
        }
        Ok(memory)
    }

    fn map(file: &OwnedFd, name: MemoryName, length: usize) -> io::Result<Self> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of this program.
        let start = unsafe { rustix::mm::mmap(ptr::null_mut(), length, protection, flags, file.as_fd(), 0)? };
        let Some(start) = NonNull::new(start.cast()) else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        Ok(Self { start, length, name, file: None, lease: None })
    }

    /// Has the kernel provide all pages now, which costs less than a fault for each. Without effect before Linux 5.14.
    pub(super) fn populate(&self) {
        // SAFETY: this is the mapping, whose contents stay as they are.
        let _ = unsafe {
            rustix::mm::madvise(self.start.as_ptr().cast(), self.length, Advice::LinuxPopulateWrite)
        };
    }

    /// Returns the 32-bit number at this offset.
    ///
    /// # Panics
    /// If it does not lie within the memory, at a multiple of its size: offsets are constants.
    pub(super) fn u32_at(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.length);
        // SAFETY: within the mapping, aligned (the mapping starts at a page), and only ever used as an atomic.
        unsafe { AtomicU32::from_ptr(self.start.as_ptr().add(offset).cast()) }
    }

    /// Returns the 64-bit number at this offset. Panics as [`u32_at`](Self::u32_at).
    pub(super) fn u64_at(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.length);
        // SAFETY: as above.
        unsafe { AtomicU64::from_ptr(self.start.as_ptr().add(offset).cast()) }
    }

    /// Returns the cache lines behind the first page.
    pub(super) fn lines(&self) -> &[Line] {
        let count = self.length.saturating_sub(FIRST) / size_of::<Line>();
        // SAFETY: within the mapping, aligned (it starts at a page, and `FIRST` is a multiple of a line), and the words, for
        // which any value is valid, are only ever used as atomics.
        unsafe { slice::from_raw_parts(self.start.as_ptr().add(FIRST.min(self.length)).cast(), count) }
    }

    /// Prefetches the cache line at this offset for a write that comes soon; a hint without any other effect.
    pub(super) fn fetch_to_write(&self, offset: usize) {
        assert!(offset < self.length);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch has no effect that a program could see, and the address lies within the mapping. (The standard
        // library's function becomes a prefetch for reading unless the target is known to have one for writing.)
        unsafe {
            let line = self.start.as_ptr().add(offset);
            std::arch::asm!("prefetchw [{}]", in(reg) line, options(nostack, preserves_flags, readonly));
        }
    }

    /// Prefetches the cache line at this offset for a read.
    pub(super) fn fetch_to_read(&self, offset: usize) {
        assert!(offset < self.length);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        unsafe {
            let line = self.start.as_ptr().add(offset);
            std::arch::asm!("prefetcht0 [{}]", in(reg) line, options(nostack, preserves_flags, readonly));
        }
    }

    /// Copies bytes into the memory. Panics if they do not fit.
    pub(super) fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset <= self.length && bytes.len() <= self.length - offset);
        let from = bytes.as_ptr();
        for part in aliasing::parts(from.addr(), self.start.addr().get() + offset, bytes.len()) {
            // SAFETY: the target lies within the mapping, and the source, being a Rust slice, does not overlap it.
            unsafe {
                let to = self.start.as_ptr().add(offset + part.start);
                ptr::copy_nonoverlapping(from.add(part.start), to, part.len());
            }
        }
    }

    /// Copies bytes in past the caches, up to a multiple of a line: for copies so long that no line would still be cached
    /// when it is read. Only memory that is not written to is then fetched into a cache. Panics as [`write`](Self::write).
    pub(super) fn write_past_caches(&self, offset: usize, bytes: &[u8]) {
        const LINE: usize = 64;
        assert!(offset.is_multiple_of(LINE) && offset <= self.length && bytes.len() <= self.length - offset);
        let lines = if cfg!(target_arch = "x86_64") { bytes.len() - bytes.len() % LINE } else { 0 };
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
            const WORD: usize = size_of::<__m128i>();
            // SAFETY: reads lie within the slice, and need no alignment; writes go to as many bytes within the mapping, which
            // starts at a page, at multiples of a word. The fence orders them before everything that this thread writes
            // later.
            unsafe {
                let to = self.start.as_ptr().add(offset);
                for at in (0..lines).step_by(WORD) {
                    let word = _mm_loadu_si128(bytes.as_ptr().add(at).cast());
                    _mm_stream_si128(to.add(at).cast(), word);
                }
                _mm_sfence();
            }
        }
        self.write(offset + lines, &bytes[lines..]);
    }

    /// Copies bytes out of the memory. Panics if there are not that many.
    pub(super) fn read(&self, offset: usize, bytes: &mut [u8]) {
        assert!(offset <= self.length && bytes.len() <= self.length - offset);
        let to = bytes.as_mut_ptr();
        for part in aliasing::parts(self.start.addr().get() + offset, to.addr(), bytes.len()) {
            // SAFETY: the source lies within the mapping, and the target, being a Rust slice, does not overlap it.
            unsafe {
                let from = self.start.as_ptr().add(offset + part.start);
                ptr::copy_nonoverlapping(from, to.add(part.start), part.len());
            }
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and nothing refers to it any more.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// Where a memory whose bytes are used in place counts its [`View`]s; its bytes begin behind that.
const VIEWS: usize = 64;
pub(super) const FIRST: usize = 4096;

impl Memory {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Returns the offset of these bytes, if they lie in the memory.
    pub(super) fn offset_of(&self, bytes: &[u8]) -> Option<usize> {
        let offset = bytes.as_ptr().addr().checked_sub(self.start.addr().get())?;
        (offset >= FIRST && offset + bytes.len() <= self.length).then_some(offset)
    }

    /// Whether nobody views it, in any process.
    pub(super) fn is_free(&self) -> bool {
        // Everything that its readers have done with it has happened before.
        self.u32_at(VIEWS).load(Acquire) == 0
    }

    /// Counts another view.
    pub(super) fn count(&self) {
        self.u32_at(VIEWS).fetch_add(1, Relaxed);
    }

    pub(super) fn uncount(&self) {
        self.u32_at(VIEWS).fetch_sub(1, Release);
    }

    /// Returns its pages to the system; its bytes are zeros afterwards. Only its creator may call this, and only if it is
    /// free.
    pub(super) fn discard(&self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(file, flags, FIRST as u64, (self.length - FIRST) as u64)?)
    }
}

/// A view of bytes of a memory, in place. The creator of the memory does not write to them while views of it are counted.
#[derive(Debug)]
pub(super) struct View {
    memory: Arc<Memory>,
    range: Range<usize>,
}

impl View {
    /// Creates a view that somebody has already [counted](Memory::count); `None` if the bytes do not lie in the memory.
    pub(super) fn counted(memory: Arc<Memory>, range: Range<usize>) -> Option<Self> {
        let within = FIRST <= range.start && range.start <= range.end && range.end <= memory.length;
        within.then_some(Self { memory, range })
    }
}

impl AsRef<[u8]> for View {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: within the mapping, which the view keeps and which cannot shrink. This process does not write to memory of
        // which views are counted; nor does the peer, which is a process of the same user and program (see
        // docs/decisions.md).
        unsafe { slice::from_raw_parts(self.memory.start.as_ptr().add(self.range.start), self.range.len()) }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.memory.uncount();
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
    fn bytes_past_the_caches_are_the_same() {
        let memory = Memory::create(8192).unwrap();
        let bytes: Vec<u8> = (0..4000).map(|i| (i % 251) as u8).collect();
        for (from, len) in [(0, 0), (1, 63), (3, 64), (5, 1000), (0, 4000)] {
            let bytes = &bytes[from..from + len.min(4000 - from)];
            memory.write_past_caches(4096, bytes);
            let mut out = vec![0; bytes.len()];
            memory.read(4096, &mut out);
            assert_eq!(out, bytes);
        }
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
