//! Counts within one process, with the same kernel: the baseline of the distributed program.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use serde::{Deserialize, Serialize};

use crate::files::{Piece, Problem};
use crate::words::{Counts, Scratch, count_file};

/// The number of bytes that a thread takes at a time, in whole pieces. Enough to make the shared counter cheap, few
/// enough for all threads to end at about the same time.
const SHARE: u64 = 256 << 10;

/// The result of counting some pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// The words.
    pub counts: Counts,
    /// How many bytes were counted.
    pub bytes: u64,
    /// The pieces that could not be read, by path. Words before the error are in `counts`; the bytes of these pieces
    /// are not in `bytes`.
    pub unreadable: Vec<Problem>,
}

impl Counted {
    /// Counts another piece.
    pub fn add(&mut self, scratch: &mut Scratch, piece: &Piece) {
        match count_file(&mut self.counts, scratch, piece.path(), piece.range) {
            Ok(bytes) => self.bytes += bytes,
            Err(error) => self.unreadable.push(Problem::new(piece.path(), &error)),
        }
    }

    /// Adds another result to this one.
    pub fn merge(&mut self, mut other: Self) {
        self.counts.merge(&other.counts);
        self.bytes += other.bytes;
        self.unreadable.append(&mut other.unreadable);
    }
}

/// Counts the pieces one after the other, on the calling thread.
#[must_use]
pub fn sequential(pieces: &[Piece]) -> Counted {
    let (mut counted, mut scratch) = (Counted::default(), Scratch::new());
    for piece in pieces {
        counted.add(&mut scratch, piece);
    }
    counted.unreadable.sort_unstable();
    counted
}

/// Counts the pieces on `threads` threads of its own pool (0: one per core). Blocks until all are counted.
///
/// Each thread has one table and takes some pieces whenever it is idle, so no table is made twice and no thread waits
/// for a slow file; the tables are merged in pairs. (`fold` and `reduce` of a parallel iterator would make a table for
/// each of its splits.)
///
/// # Errors
///
/// If the threads cannot be started.
pub fn rayon(pieces: &[Piece], threads: usize) -> Result<Counted, ThreadPoolBuildError> {
    let name = |index| format!("wfreq-count-{index}");
    let pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(name).build()?;
    Ok(on_pool(&pool, pieces))
}

fn on_pool(pool: &ThreadPool, pieces: &[Piece]) -> Counted {
    let shares = shares(pieces);
    let next = AtomicUsize::new(0);
    let mut parts = pool.broadcast(|_| {
        let (mut counted, mut scratch) = (Counted::default(), Scratch::new());
        // Relaxed: only the number decides which thread counts which pieces, and the pieces existed before the threads.
        while let Some(share) = shares.get(next.fetch_add(1, Ordering::Relaxed)) {
            for piece in *share {
                counted.add(&mut scratch, piece);
            }
        }
        counted
    });
    let mut counted = pool.install(|| merge(&mut parts));
    counted.unreadable.sort_unstable();
    counted
}

/// Cuts the work into runs of pieces of about [`SHARE`] bytes.
fn shares(pieces: &[Piece]) -> Vec<&[Piece]> {
    let mut shares = Vec::new();
    let (mut start, mut bytes) = (0, 0_u64);
    for (piece, end) in pieces.iter().zip(1..) {
        bytes = bytes.saturating_add(piece.len);
        if bytes >= SHARE || end == pieces.len() {
            shares.push(&pieces[start..end]);
            (start, bytes) = (end, 0);
        }
    }
    shares
}

/// Merges in pairs, the pairs in parallel: the number of rounds is the logarithm of the number of parts.
fn merge(parts: &mut [Counted]) -> Counted {
    match parts {
        [] => Counted::default(),
        [part] => std::mem::take(part),
        parts => {
            let (left, right) = parts.split_at_mut(parts.len() / 2);
            let (mut left, right) = rayon::join(|| merge(left), || merge(right));
            left.merge(right);
            left
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::files::find;

    #[test]
    fn all_ways_of_counting_agree() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for i in 0..50 {
            let text = format!("file number {i} of fifty, ").repeat(i * i);
            fs::write(dir.path().join(format!("{i}.txt")), text).expect("written");
        }
        let whole = sequential(&find(&[dir.path().into()], u64::MAX).pieces);
        assert_eq!(whole.counts.get(b"file"), (0..50).map(|i| i * i).sum::<u64>());
        let found = find(&[dir.path().into()], 1000);
        assert_eq!(whole.bytes, found.bytes);
        assert_eq!(sequential(&found.pieces), whole);
        for threads in 1..=5 {
            assert_eq!(rayon(&found.pieces, threads).expect("threads"), whole);
        }
        assert_eq!(rayon(&[], 3).expect("threads"), Counted::default());
    }

    #[test]
    fn what_is_gone_does_not_lose_the_rest() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (here, gone) = (dir.path().join("here"), dir.path().join("gone"));
        fs::write(&here, "some words").expect("written");
        let pieces = [&gone, &here, &gone].map(|path: &std::path::PathBuf| Piece::whole(Path::new(path), 10));
        for counted in [sequential(&pieces), rayon(&pieces, 2).expect("threads")] {
            assert_eq!((counted.counts.total(), counted.bytes, counted.unreadable.len()), (2, 10, 2));
            assert_eq!(counted.unreadable[0].path, gone);
        }
    }

    #[test]
    fn shares_have_every_piece_once() {
        let pieces: Vec<Piece> =
            (0..1000).map(|i| Piece::whole(Path::new(&format!("/{i}")), i * 1000)).collect();
        let shares = shares(&pieces);
        assert_eq!(shares.concat(), pieces);
        assert!(shares.len() > 100 && shares.iter().all(|share| !share.is_empty()));
    }
}
