//! The caller's memory that a message is received into or sent from.

use crate::element::{self, Element};
use crate::engine::Arrival;
use crate::error::{MpiError, Result};
use crate::header::Receipt;

/// The memory of an operation.
pub(crate) enum Target<'a> {
    /// Sends need no target.
    Nothing,
    /// The slice that a send borrows.
    Source(&'a [u8]),
    /// Elements for which any bytes are valid, and their size.
    Bytes(&'a mut [u8], usize),
    /// Elements that are checked when they are written, or scattered by a datatype.
    Other(Box<dyn Fill + 'a>),
}

/// Memory with its own way of storing a message.
pub(crate) trait Fill {
    /// The longest message that fits, in bytes.
    fn room(&self) -> usize;

    /// The size of which a message's length must be a multiple.
    fn size(&self) -> usize;

    /// Stores a message that fits.
    fn fill(&mut self, bytes: &[u8]) -> Result;
}

impl<'a> Target<'a> {
    /// Checks the length of a message that is in this memory already.
    #[inline]
    pub(crate) fn has(&self, message: Receipt) -> Result {
        match self {
            Self::Bytes(_, size) => whole(message, *size),
            _ => Ok(()),
        }
    }

    pub(crate) fn slice<T: Element>(slice: &'a mut [T]) -> Self {
        // Checked first, with an empty slice: the answer depends on the type only.
        if element::bytes_of_mut::<T>(&mut []).is_none() {
            return Self::Other(Box::new(Checked(slice)));
        }
        element::bytes_of_mut(slice).map_or(Self::Nothing, |bytes| Self::Bytes(bytes, size_of::<T>()))
    }

    /// The longest message that fits, in bytes.
    pub(crate) fn room(&self) -> usize {
        match self {
            Self::Nothing | Self::Source(_) => 0,
            Self::Bytes(bytes, _) => bytes.len(),
            Self::Other(other) => other.room(),
        }
    }

    /// Stores a message.
    pub(crate) fn take(&mut self, arrival: &Arrival) -> Result {
        let (sent, room) = (arrival.len(), self.room());
        if sent > room {
            let key = arrival.header.key;
            return Err(MpiError::Truncated { source_rank: key.source as usize, tag: key.tag, sent, room });
        }
        match self {
            Self::Nothing | Self::Source(_) => Ok(()),
            Self::Bytes(bytes, size) => {
                arrival.copy_to(bytes);
                whole(arrival.header.receipt(), *size)
            }
            Self::Other(other) => {
                whole(arrival.header.receipt(), other.size())?;
                arrival.read(|bytes| other.fill(bytes))
            }
        }
    }
}

/// Fails if a message is not a whole number of elements of this size.
#[inline]
pub(crate) fn whole(message: Receipt, size: usize) -> Result {
    if size == 0 || message.length.is_multiple_of(size as u64) { Ok(()) } else { Err(broken(message, size)) }
}

#[cold]
fn broken(Receipt { source, tag, length }: Receipt, size: usize) -> MpiError {
    MpiError::Type(format!(
        "the message from rank {source} with tag {tag} has {length} bytes, which is no whole number of elements of {size} bytes"
    ))
}

/// Elements that are checked one by one.
struct Checked<'a, T>(&'a mut [T]);

impl<T: Element> Fill for Checked<'_, T> {
    fn room(&self) -> usize {
        size_of_val(self.0)
    }

    fn size(&self) -> usize {
        size_of::<T>()
    }

    fn fill(&mut self, bytes: &[u8]) -> Result {
        let size = size_of::<T>().max(1);
        element::fill(&mut self.0[..bytes.len() / size], bytes)
    }
}
