//! Reuses buffers: that of a sent message returns to the pool once its receiver has read it, if it is in the same process, or
//! once the message has left the process. Fresh memory costs more than copying into it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use river_core::aliasing;

/// The smallest buffer in the pool. The allocator is fast enough for shorter ones.
const SHORTEST: usize = 512;
/// The number of sizes, which are powers of two from `SHORTEST` on.
const CLASSES: usize = 14;
/// The maximum number of bytes that are kept.
const KEPT: usize = 16 << 20;

/// The pool of a rank.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<Free>);

#[derive(Debug, Default)]
struct Free {
    classes: [Vec<Vec<u8>>; CLASSES],
    bytes: usize,
}

/// A buffer in use, which returns to its pool when it is dropped.
struct Lent {
    buffer: Vec<u8>,
    home: Arc<Pool>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        let Some(class) = class_of(buffer.capacity()) else { return };
        let mut free = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buffer.capacity() == capacity(class) && free.bytes + buffer.capacity() <= KEPT {
            free.bytes += buffer.capacity();
            free.classes[class].push(buffer);
        }
    }
}

impl Pool {
    /// Concatenates two parts in a buffer of the pool.
    pub(crate) fn join(self: &Arc<Self>, first: &[u8], second: &[u8]) -> Bytes {
        let len = first.len() + second.len();
        let Some(class) = class_of(len) else {
            let mut buffer = Vec::with_capacity(len);
            buffer.extend_from_slice(first);
            buffer.extend_from_slice(second);
            return buffer.into();
        };
        let mut buffer = self.take(class);
        buffer.clear();
        buffer.extend_from_slice(first);
        for part in
            aliasing::parts(second.as_ptr().addr(), buffer.as_ptr().addr() + first.len(), second.len())
        {
            buffer.extend_from_slice(&second[part]);
        }
        Bytes::from_owner(Lent { buffer, home: self.clone() })
    }

    /// Returns a buffer of this length that `fill` has written to.
    pub(crate) fn filled(self: &Arc<Self>, len: usize, fill: impl FnOnce(&mut [u8])) -> Bytes {
        let Some(class) = class_of(len) else {
            let mut buffer = vec![0; len];
            fill(&mut buffer);
            return buffer.into();
        };
        let mut buffer = self.take(class);
        buffer.resize(len, 0);
        fill(&mut buffer);
        Bytes::from_owner(Lent { buffer, home: self.clone() })
    }

    fn take(&self, class: usize) -> Vec<u8> {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match free.classes[class].pop() {
            Some(buffer) => {
                free.bytes -= buffer.capacity();
                buffer
            }
            None => Vec::with_capacity(capacity(class)),
        }
    }
}

/// The size class for this many bytes; `None` if there is none.
fn class_of(len: usize) -> Option<usize> {
    if len <= SHORTEST / 2 {
        return None;
    }
    let class = (len.next_power_of_two() / SHORTEST).trailing_zeros() as usize;
    (class < CLASSES).then_some(class)
}

fn capacity(class: usize) -> usize {
    SHORTEST << class
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_the_last_handle_is_gone() {
        let pool = Arc::new(Pool::default());
        let data = vec![7; 5000];
        let bytes = pool.join(b"head", &data);
        assert_eq!((&bytes[..4], &bytes[4..]), (&b"head"[..], &data[..]));
        let (at, slice) = (bytes.as_ptr().addr(), bytes.slice(4..));
        drop(bytes);
        assert_ne!(pool.join(&[], &data).as_ptr().addr(), at);
        drop(slice);
        assert_eq!(pool.join(&[], &data).as_ptr().addr(), at);
    }

    #[test]
    fn every_length_has_room() {
        let pool = Arc::new(Pool::default());
        for len in [0, 1, 256, 257, 512, 513, 1 << 20, 4 << 20, (4 << 20) + 1, 9 << 20] {
            assert_eq!(pool.join(&[], &vec![1; len]).len(), len);
        }
    }
}
