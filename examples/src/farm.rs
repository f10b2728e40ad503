//! Counting on virtual machines: the work that `wfreq` farms out.

use std::cell::RefCell;

use river::trickle::{Chunk, Progress, TrickleError, Vms};

use crate::baseline::Counted;
use crate::files::Piece;
use crate::words::Scratch;

/// Counts the pieces on the VMs, `chunk` of them at a time. Every VM counts into one table that stays there until no
/// pieces are left; then the tables are merged. Blocks until that is done; `progress` is called from time to time.
///
/// # Errors
/// If all VMs are lost, or the counting itself fails. A piece that cannot be read is no error: it is listed in the
/// result.
pub fn count(
    vms: &Vms<'_>,
    pieces: Vec<Piece>,
    chunk: impl Into<Chunk>,
    progress: impl FnMut(Progress),
) -> Result<Counted, TrickleError> {
    let mut counted =
        vms.forkfold(count_pieces, Counted::merge, pieces, chunk).on_progress(progress).run()?;
    counted.unreadable.sort_unstable();
    Ok(counted)
}

/// Runs on the VMs.
fn count_pieces(counted: &mut Counted, pieces: Vec<Piece>) {
    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
    }
    SCRATCH.with_borrow_mut(|scratch| pieces.iter().for_each(|piece| counted.add(scratch, piece)));
}
