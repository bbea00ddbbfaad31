//! Fine-tuning with LN removal, the vanilla control, and pretraining from scratch.
//!
//! [`run`] is the whole loop; [`Trainer::train_step`] is one optimizer step.

mod backward;
mod begin;
mod fit;
mod launch;
mod lock;
mod metrics;
mod progress;
pub mod split;
pub mod tensorboard;
mod trainer;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use backward::{BackwardRecipe, Losses, backward};
pub use launch::{Launch, Sources, override_data, start_or_resume};
pub use lock::{RunLock, lock_run};
pub use metrics::{Event, StepRecord};
pub use trainer::{StartOptions, Trainer};

use crate::console::say;
use crate::eval::{EvalOptions, Summary, evaluate};
use crate::{Error, Result, checkpoint, interrupt};
use metrics::MetricsLog;
use progress::Progress;

/// What a run does about LN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Removes LN on the config's schedule.
    WithoutLn,
    /// Keeps LN: the vanilla control.
    WithLn,
    /// Trains from scratch, with LN.
    Pretrain,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The last checkpoint.
    pub checkpoint: PathBuf,
    /// Optimizer steps done.
    pub steps: usize,
}

/// Trains to the end of the schedule, writing metrics, events and checkpoints into `dir`.
///
/// # Errors
/// [`Error::Diverged`] when the loss is not finite, [`Error::Interrupted`] when a signal asked to stop, [`Error::OutOfMemory`] (both after
/// saving), and whatever keeps files from being read or written.
pub fn run(trainer: &mut Trainer, dir: &Path) -> Result<Outcome> {
    let _listening = interrupt::listen();
    checkpoint::clean(dir)?;
    let mut log = MetricsLog::open(dir, trainer)?;
    let mut progress = Progress::new(trainer);
    let max_steps = trainer.config.train.max_steps;
    let mut checkpoint = trainer.resumed_from().map(Path::to_path_buf);
    let mut saved = checkpoint.as_ref().map(|_| trainer.step());
    // A checkpoint may hold the very weights that make the next loss infinite: it is good once a step has followed.
    let mut last_good: Option<PathBuf> = None;
    while trainer.step() < max_steps {
        let step = trainer.step();
        for removal in trainer.apply_removals() {
            log.event(&Event::Remove { step, kind: removal.kind, layer: removal.layer })?;
        }
        let record = match trainer.train_step() {
            Err(Error::OutOfMemory) if step > 0 && saved != Some(step) => {
                return Err(saved_without_memory(trainer, dir, &mut log));
            }
            outcome => outcome?,
        };
        if !record.loss.is_finite() || !record.grad_norm.is_finite() {
            let loss = if record.loss.is_finite() { record.grad_norm } else { record.loss };
            return Err(diverged(step, loss, last_good));
        }
        last_good.clone_from(&checkpoint);
        log.step(&record)?;
        progress.step(&record, trainer);
        let stop = interrupt::requested();
        let last = trainer.step() == max_steps;
        let evaluate = due(trainer.step(), trainer.config.eval.every) || last;
        if evaluate && let Some(loss) = evaluate_now(trainer)? {
            if !loss.is_finite() {
                return Err(diverged(step, loss, last_good));
            }
            log.event(&Event::Eval { step, loss })?;
            progress.note(&format!("step {step}: evaluation loss {loss:.4}"));
        }
        if due(trainer.step(), trainer.config.train.save_every) || last || stop {
            log.sync()?;
            checkpoint = Some(trainer.save(dir)?);
            saved = Some(trainer.step());
        }
        if stop && !last {
            return Err(Error::Interrupted { step, run: dir.to_path_buf() });
        }
    }
    log.sync()?;
    progress.finish();
    match checkpoint {
        Some(checkpoint) => Ok(Outcome { checkpoint, steps: max_steps }),
        None => Err(Error::file(dir, "the run was already complete and has no checkpoint")),
    }
}

/// The end of a run that memory has run out for: the step has changed nothing, what was done before it is saved.
fn saved_without_memory(trainer: &Trainer, dir: &Path, log: &mut MetricsLog) -> Error {
    if let Err(error) = log.sync().and_then(|()| trainer.save(dir)) {
        return error;
    }
    say(&format!("step {}: what was done before it is saved: --resume {}", trainer.step(), dir.display()));
    Error::OutOfMemory
}

/// The end of a run whose loss is not a number; retention may have taken the checkpoint meanwhile.
fn diverged(step: usize, loss: f64, last_good: Option<PathBuf>) -> Error {
    Error::Diverged { step, loss, last_good: last_good.filter(|path| path.is_dir()) }
}

fn due(steps_done: usize, every: usize) -> bool {
    every > 0 && steps_done.is_multiple_of(every)
}

/// Mean loss on the validation data, if the config names any.
fn evaluate_now(trainer: &Trainer) -> Result<Option<f64>> {
    let Some(tokens) = trainer.eval_tokens() else { return Ok(None) };
    let eval = &trainer.config.eval;
    let options = EvalOptions {
        batch_size: eval.batch_size,
        max_sequences: eval.max_sequences,
        dtype: trainer.config.train.dtype,
        ..EvalOptions::default()
    };
    let losses = evaluate(&trainer.model, &trainer.ln, tokens, options, |_| {})?;
    Ok(Some(Summary::new(&losses.losses).mean))
}
