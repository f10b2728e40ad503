//! What is looked at before a job whose output is sorted as a whole: the keys of some records from all over the input, so
//! that ranges of keys can be chosen. It is a job of its own, with the map function of the other.

use crate::input::{Limit, Split};
use crate::output::Format;
use crate::spec::Settings;

/// Splits that are looked at, and how much of each.
const SPLITS: usize = 24;
const EACH: Limit = Limit { records: 4096, bytes: 400 << 10 };

/// What a job's sample is made of.
pub(crate) fn splits(of: &[Split]) -> Vec<Split> {
    let step = of.len().div_ceil(SPLITS).max(1);
    of.iter().step_by(step).map(|split| split.beginning(EACH)).collect()
}

/// How a job's sample is taken.
pub(crate) fn settings(of: &Settings) -> Settings {
    Settings {
        reducers: 1,
        bounds: None,
        format: Format::Records,
        directory: None,
        sample: Some(EACH),
        ..of.clone()
    }
}
