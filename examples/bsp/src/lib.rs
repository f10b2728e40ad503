//! Bulk-synchronous parallel programs: processes compute on local data, and exchange data between *supersteps*.
//!
//! The model is Valiant's (*A bridging model for parallel computation*, 1990), the operations those of `BSPlib` (Hill
//! and others, 1998): the one-sided `put` and `get` move values between the memories of processes; both take effect at
//! the next `sync`, which ends the superstep for all. A memory is a set of named values of any type that serde
//! supports.
//!
//! ```
//! use bsp::Bsp;
//!
//! /// The sum of all processes' values, on each of them, in log2(p) supersteps.
//! fn sum(bsp: &mut Bsp<'_>, values: Vec<i64>) -> river_core::Result<i64> {
//!     let (mut sum, mut distance) = (values[bsp.pid()], 1);
//!     while distance < bsp.nprocs() {
//!         bsp.put((bsp.pid() + distance) % bsp.nprocs(), "partial", &sum);
//!         bsp.sync()?;
//!         sum += bsp.value::<i64>("partial")?;
//!         distance *= 2;
//!     }
//!     Ok(sum)
//! }
//!
//! # fn main() -> river_core::Result {
//! river_core::try_run(|vr| {
//!     let vms = vr.start_local(4)?; // or: vr.allocate(vr.discover(Query { idle_only: true, ..Query::default() })?, ..)?
//!     assert_eq!(bsp::spmd(vr, &vms, sum, vec![1, 20, 300, 4000])?, [4321; 4]);
//!     Ok(())
//! })
//! # }
//! ```
//!
//! In a superstep each process sends every other process one message, with all its puts and gets there, and one more as
//! the answer to that process's gets, if any. If a process dies, or ends while others go on, all the others get an
//! error.

mod process;

use std::collections::HashMap;
use std::marker::PhantomData;

use process::{Function, Process};
use river_core::code::code_ptr;
use river_core::{Result, VmInfo, Vr, VrError, VrId};
use river_sfm::{Message, RecvError, Sfm, msg, pat};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Runs a function as a process on each of the VMs (two processes on a VM that is listed twice), and returns their
/// results. It must be a function or a closure that captures nothing; `args` are the arguments of all processes.
///
/// # Errors
/// As [`Vr::deploy`], and the error of a process that failed.
///
/// # Blocking
/// Until all processes have ended.
pub fn spmd<A, R, F>(vr: &Vr, vms: &[VmInfo], f: F, args: A) -> Result<Vec<R>>
where
    A: Serialize + DeserializeOwned + 'static,
    R: Serialize + DeserializeOwned + 'static,
    F: Fn(&mut Bsp<'_>, A) -> Result<R> + Copy + Send + 'static,
{
    let code = code_ptr::<Function<A, R>, F>(f);
    let processes = vr.deploy(vms, |pid| Process { pid, code })?;
    vr.multicast(processes.ids(), msg! { tag: "bsp start", ids: processes.ids(), args: args })?;
    let (mut results, mut failure, mut others) = (Vec::new(), None, Vec::new());
    for id in processes.iter() {
        // Even after a failure, so that no notice of this computation is left for the next one.
        loop {
            match vr.recv(pat! { src: id, tag: "bsp end" }) {
                Ok(end) => results.push(end.get("result")?),
                Err(RecvError::Down(down)) if !processes.ids().contains(&down.who) => {
                    others.push(down.who);
                    continue;
                }
                Err(RecvError::Down(down)) if down.who != id => {
                    failure.get_or_insert(RecvError::Down(down));
                    continue;
                }
                Err(error) => drop(failure.get_or_insert(error)),
            }
            break;
        }
    }
    // That is news for whoever receives next.
    others.into_iter().for_each(|who| vr.watch(who));
    failure.map_or(Ok(results), |error| Err(error.into()))
}

/// A process's handle to the computation.
#[derive(Debug)]
pub struct Bsp<'v> {
    vr: &'v Vr,
    pid: usize,
    ids: Vec<VrId>,
    step: u64,
    /// Each value is stored as the attribute `value` of a message.
    memory: HashMap<String, Message>,
    /// What to send to each process at the end of this superstep.
    outbox: Vec<Outgoing>,
    got: Vec<Message>,
}

#[derive(Clone, Debug, Default)]
struct Outgoing {
    /// The values to put, by name.
    puts: Message,
    /// The names of the values to get, each with the id of its `Get`.
    gets: Vec<(String, usize)>,
}

/// A value that was requested by [`Bsp::get`] and is available after the next [`Bsp::sync`].
#[must_use = "what is got is read by `take`"]
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Get<T> {
    step: u64,
    index: usize,
    of: PhantomData<fn() -> T>,
}

impl<'v> Bsp<'v> {
    fn new(vr: &'v Vr, pid: usize, ids: Vec<VrId>) -> Self {
        let outbox = vec![Outgoing::default(); ids.len()];
        Self { vr, pid, ids, step: 0, memory: HashMap::new(), outbox, got: Vec::new() }
    }

    /// This process's number: 0, 1, ...
    #[must_use]
    pub fn pid(&self) -> usize {
        self.pid
    }

    /// The number of processes.
    #[must_use]
    pub fn nprocs(&self) -> usize {
        self.ids.len()
    }

    /// The number of this superstep: 0, 1, ...
    #[must_use]
    pub fn superstep(&self) -> u64 {
        self.step
    }

    /// Sets a value in this process's own memory, at once.
    pub fn set<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        self.memory.insert(name.to_owned(), Message::new().with("value", value));
    }

    /// Reads a value in this process's own memory.
    ///
    /// # Errors
    /// If there is no value of that name, or it is of another type.
    pub fn value<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let value = self.memory.get(name).ok_or_else(|| self.no_value(self.pid, name))?;
        Ok(value.get("value")?)
    }

    /// Sets a value in the memory of a process at the end of this superstep. If a value is put several times, the last
    /// put of the process with the highest number takes effect.
    ///
    /// # Panics
    /// If there is no such process.
    pub fn put<T: Serialize + ?Sized>(&mut self, pid: usize, name: &str, value: &T) {
        let puts = &mut self.outbox[pid].puts;
        let name = format!("put {name}");
        *puts = std::mem::take(puts).without(&name).with(&name, value);
    }

    /// Requests the value that the memory of a process has at the end of this superstep, before any puts take effect.
    ///
    /// # Panics
    /// If there is no such process.
    pub fn get<T: DeserializeOwned>(&mut self, pid: usize, name: &str) -> Get<T> {
        let index = self.outbox.iter().map(|outgoing| outgoing.gets.len()).sum();
        self.outbox[pid].gets.push((name.to_owned(), index));
        Get { step: self.step, index, of: PhantomData }
    }

    /// Returns a value that was requested in the previous superstep.
    ///
    /// # Errors
    /// If the value is of another type, or was requested in another superstep.
    pub fn take<T: DeserializeOwned>(&self, get: &Get<T>) -> Result<T> {
        if get.step + 1 != self.step {
            return Err(VrError::msg(format!("got in superstep {}, read in {}", get.step, self.step)));
        }
        Ok(self.got[get.index].get("value")?)
    }

    /// Ends the superstep: waits for all processes to end it, and makes all puts and gets take effect.
    ///
    /// # Errors
    /// If a process is gone, or a requested value does not exist.
    pub fn sync(&mut self) -> Result {
        let (step, empty) = (self.step, vec![Outgoing::default(); self.nprocs()]);
        let outbox = std::mem::replace(&mut self.outbox, empty);
        let mut wanted: Vec<(usize, usize)> = Vec::new();
        for (pid, Outgoing { puts, gets }) in outbox.into_iter().enumerate() {
            wanted.extend(gets.iter().map(|(_, index)| (*index, pid)));
            self.vr
                .send(self.ids[pid], puts.with("tag", "bsp sync").with("step", &step).with("gets", &gets))?;
        }
        let sync = |id: &VrId| Ok(self.vr.recv(pat! { src: *id, tag: "bsp sync", step: step })?);
        let arrived = self.ids.iter().map(sync).collect::<Result<Vec<Message>>>()?;
        // Gets are answered before any puts are applied.
        for (m, id) in arrived.iter().zip(&self.ids) {
            for (name, index) in m.get::<Vec<(String, usize)>>("gets")? {
                let value = self.memory.get(&name).cloned().ok_or_else(|| self.no_value(self.pid, &name))?;
                self.vr.send(*id, value.with("tag", "bsp got").with("index", &index))?;
            }
        }
        for m in arrived {
            for attr in m.attrs() {
                if let Some(name) = attr.name().strip_prefix("put ") {
                    self.memory.insert(name.to_owned(), Message::new().with_attr("value", &attr));
                }
            }
        }
        wanted.sort_unstable();
        let got =
            |(index, pid)| Ok(self.vr.recv(pat! { src: self.ids[pid], tag: "bsp got", index: index })?);
        self.got = wanted.into_iter().map(got).collect::<Result<_>>()?;
        self.step += 1;
        Ok(())
    }

    fn no_value(&self, pid: usize, name: &str) -> VrError {
        VrError::msg(format!("process {pid} has no value `{name}` in superstep {}", self.step))
    }
}
