//! Programs of each layer, checkpointed again and again at whatever moment it is, killed, and restored: what they say in
//! the end is what they would have said.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rand_core::Rng;
use river::mpi::{Communicator, SUM};
use river::prelude::*;
use river::rai::{Rai, RaiServer};
use serde::{Deserialize, Serialize};

/// Takes a while, so that there is something to interrupt.
fn collatz(n: u64) -> u64 {
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
fn farm(vr: &Vr) -> river::Result<String> {
    let vms = trickle::start(vr, 2)?;
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

/// Objects that are created, used by handles and freed, and one that is found by its name as long as it is held.
fn objects(vr: &Vr) -> river::Result<String> {
    let vms = vr.start_local(2)?;
    let servers = vr.deploy(&vms, |_| RaiServer::unrestricted())?;
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
        // One handle goes while another stays, and a new object comes now and then.
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

/// Ranks with requests under way, communicators of their own, and collectives.
fn ranks(vr: &Vr) -> river::Result<String> {
    let vms = vr.start_local(2)?;
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

fn program(name: &str) -> fn(&Vr) -> river::Result<String> {
    match name {
        "farm" => farm,
        "objects" => objects,
        _ => ranks,
    }
}

/// Not a test of its own: what the tests below start in a process of its own, to kill it.
#[test]
fn helper_process() {
    let (Ok(name), Ok(directory)) = (std::env::var("RIVER_TEST_LAYER"), std::env::var("RIVER_CHECKPOINT"))
    else {
        return;
    };
    let directory = PathBuf::from(directory);
    let result = match std::env::var_os("RIVER_TEST_RESTORE") {
        Some(_) => river::restore(&directory, program(&name)),
        None => river::try_run_recoverable(program(&name)),
    };
    match result {
        Ok(result) => println!("[result {result}]"),
        Err(error) => println!("[error {error}]"),
    }
}

fn helper(name: &str, directory: &Path, restore: bool) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "helper_process", "--nocapture"])
        .envs([("RIVER_TEST_LAYER", name), ("RIVER_CHECKPOINT_EVERY", "0.02")])
        .env("RIVER_CHECKPOINT", directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    if restore {
        command.env("RIVER_TEST_RESTORE", "1");
    }
    command
}

fn result_of(mut command: Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let start = text.find('[').unwrap_or_else(|| panic!("no result in {output:?}"));
    text[start..].lines().next().unwrap_or_default().to_owned()
}

/// The number of the newest checkpoint.
fn newest(directory: &Path) -> u64 {
    let names = std::fs::read_dir(directory).into_iter().flatten();
    let number = |name: &str| name.strip_prefix("checkpoint-")?.strip_suffix(".river")?.parse().ok();
    names.filter_map(|entry| number(entry.ok()?.file_name().to_str()?)).max().unwrap_or(0)
}

/// Kills the program three times at checkpoints that the seed says, also while it goes on from one.
fn survives(name: &str) {
    let undisturbed = tempfile::tempdir().unwrap();
    let expected = result_of(helper(name, undisturbed.path(), false));
    assert!(expected.starts_with("[result "), "{expected}");
    let seed = u64::from(std::process::id());
    let mut random = rand_pcg::Pcg64Mcg::new(u128::from(seed) | 1);
    let directory = tempfile::tempdir().unwrap();
    for kill in 0..3 {
        let mut child = helper(name, directory.path(), kill > 0).spawn().unwrap();
        let wanted = newest(directory.path()) + 1 + random.next_u64() % 8;
        while newest(directory.path()) < wanted && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(result_of(helper(name, directory.path(), true)), expected, "seed {seed}");
}

#[test]
fn a_farm_with_adaptive_chunks_survives() {
    survives("farm");
}

#[test]
fn handles_and_reference_counts_survive() {
    survives("objects");
}

#[test]
fn ranks_in_the_middle_of_a_collective_survive() {
    survives("ranks");
}

/// Helpers share memory with who has started them, so they cannot be part of a checkpoint: the error says who they are.
#[test]
fn a_server_with_helpers_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let error = river::try_run_recoverable(|vr| {
        let vms = vr.start_local(1)?;
        let server = vr.deploy(&vms, |_| RaiServer::unrestricted().concurrent(2))?[0];
        assert_eq!(Rai::connect(vr, server).call(collatz, (27,))?, 18);
        Ok(vr.checkpoint(directory.path()).unwrap_err().to_string())
    });
    let error = error.unwrap();
    assert!(error.contains("(rai helper)") && error.contains("has to end first"), "{error}");
}
