//! A program of each layer, with a deterministic result.

use std::time::Duration;

use river::core::VmInfo;
use river::mpi::{Communicator, SUM};
use river::prelude::*;
use river::rai::{Rai, RaiServer};
use serde::{Deserialize, Serialize};

/// Takes a while, so that there is something to interrupt.
pub(crate) fn collatz(n: u64) -> u64 {
    std::thread::sleep(Duration::from_micros(500));
    let (mut n, mut steps) = (n + 1, 0);
    while n != 1 {
        n = if n.is_multiple_of(2) { n / 2 } else { 3 * n + 1 };
        steps += 1;
    }
    steps
}

fn add(total: &mut u64, numbers: Vec<u64>) {
    *total += numbers.into_iter().map(collatz).sum::<u64>();
}

/// Farms with chunks that adapt to the measured times, and a fold whose sums are kept on the VMs.
pub(crate) fn farm(vr: &Vr, vms: &[VmInfo]) -> river::Result<String> {
    let servers = vr.deploy(vms, |_| RaiServer::unrestricted())?;
    let vms = trickle::Vms::attach(vr, vms.iter().map(|vm| vm.name.clone()).zip(servers.iter()));
    let ordered =
        vms.forkwork(collatz, 0..600, trickle::Chunk::Adaptive { time: Duration::from_millis(2) })?;
    let mut unordered: Vec<u64> = vms.forkgen(collatz, 0..300_u64, 3).collect::<Result<_, _>>()?;
    unordered.sort_unstable();
    let folded = vms.forkfold(add, |total: &mut u64, more: u64| *total += more, 0..300_u64, 5).run()?;
    let forked = trickle::join(trickle::fork(&vms, collatz, (27,))?)?;
    Ok(format!("{:x} {:x} {folded} {forked:?}", digest(&ordered), digest(&unordered)))
}

fn digest(numbers: &[u64]) -> u64 {
    numbers.iter().fold(7, |digest: u64, n| digest.rotate_left(5).wrapping_mul(0x9e37_79b9).wrapping_add(*n))
}

/// An object on a server.
#[derive(Serialize, Deserialize)]
struct Account {
    balance: u64,
}

impl Account {
    fn open(balance: u64) -> Self {
        Self { balance }
    }

    fn pay(&mut self, sum: u64) -> u64 {
        std::thread::sleep(Duration::from_micros(300));
        self.balance = self.balance.wrapping_mul(31).wrapping_add(sum);
        self.balance
    }
}

/// Objects that are created, used by handles and freed, and one that is found by its name while it is held.
pub(crate) fn objects(vr: &Vr, vms: &[VmInfo]) -> river::Result<String> {
    let servers = vr.deploy(vms, |_| RaiServer::unrestricted())?;
    let servers: Vec<Rai> = servers.iter().map(|server| Rai::connect(vr, server)).collect();
    let mut accounts = Vec::new();
    for server in &servers {
        accounts.push(server.create(Account::open, (5,))?);
    }
    let mut last = 0;
    for round in 0..400_u64 {
        let pending: Vec<_> = accounts
            .iter()
            .map(|account| account.call_async(Account::pay, (round,)))
            .collect::<Result<_, _>>()?;
        for pending in pending {
            last ^= pending.wait()?;
        }
        // One handle is dropped while another stays, and a new object is created now and then.
        let copy = accounts[0].clone();
        drop(accounts.remove(0));
        accounts.push(if round.is_multiple_of(7) {
            servers[0].create(Account::open, (round,))?
        } else {
            copy
        });
    }
    let table = servers[1].put("table", vec![1_u64, 2, 3])?;
    let sum: u64 = servers[1].named::<Vec<u64>>("table").get()?.iter().sum();
    drop(table);
    let freed = servers[1].named::<Vec<u64>>("table").get().is_err();
    Ok(format!("{last:x} {sum} {freed}"))
}

/// Ranks with pending requests, their own communicators, and collectives.
pub(crate) fn ranks(vr: &Vr, vms: &[VmInfo]) -> river::Result<String> {
    let vms = [vms[0].clone(), vms[1].clone(), vms[0].clone()];
    let sums = river::mpi::run_on(vr, &vms, |world: &Communicator| Ok(rank(world)?))?;
    Ok(format!("{sums:?}"))
}

fn rank(world: &Communicator) -> river::mpi::Result<u64> {
    let (me, size) = (world.rank(), world.size());
    let half = world.split(Some(me % 2), 0)?;
    let mut sum = me as u64 + 1;
    for round in 0..250_u64 {
        let (next, before) = ((me + 1) % size, (me + size - 1) % size);
        let from_before = world.irecv::<u64>(before, 5)?;
        // Large enough for a rendezvous now and then.
        let length = if round.is_multiple_of(10) { 40_000 } else { 3 };
        let request = world.isend(&vec![sum; length], next, 5)?;
        let mut total = [sum];
        world.allreduce_in_place(&mut total, &SUM)?;
        if let Some(half) = &half {
            half.barrier()?;
        }
        let (got, _) = from_before.wait()?;
        request.wait()?;
        std::thread::sleep(Duration::from_micros(500));
        sum = sum.rotate_left(3) ^ got[got.len() - 1] ^ total[0].wrapping_add(round);
    }
    Ok(sum)
}

/// Ranks that make safepoints and run ahead of each other, so unexpected messages are waiting.
pub(crate) fn safepoints(vr: &Vr, vms: &[VmInfo]) -> river::Result<String> {
    let vms = [vms[0].clone(), vms[1].clone(), vms[0].clone()];
    let sums = river::mpi::run_on(vr, &vms, |world: &Communicator| Ok(safe_rank(world)?))?;
    Ok(format!("{sums:?}"))
}

fn safe_rank(world: &Communicator) -> river::mpi::Result<u64> {
    let (me, size) = (world.rank(), world.size());
    let (next, before) = ((me + 1) % size, (me + size - 1) % size);
    let (mut round, mut sum) = world.resumed()?.unwrap_or((0_u64, me as u64 + 1));
    while round < 250 {
        world.safepoint(&(round, sum))?;
        // Both have their own numbers, which must be the same when they are sent again.
        world.isend(&[sum], next, 5)?.wait()?;
        if round.is_multiple_of(10) {
            let mut total = [sum];
            world.allreduce_in_place(&mut total, &SUM)?;
            sum ^= total[0];
        }
        if round.is_multiple_of(25) {
            // Large enough for a rendezvous.
            let request = world.isend(&vec![sum; 40_000], next, 6)?;
            let (got, _) = world.recv::<u64>(before, 6)?;
            request.wait()?;
            sum = sum.wrapping_add(got[got.len() - 1]);
        }
        std::thread::sleep(Duration::from_micros(if (round + me as u64).is_multiple_of(3) {
            900
        } else {
            100
        }));
        let (got, _) = world.recv::<u64>(before, 5)?;
        sum = sum.rotate_left(3) ^ got[0].wrapping_add(round);
        round += 1;
    }
    Ok(sum)
}

pub(crate) type Program = fn(&Vr, &[VmInfo]) -> river::Result<String>;

pub(crate) fn program(name: &str) -> Program {
    match name {
        "farm" => farm,
        "objects" => objects,
        "safepoints" => safepoints,
        _ => ranks,
    }
}
