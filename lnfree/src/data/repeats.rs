//! Training sequences that say something twice: what induction heads are learnt from.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The fewest tokens that are said twice.
const SHORTEST: usize = 4;
/// Keeps these random numbers apart from those of the order, which have the same seed.
const PURPOSE: u64 = 0x5245_5045_4154_5321;

/// Which part of the training sequences repeats, `data.repeated_passages` and `data.repeated_random`.
///
/// Text of a small corpus repeats itself too seldom for a small model to learn to copy. A sequence that
/// repeats is a stretch of tokens, said again and again until it is full; the stretch is 4 tokens to half a
/// sequence long, short ones as often as long (the logarithm is uniform). Of a *passage* the stretch is the
/// beginning of the sequence; of a *random* sequence it is, half of the time each, uniformly random tokens or
/// the sequence's own in random order, frequent ones as frequent as in the text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Repeats {
    /// Share of the sequences that are a passage of the data, repeated; 0 to 1.
    pub passages: f64,
    /// Share of the sequences that are random tokens, repeated; 0 to 1.
    pub random: f64,
    /// Ids of random tokens lie below this.
    pub vocab_size: i64,
    /// End-of-text: never among the uniform tokens, but half of the random sequences begin with it.
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
            let eot = self.eot.filter(|_| random.random());
            let start = usize::from(eot.is_some());
            let length = length(&mut random, ids.len());
            match random.random::<f64>() < 0.5 {
                true => ids.shuffle(&mut random),
                false => ids[start..start + length].fill_with(|| self.token(&mut random)),
            }
            if let Some(eot) = eot {
                ids[0] = eot;
            }
            say_again(&mut ids[start..], length);
        } else if drawn < self.random + self.passages {
            say_again(ids, length(&mut random, ids.len()));
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

/// Fills a sequence with its first `length` tokens.
fn say_again(ids: &mut [i64], length: usize) {
    for i in length..ids.len() {
        ids[i] = ids[i - length];
    }
}

/// Tokens in a stretch that is said twice in `n`, its logarithm uniform.
fn length(random: &mut ChaCha8Rng, n: usize) -> usize {
    let (shortest, longest) = (SHORTEST as f64, (n / 2) as f64);
    let drawn: f64 = random.random();
    ((shortest * ((longest + 1.0) / shortest).powf(drawn)) as usize).clamp(SHORTEST, n / 2)
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

    fn period(ids: &[i64]) -> Option<usize> {
        (1..=ids.len().div_ceil(2)).find(|&p| ids[p..].iter().zip(ids).all(|(a, b)| a == b))
    }

    #[test]
    fn a_passage_is_the_beginning_of_the_sequence_said_until_it_is_full() {
        let mut lengths = Vec::new();
        for position in 0..400 {
            let ids = at(repeats(1.0, 0.0), 3, position);
            let length = period(&ids).unwrap();
            assert_eq!(ids[..length], text()[..length]);
            lengths.push(length);
        }
        assert_eq!((lengths.iter().min(), lengths.iter().max()), (Some(&SHORTEST), Some(&(N / 2))));
        // Half of the logarithm's range ends at 16 tokens.
        let short = lengths.iter().filter(|&&length| length < 16).count();
        assert!((160..240).contains(&short), "{short} of 400 are short");
    }

    #[test]
    fn random_tokens_are_new_or_the_sequences_own() {
        let (mut with_eot, mut own) = (0, 0);
        for position in 0..400 {
            let ids = at(repeats(0.0, 1.0), 3, position);
            let start = usize::from(ids[0] == EOT);
            with_eot += start;
            let said = &ids[start..];
            assert!(period(said).is_some(), "position {position}");
            assert!(said.iter().all(|&id| (0..EOT).contains(&id)));
            own += usize::from(said.iter().all(|id| text().contains(id)));
        }
        assert!((160..240).contains(&with_eot), "{with_eot} of 400 begin with end-of-text");
        assert!((160..240).contains(&own), "{own} of 400 have the sequence's own tokens");
    }

    #[test]
    fn shares_are_kept_and_depend_on_seed_and_position_alone() {
        let mixed = repeats(0.3, 0.2);
        let kinds = |seed: u64| -> Vec<u8> {
            let kind = |position| match at(mixed, seed, position) {
                ids if ids == text() => 0,
                ids if ids[..SHORTEST] == text()[..SHORTEST] => 1,
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
