//! What the steps of a plan refer to: a part of one of its buffers.

use std::fmt;
use std::ops::Range;

/// The buffers that a plan refers to. The docs of each operation, for example [`Allreduce`](super::Allreduce), define their
/// contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Buffer {
    /// The caller's data. It is only read.
    Input,
    /// The result.
    Output,
    /// Memory requested by [`Plan::scratch`](super::Plan::scratch). Its initial contents are undefined.
    Scratch,
}

/// A range of elements in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// The buffer.
    pub buffer: Buffer,
    /// The first element.
    pub start: usize,
    /// The number of elements.
    pub len: usize,
}

/// An empty message, used as a signal only.
pub const NOTHING: Span = Span { buffer: Buffer::Input, start: 0, len: 0 };

/// Elements of the input.
#[must_use]
pub fn input(range: Range<usize>) -> Span {
    Span::new(Buffer::Input, range)
}

/// Elements of the output.
#[must_use]
pub fn output(range: Range<usize>) -> Span {
    Span::new(Buffer::Output, range)
}

impl Span {
    /// Elements of a buffer.
    #[must_use]
    pub fn new(buffer: Buffer, range: Range<usize>) -> Self {
        Self { buffer, start: range.start, len: range.len() }
    }

    /// A part of this span, counted from its own beginning.
    #[must_use]
    pub fn part(self, range: Range<usize>) -> Self {
        Self { buffer: self.buffer, start: self.start + range.start, len: range.len() }
    }

    /// The range of its elements in the buffer.
    #[must_use]
    pub fn range(self) -> Range<usize> {
        self.start..self.end()
    }

    /// The end of its range in the buffer.
    #[must_use]
    pub fn end(self) -> usize {
        self.start + self.len
    }

    /// Whether the spans have an element in common. An empty span overlaps none.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.buffer == other.buffer && self.start.max(other.start) < self.end().min(other.end())
    }

    /// Whether the other span lies within this one.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.buffer == other.buffer && self.start <= other.start && other.end() <= self.end()
    }
}

/// A span is a list of one span, so that a step takes one or several spans.
impl IntoIterator for Span {
    type Item = Self;
    type IntoIter = std::iter::Once<Self>;

    fn into_iter(self) -> Self::IntoIter {
        std::iter::once(self)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.buffer {
            Buffer::Input => "input",
            Buffer::Output => "output",
            Buffer::Scratch => "scratch",
        };
        match self.len {
            0 => f.write_str("nothing"),
            _ => write!(f, "{name}[{}..{}]", self.start, self.start.saturating_add(self.len)),
        }
    }
}
