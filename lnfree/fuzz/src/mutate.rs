//! Mutations without an engine: always the same ones for the same seeds, for the short run within the tests.

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Numbers at which readers break, as text.
const NUMBERS: [&str; 12] = [
    "0",
    "-1",
    "1e999",
    "-0.0",
    "255",
    "2147483647",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551615",
    "1e308",
    "99999999999999999999999",
];
/// … and as bytes, of which the first 1, 2, 4 or 8 are taken.
const BINARY: [u64; 9] =
    [0, 1, 0x7f, 0xff, 0x7fff_ffff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, u64::MAX, 0x8000_0000_8000_0000];
/// What stands in all of them.
const WORDS: [&str; 14] = [
    "null",
    "true",
    "{}",
    "[]",
    "\"\"",
    "\n",
    "\\n",
    "\u{1b}",
    "é",
    "\u{0}",
    ",",
    ":",
    "[[[[[[[[",
    super::parts::SEPARATOR,
];

/// Makes inputs from seeds.
pub struct Mutator<'a> {
    rng: ChaCha8Rng,
    seeds: &'a [Vec<u8>],
    words: &'a [&'a str],
    longest: usize,
}

impl<'a> Mutator<'a> {
    /// Mutations of `seeds`, at most `longest` bytes each; `name` decides which.
    pub fn new(name: &str, seeds: &'a [Vec<u8>], words: &'a [&'a str], longest: usize) -> Mutator<'a> {
        let number = name.bytes().fold(0u64, |sum, byte| sum.wrapping_mul(257).wrapping_add(byte.into()));
        Mutator { rng: ChaCha8Rng::seed_from_u64(number), seeds, words, longest }
    }

    /// The next input.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut input = self.seeds.choose(&mut self.rng).cloned().unwrap_or_default();
        for _ in 0..self.rng.random_range(1..=6) {
            self.change(&mut input);
        }
        input.truncate(self.longest);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let (from, to) = self.range(input.len());
        match self.rng.random_range(0..10) {
            0 if !input.is_empty() => input[from] ^= 1 << self.rng.random_range(0..8),
            1 if !input.is_empty() => input[from] = self.rng.random(),
            2 => drop(input.drain(from..to)),
            3 => input.truncate(from),
            4 => {
                let copy = input[from..to].to_vec();
                let at = self.rng.random_range(0..=input.len());
                input.splice(at..at, copy);
            }
            5 | 6 => {
                let all = [self.words, &WORDS].concat();
                let word = all.choose(&mut self.rng).copied().unwrap_or_default();
                let end = if self.rng.random() { from } else { (from + word.len()).min(input.len()) };
                input.splice(from..end, word.bytes());
            }
            7 => self.number_as_text(input, from),
            8 => self.number_as_bytes(input, from),
            _ => {
                let other = self.seeds.choose(&mut self.rng).cloned().unwrap_or_default();
                let (a, b) = self.range(other.len());
                input.splice(from..to, other[a..b].iter().copied());
            }
        }
    }

    /// A range of a slice; mostly a short one.
    fn range(&mut self, length: usize) -> (usize, usize) {
        let from = if length == 0 { 0 } else { self.rng.random_range(0..length) };
        let most = if self.rng.random_range(0..4) == 0 { length } else { 16 };
        (from, (from + self.rng.random_range(0..=most)).min(length))
    }

    /// Replaces the number that is written at or after `from`.
    fn number_as_text(&mut self, input: &mut Vec<u8>, from: usize) {
        let Some(start) = input[from..].iter().position(u8::is_ascii_digit).map(|at| from + at) else {
            return;
        };
        let end = input[start..].iter().position(|b| !b.is_ascii_digit()).map_or(input.len(), |n| start + n);
        let number = NUMBERS.choose(&mut self.rng).copied().unwrap_or_default();
        input.splice(start..end, number.bytes());
    }

    /// Puts a number over the bytes at `from`.
    fn number_as_bytes(&mut self, input: &mut [u8], from: usize) {
        let value = BINARY.choose(&mut self.rng).copied().unwrap_or_default();
        let value = value
            .wrapping_add(self.rng.random_range(0..4))
            .wrapping_sub(2 * u64::from(self.rng.random::<bool>()));
        let width = 1 << self.rng.random_range(0..4);
        let mut bytes = value.to_le_bytes();
        if self.rng.random() {
            bytes[..width].reverse();
        }
        let end = (from + width).min(input.len());
        input[from..end].copy_from_slice(&bytes[..end - from]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutations_repeat_and_differ() {
        let seeds = [b"{\"a\": 12, \"b\": [1, 2]}".to_vec(), Vec::new()];
        let make = |name| {
            let mut mutator = Mutator::new(name, &seeds, &["word"], 64);
            (0..500).map(|_| mutator.next_input()).collect::<Vec<_>>()
        };
        let made = make("x");
        assert_eq!(made, make("x"));
        assert_ne!(made, make("y"));
        let distinct: std::collections::BTreeSet<_> = made.iter().collect();
        assert!(distinct.len() > 300, "{}", distinct.len());
        assert!(made.iter().all(|input| input.len() <= 64));
    }
}
