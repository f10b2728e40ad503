//! Latency, bandwidth and message rate between two VRs over each link, as the OSU micro-benchmarks measure them,
//! compared with the same exchange between two threads without River, in the same run.
//!
//! ```text
//! cargo bench -p river-benches --bench links
//! cargo bench -p river-benches --bench links -- --rounds 3 --link shm --link tcp
//! ```
//!
//! * Local: two VRs of one process; limit: two crossbeam channels, polled. Memory is handed over, not copied, so
//!   bandwidth is only a number.
//! * Shm: two processes of one machine; limit: a ring of 256 KiB between two threads, copied in and copied out.
//! * Tcp: the same two processes with `RIVER_LINKS=tcp`; limits: a connection between two threads, with blocking reads,
//!   and with non-blocking reads and `yield`.
//!
//! Each link is measured in a process of its own. Within a round, River and its limits take turns for each size.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use bytes::Bytes;
use clap::{Parser, ValueEnum};
use river::core::{Channel, Payload, Selector, VirtualResource, Vr, VrId, testing};
use river_benches::exchange::{End, Plan, Result};
use river_benches::table::{Spread, Table, load, machine};
use river_benches::{bare, process};
use serde::{Deserialize, Serialize};

const PLANS: Channel = Channel::named("river-benches plans");
const DATA: Channel = Channel::named("river-benches data");
const SIZES: [usize; 9] = [0, 8, 64, 1 << 10, 8 << 10, 64 << 10, 1 << 20, 16 << 20, 64 << 20];

/// Compare River's links with their building blocks.
#[derive(Parser)]
struct Args {
    /// How many times everything is measured
    #[arg(long, default_value = "7", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Only this link (may be repeated)
    #[arg(long)]
    link: Vec<Link>,
    /// Only messages of this many bytes (may be repeated)
    #[arg(long)]
    size: Vec<usize>,
    /// Passed by `cargo bench`; ignored
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Link {
    Local,
    Shm,
    Tcp,
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
enum Measure {
    Latency,
    Bandwidth,
    Rate,
}

/// The numbers of one row of a table: for River and each limit, one per round.
#[derive(Serialize, Deserialize)]
struct Line {
    measure: Measure,
    plan: Plan,
    river: Vec<f64>,
    limits: Vec<Vec<f64>>,
}

fn main() -> ExitCode {
    process::main(run_case, tables)
}

impl Link {
    const ALL: [Self; 3] = [Self::Local, Self::Shm, Self::Tcp];

    fn name(self) -> &'static str {
        ["Local", "Shm", "Tcp"][self as usize]
    }

    fn limits(self) -> &'static [&'static str] {
        match self {
            Link::Local => &["channel"],
            Link::Shm => &["ring"],
            Link::Tcp => &["blocking", "polling"],
        }
    }
}

fn tables(args: &Args) -> Result {
    println!("{}; {} rounds; median (min..max)", machine(), args.rounds);
    for link in Link::ALL.into_iter().filter(|link| args.link.is_empty() || args.link.contains(link)) {
        let numbers: Vec<_> =
            [args.rounds.into()].iter().chain(&args.size).map(ToString::to_string).collect();
        let numbers: Vec<_> = numbers.iter().map(Path::new).collect();
        let environment = ("RIVER_LINKS", OsStr::new(if link == Link::Tcp { "tcp" } else { "auto" }));
        let before = load();
        let lines: Vec<Line> = process::run_with(link.name(), &numbers, &[environment])?;
        for measure in [Measure::Latency, Measure::Bandwidth, Measure::Rate] {
            table_of(link, measure, &lines).print()?;
        }
        println!("load average {before:.2} before, {:.2} after", load());
    }
    Ok(())
}

fn table_of(link: Link, measure: Measure, lines: &[Line]) -> Table {
    let (what, unit) = match measure {
        Measure::Latency => ("latency, one way", "us"),
        Measure::Bandwidth => ("bandwidth", "GB/s"),
        Measure::Rate => ("message rate, window 64", "million/s"),
    };
    let mut table = Table::new(format!("{}: {what}", link.name()), "size").column("River", unit, 3);
    for limit in link.limits() {
        table = table.column(*limit, unit, 3).column("ratio", "", 2);
    }
    for line in lines.iter().filter(|line| line.measure == measure) {
        let river = Spread::of(line.river.clone());
        let limits = line.limits.iter().flat_map(|limit| {
            let limit = Spread::of(limit.clone());
            [Some(limit), Some((river.median / limit.median).into())]
        });
        table.sized(line.plan.size, std::iter::once(Some(river)).chain(limits));
    }
    table
}

impl Measure {
    /// Everything that is measured of a link.
    fn plans(sizes: &[usize]) -> impl Iterator<Item = (Self, Plan)> {
        let latency = sizes.iter().map(|&size| (Measure::Latency, Plan::latency(size)));
        let with_content = sizes.iter().filter(|&&size| size > 0);
        let bandwidth = with_content.map(|&size| (Measure::Bandwidth, Plan::bandwidth(size)));
        latency.chain(bandwidth).chain([(Measure::Rate, Plan::bandwidth(8))])
    }

    fn number(self, plan: Plan, time: std::time::Duration) -> f64 {
        match self {
            Measure::Latency => plan.micros(time),
            Measure::Bandwidth => plan.gigabytes(time),
            Measure::Rate => plan.megamessages(time),
        }
    }
}

fn run_case(case: &str) -> Result {
    let link = Link::ALL.into_iter().find(|link| link.name() == case).ok_or("no such case")?;
    let numbers: Vec<usize> =
        std::env::args().skip(1).map(|number| number.parse()).collect::<std::result::Result<_, _>>()?;
    let (&rounds, sizes) = numbers.split_first().ok_or("no number of rounds")?;
    let sizes = if sizes.is_empty() { &SIZES } else { sizes };
    let lines = if link == Link::Local {
        let mut leads = testing::threads(2, |vr, index, ids| {
            if index == 0 {
                return Some(measure(link, rounds, sizes, vr, ids[1]).map_err(|error| error.to_string()));
            }
            // It ends when the other one does.
            let _ = follow(vr, ids[0]);
            None
        });
        leads.swap_remove(0).ok_or("the VR that leads returned nothing")??
    } else {
        river::try_run(|vr| {
            let peer = vr.deploy(&vr.start_local(1)?, |_| Follower)?[0];
            measure(link, rounds, sizes, vr, peer).map_err(|error| river::VrError::msg(error.to_string()))
        })
        .map_err(|error| error.to_string())?
    };
    Ok(process::report(&lines)?)
}

fn measure(link: Link, rounds: usize, sizes: &[usize], vr: &Vr, peer: VrId) -> Result<Vec<Line>> {
    let mut lines: Vec<Line> = Measure::plans(sizes)
        .map(|(measure, plan)| Line {
            measure,
            plan,
            river: Vec::new(),
            limits: vec![Vec::new(); link.limits().len()],
        })
        .collect();
    for _ in 0..rounds {
        for Line { measure, plan, river, limits } in &mut lines {
            vr.send_bytes(peer, PLANS, 0, serde_json::to_vec(plan)?)?;
            let time = plan.lead(&mut Peer { vr, peer }, &Bytes::from(vec![7; plan.size]))?;
            river.push(measure.number(*plan, time));
            for (limit, numbers) in limits.iter_mut().enumerate() {
                let time = match (link, limit) {
                    (Link::Local, _) => bare::measure(*plan, bare::channels())?,
                    (Link::Shm, _) => bare::measure(*plan, bare::rings())?,
                    (Link::Tcp, 0) => bare::measure(*plan, bare::blocking()?)?,
                    (Link::Tcp, _) => bare::measure(*plan, bare::polling()?)?,
                };
                numbers.push(measure.number(*plan, time));
            }
        }
    }
    Ok(lines)
}

/// The VR with which the measuring VR exchanges messages. Serves until the program ends.
#[derive(Serialize, Deserialize)]
struct Follower;

impl VirtualResource for Follower {
    fn main(&mut self, vr: &Vr) -> river::Result {
        let parent = vr.parent().ok_or_else(|| river::VrError::msg("it was not deployed"))?;
        follow(vr, parent).map_err(|error| river::VrError::msg(error.to_string()))
    }
}

fn follow(vr: &Vr, leader: VrId) -> Result {
    // Kept until the next plan: the leader, which drops the last answer, must not be the one to free its memory.
    let mut data = Bytes::new();
    while let Ok(plan) = vr.receive(Selector::on(PLANS).from(leader)) {
        let plan: Plan = serde_json::from_slice(&plan.payload.to_bytes())?;
        if data.len() != plan.size {
            data = Bytes::from(vec![7; plan.size]);
        }
        plan.follow(&mut Peer { vr, peer: leader }, &data)?;
    }
    Ok(())
}

/// The other VR.
struct Peer<'a> {
    vr: &'a Vr,
    peer: VrId,
}

impl End for Peer<'_> {
    fn send(&mut self, data: &Bytes) -> Result {
        Ok(self.vr.send_bytes(self.peer, DATA, 0, Payload::from(data.clone()))?)
    }

    fn receive(&mut self, len: usize) -> Result {
        let received = self.vr.receive(Selector::on(DATA))?.payload.len();
        if received == len { Ok(()) } else { Err(format!("{received} bytes came instead of {len}").into()) }
    }
}
