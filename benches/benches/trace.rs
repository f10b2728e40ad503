//! The cost of tracing: two VRs of one process, or of two, send messages to each other, with tracing off and with
//! everything traced.
//!
//! ```text
//! cargo bench -p river-benches --bench trace
//! cargo bench -p river-benches --bench trace -- --rounds 15
//! ```
//!
//! Off and on take turns within a round, each in a program of its own. To see the cost of the branches that tracing has
//! added to send and receive, compare the line "off" with that of a build without them: `--bench links` of an older
//! commit.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use river::Launch;
use river::core::{Channel, Selector, VirtualResource, Vr, VrId};
use river::trace::Run;
use river_benches::table::{Spread, Table, load, machine};
use serde::{Deserialize, Serialize};

const PING: Channel = Channel::named("river-benches ping");
/// The number of round trips of 8-byte messages.
const EXCHANGES: u32 = 20_000;
/// The number of consecutive 8-byte messages.
const STREAM: u32 = 200_000;

/// Measure the cost of tracing
#[derive(Parser)]
struct Args {
    /// How many times everything is measured
    #[arg(long, default_value = "9", value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Passed by `cargo bench`; ignored
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    river::become_host_if_asked();
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The measurements of one program.
#[derive(Clone, Copy)]
struct Measured {
    /// Microseconds, one way.
    latency: f64,
    /// Nanoseconds per message.
    stream: f64,
}

fn run(args: &Args) -> river::Result {
    println!("{}; {} rounds; median (min..max)", machine(), args.rounds);
    let before = load();
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("trace");
    let mut table = Table::new("tracing", "")
        .column("latency, one way", "us", 3)
        .column("stream, a message", "ns", 1)
        .column("events", "", 0);
    for (link, near) in [("local", true), ("shm", false)] {
        let (mut off, mut on, mut events) = (Vec::new(), Vec::new(), 0);
        for _ in 0..args.rounds {
            off.push(measure(Launch::new(), near)?);
            on.push(measure(Launch::new().trace(&file), near)?);
            events = Run::read(&file)?.vrs.iter().map(|vr| vr.events.len() as u64 + vr.dropped).sum();
        }
        for (name, measured, events) in [("off", &off, None), ("on", &on, Some((events as f64).into()))] {
            let spread = |of: fn(&Measured) -> f64| Some(Spread::of(measured.iter().map(of).collect()));
            table.row(format!("{link}, {name}"), [spread(|m| m.latency), spread(|m| m.stream), events]);
        }
    }
    table.print()?;
    println!("load average {before:.2} before, {:.2} after", load());
    Ok(())
}

fn measure(launch: Launch, near: bool) -> river::Result<Measured> {
    launch.try_run(|vr| {
        let peer = if near {
            let me = vr.id();
            vr.spawn("echo", move |vr| echo(vr, me))?
        } else {
            vr.deploy(&vr.start_local(1)?, |_| Echo)?[0]
        };
        exchange(vr, peer, EXCHANGES / 10)?;
        let start = Instant::now();
        exchange(vr, peer, EXCHANGES)?;
        let latency = start.elapsed().as_secs_f64() * 1e6 / f64::from(2 * EXCHANGES);
        let start = Instant::now();
        for _ in 0..STREAM {
            vr.send_bytes(peer, PING, 2, vec![7; 8])?;
        }
        // The answer to this one comes after all have been received.
        exchange(vr, peer, 1)?;
        let stream = start.elapsed().as_secs_f64() * 1e9 / f64::from(STREAM);
        vr.send_bytes(peer, PING, 3, vec![])?;
        Ok(Measured { latency, stream })
    })
}

fn exchange(vr: &Vr, peer: VrId, count: u32) -> river::Result {
    for _ in 0..count {
        vr.send_bytes(peer, PING, 1, vec![7; 8])?;
        vr.receive(Selector::on(PING).from(peer))?;
    }
    Ok(())
}

/// Sends back messages on lane 1, discards those on lane 2, ends with lane 3.
#[derive(Serialize, Deserialize)]
struct Echo;

impl VirtualResource for Echo {
    fn main(&mut self, vr: &Vr) -> river::Result {
        let parent = vr.parent().ok_or_else(|| river::VrError::msg("it was not deployed"))?;
        echo(vr, parent)
    }
}

fn echo(vr: &Vr, peer: VrId) -> river::Result {
    loop {
        let message = vr.receive(Selector::on(PING).from(peer))?;
        match message.lane {
            1 => vr.send_bytes(peer, PING, 1, message.payload)?,
            2 => {}
            _ => return Ok(()),
        }
    }
}
