//! The root scatters the vector in a binomial tree, and a ring allgathers the pieces.
//!
//! Cost: `ceil(log2 p) + p - 1` rounds, `2 n (p - 1) / p` bytes: for long vectors twice the time that one link needs for the
//! vector, however many ranks there are.
//!
//! R. van de Geijn: On Global Combine Operations (1994); M. Barnett et al.: Interprocessor Collective
//! Communication Library (1994).

use crate::coll::algorithm::Algorithm;
use crate::coll::plan::Plan;
use crate::coll::shape::{Shape, shares};
use crate::coll::span::{Span, output};
use crate::coll::tree;

use super::Bcast;

/// See the [module](self).
#[derive(Clone, Copy, Debug, Default)]
pub struct ScatterAllgather;

impl Algorithm<Bcast> for ScatterAllgather {
    fn name(&self) -> &str {
        "scatter_allgather"
    }

    fn plan(&self, rank: usize, shape: &Shape, plan: &mut Plan) {
        let p = shape.size();
        // Piece `i` belongs to the i-th rank, counted from the root.
        let pieces = |range| -> Span { output(shares(shape.count(), p, range)) };

        let node = tree::Binomial::new(rank, shape.root(), p);
        if let Some(parent) = node.parent() {
            plan.recv(pieces(node.subtree()), parent);
        }
        for child in node.children().rev() {
            plan.send(pieces(child.subtree()), child.rank());
        }

        let me = node.subtree().start;
        let (before, after) = ((rank + p - 1) % p, (rank + 1) % p);
        // Pieces that a subtree got in the scatter are not sent to it again.
        let known_after = tree::Binomial::new(after, shape.root(), p).subtree();
        for step in 0..p - 1 {
            let (sent, received) = ((me + p - step) % p, (me + p - step - 1) % p);
            if !known_after.contains(&sent) {
                plan.send(pieces(sent..sent + 1), after);
            }
            if !node.subtree().contains(&received) {
                plan.recv(pieces(received..received + 1), before);
            }
        }
    }
}
