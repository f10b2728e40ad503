//! The sample that is taken before a job whose output is sorted as a whole: the keys of some records from all over the
//! input, from which ranges of keys are chosen. Sampling is a job of its own, with the map function of the actual job.

use crate::input::{Limit, Split};
use crate::output::Format;
use crate::spec::Settings;

/// The number of splits that are sampled, and how much of each.
const SPLITS: usize = 24;
const EACH: Limit = Limit { records: 4096, bytes: 400 << 10 };

/// The splits of a job's sample.
pub(crate) fn splits(of: &[Split]) -> Vec<Split> {
    let step = of.len().div_ceil(SPLITS).max(1);
    of.iter().step_by(step).map(|split| split.beginning(EACH)).collect()
}

/// The settings of a job's sample.
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
