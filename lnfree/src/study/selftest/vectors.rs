//! The numbers in the binary, made of those of the tests by scripts/tests/selftest_vectors.py, and a folder
//! to load them from.

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use tch::{Kind, Tensor};
use tempfile::TempDir;

use crate::config::norm::NormSettings;
use crate::data::{Layout, TokenFile, write_tokens};
use crate::eval::stds::StdDict;
use crate::{Error, Result};

/// The model: the folder that it is loaded from, file by file.
const MODEL: [(&str, &[u8]); 2] = [
    ("config.json", include_bytes!("vectors/config.json")),
    ("model.safetensors", include_bytes!("vectors/model.safetensors")),
];
pub(super) const STDS: &str = include_str!("vectors/stds.json");
const NUMBERS: &str = include_str!("vectors/numbers.json");
const TENSORS: &[u8] = include_bytes!("vectors/numbers.safetensors");

/// Forwards of one group of settings.
#[derive(Debug, Deserialize)]
pub(super) struct ForwardGroup {
    pub name: String,
    pub norm: NormSettings,
    pub states: Vec<ForwardState>,
}

/// What was removed, how many forwards followed, and of which the logits are recorded.
#[derive(Debug, Deserialize)]
pub(super) struct ForwardState {
    pub name: String,
    pub events: Vec<String>,
    pub calls: usize,
    pub recorded: Vec<usize>,
}

/// A training run: tables of its config, and what came out at each step.
#[derive(Debug, Deserialize)]
pub(super) struct TrainingRun {
    pub train: toml::Table,
    pub schedule: toml::Table,
    pub norm: NormSettings,
    pub loss: Vec<f64>,
    pub grad_norm: Vec<f64>,
    pub final_l2: std::collections::BTreeMap<String, f64>,
}

/// Both runs.
#[derive(Debug, Deserialize)]
pub(super) struct TrainingRuns {
    pub with_ln: TrainingRun,
    pub without_ln: TrainingRun,
}

#[derive(Debug, Deserialize)]
struct Numbers {
    columns: i64,
    forward: Vec<ForwardGroup>,
    train: TrainingRuns,
}

/// All of them, with a folder that goes with this.
pub(super) struct Vectors {
    /// Of logits every so manieth is recorded.
    pub columns: i64,
    pub forward: Vec<ForwardGroup>,
    pub train: TrainingRuns,
    /// Standard deviations that runs begin with, `(average, position 0)` per LN.
    pub initial: Vec<(f64, f64)>,
    folder: TempDir,
}

impl Vectors {
    /// Unpacks them.
    ///
    /// # Errors
    /// When no temporary folder can be written.
    pub(super) fn unpack() -> Result<Vectors> {
        let folder = tempfile::tempdir().map_err(Error::io(std::env::temp_dir()))?;
        for (name, bytes) in MODEL {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).map_err(Error::io(&path))?;
        }
        let damaged =
            |why: serde_json::Error| Error::invalid(format!("the embedded numbers are damaged: {why}"));
        let Numbers { columns, forward, train } = serde_json::from_str(NUMBERS).map_err(damaged)?;
        let stds: StdDict = serde_json::from_str(STDS).map_err(damaged)?;
        Ok(Vectors { columns, forward, train, initial: stds.initial(3)?, folder })
    }

    /// The model's folder.
    pub(super) fn model(&self) -> &Path {
        self.folder.path()
    }

    /// A recorded tensor, on the CPU: float32, or int64 for ids.
    ///
    /// # Errors
    /// A name that is none.
    pub(super) fn tensor(&self, name: &str) -> Result<Tensor> {
        tensor(TENSORS, name)
    }

    /// Recorded ids, `[sequences, positions]`, as a token file.
    ///
    /// # Errors
    /// A name that is none, or a folder that cannot be written.
    pub(super) fn tokens(&self, name: &str) -> Result<TokenFile> {
        let path: PathBuf = self.folder.path().join(format!("{name}.arrow"));
        if !path.exists() {
            let rows = Vec::<Vec<i64>>::try_from(self.tensor(name)?)?;
            let layout = Layout::Fixed(rows.first().map_or(0, Vec::len));
            let rows = rows.into_iter().map(|row| Ok(row.into_iter().map(|id| id as u32).collect()));
            write_tokens(&path, rows, layout, 256)?;
        }
        TokenFile::open(&path)
    }
}

fn tensor(bytes: &[u8], name: &str) -> Result<Tensor> {
    let damaged = |why: &dyn std::fmt::Display| {
        Error::invalid(format!("the embedded numbers are damaged: {name}: {why}"))
    };
    let file = SafeTensors::deserialize(bytes).map_err(|e| damaged(&e))?;
    let view = file.tensor(name).map_err(|e| damaged(&e))?;
    let kind = match view.dtype() {
        Dtype::U8 => Kind::Uint8,
        Dtype::I64 => Kind::Int64,
        Dtype::F32 => Kind::Float,
        other => return Err(damaged(&format!("{other:?}"))),
    };
    let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
    let tensor = Tensor::f_from_data_size(view.data(), &shape, kind)?;
    Ok(if kind == Kind::Uint8 { tensor.to_kind(Kind::Int64) } else { tensor })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_the_tests(name: &str) -> Vec<u8> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name);
        std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    #[test]
    fn embedded_numbers_are_those_of_the_tests() {
        assert_eq!(MODEL[0].1, of_the_tests("tiny-a/config.json"));
        assert_eq!(MODEL[1].1, of_the_tests("tiny-a/model.safetensors"));
        assert_eq!(STDS.as_bytes(), of_the_tests("tiny-a_std_dict.json"));
        let vectors = Vectors::unpack().unwrap();
        let same = |name: &str, file: &str, key: &str, step: i64| {
            let (ours, theirs) = (vectors.tensor(name).unwrap(), tensor(&of_the_tests(file), key).unwrap());
            let last = theirs.dim() as i64 - 1;
            assert!(ours == theirs.slice(last, None, None, step), "{name}");
        };
        for group in &vectors.forward {
            let file = format!("forward_{}.safetensors", group.name);
            same(&format!("forward.{}.input_ids", group.name), &file, "input_ids", 1);
            for state in &group.states {
                for call in &state.recorded {
                    let name = format!("forward.{}.{}.{call}", group.name, state.name);
                    let theirs = of_the_tests(&file);
                    let keys =
                        [format!("logits.{}.call{call}", state.name), format!("logits.{}", state.name)];
                    let key = keys.iter().find(|key| tensor(&theirs, key).is_ok()).unwrap();
                    same(&name, &file, key, vectors.columns);
                }
            }
        }
        same("train.tokens", "train_tokens.safetensors", "tokens", 1);
        same("eval.tokens", "eval_tokens.safetensors", "tokens", 1);
        same("eval.losses", "eval_losses.safetensors", "losses.tiny", 1);
        for (run, file) in [
            (&vectors.train.with_ln, "train_a_with_ln.json"),
            (&vectors.train.without_ln, "train_c_aux.json"),
        ] {
            let recorded: serde_json::Value = serde_json::from_slice(&of_the_tests(file)).unwrap();
            let numbers = |key: &str| -> Vec<f64> {
                let values = recorded["steps"][key].as_array().unwrap();
                values.iter().map(|x| x.as_f64().unwrap()).collect()
            };
            assert_eq!((&run.loss, &run.grad_norm), (&numbers("loss"), &numbers("grad_norm")), "{file}");
        }
    }

    #[test]
    fn the_binary_grows_by_little() {
        let bytes = MODEL.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        assert!(bytes + STDS.len() + NUMBERS.len() + TENSORS.len() < 1_500_000);
    }
}
