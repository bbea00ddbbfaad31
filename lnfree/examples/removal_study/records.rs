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
const CONFIGS: &str = "studies/removal";
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

/// Whether `RECORDS/METHOD-SEED.json` is there and of the config as it is today.
pub fn is_there(records: &Path, method: &str, seed: u64) -> bool {
    read_one(&file_of(records, &format!("{method}-{seed}"))).is_ok_and(|record| record.is_of_today(method))
}

impl Record {
    /// Whether this is what the config of `method` says today.
    pub fn is_of_today(&self, method: &str) -> bool {
        let config = Path::new(CONFIGS).join(method).with_extension("toml");
        read_text(&config).is_ok_and(|config| config == self.config)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn record(config: &str) -> Record {
        let measured = Measured {
            mean: f64::INFINITY,
            entropy: None,
            accuracy: None,
            calibration_error: Some(0.01),
            by_position: vec![PositionLoss { from: 0, to: 1, mean: f64::NAN }],
            faithfulness: None,
            worst_sequence_minus_original: f64::INFINITY,
        };
        Record {
            label: "paper-7".into(),
            config: config.into(),
            device: "cpu".into(),
            lnfree: "0".into(),
            evaluations: vec![(50, 3.5)],
            texts: BTreeMap::from([("code".into(), measured)]),
        }
    }

    fn keep(folder: &Path, record: &Record) {
        let text = serde_json::to_string(record).unwrap();
        write_text(&file_of(folder, &record.label), &text).unwrap();
    }

    #[test]
    fn a_run_is_done_while_its_config_is_as_it_was() {
        std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_there(folder.path(), "paper", 7));
        let config = read_text(&Path::new(CONFIGS).join("paper.toml")).unwrap();
        keep(folder.path(), &record(&config));
        assert!(is_there(folder.path(), "paper", 7) && !is_there(folder.path(), "paper", 6));
        keep(folder.path(), &record(&format!("{config}#")));
        assert!(!is_there(folder.path(), "paper", 7));
    }

    #[test]
    fn an_explosion_stays_one_and_what_is_no_record_costs_no_other() {
        let folder = tempfile::tempdir().unwrap();
        keep(folder.path(), &record(""));
        write_text(&folder.path().join("older-0.json"), r#"{"label": "older-0"}"#).unwrap();
        let found = read(folder.path()).unwrap();
        assert_eq!(found.len(), 1);
        let code = &found[0].texts["code"];
        assert_eq!((code.mean, code.worst_sequence_minus_original), (f64::INFINITY, f64::INFINITY));
        assert!(code.by_position[0].mean.is_nan());
    }
}
