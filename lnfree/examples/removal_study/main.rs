//! The parts of `scripts/removal_study.sh` that count: text that is hard without LayerNorm, and the table
//!
//! ```text
//! cargo run --example removal_study -- stress OUT             OUT/random.arrow and others
//! cargo run --example removal_study -- missing RECORDS SEEDS METHOD …    what has not been run: METHOD SEED lines
//! cargo run --example removal_study -- record EVAL RECORDS original
//! cargo run --example removal_study -- record EVAL RECORDS METHOD-SEED CONFIG RUN    RECORDS/METHOD-SEED.json
//! cargo run --example removal_study -- table RECORDS OUT      OUT/results.md and OUT/results.json
//! ```
//!
//! EVAL holds what `eval --out` wrote, with labels METHOD-SEED and `original`.

mod records;
mod spread;
mod stress;
mod table;

use std::path::Path;

use lnfree::{Error, Result};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["stress", out] => stress::write(Path::new(out)),
        ["missing", found, seeds, ref methods @ ..] => missing(Path::new(found), seeds, methods),
        ["record", eval, found, label] => records::write(Path::new(eval), label, None, Path::new(found)),
        ["record", eval, found, label, config, run] => {
            let run = Some((Path::new(config), Path::new(run)));
            records::write(Path::new(eval), label, run, Path::new(found))
        }
        ["table", found, out] => table::write(Path::new(found), Path::new(out)),
        _ => {
            Err(Error::invalid("usage: removal_study stress, missing, record or table; see its first lines"))
        }
    }
}

/// Prints what has no record, or one of another config, seed after seed.
fn missing(found: &Path, seeds: &str, methods: &[&str]) -> Result<()> {
    let seeds: u64 = seeds.parse().map_err(|_| Error::invalid(format!("SEEDS {seeds}: must be a number")))?;
    for seed in 0..seeds {
        for method in methods {
            if !records::is_there(found, method, seed) {
                println!("{method} {seed}");
            }
        }
    }
    Ok(())
}
