//! A long message between processes is copied by both of its ranks, if the sender does nothing but wait for it: the receiver
//! reads the first half from the sender's memory, and the sender writes the second half into the receiver's.
//!
//! The receiver says in a line of the ring from the sender (see [`ring`](crate::lend::ring)) where the second half belongs.
//! The first word of that line decides who copies it:
//!
//! ```text
//!            receiver          sender             sender
//!   IDLE ------------> OPEN ----------> TAKEN ----------> DONE or FAILED
//!     ^                  |                                       |
//!     |     receiver     |               receiver                |
//!     +------------------+---------------------------------------+
//! ```
//!
//! Whoever has taken the second half may write it: the receiver does not return before the sender is done with it, or has
//! ended. Before a sender writes for the first time, it makes sure that the process that it takes for the receiver's is that.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};
use std::io::{IoSlice, IoSliceMut};
use std::sync::LazyLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::thread::yield_now;
use std::time::{Duration, Instant};

use nix::sys::uio::{RemoteIoVec, process_vm_readv, process_vm_writev};
use nix::unistd::Pid;
use river_core::{Line, aliasing};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open, test_kill_process};

use super::cma::PROCESS;
use super::detour;
use crate::lend::Lender;

/// In the lowest bits of the first word, above which it holds the number of the offer; all 0 while it is idle.
const STATES: u64 = 3;
const OPEN: u64 = 0;
const TAKEN: u64 = 1;
const DONE: u64 = 2;
const FAILED: u64 = 3;

/// The words of the line.
const WORD: usize = 0;
/// Where the second half belongs, in the receiver's process.
const ADDRESS: usize = 1;
const RECEIVER: usize = 2;
/// Where the receiver's [`TOKEN`] is, and its value.
const TOKEN_AT: usize = 3;
const TOKEN_IS: usize = 4;

/// A random number by which other processes recognise this one.
static TOKEN: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));

/// How often a waiting receiver looks before it yields its core.
const LOOKS: usize = 10;
/// A half is copied in less time than this, unless the other process does not run.
const MOMENT: Duration = Duration::from_millis(2);
/// How long a receiver then sleeps before it looks again.
const NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000 };

/// Returns the length of the first half.
pub(super) fn half(len: usize) -> usize {
    (len / 2).next_multiple_of(4 << 10).min(len)
}

/// The second half of a message that is being read, while its sender may write it.
pub(super) struct Second<'a> {
    line: &'a Line,
    number: u64,
    sender: u64,
    bytes: &'a mut [u8],
}

/// What has become of a second half.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome<'a> {
    /// Its sender has written it.
    Written,
    /// Nobody has, or will.
    Left(&'a mut [u8]),
}

impl<'a> Second<'a> {
    /// Lets the process `sender`, whose memory could be read before, write the second half of its offer of this number.
    pub(super) fn open(line: &'a Line, number: u64, sender: u64, bytes: &'a mut [u8]) -> Self {
        let words = [
            (ADDRESS, bytes.as_mut_ptr().expose_provenance() as u64),
            (RECEIVER, (*PROCESS).into()),
            (TOKEN_AT, std::ptr::from_ref(&*TOKEN).expose_provenance() as u64),
            (TOKEN_IS, *TOKEN),
        ];
        words.into_iter().for_each(|(at, word)| line.0[at].store(word, Relaxed));
        line.0[WORD].store(number | OPEN, Release);
        Self { line, number, sender, bytes }
    }

    /// Returns once the sender does not write, and will not.
    pub(super) fn close(mut self) -> Outcome<'a> {
        let bytes = std::mem::take(&mut self.bytes);
        if self.end() { Outcome::Written } else { Outcome::Left(bytes) }
    }

    /// Returns whether the sender has written it.
    fn end(&self) -> bool {
        let word = &self.line.0[WORD];
        if word.compare_exchange(self.number | OPEN, 0, Relaxed, Relaxed).is_ok() {
            return false;
        }
        let written = wait_while_taken(word, self.number, self.sender);
        word.store(0, Relaxed);
        written
    }
}

impl Drop for Second<'_> {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            self.end();
        }
    }
}

/// Waits until the process `sender`, which has taken a second half, has written it or has ended. Returns whether it has
/// written it.
fn wait_while_taken(word: &AtomicU64, number: u64, sender: u64) -> bool {
    let start = Instant::now();
    loop {
        for _ in 0..LOOKS {
            match word.load(Acquire) {
                // Anything else was written by a sender that breaks the protocol; then it may as well be over.
                taken if taken != number | TAKEN => return taken == number | DONE,
                _ => std::hint::spin_loop(),
            }
        }
        yield_now();
        if start.elapsed() >= MOMENT && has_ended(sender) {
            return word.load(Acquire) == number | DONE;
        }
    }
}

/// Waits until a process and all of its threads have ended, but no longer than [`NAP`]. Returns whether they have.
fn has_ended(process: u64) -> bool {
    let id = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
    let Some(id) = id else { return true };
    match pidfd_open(id, PidfdFlags::empty()) {
        Ok(process) => {
            let mut polled = [PollFd::new(&process, PollFlags::IN)];
            poll(&mut polled, Some(&NAP)).is_ok_and(|ready| ready > 0)
        }
        // An older kernel, or a sandbox: the process is there until its parent knows that it has ended.
        Err(_) => test_kill_process(id) == Err(rustix::io::Errno::SRCH),
    }
}

/// A second half that its sender can take.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    line: &'a Line,
    number: u64,
}

impl<'a> Asked<'a> {
    /// Returns what the reader of this line's ring asks for, if anything.
    #[inline]
    pub(super) fn of(line: &'a Line) -> Option<Self> {
        let number = line.0[WORD].load(Acquire);
        (number != 0 && number & STATES == OPEN).then_some(Self { line, number })
    }

    /// Writes the second half of a message that this rank is waiting to be read; returns `true` if it did. `trusted` says
    /// whether it may write into the process of this receiver, if it knows already.
    pub(super) fn help(&self, lender: &Lender, trusted: &Cell<Option<bool>>) -> bool {
        let write = |data: &[u8]| {
            let may_write = trusted.get().unwrap_or_else(|| self.is_there());
            let written = if may_write { self.write(data) } else { None };
            // If writing has failed, the system does not let this rank write there.
            trusted.set(Some(may_write && written != Some(false)));
            written == Some(true)
        };
        lender.with_long(self.number, write).unwrap_or(false)
    }

    /// Writes the second half of the message. Returns whether that succeeded, or `None` if the receiver does not want it any
    /// more.
    fn write(&self, data: &[u8]) -> Option<bool> {
        let word = &self.line.0[WORD];
        let [address, receiver] = [ADDRESS, RECEIVER].map(|at| self.line.0[at].load(Relaxed));
        // If this succeeds, what was read before belongs to this offer.
        word.compare_exchange(self.number | OPEN, self.number | TAKEN, AcqRel, Relaxed).ok()?;
        let second = &data[half(data.len())..];
        let written = usize::try_from(address).ok().zip(process(receiver));
        let all = written.is_some_and(|(address, receiver)| write(receiver, second, address));
        word.store(self.number | if all { DONE } else { FAILED }, Release);
        Some(all)
    }

    /// Whether the receiver's process is the one by the number that it says. (In another namespace, that number may be
    /// another process's.)
    fn is_there(&self) -> bool {
        let [receiver, at, token] = [RECEIVER, TOKEN_AT, TOKEN_IS].map(|at| self.line.0[at].load(Relaxed));
        let mut found = [0; size_of::<u64>()];
        let read = (|| {
            let remote = RemoteIoVec { base: usize::try_from(at).ok()?, len: found.len() };
            process_vm_readv(process(receiver)?, &mut [IoSliceMut::new(&mut found)], &[remote]).ok()
        })();
        read == Some(found.len()) && u64::from_ne_bytes(found) == token
    }
}

/// Copies bytes into the memory of a process. Returns whether that succeeded.
fn write(process: Pid, bytes: &[u8], address: usize) -> bool {
    let straight = |bytes: &[u8], base: usize| {
        let remote = RemoteIoVec { base, len: bytes.len() };
        process_vm_writev(process, &[IoSlice::new(bytes)], &[remote]) == Ok(bytes.len())
    };
    if !aliasing::aliases(bytes.as_ptr().addr(), address) {
        return straight(bytes, address);
    }
    bytes.chunks(detour::PART).enumerate().all(|(number, part)| {
        let address = address.wrapping_add(number * detour::PART);
        detour::with_room(address, part.len(), |room| {
            aliasing::copy(part, room);
            straight(room, address)
        })
    })
}

fn process(number: u64) -> Option<Pid> {
    i32::try_from(number).ok().filter(|&number| number > 0).map(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::rc::Rc;

    use super::*;
    use crate::lend::{HELPED, Shown};

    fn data(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at % 251) as u8).collect()
    }

    /// Calls `body` with the number of an offer of this data while its sender waits for that.
    fn while_shown(data: &[u8], body: impl FnOnce(&Lender, u64)) {
        let lender = Rc::new(Lender::new());
        let lease = lender.lease(data).unwrap();
        let number = lease.number();
        lender.show(&[Shown { number, data }], || body(&lender, number));
    }

    #[test]
    fn a_sender_that_waits_writes_the_second_half() {
        for len in [HELPED, HELPED + 1, 100_000, 1 << 20] {
            let (data, line, mut out) = (data(len), Line::default(), vec![0; len]);
            let (first, second) = out.split_at_mut(half(len));
            first.copy_from_slice(&data[..half(len)]);
            while_shown(&data, |lender, number| {
                assert!(Asked::of(&line).is_none());
                let asked = Second::open(&line, number, (*PROCESS).into(), second);
                assert!(Asked::of(&line).unwrap().help(lender, &Cell::default()));
                assert!(Asked::of(&line).is_none(), "it is written once");
                assert_eq!(asked.close(), Outcome::Written);
            });
            assert!(out == data, "{len}");
        }
    }

    #[test]
    fn bytes_are_written_wherever_they_lie_and_belong() {
        let (data, this) = (data(2 * detour::PART + 100), process((*PROCESS).into()).unwrap());
        let mut out = vec![0; data.len() + 2 * 4096];
        for behind in 0..64 {
            let start = (data.as_ptr().addr() + behind).wrapping_sub(out.as_ptr().addr()) % 4096;
            let place = &mut out[start..start + data.len()];
            place.fill(0);
            assert!(write(this, &data, place.as_mut_ptr().expose_provenance()));
            assert!(place == data, "{behind} behind");
        }
        assert!(!write(this, &data, usize::MAX - 3));
    }

    #[test]
    fn what_nobody_writes_is_left_to_the_receiver_and_not_written_later() {
        let (data, line, mut out) = (data(HELPED), Line::default(), vec![0; HELPED / 2]);
        while_shown(&data, |lender, number| {
            let asked = Second::open(&line, number + 4, (*PROCESS).into(), &mut out);
            let late = Asked::of(&line).unwrap();
            assert!(!late.help(lender, &Cell::default()), "that is another offer");
            assert!(matches!(asked.close(), Outcome::Left(_)));
            let late = Asked { line: &line, number };
            assert!(!late.help(lender, &Cell::default()));
        });
        assert!(out.iter().all(|&byte| byte == 0));
    }

    #[test]
    fn nothing_is_written_into_a_process_that_is_not_the_receiver() {
        let (data, line, mut out) = (data(HELPED), Line::default(), vec![0; HELPED / 2]);
        while_shown(&data, |lender, number| {
            let asked = Second::open(&line, number, (*PROCESS).into(), &mut out);
            line.0[TOKEN_IS].fetch_xor(1, Relaxed);
            let trusted = Cell::default();
            assert!(!Asked::of(&line).unwrap().help(lender, &trusted));
            assert_eq!(trusted.get(), Some(false));
            assert!(matches!(asked.close(), Outcome::Left(_)));
        });
        assert!(out.iter().all(|&byte| byte == 0));
    }

    #[test]
    fn a_sender_that_cannot_write_says_so_and_does_not_try_again() {
        let (data, line, mut out) = (data(HELPED), Line::default(), vec![0; HELPED / 2]);
        while_shown(&data, |lender, number| {
            let asked = Second::open(&line, number, (*PROCESS).into(), &mut out);
            line.0[ADDRESS].store(8, Relaxed);
            let trusted = Cell::default();
            assert!(!Asked::of(&line).unwrap().help(lender, &trusted));
            assert_eq!(trusted.get(), Some(false));
            assert!(matches!(asked.close(), Outcome::Left(_)));
        });
    }

    #[test]
    fn a_receiver_waits_until_the_sender_has_written_or_has_ended() {
        let (line, mut out) = (Line::default(), vec![0; 8]);
        for reaped in [true, false] {
            let mut sender = Command::new("sleep").arg("60").spawn().unwrap();
            let asked = Second::open(&line, 4, sender.id().into(), &mut out);
            line.0[WORD].store(4 | TAKEN, Relaxed);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    sender.kill().unwrap();
                    if reaped {
                        sender.wait().unwrap();
                    }
                });
                assert!(matches!(asked.close(), Outcome::Left(_)));
            });
            sender.wait().unwrap();
        }
        let mut sender = Command::new("sleep").arg("60").spawn().unwrap();
        let asked = Second::open(&line, 8, sender.id().into(), &mut out);
        line.0[WORD].store(8 | TAKEN, Relaxed);
        std::thread::scope(|scope| {
            scope.spawn(|| line.0[WORD].store(8 | DONE, Release));
            assert_eq!(asked.close(), Outcome::Written);
        });
        sender.kill().unwrap();
        sender.wait().unwrap();
    }

    #[test]
    fn both_can_be_at_it_at_any_time() {
        let (line, data) = (Line::default(), data(2 * HELPED));
        let middle = half(data.len());
        let done = std::sync::atomic::AtomicBool::new(false);
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while_shown(&data, |lender, number| {
                    sender.send(number).unwrap();
                    let trusted = Cell::default();
                    while !done.load(Relaxed) {
                        if let Some(asked) = Asked::of(&line) {
                            asked.help(lender, &trusted);
                        }
                    }
                });
            });
            let number = receiver.recv().unwrap();
            for round in 0..2000_usize {
                let mut out = vec![0; data.len() - middle];
                let asked = Second::open(&line, number, (*PROCESS).into(), &mut out);
                for _ in 0..round % 50 {
                    std::hint::spin_loop();
                }
                match asked.close() {
                    Outcome::Written => assert!(out == data[middle..]),
                    Outcome::Left(second) => assert!(second.iter().all(|&byte| byte == 0)),
                }
            }
            done.store(true, Relaxed);
        });
    }
}
