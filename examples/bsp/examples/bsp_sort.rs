//! Parallel sorting by regular sampling (Shi and Schaeffer, 1992) in three supersteps.
//!
//! ```text
//! cargo run --release --example bsp_sort -- --count 1000000
//! ```

use bsp::Bsp;
use clap::Parser;
use river_core::{Query, Result, Vr};

/// Sort random numbers on virtual machines: those that can be found, or some started here.
#[derive(Parser)]
#[command(after_help = "Example:\n  bsp_sort --count 5000000 --vms 4")]
struct Args {
    /// How many numbers to sort
    #[arg(long, value_name = "N", default_value = "1000000", value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// How many VMs to start in this program if none is found
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u16).range(1..))]
    vms: u16,
}

/// Sorts `count` numbers, of which each process generates its share; returns the length, minimum and maximum of its
/// part of the result.
fn sort(bsp: &mut Bsp<'_>, count: u64) -> Result<(usize, u64, u64)> {
    let (pid, p) = (bsp.pid(), bsp.nprocs());
    let (from, to) = (count * pid as u64 / p as u64, count * (pid as u64 + 1) / p as u64);
    let mut numbers: Vec<u64> = (from..to).map(random).collect();
    numbers.sort_unstable();

    // Superstep 0: every process gets regular samples of all processes' numbers.
    let samples: Vec<u64> = (0..p).filter_map(|i| numbers.get(i * numbers.len() / p).copied()).collect();
    for other in 0..p {
        bsp.put(other, &format!("samples {pid}"), &samples);
    }
    bsp.sync()?;
    let mut all = Vec::new();
    for other in 0..p {
        all.extend(bsp.value::<Vec<u64>>(&format!("samples {other}"))?);
    }
    all.sort_unstable();

    // Superstep 1: each process is sent the numbers between its splitters.
    let mut rest = &numbers[..];
    for other in 0..p {
        let splitter = all.get((other + 1) * all.len() / p).copied();
        let end = splitter.map_or(rest.len(), |splitter| rest.partition_point(|&n| n < splitter));
        let (part, behind) = rest.split_at(if other + 1 == p { rest.len() } else { end });
        bsp.put(other, &format!("part {pid}"), part);
        rest = behind;
    }
    bsp.sync()?;
    let mut mine = Vec::new();
    for other in 0..p {
        mine.extend(bsp.value::<Vec<u64>>(&format!("part {other}"))?);
    }
    mine.sort_unstable();
    let (first, last) = (mine.first().copied().unwrap_or(0), mine.last().copied().unwrap_or(0));

    // Superstep 2: each process checks that its neighbour continues where it ends.
    bsp.set("first", &mine.first());
    let next = bsp.get::<Option<u64>>((pid + 1) % p, "first");
    bsp.sync()?;
    let next = bsp.take(&next)?;
    assert!(pid + 1 == p || next.is_none_or(|next| last <= next), "not in order after process {pid}");
    Ok((mine.len(), first, last))
}

/// The `n`th number: `SplitMix64`.
fn random(n: u64) -> u64 {
    let mut z = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn program(vr: &Vr, args: &Args) -> Result {
    let found = vr.discover(Query { idle_only: true, ..Query::default() })?;
    let vms = if found.is_empty() { vr.start_local(args.vms.into())? } else { vr.allocate(found, ..)? };
    let parts = bsp::spmd(vr, &vms, sort, args.count)?;
    for (vm, (length, first, last)) in vms.iter().zip(&parts) {
        println!("{}: {length} numbers, {first:020} to {last:020}", vm.name);
    }
    println!("{} numbers are sorted", parts.iter().map(|(length, ..)| length).sum::<usize>());
    Ok(())
}

fn main() -> river_core::ExitCode {
    river_core::become_host_if_asked();
    let args = Args::parse();
    river_core::run(|vr| program(vr, &args))
}
