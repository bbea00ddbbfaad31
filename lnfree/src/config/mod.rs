//! Configs: one TOML file a run, of which the shipped ones are embedded in the program.

mod adaptive;
mod beside;
pub mod hf_config;
mod learning_rate;
mod mode;
pub mod norm;
mod presets;
pub mod run_dir;
pub mod run_state;
pub mod schedule;
mod tables;
pub mod tokenizer_files;
mod unset;
mod validate;

use std::path::Path;

use serde::{Deserialize, Serialize};

pub use adaptive::{AdaptiveConfig, AdaptiveState};
pub use hf_config::Gpt2Config;
pub use learning_rate::LrSchedule;
pub use mode::Mode;
pub use presets::{PRESETS, Preset};
pub use tables::{DataConfig, DistillConfig, EvalConfig, FloatType, LoraConfig, ModelConfig, TrainConfig};
pub use unset::MAY_BE_UNSET;

use self::beside::find_beside;
use self::norm::{NormSettings, RemovalKind, SpecialAxis};
use self::presets::Source;
use self::schedule::{Schedule, ScheduleConfig};
use crate::base::error::shortened;
use crate::{Error, Result};

/// Characters of a key, or of what somebody sets it to, that a message repeats.
const LONGEST_KEY: usize = 200;

/// Everything that decides a run. Written back as TOML it loads again as the same config.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Which model.
    pub model: ModelConfig,
    /// The optimization.
    pub train: TrainConfig,
    /// When which LN goes.
    #[serde(default)]
    pub schedule: ScheduleConfig,
    /// Whether removals wait for the model to recover.
    #[serde(default)]
    pub adaptive: AdaptiveConfig,
    /// How standard deviations are followed.
    #[serde(default)]
    pub norm: NormSettings,
    /// Whom to stay close to.
    #[serde(default)]
    pub distill: DistillConfig,
    /// Whether adapters train instead of everything.
    #[serde(default)]
    pub lora: LoraConfig,
    /// What is trained on.
    pub data: DataConfig,
    /// The evaluations during training.
    #[serde(default)]
    pub eval: EvalConfig,
}

impl Config {
    /// A shipped config by name, or a TOML file by path, with `table.key=value` overrides.
    ///
    /// # Errors
    /// Unknown name, unreadable file, unknown key or impossible value; the error names file and key.
    pub fn load(name_or_path: &str, overrides: &[String]) -> Result<Config> {
        match presets::source(name_or_path)? {
            Source::Shipped(preset) => {
                Config::parse(preset.text, &format!("config {}", preset.name), overrides)
            }
            Source::File(path) => Config::read(path, overrides),
        }
    }

    /// A config from a TOML file. Paths in it are relative to its folder; one that is not there is relative
    /// to the current folder, as those of `overrides` are.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn read(path: &Path, overrides: &[String]) -> Result<Config> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        Config::parse_in(path.parent(), &text, &path.display().to_string(), overrides)
    }

    /// A config from TOML text; `origin` is what errors call it.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, origin: &str, overrides: &[String]) -> Result<Config> {
        Config::parse_in(None, text, origin, overrides)
    }

    /// [`Config::parse`] of a file in `folder`.
    fn parse_in(folder: Option<&Path>, text: &str, origin: &str, overrides: &[String]) -> Result<Config> {
        let error = |key: &str, message: String| Error::Config {
            origin: if is_set(overrides, key, &message) { "--set" } else { origin }.into(),
            key: shortened(key, LONGEST_KEY),
            message: crate::base::error::one_line(message),
        };
        let mut table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            let line = e.span().map_or(1, |s| 1 + text[..s.start.min(text.len())].matches('\n').count());
            error(&format!("line {line}"), one_line(e.message()))
        })?;
        if let Some(folder) = folder {
            find_beside(&mut table, folder);
        }
        for item in overrides {
            apply_override(&mut table, item).map_err(|message| error(item, message))?;
        }
        let config: Config = serde_path_to_error::deserialize(toml::Value::Table(table)).map_err(|e| {
            let key = e.path().to_string();
            error(&key, one_line(e.inner().message()))
        })?;
        config.validate().map_err(|(key, message)| error(&key, message))?;
        Ok(config)
    }

    /// This config with `table.key=value` overrides of [`CHANGEABLE`] keys.
    ///
    /// # Errors
    /// Any other key, or a value that cannot be; the error names it.
    pub fn changed(&self, overrides: &[String]) -> Result<Config> {
        for item in overrides {
            let key = item.split('=').next().unwrap_or_default().trim();
            if !CHANGEABLE.contains(&key) {
                return Err(Error::invalid(format!(
                    "--set {}: a run that goes on keeps its config; only {} may be set with --resume",
                    shortened(item, LONGEST_KEY),
                    CHANGEABLE.join(", ")
                )));
            }
        }
        Config::parse(&self.to_toml(), "--set", overrides)
    }

    /// As TOML, every value written out.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }

    /// The removals of this config, in order. With the special std on the feature axis (the compat setting)
    /// there is none to take off position 0.
    pub fn schedule(&self) -> Schedule {
        let schedule = Schedule::new(&self.schedule, self.model.n_layer);
        match self.norm.special_axis {
            SpecialAxis::Position => schedule,
            SpecialAxis::Feature => schedule.without(RemovalKind::Bos),
        }
    }

    /// The learning rate over the run.
    pub fn lr_schedule(&self) -> LrSchedule {
        LrSchedule {
            learning_rate: self.train.learning_rate,
            min_lr: self.train.min_lr,
            warmup_steps: self.train.warmup_steps,
            max_steps: self.train.max_steps,
        }
    }

    /// Tokens that one optimizer step sees.
    pub fn tokens_per_step(&self) -> usize {
        self.train.batch_size * self.train.gradient_accumulation_steps * self.data.block_size
    }
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What a run that goes on may be told anew: nothing of it changes what is computed, beyond the order of some
/// sums.
pub const CHANGEABLE: [&str; 7] = [
    "train.micro_batch_size",
    "train.save_every",
    "train.keep_checkpoints",
    "train.keep_steps",
    "eval.every",
    "eval.batch_size",
    "eval.max_sequences",
];

/// Whether what is wrong with a key, or with the table of that name, was said by an override.
fn is_set(overrides: &[String], key: &str, message: &str) -> bool {
    overrides.iter().any(|item| {
        let path = item.split('=').next().unwrap_or_default().trim();
        let within = path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        // Of an unknown key the error may have the table alone.
        let named = path.split('.').any(|name| message.contains(&format!("`{name}`")));
        item == key || path == key || (within && named)
    })
}

/// Applies `table.key=value`; the value is TOML, and anything that is not TOML is a string.
fn apply_override(table: &mut toml::Table, item: &str) -> Result<(), String> {
    let form = "an override has the form table.key=value, such as train.max_steps=100";
    let (path, value) = item.split_once('=').ok_or(form)?;
    let (section, key) = path.trim().split_once('.').ok_or(form)?;
    let value = value.trim();
    let parsed = format!("v = {value}").parse::<toml::Table>().ok().and_then(|mut t| t.remove("v"));
    let value = parsed.unwrap_or_else(|| toml::Value::String(value.to_string()));
    let entry = table.entry(section).or_insert_with(|| toml::Value::Table(toml::Table::new()));
    let section = entry.as_table_mut().ok_or_else(|| format!("{section} is not a table"))?;
    section.insert(key.to_string(), value);
    Ok(())
}
