//! How work is cut into pieces.

/// How many items travel together: a plain number, such as `10`, is a fixed size.
///
/// A larger chunk costs fewer messages, a smaller one balances better between VMs of different speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Chunk {
    /// So many items; the last chunk may be smaller.
    Fixed(usize),
}

impl From<usize> for Chunk {
    fn from(size: usize) -> Self {
        Chunk::Fixed(size)
    }
}
