//! Counts the words of a file, or of a range, through a buffer of fixed size.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use super::counts::Counts;
use super::split::is_space;

/// The number of bytes per read past the end of a range, to find the end of its last word.
const PAST_END: usize = 4096;

/// The buffer through which files are read. One per thread; [`count_file`] reuses it.
#[derive(Debug)]
pub struct Scratch {
    buffer: Vec<u8>,
    size: usize,
}

impl Scratch {
    /// A buffer of 256 KiB: large enough for a read to take much longer than its system call, small enough to leave the
    /// table most of the second-level cache.
    #[must_use]
    pub fn new() -> Self {
        Self::with_size(256 << 10)
    }

    /// A buffer of `size` bytes, at least one. It grows for a word that does not fit, and shrinks after the file.
    #[must_use]
    pub fn with_size(size: usize) -> Self {
        let size = size.max(1);
        Self { buffer: vec![0; size], size }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts the words of a file, or those that start in the range `(from, to)` of it, and returns the number of bytes
/// that the file has in that range.
///
/// A word that starts before `to` is counted whole, even if it ends after it; one that starts before `from` belongs to
/// the previous range. So the ranges of any partition of a file add up to the whole file, in words and in bytes. Memory
/// depends only on the length of the longest word, not on the file's size. `path` should be a regular file: opening a
/// pipe waits for its other end.
///
/// # Errors
///
/// Any error of opening and reading. `counts` may then contain some of the file's words.
pub fn count_file(
    counts: &mut Counts,
    scratch: &mut Scratch,
    path: &Path,
    range: Option<(u64, u64)>,
) -> io::Result<u64> {
    let (from, to) = range.unwrap_or((0, u64::MAX));
    if from >= to {
        return Ok(0);
    }
    let mut file = File::open(path)?;
    // The byte before the range shows whether a word starts with the range.
    let first = from.saturating_sub(1);
    if first > 0 {
        file.seek(SeekFrom::Start(first))?;
    }
    let (before, limit) = (from - first, to - first);
    let read = count_stream(counts, scratch, &mut file, before == 1, limit);
    scratch.buffer.truncate(scratch.size);
    scratch.buffer.shrink_to_fit();
    Ok(read?.min(limit).saturating_sub(before))
}

/// Counts the words that start before byte `limit` of a stream, and returns the number of bytes read. With `in_word`
/// the first word is not counted, because the stream may begin in the middle of it.
fn count_stream(
    counts: &mut Counts,
    scratch: &mut Scratch,
    stream: &mut impl Read,
    mut in_word: bool,
    limit: u64,
) -> io::Result<u64> {
    let buffer = &mut scratch.buffer;
    // The first `held` bytes of the buffer are the beginning of a word and have no space.
    let (mut held, mut total) = (0, 0);
    loop {
        if held == buffer.len() {
            buffer.resize(2 * held, 0);
        }
        let free = &mut buffer[held..];
        let want = if total < limit { limit - total } else { PAST_END as u64 };
        let want = usize::try_from(want).map_or(free.len(), |want| want.min(free.len()));
        let read = match stream.read(&mut free[..want]) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let new = &buffer[held..held + read];
        // A space at `limit - 1` or later: no word that starts after it is ours.
        let last = usize::try_from((limit - 1).saturating_sub(total)).map_or(read, |skip| skip.min(read));
        let stop = new[last..].iter().position(|&byte| is_space(byte)).map(|at| last + at);
        total += read as u64;
        let Some(end) = stop.or_else(|| new.iter().rposition(|&byte| is_space(byte))) else {
            held = if in_word { 0 } else { held + read };
            continue;
        };
        let end = held + end;
        let start = match in_word {
            true => buffer[..end].iter().position(|&byte| is_space(byte)).unwrap_or(end),
            false => 0,
        };
        in_word = false;
        counts.add_text(&buffer[start..end]);
        if stop.is_some() {
            return Ok(total);
        }
        buffer.copy_within(end + 1..held + read, 0);
        held = held + read - end - 1;
    }
    if !in_word {
        counts.add_text(&buffer[..held]);
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;
    use tempfile::NamedTempFile;

    use super::*;
    use crate::words::testing::text;

    fn file(text: &[u8]) -> NamedTempFile {
        let file = NamedTempFile::new().expect("a temporary file");
        fs::write(&file, text).expect("written");
        file
    }

    fn whole(text: &[u8]) -> Counts {
        let mut counts = Counts::new();
        counts.add_text(text);
        counts
    }

    /// The words and bytes of one range.
    fn range(text: &[u8], from: u64, to: u64) -> (Vec<String>, u64) {
        let mut counts = Counts::new();
        let bytes = count_file(&mut counts, &mut Scratch::with_size(4), file(text).path(), Some((from, to)))
            .expect("readable");
        let mut words: Vec<_> =
            counts.iter().map(|(word, _)| String::from_utf8_lossy(word).into_owned()).collect();
        words.sort();
        (words, bytes)
    }

    #[test]
    fn a_range_has_the_words_that_start_in_it() {
        let text = b"one two three";
        assert_eq!(range(text, 0, 1), (vec!["one".into()], 1));
        assert_eq!(range(text, 1, 4), (vec![], 3));
        assert_eq!(range(text, 3, 4), (vec![], 1));
        assert_eq!(range(text, 4, 5), (vec!["two".into()], 1));
        assert_eq!(range(text, 4, 9), (vec!["three".into(), "two".into()], 5));
        assert_eq!(range(text, 9, 99), (vec![], 4));
        assert_eq!(range(text, 13, 99), (vec![], 0));
        assert_eq!(range(text, 50, 99), (vec![], 0));
        assert_eq!(range(text, 5, 5), (vec![], 0));
        assert_eq!(range(text, 6, 5), (vec![], 0));
        assert_eq!(range(text, 0, u64::MAX), (vec!["one".into(), "three".into(), "two".into()], 13));
    }

    #[test]
    fn the_buffer_shrinks_after_a_giant_word() {
        let (mut counts, mut scratch) = (Counts::new(), Scratch::with_size(16));
        let word = vec![b'x'; 100_000];
        let bytes = count_file(&mut counts, &mut scratch, file(&word).path(), None).expect("readable");
        assert_eq!((bytes, counts.get(&word), scratch.buffer.len()), (100_000, 1, 16));
        assert!(scratch.buffer.capacity() < 1000);
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let (mut counts, mut scratch) = (Counts::new(), Scratch::new());
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert!(count_file(&mut counts, &mut scratch, dir.path(), None).is_err());
        assert!(count_file(&mut counts, &mut scratch, &dir.path().join("none"), None).is_err());
        assert!(counts.is_empty());
    }

    proptest! {
        #[test]
        fn any_buffer_counts_the_same(text in text(), size in 1..300_usize) {
            let mut counts = Counts::new();
            let bytes = count_file(&mut counts, &mut Scratch::with_size(size), file(&text).path(), None);
            prop_assert_eq!(bytes.expect("readable"), text.len() as u64);
            prop_assert_eq!(counts, whole(&text));
        }

        #[test]
        fn any_partition_counts_the_same(
            text in text(),
            size in 1..300_usize,
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let file = file(&text);
            let (mut counts, mut scratch, mut bytes) = (Counts::new(), Scratch::with_size(size), 0);
            let mut cuts: Vec<u64> = cuts.iter().map(|cut| cut.index(text.len() + 1) as u64).collect();
            cuts.extend([0, text.len() as u64]);
            cuts.sort_unstable();
            for pair in cuts.windows(2) {
                let range = Some((pair[0], pair[1]));
                bytes += count_file(&mut counts, &mut scratch, file.path(), range).expect("readable");
            }
            prop_assert_eq!(bytes, text.len() as u64);
            prop_assert_eq!(counts, whole(&text));
        }
    }
}
