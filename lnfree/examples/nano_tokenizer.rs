//! Trains the tokenizer of the embedded `nano` model on the addresses that `scripts/nano_texts.sh` writes
//! into TEXTS.
//!
//! ```text
//! cargo run --release --example nano_tokenizer -- TEXTS/sotu-train.parquet 4096 data/nano
//! ```

use std::path::Path;

use lnfree::data::{text, tokenizer};
use lnfree::{Error, Result};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [texts, vocab_size, out] = args.as_slice() else {
        return Err(Error::invalid("usage: nano_tokenizer TEXT VOCAB_SIZE OUT_FOLDER"));
    };
    let vocab_size = vocab_size.parse().map_err(|_| Error::invalid("VOCAB_SIZE is not a number"))?;
    let tokenizer = tokenizer::train_bpe(text::documents(Path::new(texts))?, vocab_size)?;
    tokenizer.save(out)?;
    println!("{out}: {} tokens, end-of-text is {}", tokenizer.vocab_size(), tokenizer.eot_id());
    Ok(())
}
