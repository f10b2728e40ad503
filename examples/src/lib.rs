//! Code that the example programs share, so that a program shows its use of River and little else.
//!
//! `wfreq`, the distributed word counter of the Trickle paper (Example 7), consists of these parts:
//!
//! - [`files`]: resolves the paths of a command line to pieces of work
//! - [`words`]: counts words, as fast as memory allows
//! - [`farm`]: counts on virtual machines
//! - [`baseline`]: counts within one process, sequentially and on threads, for comparison
//!
//! `cg`, the NAS conjugate gradient kernel, is [`mod@cg`].
//!
//! ```no_run
//! use river_examples::{baseline, files};
//!
//! let found = files::find(&["/usr/share/doc".into()], 1 << 20);
//! let counted = baseline::sequential(&found.pieces);
//! println!("{:?}", counted.counts.top(10));
//! ```
//!
//! # Layers, lowest first
//!
//! * `print`: output that is longer than a screen
//! * `cg`: the conjugate gradient kernel
//! * `words`: counting
//! * `files`: finding what to count
//! * `baseline`: counting within one process
//! * `farm`: counting on virtual machines
//! * `mr`: shared by the MapReduce programs; `mr_wordcount` and `mr_sort` also share it with the benchmark

pub mod baseline;
pub mod cg;
pub mod farm;
pub mod files;
pub mod mr;
pub mod print;
pub mod words;
