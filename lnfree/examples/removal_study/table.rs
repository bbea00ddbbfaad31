//! Methods against each other: what each loses, how far it lies from the original, and where it explodes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use lnfree::atomic::write_text;
use lnfree::eval::read_sequences;
use lnfree::plot::EvalRow;
use lnfree::report::read_eval;
use lnfree::{Error, Result};
use serde_json::{Value, json};

use crate::spread::Spread;

const ORIGINAL: &str = "original";
/// What the others are set against.
const PAPER: &str = "paper";
/// The data sets of the tables; all others are stress.
const TEXTS: [&str; 2] = ["nano-addresses", "nano-moby-dick"];

/// Rows by data set, method and seed.
type Found = BTreeMap<String, BTreeMap<String, BTreeMap<u64, EvalRow>>>;

/// Writes `results.md` and `results.json` into `out` from the evaluations in `eval`.
pub fn write(eval: &Path, out: &Path) -> Result<()> {
    let (found, originals) = read(eval)?;
    let mut text = String::from("# Removal methods at equal tokens\n");
    let mut records = Vec::new();
    for dataset in TEXTS {
        if let (Some(methods), Some(original)) = (found.get(dataset), originals.get(dataset)) {
            let rows: Vec<Row> =
                methods.iter().map(|(name, seeds)| Row::new(name, seeds, original)).collect();
            text += &losses(dataset, original, &rows);
            records.extend(rows.iter().map(|row| row.record(dataset)));
        }
    }
    let (stress, of_stress) = stress(&found, &originals)?;
    text += &stress;
    records.extend(of_stress);
    let json = out.join("results.json");
    let record = serde_json::to_string_pretty(&records).map_err(|error| Error::file(&json, error))?;
    write_text(&json, &record)?;
    let page = out.join("results.md");
    write_text(&page, &text)?;
    println!("{text}\n{} and {}", page.display(), json.display());
    Ok(())
}

fn read(eval: &Path) -> Result<(Found, BTreeMap<String, EvalRow>)> {
    let (mut found, mut originals) = (Found::new(), BTreeMap::new());
    let entries = std::fs::read_dir(eval).map_err(Error::io(eval))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.extension().is_none_or(|end| end != "json") {
            continue;
        }
        let row = read_eval(&path)?;
        let label = row.label.clone().unwrap_or_default();
        let dataset = Path::new(&row.dataset).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if label == ORIGINAL {
            originals.insert(dataset, row);
        } else if let Some((method, seed)) =
            label.rsplit_once('-').and_then(|(m, s)| Some((m, s.parse().ok()?)))
        {
            found.entry(dataset).or_default().entry(method.to_string()).or_default().insert(seed, row);
        }
    }
    if originals.is_empty() || found.is_empty() {
        return Err(Error::file(eval, "holds no evaluations of the original and of METHOD-SEED"));
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
    fn new(method: &str, seeds: &BTreeMap<u64, EvalRow>, original: &EvalRow) -> Row {
        let rows: Vec<&EvalRow> = seeds.values().collect();
        let far = |of: fn(&lnfree::eval::Faithfulness) -> f64| {
            rows.iter().filter_map(|row| row.details.faithfulness.as_ref().map(of)).collect()
        };
        let error = |row: &EvalRow| row.details.calibration_error.unwrap_or(f64::NAN);
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
fn losses(dataset: &str, original: &EvalRow, rows: &[Row]) -> String {
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
fn stress(found: &Found, originals: &BTreeMap<String, EvalRow>) -> Result<(String, Vec<Value>)> {
    let kinds: Vec<&String> = originals.keys().filter(|name| found.contains_key(*name)).collect();
    let methods: Vec<&String> =
        found.values().next().map(|methods| methods.keys().collect()).unwrap_or_default();
    let mut out = format!(
        "\n## Worst sequences\n\nLoss of a sequence less the original's, nats a token: the highest over sequences and seeds.\n\n\
         | method | {} |\n|---|{}\n",
        kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(" | "),
        "---:|".repeat(kinds.len())
    );
    let mut records = Vec::new();
    for method in methods {
        let _ = write!(out, "| {method} |");
        for &kind in &kinds {
            let seeds = found[kind].get(method);
            let mut worst = f64::NEG_INFINITY;
            for row in seeds.into_iter().flat_map(BTreeMap::values) {
                let lost = losses_of(row)?.into_iter().zip(losses_of(&originals[kind])?).map(|(a, b)| a - b);
                // NaN, which max would leave out, is worse than any number.
                worst = lost.fold(worst, |worst, x| if x.is_nan() { f64::INFINITY } else { worst.max(x) });
            }
            let _ = write!(out, " {worst:+.3} |");
            records
                .push(json!({ "dataset": kind, "method": method, "worst_sequence_minus_original": worst }));
        }
        out.push('\n');
    }
    Ok((out, records))
}

fn losses_of(row: &EvalRow) -> Result<Vec<f64>> {
    let path = row.sequences.as_ref().ok_or_else(|| {
        Error::invalid(format!("{}: the losses of its sequences are not there", row.dataset))
    })?;
    Ok(read_sequences(path)?.into_iter().map(|sequence| sequence.loss).collect())
}
