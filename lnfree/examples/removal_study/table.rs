//! Methods against each other: what each loses, how far it lies from the original, and where it explodes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use lnfree::atomic::write_text;
use lnfree::eval::Faithfulness;
use lnfree::{Error, Result};
use serde_json::{Value, json};

use crate::records::{self, Measured, ORIGINAL};
use crate::spread::Spread;

/// What the others are set against.
const PAPER: &str = "paper";
/// The data sets of the tables; all others are stress.
const TEXTS: [&str; 2] = ["nano-addresses", "nano-moby-dick"];

/// What was measured, by text, method and seed.
type Found = BTreeMap<String, BTreeMap<String, BTreeMap<u64, Measured>>>;

/// Writes `results.md` and `results.json` into `out` from the records in `records`.
pub fn write(records: &Path, out: &Path) -> Result<()> {
    let (found, originals) = read(records)?;
    let mut text =
        String::from("# Removal methods\n\nAt equal tokens; `kl_equal_compute` at equal compute.\n");
    let mut rows_of_all = Vec::new();
    for dataset in TEXTS {
        if let (Some(methods), Some(original)) = (found.get(dataset), originals.get(dataset)) {
            let rows: Vec<Row> =
                methods.iter().map(|(name, seeds)| Row::new(name, seeds, original)).collect();
            text += &losses(dataset, original, &rows);
            rows_of_all.extend(rows.iter().map(|row| row.record(dataset)));
        }
    }
    let (stress, of_stress) = stress(&found);
    text += &stress;
    rows_of_all.extend(of_stress);
    let json = out.join("results.json");
    let record = serde_json::to_string_pretty(&rows_of_all).map_err(|error| Error::file(&json, error))?;
    write_text(&json, &record)?;
    let page = out.join("results.md");
    write_text(&page, &text)?;
    println!("{text}\n{} and {}", page.display(), json.display());
    Ok(())
}

fn read(folder: &Path) -> Result<(Found, BTreeMap<String, Measured>)> {
    let (mut found, mut originals) = (Found::new(), BTreeMap::new());
    for record in records::read(folder)? {
        if record.label == ORIGINAL {
            originals = record.texts;
        } else if let Some((method, seed)) =
            record.label.rsplit_once('-').and_then(|(m, s)| Some((m, s.parse().ok()?)))
        {
            if !record.is_of_today(method) {
                eprintln!("left out: {}: its config is another today", record.label);
                continue;
            }
            for (text, measured) in record.texts {
                found.entry(text).or_default().entry(method.to_string()).or_default().insert(seed, measured);
            }
        }
    }
    if originals.is_empty() || found.is_empty() {
        return Err(Error::file(folder, "holds no records of the original and of METHOD-SEED"));
    }
    Ok((found, originals))
}

/// One method on one data set, a value a seed.
struct Row {
    method: String,
    seeds: usize,
    lost: Vec<f64>,
    kl: Vec<f64>,
    jsd: Vec<f64>,
    agreement: Vec<f64>,
    calibration: Vec<f64>,
}

impl Row {
    fn new(method: &str, seeds: &BTreeMap<u64, Measured>, original: &Measured) -> Row {
        let rows: Vec<&Measured> = seeds.values().collect();
        let far = |of: fn(&Faithfulness) -> f64| {
            rows.iter().filter_map(|row| row.faithfulness.as_ref().map(of)).collect()
        };
        let error = |row: &Measured| row.calibration_error.unwrap_or(f64::NAN);
        Row {
            method: method.into(),
            seeds: rows.len(),
            lost: rows.iter().map(|row| row.mean - original.mean).collect(),
            kl: far(|found| found.kl),
            jsd: far(|found| found.jsd),
            agreement: far(|found| 100.0 * found.agreement),
            calibration: rows.iter().map(|row| error(row) - error(original)).collect(),
        }
    }

    fn record(&self, dataset: &str) -> Value {
        let Row { method, lost, kl, jsd, agreement, calibration, .. } = self;
        json!({
            "dataset": dataset, "method": method, "loss_minus_original": lost, "kl": kl, "jsd": jsd,
            "agreement_percent": agreement, "calibration_error_minus_original": calibration,
        })
    }
}

/// The table of one text; methods by their distance to the original.
fn losses(dataset: &str, original: &Measured, rows: &[Row]) -> String {
    let mean = |values: &[f64]| Spread::of(values).map_or(f64::NAN, |spread| spread.mean);
    let paper = rows.iter().find(|row| row.method == PAPER);
    let of_paper = |values: &[f64], of: fn(&Row) -> &Vec<f64>| {
        let ratio = paper.map(|paper| mean(values) / mean(of(paper)));
        ratio.map_or("–".into(), |ratio| format!("{ratio:.2}"))
    };
    let mut sorted: Vec<&Row> = rows.iter().collect();
    sorted.sort_by(|a, b| mean(&a.jsd).total_cmp(&mean(&b.jsd)));
    let mut out = format!(
        "\n## {dataset}\n\nOriginal {:.4} nats a token. Means over seeds with 95% intervals (Student's t); × is the ratio to \
         `{PAPER}`.\n\n| method | seeds | loss − original | × | KL | × | JSD | × | same top token, % | ECE − original |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
        original.mean
    );
    let text =
        |values: &[f64], digits, sign| Spread::of(values).map_or("–".into(), |s| s.text(digits, sign));
    for row in sorted {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            row.method,
            row.seeds,
            text(&row.lost, 4, true),
            of_paper(&row.lost, |row| &row.lost),
            text(&row.kl, 4, false),
            of_paper(&row.kl, |row| &row.kl),
            text(&row.jsd, 4, false),
            of_paper(&row.jsd, |row| &row.jsd),
            text(&row.agreement, 1, false),
            text(&row.calibration, 4, true),
        );
    }
    out
}

/// The worst that happens to a sequence: its loss less the original's, the highest over sequences and seeds.
fn stress(found: &Found) -> (String, Vec<Value>) {
    let methods: BTreeSet<&String> = found.values().flat_map(BTreeMap::keys).collect();
    let mut out = format!(
        "\n## Worst sequences\n\nLoss of a sequence less the original's, nats a token: the highest over sequences and seeds.\n\n\
         | method | {} |\n|---|{}\n",
        found.keys().map(String::as_str).collect::<Vec<_>>().join(" | "),
        "---:|".repeat(found.len())
    );
    let mut rows = Vec::new();
    for method in methods {
        let _ = write!(out, "| {method} |");
        for (text, methods) in found {
            let seeds = methods.get(method).into_iter().flat_map(BTreeMap::values);
            let Some(worst) = seeds.map(|of| of.worst_sequence_minus_original).reduce(f64::max) else {
                out += " – |";
                continue;
            };
            let _ = write!(out, " {worst:+.3} |");
            rows.push(json!({ "dataset": text, "method": method, "worst_sequence_minus_original": worst }));
        }
        out.push('\n');
    }
    (out, rows)
}
