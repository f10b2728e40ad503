//! Counts how often each word occurs.

use river::mapreduce::{Combiner, MapContext, MapReduce, ReduceContext, Values};
use serde::{Deserialize, Serialize};

use crate::words;

/// Counts words, which are separated by white space, whatever the encoding. A record of the input can be any piece of
/// text that does not end within a word.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct WordCount;

impl MapReduce for WordCount {
    type Input = Vec<u8>;
    type Key = Vec<u8>;
    type Value = u64;
    type OutKey = Vec<u8>;
    type OutValue = u64;

    fn map(&self, text: &[u8], out: &mut MapContext<'_, Vec<u8>, u64>) {
        words::split(text, |word| out.emit(word, 1));
    }

    fn combiner(&self) -> Option<Combiner<'_, u64>> {
        Some(&|sum, n| *sum += n)
    }

    fn reduce(&self, word: &[u8], counts: &mut Values<'_, u64>, out: &mut ReduceContext<'_, Vec<u8>, u64>) {
        out.emit(word, counts.sum());
    }
}
