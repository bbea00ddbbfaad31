//! What is kept of a run: a small file, of which the tables are made and by which a finished run is known.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lnfree::atomic::write_text;
use lnfree::eval::{Faithfulness, read_sequences};
use lnfree::plot::{EvalRow, PositionLoss};
use lnfree::report::{read_eval, read_run};
use lnfree::{Error, Result};
use serde::{Deserialize, Serialize};

/// Where the methods' configs are, from the repository.
pub const CONFIGS: &str = "studies/removal";
/// The label and the record of the model that all runs start from.
pub const ORIGINAL: &str = "original";

/// One model on all texts.
#[derive(Serialize, Deserialize)]
pub struct Record {
    pub label: String,
    /// The TOML that it was trained with; empty for the original.
    pub config: String,
    /// What it was evaluated on.
    pub device: String,
    pub lnfree: String,
    /// During the run, on the validation text: step and nats a token.
    pub evaluations: Vec<(usize, f64)>,
    pub texts: BTreeMap<String, Measured>,
}

/// One model on one text.
#[derive(Serialize, Deserialize)]
pub struct Measured {
    /// Nats a token; infinite, null in JSON, where a token has no finite loss.
    #[serde(deserialize_with = "or_infinite")]
    pub mean: f64,
    pub entropy: Option<f64>,
    pub accuracy: Option<f64>,
    pub calibration_error: Option<f64>,
    pub by_position: Vec<PositionLoss>,
    /// From the original; none for itself.
    pub faithfulness: Option<Faithfulness>,
    /// The highest loss of a sequence less the original's, nats a token.
    #[serde(deserialize_with = "or_infinite")]
    pub worst_sequence_minus_original: f64,
}

fn or_infinite<'de, D: serde::Deserializer<'de>>(from: D) -> std::result::Result<f64, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or(f64::INFINITY))
}

/// Writes `RECORDS/LABEL.json` of what `eval --out EVAL` has of LABEL; `run` is `None` for the original.
pub fn write(eval: &Path, label: &str, run: Option<(&Path, &Path)>, records: &Path) -> Result<()> {
    let rows = rows(eval)?;
    let own = rows.get(label).ok_or_else(|| Error::file(eval, format!("holds no evaluation of {label}")))?;
    let mut texts = BTreeMap::new();
    for (text, row) in own {
        let original = rows.get(ORIGINAL).and_then(|of| of.get(text));
        let original =
            original.ok_or_else(|| Error::file(eval, format!("{ORIGINAL} on {text} is missing")))?;
        texts.insert(text.clone(), measured(row, original)?);
    }
    let (mut config, mut evaluations, mut version) = Default::default();
    if let Some((file, run)) = run {
        config = read_text(file)?;
        let logged = read_run(run)?;
        (evaluations, version) = (logged.evals, logged.info.lnfree);
    }
    let device = own.values().find_map(|row| row.details.device.clone()).unwrap_or_default();
    let record = Record { label: label.into(), config, device, lnfree: version, evaluations, texts };
    let path = file_of(records, label);
    let text = serde_json::to_string(&record).map_err(|error| Error::file(&path, error))?;
    write_text(&path, &(text + "\n"))
}

fn measured(row: &EvalRow, original: &EvalRow) -> Result<Measured> {
    let read = |row: &EvalRow| (row.n_sequences, row.details.data_sha256.clone());
    if read(row) != read(original) {
        let message =
            format!("{}: the original was evaluated on other text; delete the evaluations", row.dataset);
        return Err(Error::invalid(message));
    }
    let lost = losses(row)?.into_iter().zip(losses(original)?).map(|(own, original)| own - original);
    Ok(Measured {
        mean: row.mean,
        entropy: row.details.entropy,
        accuracy: row.details.accuracy,
        calibration_error: row.details.calibration_error,
        by_position: row.details.by_position.clone(),
        faithfulness: row.details.faithfulness.clone(),
        // NaN, which max would leave out, is worse than any number.
        worst_sequence_minus_original: lost
            .fold(f64::NEG_INFINITY, |worst, x| if x.is_nan() { f64::INFINITY } else { worst.max(x) }),
    })
}

fn losses(row: &EvalRow) -> Result<Vec<f64>> {
    let path = row.sequences.as_ref().ok_or_else(|| {
        Error::invalid(format!("{}: the losses of its sequences are not there", row.dataset))
    })?;
    Ok(read_sequences(path)?.into_iter().map(|sequence| sequence.loss).collect())
}

/// The evaluations in a folder by label and text.
fn rows(eval: &Path) -> Result<BTreeMap<String, BTreeMap<String, EvalRow>>> {
    let mut found: BTreeMap<String, BTreeMap<String, EvalRow>> = BTreeMap::new();
    for path in json_files(eval)? {
        let row = read_eval(&path)?;
        let text = Path::new(&row.dataset).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        found.entry(row.label.clone().unwrap_or_default()).or_default().insert(text, row);
    }
    Ok(found)
}

/// The records of a folder that can be read; says which cannot.
pub fn read(records: &Path) -> Result<Vec<Record>> {
    let readable = |path: &PathBuf| read_one(path).map_err(|error| eprintln!("left out: {error}")).ok();
    Ok(json_files(records)?.iter().filter_map(readable).collect())
}

/// Whether `RECORDS/LABEL.json` is there and of the config as it is today.
pub fn is_there(records: &Path, label: &str, config: &Path) -> Result<bool> {
    let config = read_text(config)?;
    Ok(read_one(&file_of(records, label)).is_ok_and(|record| record.config == config))
}

/// Whether a record of `method` is of another config than that of today.
pub fn is_outdated(record: &Record, method: &str) -> bool {
    let config = Path::new(CONFIGS).join(method).with_extension("toml");
    !read_text(&config).is_ok_and(|config| config == record.config)
}

fn read_one(path: &Path) -> Result<Record> {
    serde_json::from_str(&read_text(path)?).map_err(|error| Error::file(path, error))
}

fn file_of(records: &Path, label: &str) -> PathBuf {
    records.join(format!("{label}.json"))
}

fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(Error::io(path))
}

fn json_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "json"));
    paths.sort();
    Ok(paths)
}
