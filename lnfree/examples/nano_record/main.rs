//! Records the nano study: `data/study.json`, which `eval-all --suite nano` compares with, and the tables of
//! the README and the book, which are made of it
//!
//! ```text
//! cargo run --release -- eval-all --suite nano --out runs/nano
//! cargo run --release --example nano_record -- runs/nano/results.json
//! ```
//!
//! Build the program again afterwards: the record is a part of it.

mod scores;
mod tables;

use std::path::Path;

use lnfree::atomic::write_text;
use lnfree::{Error, Result};
use tables::{PAGES, Record, with_table};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [results] = args.as_slice() else {
        return Err(Error::invalid("usage: nano_record RESULTS_JSON"));
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".."));
    let mut record: Record =
        serde_json::from_str(&read(Path::new(results))?).map_err(|error| Error::file(results, error))?;
    record.heads = scores::of_embedded_models()?;
    record.interiors = scores::interiors()?;
    let study = root.join("data/study.json");
    let text = serde_json::to_string_pretty(&record).map_err(|error| Error::file(&study, error))?;
    write_text(&study, &(text + "\n"))?;
    for page in PAGES {
        let path = root.join(page);
        let text = with_table(page, &read(&path)?, &record)
            .ok_or_else(|| Error::file(&path, "has no marks where the table belongs"))?;
        write_text(&path, &text)?;
    }
    println!("{} and the tables of {}", study.display(), PAGES.join(" and "));
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(Error::io(path))
}
