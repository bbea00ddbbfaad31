//! Training sequences that say something twice: what induction heads are learnt from.

use std::ops::Range;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The fewest tokens that are said twice.
const SHORTEST: usize = 8;
/// Keeps these random numbers apart from those of the order, which have the same seed.
const PURPOSE: u64 = 0x5245_5045_4154_5321;

/// Which part of the training sequences repeats, `data.repeated_passages` and `data.repeated_random`.
///
/// Text of this size of vocabulary repeats itself too seldom for a small model to learn to copy. A *passage*
/// is a stretch of the sequence that is written once more over a later part of it; a *random* sequence is
/// uniformly random tokens, said again and again until it is full. Either stretch is 8 tokens to half a
/// sequence long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Repeats {
    /// Share of the sequences with a repeated passage, 0 to 1.
    pub passages: f64,
    /// Share of the sequences that are random tokens, 0 to 1.
    pub random: f64,
    /// Ids of random tokens lie below this.
    pub vocab_size: i64,
    /// End-of-text: never among the random tokens, but every other random sequence begins with it.
    pub eot: Option<i64>,
}

impl Repeats {
    /// Nothing repeats beyond what the data has.
    pub const NONE: Repeats = Repeats { passages: 0.0, random: 0.0, vocab_size: 0, eot: None };

    /// Rewrites the sequence at a position of the run, if it is among those that repeat. What comes of it
    /// depends on the seed, the position and the sequence alone, as a resumed run needs.
    pub fn apply(&self, seed: u64, position: u64, ids: &mut [i64]) {
        if self.passages + self.random <= 0.0 || ids.len() < 2 * SHORTEST {
            return;
        }
        let mut random = ChaCha8Rng::seed_from_u64(seed ^ PURPOSE);
        random.set_stream(position);
        let drawn: f64 = random.random();
        if drawn < self.random {
            self.fill_with_random(&mut random, ids);
        } else if drawn < self.random + self.passages {
            let (from, to) = two_places(&mut random, ids.len());
            ids.copy_within(from, to);
        }
    }

    fn fill_with_random(&self, random: &mut ChaCha8Rng, ids: &mut [i64]) {
        let start = match self.eot {
            Some(eot) if random.random() => {
                ids[0] = eot;
                1
            }
            _ => 0,
        };
        let length = random.random_range(SHORTEST..=ids.len() / 2);
        for i in start..ids.len() {
            ids[i] = if i < start + length { self.token(random) } else { ids[i - length] };
        }
    }

    fn token(&self, random: &mut ChaCha8Rng) -> i64 {
        loop {
            let id = random.random_range(0..self.vocab_size.max(2));
            if Some(id) != self.eot {
                return id;
            }
        }
    }
}

/// A stretch of `0..n`, and where one as long begins after it.
fn two_places(random: &mut ChaCha8Rng, n: usize) -> (Range<usize>, usize) {
    let length = random.random_range(SHORTEST..=n / 2);
    let from = random.random_range(0..=n - 2 * length);
    let to = random.random_range(from + length..=n - length);
    (from..from + length, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    const N: usize = 128;
    const EOT: i64 = 4095;

    fn repeats(passages: f64, random: f64) -> Repeats {
        Repeats { passages, random, vocab_size: 4096, eot: Some(EOT) }
    }

    /// Text without a token that comes twice.
    fn text() -> Vec<i64> {
        (0..N as i64).map(|i| 1000 + i).collect()
    }

    fn at(repeats: Repeats, seed: u64, position: u64) -> Vec<i64> {
        let mut ids = text();
        repeats.apply(seed, position, &mut ids);
        ids
    }

    #[test]
    fn a_passage_is_written_once_more_and_the_rest_stays() {
        for position in 0..200 {
            let ids = at(repeats(1.0, 0.0), 3, position);
            let moved: Vec<usize> = (0..N).filter(|&i| ids[i] != text()[i]).collect();
            let (first, last) = (moved[0], *moved.last().unwrap());
            let length = moved.len();
            assert_eq!(last - first + 1, length, "one stretch");
            assert!((SHORTEST..=N / 2).contains(&length));
            let from = (ids[first] - 1000) as usize;
            assert!(from + length <= first, "what is copied stands before its copy");
            assert_eq!(ids[from..from + length], ids[first..first + length]);
        }
    }

    #[test]
    fn random_tokens_are_said_until_the_sequence_is_full() {
        let mut with_eot = 0;
        for position in 0..200 {
            let ids = at(repeats(0.0, 1.0), 3, position);
            let start = usize::from(ids[0] == EOT);
            with_eot += start;
            let said = &ids[start..];
            assert!(said.iter().all(|&id| (0..EOT).contains(&id)));
            let period = (SHORTEST..=N / 2).find(|&p| said[p..].iter().zip(said).all(|(a, b)| a == b));
            assert!(period.is_some(), "position {position}");
        }
        assert!((60..140).contains(&with_eot), "{with_eot} of 200 begin with end-of-text");
    }

    #[test]
    fn shares_are_kept_and_depend_on_seed_and_position_alone() {
        let mixed = repeats(0.3, 0.2);
        let kinds = |seed: u64| -> Vec<u8> {
            let kind = |position| match at(mixed, seed, position) {
                ids if ids == text() => 0,
                ids if ids.iter().all(|id| (1000..1000 + N as i64).contains(id)) => 1,
                _ => 2,
            };
            (0..2000).map(kind).collect()
        };
        let first = kinds(0);
        let share = |kind| first.iter().filter(|&&k| k == kind).count() as f64 / 2000.0;
        assert!((share(1) - 0.3).abs() < 0.04 && (share(2) - 0.2).abs() < 0.04);
        assert_eq!(first, kinds(0));
        assert_ne!(first, kinds(1));
        assert_eq!(at(Repeats::NONE, 0, 5), text());
    }
}
