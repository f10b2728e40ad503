//! A detour for data that the kernel copies between processes from one address to another that
//! [aliases](river_core::aliasing) it. How the kernel copies cannot be chosen. So it is given a buffer that lies in its page as
//! the other process's data does, and the other copy, between the buffer and this process's data, is made here.

use std::cell::RefCell;

/// The longest part that takes the detour at once: a part is still cached when it is copied on.
pub(super) const PART: usize = 128 << 10;
const PAGE: usize = 4096;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Calls `body` with `len` bytes of the buffer, at most [`PART`], that begin as far behind the start of a page as the address
/// `like`.
pub(super) fn with_room<R>(like: usize, len: usize, body: impl FnOnce(&mut [u8]) -> R) -> R {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(PAGE + PART, 0);
        let start = like.wrapping_sub(buffer.as_ptr().addr()) % PAGE;
        body(&mut buffer[start..start + len])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_lies_in_its_page_as_asked_for() {
        for (like, len) in [(0, 1), (1, PART), (PAGE - 1, PART), (0x1234_5678, 100)] {
            let found = with_room(like, len, |room| (room.as_ptr().addr() % PAGE, room.len()));
            assert_eq!(found, (like % PAGE, len));
        }
    }
}
