//! Messages: built, matched, read, handed over, and found among many that are queued.
//!
//! ```text
//! cargo bench -p river-benches --bench sfm
//! cargo bench -p river-benches --bench sfm -- hand-off
//! ```
//!
//! Baselines are measured in the same run: for the hand-off, that of a plain struct through crossbeam-channel between
//! two threads that poll, as VRs do before they sleep; for the blob between processes, a copy of its memory.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use crossbeam_channel::{Receiver, TryRecvError};
use river::core::testing::threads;
use river::core::{VirtualResource, Vr, VrId};
use river::sfm::{ANY, Blob, Message, Sfm, msg, pat};
use river_benches::bare;
use serde::{Deserialize, Serialize};

const MIB: usize = 1 << 20;

fn main() {
    river::become_host_if_asked();
    let mut criterion = Criterion::default().warm_up_time(Duration::from_millis(300)).configure_from_args();
    build(&mut criterion);
    look(&mut criterion);
    hand_off(&mut criterion);
    queue(&mut criterion);
    reverse(&mut criterion);
    processes(&mut criterion);
    criterion.final_summary();
}

fn items(count: usize) -> Vec<i64> {
    (0..count as i64).collect()
}

/// The message of three attributes with which the others are compared.
fn three(n: u64) -> Message {
    msg! { tag: "work", n: n, x: 0.5 }
}

fn build(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("build");
    group.bench_function("3 attributes", |b| b.iter(|| three(black_box(7))));
    for count in [4, 1000] {
        let items = items(count);
        group.bench_function(BenchmarkId::new("tag and Vec<i64>", count), |b| {
            b.iter(|| msg! { tag: "inputlist", items: black_box(&items) });
        });
    }
    let blob = Blob::from(vec![0u8; MIB]);
    group.bench_function("tag and a Blob of 1 MiB", |b| {
        b.iter(|| msg! { tag: "row", data: black_box(&blob) });
    });
    group.finish();
}

fn look(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("look");
    let m = three(7);
    let (all, value) = (pat! { tag: "work", n: 7, x: 0.5 }, pat! { n: 7 });
    let (other, predicate) = (pat! { tag: "rest" }, pat! { n: |n: &u64| *n == 7 });
    group.bench_function("match 1 value of 3", |b| b.iter(|| black_box(&value).matches(black_box(&m))));
    group.bench_function("match 3 values", |b| b.iter(|| black_box(&all).matches(black_box(&m))));
    group.bench_function("match a predicate", |b| b.iter(|| black_box(&predicate).matches(black_box(&m))));
    group.bench_function("no match", |b| b.iter(|| black_box(&other).matches(black_box(&m))));
    group.bench_function("read u64", |b| b.iter(|| black_box(&m).get::<u64>("n")));
    group.bench_function("read String", |b| b.iter(|| black_box(&m).get::<String>("tag")));
    for count in [4, 1000] {
        let m = msg! { tag: "inputlist", items: items(count) };
        group.bench_function(BenchmarkId::new("read Vec<i64>", count), |b| {
            b.iter(|| black_box(&m).get::<Vec<i64>>("items"));
        });
    }
    group.finish();
}

/// What a program without River would send.
struct Plain {
    tag: String,
    n: u64,
    x: f64,
}

fn hand_off(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hand-off");
    group.sample_size(30);
    group.bench_function("struct by crossbeam-channel", |b| b.iter_custom(by_channel));
    group.bench_function("message of 3 attributes", |b| b.iter_custom(by_message));
    group.finish();
}

/// There and back `rounds` times; half of it is one hand-off. Each side makes what it sends and reads what it receives.
/// Polls, as a blocking receive mostly measures how long it takes to wake a thread.
fn by_channel(rounds: u64) -> Duration {
    let (to, here) = crossbeam_channel::unbounded::<Plain>();
    let (back, there) = crossbeam_channel::unbounded::<Plain>();
    let plain = |n| Plain { tag: "work".to_owned(), n, x: 0.5 };
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while let Some(m) = poll(&here) {
                if m.tag != "work" || back.send(plain(m.n)).is_err() {
                    return;
                }
            }
        });
        let start = Instant::now();
        for n in 0..rounds {
            to.send(plain(n)).expect("the other thread listens");
            let m = poll(&there).expect("the other thread answers");
            assert!(m.tag == "work" && m.n == n && m.x > 0.0);
        }
        drop(to);
        start.elapsed() / 2
    })
}

/// Returns `None` when the other side is gone.
fn poll<T>(from: &Receiver<T>) -> Option<T> {
    bare::wait(|| match from.try_recv() {
        Err(TryRecvError::Empty) => None,
        received => Some(received.ok()),
    })
}

fn by_message(rounds: u64) -> Duration {
    let times = threads(2, |vr, index, ids| -> river::Result<Duration> {
        let peer = ids[1 - index];
        let work = pat! { src: peer, tag: "work" };
        let start = Instant::now();
        for n in 0..rounds {
            if index == 0 {
                vr.send(peer, three(n))?;
                let m = vr.recv(&work)?;
                assert!(m.get::<u64>("n")? == n);
            } else {
                let m = vr.recv(&work)?;
                vr.send(peer, three(m.get("n")?))?;
            }
        }
        Ok(start.elapsed() / 2)
    });
    times.into_iter().next().and_then(Result::ok).expect("both go on to the end")
}

/// Finds one message, and puts another in its place, while many others are queued.
fn queue(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("queue");
    group.sample_size(20);
    for waiting in [10, 1_000, 100_000] {
        let mut measure = |name: &str, receive: fn(&Vr, VrId)| {
            group.bench_function(BenchmarkId::new(name, waiting), |b| {
                b.iter_custom(|rounds| {
                    let times = threads(2, |vr, index, ids| {
                        if index == 1 {
                            (0..waiting).try_for_each(|n| vr.send(ids[0], msg! { tag: n, n: n }))?;
                            vr.send(ids[0], msg! { all: true })?;
                            vr.recv(pat! { over: true })?;
                            return river::Result::Ok(Duration::ZERO);
                        }
                        vr.recv(pat! { all: true })?;
                        let start = Instant::now();
                        for _ in 0..rounds {
                            vr.send(ids[0], msg! { tag: "wanted", n: -1 })?;
                            receive(vr, ids[0]);
                        }
                        let elapsed = start.elapsed();
                        vr.send(ids[1], msg! { over: true })?;
                        Ok(elapsed)
                    });
                    times.into_iter().next().and_then(Result::ok).expect("both go on to the end")
                });
            });
        };
        measure("by tag", |vr, _| drop(vr.recv(pat! { tag: "wanted" })));
        measure("by src", |vr, me| drop(vr.recv(pat! { src: me })));
        measure("by value", |vr, _| drop(vr.recv(pat! { n: -1 })));
        measure("by predicate", |vr, _| drop(vr.recv(pat! { n: |n: &i64| *n < 0 })));
    }
    group.finish();
}

fn reverse(criterion: &mut Criterion) {
    const COUNT: u64 = 100_000;
    let mut group = criterion.benchmark_group("reverse");
    group.sample_size(10).throughput(Throughput::Elements(COUNT));
    group.bench_function("100,000 messages by tag, last first", |b| {
        b.iter_custom(|rounds| {
            let times = threads(1, |vr, _, ids| -> river::Result<Duration> {
                let mut total = Duration::ZERO;
                for _ in 0..rounds {
                    (0..COUNT).try_for_each(|n| vr.send(ids[0], msg! { tag: n, n: n }))?;
                    let start = Instant::now();
                    for n in (0..COUNT).rev() {
                        black_box(vr.recv(pat! { tag: n })?);
                    }
                    total += start.elapsed();
                }
                Ok(total)
            });
            times.into_iter().next().and_then(Result::ok).expect("it goes on to the end")
        });
    });
    group.finish();
}

/// Receives messages, and answers when it is asked to.
#[derive(Serialize, Deserialize)]
struct Taker;

impl VirtualResource for Taker {
    fn main(&mut self, vr: &Vr) -> river::Result {
        for m in vr.iter(pat! { data: ANY }) {
            let m = m?;
            black_box(m.get::<Blob>("data")?);
            if m.has("ask") {
                vr.reply(&m, msg! {})?;
            }
        }
        Ok(())
    }
}

fn processes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("1 MiB");
    group.sample_size(20).throughput(Throughput::Bytes(MIB as u64));
    let memory = vec![7u8; MIB];
    let mut into = vec![0u8; MIB];
    group.bench_function("copied in memory", |b| {
        b.iter(|| black_box(&mut into).copy_from_slice(black_box(&memory)));
    });
    group.bench_function("copied in memory twice, by way of 64 KiB", |b| {
        let mut between = vec![0u8; 64 << 10];
        b.iter(|| {
            for (from, into) in black_box(&memory).chunks(64 << 10).zip(into.chunks_mut(64 << 10)) {
                black_box(&mut between).copy_from_slice(from);
                into.copy_from_slice(black_box(&between));
            }
        });
    });
    let measured = river::try_run(|vr| {
        let taker = vr.deploy(&vr.start_local(1)?, |_| Taker)?[0];
        let blob = Blob::from(memory.clone());
        group.bench_function("Blob through shared memory", |b| {
            b.iter_custom(|rounds| {
                let start = Instant::now();
                for _ in 1..rounds {
                    vr.send(taker, msg! { data: &blob }).expect("it takes");
                }
                vr.ask(taker, msg! { data: &blob }).expect("it answers");
                start.elapsed()
            });
        });
        Ok(())
    });
    if let Err(error) = measured {
        eprintln!("error: {error}");
    }
    group.finish();
}
