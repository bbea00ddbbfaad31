//! The parts of `scripts/removal_study.sh` that count: text that is hard without LayerNorm, and the table
//!
//! ```text
//! cargo run --example removal_study -- stress OUT           OUT/random.arrow and others
//! cargo run --example removal_study -- table EVAL OUT       OUT/results.md and OUT/results.json
//! ```
//!
//! EVAL holds what `eval --out` wrote, with labels METHOD-SEED and `original`.

mod spread;
mod stress;
mod table;

use std::path::Path;

use lnfree::{Error, Result};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["stress", out] => stress::write(Path::new(out)),
        ["table", eval, out] => table::write(Path::new(eval), Path::new(out)),
        _ => Err(Error::invalid("usage: removal_study stress OUT, or removal_study table EVAL OUT")),
    }
}
