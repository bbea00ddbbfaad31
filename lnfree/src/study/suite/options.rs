//! How a study is run, and the file that remembers it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tch::Device;

use super::{Suite, SuiteModel};
use crate::base::atomic::write_text;
use crate::{Error, Result};

/// The file in a study's folder that says what it was started with.
pub const SETTINGS: &str = "suite.json";

/// What evaluations of one folder share, or they would not compare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The suite's name.
    pub suite: String,
    /// Sequences evaluated at most.
    pub limit: usize,
    /// Sequences in one forward.
    pub batch_size: usize,
    /// `float32`, `tf32` or `bfloat16`.
    pub dtype: String,
    /// Whether every model is compared with the original that it was made of.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub distances: bool,
}

/// One study: what, how and where.
#[derive(Debug, Clone)]
pub struct StudyOptions {
    /// The models and data sets that are left of a suite after the user's choice.
    pub suite: Suite,
    /// What its evaluations share.
    pub settings: Settings,
    /// Where it is computed.
    pub device: Device,
    /// CPU threads of an evaluation.
    pub threads: Option<usize>,
    /// The folder of the results.
    pub out: PathBuf,
    /// The `lnfree` binary, whose `eval` does the work.
    pub program: PathBuf,
    /// How far a measured figure may lie from the published one, nats.
    pub tolerance: f64,
}

impl StudyOptions {
    /// The original that a model's predictions are compared with; `None` where nothing is compared, and for
    /// an original itself.
    pub fn original_of(&self, model: &SuiteModel) -> Option<&SuiteModel> {
        self.settings.distances.then(|| self.suite.original_of(model)).flatten()
    }
}

impl Settings {
    /// The folder for a study with these settings: `runs/eval-SUITE`, with what is unusual in its name.
    pub fn default_folder(&self, suite: &Suite, usual_dtype: &str) -> PathBuf {
        let mut name = format!("eval-{}", self.suite);
        if self.limit != suite.limit {
            name += &format!("-n{}", self.limit);
        }
        if self.batch_size != suite.batch_size {
            name += &format!("-b{}", self.batch_size);
        }
        if self.dtype != usual_dtype {
            name += &format!("-{}", self.dtype);
        }
        if self.distances {
            name += "-distances";
        }
        Path::new("runs").join(name)
    }

    /// The settings that the study in `folder` was started with; `None` if there is no study.
    ///
    /// # Errors
    /// When the file is there and cannot be understood.
    pub fn read(folder: &Path) -> Result<Option<Settings>> {
        let path = folder.join(SETTINGS);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(Error::io(&path))?,
        };
        let unknown =
            |error| Error::file(&path, format!("is not the settings of a study ({error}); use --fresh"));
        serde_json::from_str(&text).map(Some).map_err(unknown)
    }

    /// Writes them into `folder`.
    ///
    /// # Errors
    /// When that fails.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::file(folder.join(SETTINGS), e))?;
        write_text(&folder.join(SETTINGS), &text)
    }

    /// Refuses to mix these settings with others in one folder.
    ///
    /// # Errors
    /// When `folder` holds a study with other settings, which the message names.
    pub fn check(&self, folder: &Path) -> Result<()> {
        match Self::read(folder)? {
            Some(there) if there != *self => Err(Error::file(
                folder,
                format!(
                    "holds a study with {there}, not {self}; choose another --out, or replace it with --fresh"
                ),
            )),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Display for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Settings { suite, limit, batch_size, dtype, distances } = self;
        let distances = if *distances { " --distances" } else { "" };
        write!(f, "--suite {suite} --limit {limit} --batch-size {batch_size} --dtype {dtype}{distances}")
    }
}

/// Removes a study's files from `folder`: results, losses of sequences, tables and settings. Other files
/// stay.
///
/// # Errors
/// When the folder cannot be listed or a file not be removed.
pub fn remove_study(folder: &Path) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::io(folder))?,
    };
    for entry in entries {
        let entry = entry.map_err(Error::io(folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = name == SETTINGS || name.starts_with("results.");
        let evaluation = name.contains("--") && (name.ends_with(".json") || name.ends_with(".arrow"));
        if ours || evaluation {
            std::fs::remove_file(entry.path()).map_err(Error::io(entry.path()))?;
        }
    }
    Ok(())
}
