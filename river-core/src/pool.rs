//! A pool of memory for large payloads: touching fresh memory for the first time costs more than filling it.
//!
//! Memory returns to the pool when the last owner of its payload drops it, on any thread.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// The most bytes that are kept for later.
const KEEP: usize = if cfg!(test) { 4 << 20 } else { 256 << 20 };
/// The most pieces of memory that are kept.
const PIECES: usize = 64;
/// A piece of memory is not used for a payload of less than this fraction of it.
const WASTE: usize = 4;
/// Memory is allocated in multiples of this, so that payloads of similar size can reuse it.
const GRAIN: usize = 64 << 10;

/// A process's memory for incoming payloads.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<Free>);

/// The memory that is not in use, the oldest first.
#[derive(Debug, Default)]
struct Free {
    pieces: Vec<Vec<u8>>,
    bytes: usize,
    /// The number of payloads that will return their memory.
    lent: usize,
}

impl Pool {
    /// Returns memory of at least this many bytes, with arbitrary contents.
    pub(crate) fn take(&self, len: usize) -> Vec<u8> {
        let mut free = self.lock();
        // The youngest piece that fits is the most likely to be still cached.
        let fits = |piece: &Vec<u8>| piece.len() >= len && piece.len() / WASTE <= len;
        if let Some(index) = free.pieces.iter().rposition(fits) {
            let piece = free.pieces.remove(index);
            free.bytes -= piece.len();
            return piece;
        }
        drop(free);
        vec![0; len.next_multiple_of(GRAIN)]
    }

    /// Returns a payload that is this part of the memory, which returns to the pool afterwards.
    pub(crate) fn lend(self: &Arc<Self>, memory: Vec<u8>, range: Range<usize>) -> Bytes {
        self.lock().lent += 1;
        Bytes::from_owner(Loan { memory, range, pool: self.clone() })
    }

    /// Returns unused memory to the system.
    pub(crate) fn clear(&self) {
        let mut free = self.lock();
        free.bytes = 0;
        let pieces = std::mem::take(&mut free.pieces);
        drop(free);
        drop(pieces);
    }

    /// Whether there is nothing to return to the system, now or later.
    pub(crate) fn is_idle(&self) -> bool {
        let free = self.lock();
        free.pieces.is_empty() && free.lent == 0
    }

    fn give(&self, memory: Vec<u8>) {
        // Freed after the lock is released.
        let mut superfluous = Vec::new();
        let mut free = self.lock();
        free.lent -= 1;
        if memory.len() > KEEP {
            return;
        }
        while free.bytes + memory.len() > KEEP || free.pieces.len() >= PIECES {
            let oldest = free.pieces.remove(0);
            free.bytes -= oldest.len();
            superfluous.push(oldest);
        }
        free.bytes += memory.len();
        free.pieces.push(memory);
        drop(free);
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory on loan.
struct Loan {
    memory: Vec<u8>,
    range: Range<usize>,
    pool: Arc<Pool>,
}

impl AsRef<[u8]> for Loan {
    fn as_ref(&self) -> &[u8] {
        &self.memory[self.range.clone()]
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.memory));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_once_nobody_shares_the_payload() {
        let pool = Arc::new(Pool::default());
        let start = |memory: &Vec<u8>| memory.as_ptr().addr();
        let memory = pool.take(100_000);
        let first = start(&memory);
        let payload = pool.lend(memory, 64..1064);
        let part = payload.slice(10..20);
        assert_eq!(payload.len(), 1000);
        drop(payload);
        assert!(!pool.is_idle());
        assert_ne!(start(&pool.take(100_000)), first, "a part is still in use");
        drop(part);
        assert_eq!(start(&pool.take(90_000)), first);
        assert!(pool.is_idle());
    }

    #[test]
    fn what_is_kept_is_bounded_and_fits() {
        let pool = Arc::new(Pool::default());
        let loans: Vec<_> = (0..10).map(|_| pool.lend(pool.take(1 << 20), 0..1)).collect();
        drop(loans);
        assert!(pool.lock().bytes <= KEEP);
        assert!(pool.take(1 << 10).len() < 1 << 20, "a large piece is not wasted on a small payload");
        drop(pool.lend(vec![0; KEEP + 1], 0..1));
        assert!(pool.lock().bytes <= KEEP);
        pool.clear();
        assert!(pool.is_idle());
    }
}
