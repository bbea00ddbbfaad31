//! Text on which a model without LayerNorm may explode: far from what it was trained on, in the embedded
//! model's tokens.

use std::path::Path;

use lnfree::data::{Layout, TokenFile, Tokenizer, open_dataset, write_tokens};
use lnfree::{Error, Result, hub};

/// Sequences of each kind, and their length.
const SEQUENCES: usize = 64;
const LENGTH: usize = 128;

/// A file of this program as it was when the study began: records of different days are of the same text.
const CODE: &str = include_str!("code.txt");

/// Writes one token file a kind into `out`.
pub fn write(out: &Path) -> Result<()> {
    let tokens = open_dataset("nano-train", LENGTH)?;
    let tokenizer = Tokenizer::from_dir(hub::locate_tokenizer("nano")?)?;
    let counts = counts(&tokens)?;
    let vocab_size = counts.len();
    let mut by_count: Vec<usize> = (0..vocab_size).filter(|id| *id as u32 != tokenizer.eot_id()).collect();
    by_count.sort_by_key(|&id| (counts[id], id));
    let mut random = Random(1);
    let mut drawn = |from: &[usize]| -> Vec<Vec<u32>> {
        let mut row = || (0..LENGTH).map(|_| from[random.below(from.len())] as u32).collect();
        (0..SEQUENCES).map(|_| row()).collect()
    };
    let random_rows = drawn(&by_count);
    // The first half said twice.
    let twice = random_rows.iter().map(|row| row[..LENGTH / 2].repeat(2)).collect();
    let rare = drawn(&by_count[..vocab_size / 16]);
    // From the rarest token to the most frequent one.
    let place = |i: usize| i * (by_count.len() - 1) / (SEQUENCES - 1);
    let one = (0..SEQUENCES).map(|i| vec![by_count[place(i)] as u32; LENGTH]).collect();
    let code = tokenizer.encode(CODE)?;
    let code: Vec<Vec<u32>> = code.chunks_exact(LENGTH).map(<[u32]>::to_vec).take(SEQUENCES).collect();
    for (name, rows) in
        [("random", random_rows), ("repeated", twice), ("rare", rare), ("one_token", one), ("code", code)]
    {
        let path = out.join(format!("{name}.arrow"));
        let written = write_tokens(&path, rows.into_iter().map(Ok), Layout::Fixed(LENGTH), vocab_size)?;
        println!("{}: {} sequences", path.display(), written.sequences);
    }
    Ok(())
}

/// How often each token of the vocabulary is in `tokens`.
fn counts(tokens: &TokenFile) -> Result<Vec<u64>> {
    let config = lnfree::model::Gpt2Config::read(&hub::locate_model("nano")?)?;
    let mut counts = vec![0; config.vocab_size as usize];
    for i in 0..tokens.n_sequences() {
        for id in tokens.row(i)? {
            *counts.get_mut(id as usize).ok_or_else(|| Error::invalid(format!("token {id}")))? += 1;
        }
    }
    Ok(counts)
}

/// SplitMix64 (Steele and others, 2014): the same numbers everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}
