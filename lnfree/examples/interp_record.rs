//! Records what the analyses of the embedded models come to: `data/interp.json`, which `interp-all --suite
//! nano` compares with
//!
//! ```text
//! ./scripts/interp_all.sh --suite nano --out runs/interp-nano
//! cargo run --example interp_record -- runs/interp-nano
//! ```
//!
//! Run both on one machine: its processor is recorded with the numbers. Build the program again afterwards:
//! the record is a part of it.

use std::path::Path;
use std::time::UNIX_EPOCH;

use chrono::DateTime;
use lnfree::analyses::{Findings, InterpRecord, InterpSuite, Provenance, request_key};
use lnfree::atomic::write_text;
use lnfree::device::{cores, cpu_name};
use lnfree::{Error, Result};
use serde::Deserialize;

/// The suite that is recorded.
const SUITE: &str = "nano";

/// `results.json` of `interp-all`.
#[derive(Deserialize)]
struct Results {
    suite: String,
    findings: Vec<Findings>,
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [folder] = args.as_slice() else {
        return Err(Error::invalid("usage: interp_record FOLDER, the folder of the results"));
    };
    let path = Path::new(folder).join("results.json");
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    let results: Results = serde_json::from_str(&text).map_err(|error| Error::file(&path, error))?;
    complete(&results).map_err(|why| Error::file(&path, why))?;

    let record = InterpRecord::of(&results.findings, provenance(&path)?);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".."));
    let to = root.join("data/interp.json");
    let text = serde_json::to_string_pretty(&record).map_err(|error| Error::file(&to, error))?;
    write_text(&to, &(text + "\n"))?;
    let numbers: usize = record.figures.iter().map(|of| of.numbers.len()).sum();
    println!("{}: {numbers} numbers of {} analyses", to.display(), record.figures.len());
    Ok(())
}

/// Refuses what is not the whole suite: what is missing in a record is compared with nothing.
fn complete(results: &Results) -> Result<()> {
    if results.suite != SUITE {
        return Err(Error::invalid(format!("is of the suite {}, not {SUITE}", results.suite)));
    }
    let suite = InterpSuite::find(SUITE)?;
    for model in &suite.models {
        for request in &suite.requests {
            let same = |of: &Findings| of.label == model.label && of.request == *request;
            if !results.findings.iter().any(same) {
                let (key, label) = (request_key(request), &model.label);
                return Err(Error::invalid(format!("has no {key} of {label}: run interp_all.sh once more")));
            }
        }
    }
    Ok(())
}

/// The command, this machine, and the day on which `results` were written.
fn provenance(results: &Path) -> Result<Provenance> {
    let written = std::fs::metadata(results).and_then(|file| file.modified()).map_err(Error::io(results))?;
    let seconds = written.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let time = i64::try_from(seconds).ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
    let time = time.ok_or_else(|| Error::file(results, "was written at no time of the calendar"))?;
    let processor = cpu_name().unwrap_or_else(|| std::env::consts::ARCH.into());
    Ok(Provenance {
        command: format!("./scripts/interp_all.sh --suite {SUITE}"),
        processor: format!("{processor}, {} cores", cores()),
        date: time.format("%Y-%m-%d").to_string(),
    })
}
