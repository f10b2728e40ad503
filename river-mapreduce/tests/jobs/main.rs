//! Jobs from end to end: in one thread, on VMs of each topology, on VMs that die.

mod deaths;
mod files;
mod kills;
mod mailbox;
mod panics;
mod serial;
mod stops;
mod topologies;

use river_mapreduce::{Cluster, Combiner, MapContext, MapReduce, ReduceContext, ValueOrder, Values};
use serde::{Deserialize, Serialize};

/// Counts words, with or without a combiner.
#[derive(Clone, Serialize, Deserialize)]
struct WordCount {
    combines: bool,
}

impl MapReduce for WordCount {
    type Input = String;
    type Key = String;
    type Value = u64;
    type OutKey = String;
    type OutValue = u64;

    fn map(&self, line: &str, out: &mut MapContext<'_, String, u64>) {
        for word in line.split_whitespace() {
            out.emit(word, 1);
        }
        out.count("lines", 1);
    }

    fn combiner(&self) -> Option<Combiner<'_, u64>> {
        self.combines.then_some(&|sum: &mut u64, n| *sum += n)
    }

    fn reduce(&self, word: &str, counts: &mut Values<'_, u64>, out: &mut ReduceContext<'_, String, u64>) {
        out.emit(word, counts.sum());
        out.count("words", 1);
    }
}

/// Emits its input: all values of a key, in order.
#[derive(Clone, Serialize, Deserialize)]
struct Identity {
    ordered: bool,
}

impl MapReduce for Identity {
    type Input = (Vec<u8>, Vec<u8>);
    type Key = Vec<u8>;
    type Value = Vec<u8>;
    type OutKey = Vec<u8>;
    type OutValue = Vec<u8>;

    fn map(&self, (key, value): (&[u8], &[u8]), out: &mut MapContext<'_, Vec<u8>, Vec<u8>>) {
        out.emit(key, value);
    }

    fn value_order(&self) -> Option<ValueOrder> {
        self.ordered.then_some(<Vec<u8> as river_mapreduce::Key>::compare)
    }

    fn reduce(
        &self,
        key: &[u8],
        values: &mut Values<'_, Vec<u8>>,
        out: &mut ReduceContext<'_, Vec<u8>, Vec<u8>>,
    ) {
        while let Some(value) = values.next_view() {
            out.emit(key, value);
        }
    }
}

/// Runs `body` with a cluster of this many VMs on this machine, each a process.
fn with_cluster<R>(vms: usize, body: impl FnOnce(&Cluster<'_>) -> river_core::Result<R>) -> R {
    let program = |vr: &river_core::Vr| body(&Cluster::on(vr, &vr.start_local(vms)?)?);
    river_core::try_run(program).unwrap()
}

/// Lines of text with repeated words.
fn lines(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("w{} w{} the w{}", i % 7, i % 31, i % 101)).collect()
}

/// The result of a sequential program.
fn counted(lines: &[String]) -> Vec<(String, u64)> {
    let mut counts = std::collections::BTreeMap::new();
    for word in lines.iter().flat_map(|line| line.split_whitespace()) {
        *counts.entry(word.to_owned()).or_insert(0) += 1;
    }
    counts.into_iter().collect()
}
