//! Buffers that are used again: what a message was sent in comes back when its receiver has read it, if that is in the
//! same process, or when it has left otherwise. Fresh memory costs more than the copy into it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Shorter ones are served well by the allocator.
const SHORTEST: usize = 512;
/// Sizes are powers of two, from `SHORTEST` on.
const CLASSES: usize = 14;
/// The most bytes that are kept.
const KEPT: usize = 16 << 20;

/// A rank's buffers.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<Free>);

#[derive(Debug, Default)]
struct Free {
    classes: [Vec<Vec<u8>>; CLASSES],
    bytes: usize,
}

/// A buffer that is on its way.
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
    /// The parts, one behind the other.
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
        buffer.extend_from_slice(second);
        Bytes::from_owner(Lent { buffer, home: self.clone() })
    }

    /// A buffer of that length that `fill` writes to.
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

/// Which class serves so many bytes; `None`: none does.
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
