//! Runs by their directories: begun, gone on with, or found complete.

use std::path::{Path, PathBuf};

use tch::Device;

use super::{Mode, Outcome, RunLock, StartOptions, Trainer, lock_run, metrics, run, run_to};
use crate::base::atomic::{verify_checksums, write_text};
use crate::base::console::say;
use crate::base::ranks::{Ranks, Worker};
use crate::config::Config;
use crate::data::dataset_options;
use crate::data::{DatasetOptions, Split, TokenFile, open_dataset_with};
use crate::hub::locate_tokenizer;
use crate::train::checkpoint;
use crate::{Error, Result};

/// A run that is ready to train, and its directory, which is this process's own until this is dropped.
pub struct ReadyRun {
    /// What trains.
    pub trainer: Trainer,
    /// The run directory.
    pub dir: PathBuf,
    /// Of several ranks, the first holds it.
    _lock: Option<RunLock>,
}

/// Data given anew when a run is resumed: names or paths; `None` for what the run began with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// Training tokens; without validation tokens of their own, there are none.
    pub data: Option<String>,
    /// Validation tokens.
    pub eval_data: Option<String>,
}

/// Trains to the end: begins the run in `out`, goes on where it was stopped, or finds it complete. The model
/// is the config's.
///
/// # Errors
/// As [`ReadyRun::begin`], [`ReadyRun::resume`] and [`run`]; and when `out` holds a run with another config
/// or mode.
pub fn start_or_resume(
    config: &Config,
    mode: Mode,
    out: impl AsRef<Path>,
    device: Device,
) -> Result<Outcome> {
    let out = out.as_ref();
    if !checkpoint::has_any(out) {
        let model_dir = match mode {
            Mode::Pretrain => locate_tokenizer(&config.model.name)?,
            _ => checkpoint::locate_model(&config.model.name)?,
        };
        return ReadyRun::begin(config.clone(), mode, &model_dir, out, device)?.run();
    }
    let (dir, newest) = checkpoint::locate(out)?;
    let state = checkpoint::state(&newest)?
        .ok_or_else(|| Error::file(&newest, "is no checkpoint of this program"))?;
    if let Some(difference) = difference(config, mode, &state.config, state.mode) {
        return Err(Error::file(
            out,
            format!("holds another run ({difference}); delete it, or choose another folder"),
        ));
    }
    // Killed between the last checkpoint and its evaluation, a run has that still to do.
    let evaluated = metrics::last_evaluated(&dir, state.step)?;
    let evaluated = config.data.eval.is_none() || evaluated == state.step.checked_sub(1);
    if state.step >= config.train.max_steps && evaluated {
        say(&format!("{}: all {} steps are done", out.display(), state.step));
        return Ok(Outcome { checkpoint: newest, steps: state.step });
    }
    let keep = &config.train.keep_steps;
    let changes = (*keep != state.config.train.keep_steps).then(|| format!("train.keep_steps={keep:?}"));
    let changes: Vec<String> = changes.into_iter().collect();
    let run = ReadyRun::resume_with(&dir, Sources::default(), &changes, device)?;
    say(&format!("resuming {} after step {}", out.display(), run.trainer.step()));
    run.run()
}

/// The first thing that two runs do not share, as a person would say it.
fn difference(config: &Config, mode: Mode, there: &Config, mode_there: Mode) -> Option<String> {
    if mode != mode_there {
        return Some(format!("{mode_there:?} there, {mode:?} here"));
    }
    let tables =
        |config: &Config| what_is_computed(config).to_toml().parse::<toml::Table>().unwrap_or_default();
    let (here, there) = (tables(config), tables(there));
    for table in here.keys().chain(there.keys()) {
        let keys =
            |of: &toml::Table| of.get(table).and_then(toml::Value::as_table).cloned().unwrap_or_default();
        let (here, there) = (keys(&here), keys(&there));
        let value = |of: &toml::Table, key: &str| of.get(key).map_or("nothing".into(), ToString::to_string);
        if let Some(key) = here.keys().chain(there.keys()).find(|key| here.get(*key) != there.get(*key)) {
            return Some(format!(
                "{table}.{key} is {} there, {} here",
                value(&there, key),
                value(&here, key)
            ));
        }
    }
    None
}

/// How many sequences go through at a time, and which checkpoints stay, changes nothing about the run.
fn what_is_computed(config: &Config) -> Config {
    let mut config = config.clone();
    config.train.micro_batch_size = None;
    config.train.keep_steps = Vec::new();
    config
}

impl ReadyRun {
    /// A run at step 0 of the model, or for [`Mode::Pretrain`] the tokenizer, in `model_dir`; its data are
    /// the config's. `worker` is a device, or one of several ranks, of which the first writes into `out`.
    ///
    /// # Errors
    /// When `out` holds a run already or cannot be written, whatever keeps model or data from being read, and
    /// as [`Trainer::join`].
    pub fn begin(
        config: Config,
        mode: Mode,
        model_dir: &Path,
        out: &Path,
        worker: impl Into<Worker>,
    ) -> Result<ReadyRun> {
        let Worker { ranks, device } = worker.into();
        let make = || -> Result<ReadyRun> {
            if checkpoint::has_any(out) {
                let out = out.display();
                return Err(Error::invalid(format!(
                    "{out}: holds a run already; continue it with --resume {out}, or choose another --out"
                )));
            }
            let (tokens, eval_tokens) = ranks.first_alone(|| open_data(&config, model_dir))?;
            let about = serde_json::json!({
                "mode": mode,
                "model": config.model.name,
                "lnfree": env!("CARGO_PKG_VERSION"),
                "device": format!("{device:?}"),
                "threads": tch::get_num_threads(),
                "ranks": ranks.size(),
            });
            let model_dir = std::path::absolute(model_dir).map_err(Error::io(model_dir))?;
            let lock = ranks.is_first().then(|| lock_run(out)).transpose()?;
            if ranks.is_first() {
                write_text(&out.join("config.toml"), &config.to_toml())?;
                write_text(&out.join("run.json"), &format!("{about:#}"))?;
            }
            let trainer =
                Trainer::new(config, StartOptions { mode, model_dir, tokens, eval_tokens, device })?;
            if ranks.is_first() {
                keep_old_metrics(out)?;
            }
            if let Some(lora) = trainer.lora() {
                let (some, all) = (lora.n_parameters(), trainer.model.n_parameters());
                say(&format!("{some} of {all} parameters train"));
            }
            Ok(ReadyRun { trainer, dir: out.to_path_buf(), _lock: lock })
        };
        let ready = ranks.together(make())?;
        ready.joined(ranks)
    }

    fn joined(mut self, ranks: Ranks) -> Result<ReadyRun> {
        self.trainer.join(ranks)?;
        Ok(self)
    }

    /// A run, given by its directory or by one of its checkpoints, where that left it.
    ///
    /// # Errors
    /// When there is none, a file of it is damaged (which checkpoint is whole, the message says), or its data
    /// are not there.
    pub fn resume(path: &Path, sources: Sources, worker: impl Into<Worker>) -> Result<ReadyRun> {
        ReadyRun::resume_with(path, sources, &[], worker)
    }

    /// [`ReadyRun::resume`] with `table.key=value` changes to keys of [`crate::config::CHANGEABLE`], such as
    /// `train.micro_batch_size=auto` on a machine with more memory. There may be more or fewer ranks than
    /// before.
    ///
    /// # Errors
    /// As [`ReadyRun::resume`], for any other key, and as [`Trainer::join`].
    pub fn resume_with(
        path: &Path,
        sources: Sources,
        changes: &[String],
        worker: impl Into<Worker>,
    ) -> Result<ReadyRun> {
        let Worker { ranks, device } = worker.into();
        let make = || -> Result<ReadyRun> {
            let (dir, checkpoint) = checkpoint::locate(path)?;
            let lock = ranks.is_first().then(|| lock_run(&dir)).transpose()?;
            let trainer = resume_from(&ranks, &checkpoint, sources, changes, device).map_err(|error| {
                // Whatever went wrong, a damaged file is the cause that a person has to hear of.
                match verify_checksums(&checkpoint) {
                    Ok(_) => error,
                    Err(damage) => damaged(&dir, &checkpoint, damage),
                }
            })?;
            if !changes.is_empty() && ranks.is_first() {
                write_text(&dir.join("config.toml"), &trainer.config.to_toml())?;
            }
            Ok(ReadyRun { trainer, dir, _lock: lock })
        };
        let ready = ranks.together(make())?;
        ready.joined(ranks)
    }

    /// Trains to the end.
    ///
    /// # Errors
    /// As [`run`].
    pub fn run(mut self) -> Result<Outcome> {
        run(&mut self.trainer, &self.dir)
    }

    /// Trains to optimizer step `end`.
    ///
    /// # Errors
    /// As [`run_to`].
    pub fn run_to(mut self, end: usize) -> Result<Outcome> {
        run_to(&mut self.trainer, &self.dir, end)
    }
}

/// A run that ended before its first checkpoint starts again; what it had measured is put aside.
fn keep_old_metrics(out: &Path) -> Result<()> {
    let old = out.join("metrics.jsonl");
    if old.metadata().is_ok_and(|m| m.len() > 0) {
        std::fs::rename(&old, out.join("metrics.previous.jsonl")).map_err(Error::io(&old))?;
    }
    Ok(())
}

fn resume_from(
    ranks: &Ranks,
    checkpoint: &Path,
    sources: Sources,
    changes: &[String],
    device: Device,
) -> Result<Trainer> {
    let state = checkpoint::state(checkpoint)?.ok_or_else(|| Error::file(checkpoint, "is no checkpoint"))?;
    let before = state.config.train.micro_batch_size;
    let mut config = match changes {
        [] => state.config,
        changes => state.config.changed(changes)?,
    };
    override_data(&mut config, sources);
    let opened = ranks.first_alone(|| {
        open_data(&config, checkpoint).map_err(|error| {
            Error::invalid(format!(
                "cannot resume; go where the run was started, or give --data and --eval-data anew: {error}"
            ))
        })
    });
    let (tokens, eval_tokens) = opened?;
    let model_dir = checkpoint.to_path_buf();
    let start = StartOptions { mode: state.mode, model_dir, tokens, eval_tokens, device };
    let trainer = Trainer::resume(config, start, checkpoint)?;
    if let Some(before) = before.filter(|before| *before != trainer.micro_batch()) {
        say(&format!(
            "{} sequences at a time instead of {before}: the same means, summed in another order, so that \
             last digits may differ from those of a run that goes on as it was{}",
            trainer.micro_batch(),
            if trainer.drops() { "; dropout draws other numbers" } else { "" }
        ));
    }
    Ok(trainer)
}

/// Puts other data into a config.
pub fn override_data(config: &mut Config, sources: Sources) {
    if let Some(data) = sources.data {
        config.data.train = data;
        // The config's validation set goes with its training set, and is often one that this machine does not
        // have.
        config.data.eval = None;
    }
    if sources.eval_data.is_some() {
        config.data.eval = sources.eval_data;
    }
}

fn damaged(run: &Path, checkpoint: &Path, damage: Error) -> Error {
    let advice = match checkpoint::newest_whole(run, checkpoint) {
        Some(path) => format!("the checkpoint before it is whole: --resume {}", path.display()),
        None => "the run has no other whole checkpoint; start it again with another --out".into(),
    };
    Error::invalid(format!("{damage}; {advice}"))
}

fn open_data(config: &Config, model: &Path) -> Result<(TokenFile, Option<TokenFile>)> {
    let eval = dataset_options(model, config.data.block_size);
    let train = &config.train;
    let batch = train.batch_size.saturating_mul(train.gradient_accumulation_steps);
    let sequences = train.max_steps.saturating_mul(batch).max(1);
    let options = DatasetOptions { split: Split::Train, max_sequences: sequences, ..eval.clone() };
    let tokens = open_dataset_with(&config.data.train, &options)?;
    let eval_tokens = config.data.eval.as_deref().map(|name| open_dataset_with(name, &eval)).transpose()?;
    Ok((tokens, eval_tokens))
}
