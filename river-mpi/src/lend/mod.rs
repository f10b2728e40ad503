//! Memory that one rank lends to another: the only unsafe code of this crate, as its threads share memory in ways that the
//! compiler cannot check.
//!
//! * `loan`: parts of the buffers of a collective operation
//! * `copy`: one long copy that two ranks make together
//! * `slot`: the data of a send, readable while its rank waits for the send, or for as long as the send owns it
//! * `ring`: a single-producer, single-consumer ring of short records

mod copy;
mod loan;
pub(crate) mod ring;
mod slot;

use std::hint::spin_loop;
use std::thread::yield_now;

pub(crate) use loan::{Loan, Region};
pub(crate) use slot::{HELPED, Kept, Lease, Lender, Shown, Slots};

/// How often a wait spins before it yields the core: for about half a microsecond.
const SPINS: usize = 10;

/// How a thread waits for another thread that is at work.
#[derive(Default)]
struct Wait(usize);

impl Wait {
    /// Spins once or, after [`SPINS`] times, yields. Returns `true` if it has yielded: others could run meanwhile.
    fn once(&mut self) -> bool {
        self.0 += 1;
        if self.0 <= SPINS {
            spin_loop();
            return false;
        }
        yield_now();
        true
    }
}
