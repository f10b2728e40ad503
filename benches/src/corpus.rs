//! A corpus of text files like that of the Trickle paper (63,362 files, 285 MB), the same on every machine.
//!
//! Words are drawn from a vocabulary of 200,000 by Zipf's law (exponent 1); frequent ones are short, and one in fifty
//! ends in a letter of two bytes. File sizes are log-normal.

use std::fs;
use std::io;
use std::path::Path;

const VOCABULARY: usize = 200_000;
const FILES_PER_DIRECTORY: usize = 640;

/// Makes `files` files with `mean` bytes each on average below `directory`, unless they already exist.
///
/// # Errors
/// Any error of writing them.
pub fn make(directory: &Path, files: usize, mean: usize) -> io::Result<()> {
    // Next to the directory, not in it: it is not a text to count.
    let done = directory.with_extension("complete");
    let mark = format!("{files} {mean}\n");
    if fs::read_to_string(&done).is_ok_and(|text| text == mark) {
        return Ok(());
    }
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    let (mut rng, words) = (Rng(1), Words::new());
    let sizes: Vec<f64> = (0..files).map(|_| rng.normal().exp()).collect();
    let scale = (mean * files) as f64 / sizes.iter().sum::<f64>();
    let mut text = Vec::new();
    for (index, size) in sizes.iter().enumerate() {
        let below = directory.join(format!("d{:03}", index / FILES_PER_DIRECTORY));
        if index % FILES_PER_DIRECTORY == 0 {
            fs::create_dir_all(&below)?;
        }
        text.clear();
        words.write(&mut rng, &mut text, (size * scale).max(16.0) as usize);
        fs::write(below.join(format!("f{index:05}.txt")), &text)?;
    }
    fs::write(done, mark)
}

/// `SplitMix64` (Steele, Lea, Flood 2014).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a number strictly between 0 and 1.
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// Returns a standard normal number, by Box and Muller.
    fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// The vocabulary, and an alias table (Walker 1977) to draw from it in constant time.
struct Words {
    words: Vec<Vec<u8>>,
    keep: Vec<f64>,
    alias: Vec<usize>,
}

impl Words {
    fn new() -> Self {
        let total: f64 = (1..=VOCABULARY).map(|rank| 1.0 / rank as f64).sum();
        let mut keep: Vec<f64> =
            (1..=VOCABULARY).map(|rank| VOCABULARY as f64 / (rank as f64 * total)).collect();
        let mut alias: Vec<usize> = (0..VOCABULARY).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..VOCABULARY).partition(|&rank| keep[rank] < 1.0);
        while let (Some(poor), Some(&rich)) = (small.pop(), large.last()) {
            alias[poor] = rich;
            keep[rich] -= 1.0 - keep[poor];
            if keep[rich] < 1.0 {
                small.extend(large.pop());
            }
        }
        Self { words: (0..VOCABULARY).map(word).collect(), keep, alias }
    }

    /// Appends words, twelve per line, until `text` is `length` bytes longer.
    fn write(&self, rng: &mut Rng, text: &mut Vec<u8>, length: usize) {
        let end = text.len() + length;
        for column in 1.. {
            let drawn = (rng.next() % VOCABULARY as u64) as usize;
            let rank = if rng.unit() < self.keep[drawn] { drawn } else { self.alias[drawn] };
            text.extend_from_slice(&self.words[rank]);
            if text.len() + 1 >= end {
                text.push(b'\n');
                return;
            }
            text.push(if column % 12 == 0 { b'\n' } else { b' ' });
        }
    }
}

/// The word of a rank: syllables that are digits in base 85, so that all words are different and frequent ones short.
fn word(rank: usize) -> Vec<u8> {
    let (consonants, vowels) = (b"tnsrhldcmfpgwybvk", b"eaoiu");
    let (mut word, mut rest) = (Vec::new(), rank + 1);
    while rest > 0 {
        rest -= 1;
        let syllable = rest % 85;
        word.extend([consonants[syllable / 5], vowels[syllable % 5]]);
        rest /= 85;
    }
    if rank % 3 == 1 {
        word.push(b'n');
    }
    if rank % 7 == 3 {
        word.extend(b"st");
    }
    if rank % 50 == 49 {
        word.extend("é".as_bytes());
    }
    word
}
