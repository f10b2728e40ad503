//! Memory that a rank lends to another one: the one place in this crate where threads share memory that the compiler cannot
//! see to be shared.
//!
//! * `loan`: parts of the buffers of a collective operation
//! * `copy`: a copy that two ranks make together
//! * `slot`: what is sent, while its rank waits for that or if the send owns it
//! * `lines`: a ring of short records, of which one rank writes and another one reads

mod copy;
pub(crate) mod lines;
mod loan;
mod slot;

use std::hint::spin_loop;
use std::thread::yield_now;

pub(crate) use loan::{Loan, Region};
pub(crate) use slot::{Kept, Lease, Lender, Shown, Slots};

/// Looks of a wait before it gives its core to others: they take about half a microsecond.
const SPINS: usize = 10;

/// How a thread waits for another one that is at work.
#[derive(Default)]
struct Wait(usize);

impl Wait {
    /// Waits a moment. True: others could have run meanwhile.
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
