//! Fine-tuning with LN removal, the vanilla control, and pretraining from scratch.
//!
//! [`run`] is the whole loop; [`Trainer::train_step`] is one optimizer step.

mod adaptive;
mod backward;
mod begin;
pub mod checkpoint;
mod fit;
mod lock;
mod lora;
pub mod memory;
mod metrics;
pub mod optim;
mod progress;
mod ready_run;
pub mod split;
mod start_options;
mod teacher;
pub mod tensorboard;
mod trainer;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

pub use crate::config::Mode;
pub use adaptive::{Adaptive, Reason};
pub use backward::{BackwardRecipe, Losses, backward};
pub use lock::{RunLock, lock_run};
pub use lora::Lora;
pub use metrics::{Event, StepRecord};
pub use ready_run::{ReadyRun, Sources, override_data, start_or_resume};
pub use start_options::StartOptions;
pub use teacher::{Taught, Teacher};
pub use trainer::Trainer;

use crate::base::atomic::write_text;
use crate::base::caught::text_of;
use crate::base::console::say;
use crate::base::interrupt;
use crate::config::AdaptiveConfig;
use crate::config::schedule::ScheduleConfig;
use crate::eval::{EvalOptions, Summary, evaluate_on};
use crate::{Error, Result};
use metrics::MetricsLog;
use progress::Progress;
use split::catching_lack_of_memory;

/// The config in a run's folder that does again what its adaptive schedule found.
pub const REPLAY_FILE: &str = "replay.toml";

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
/// A step is saved before it is evaluated. An evaluation that fails, or whose loss is not finite, is an
/// [`Event::EvalFailed`] in the log and a line, and training goes on: its own loss says whether it can. After
/// the last step no other loss follows, so that one of the evaluation that is not finite ends the run as
/// [`Error::Diverged`].
///
/// # Errors
/// [`Error::Diverged`] when the training loss, or the last evaluation's, is not finite,
/// [`Error::Interrupted`] when a signal asked to stop, [`Error::OutOfMemory`] and data that cannot be read
/// (all but the first after saving what was done), and whatever keeps files from being written.
pub fn run(trainer: &mut Trainer, dir: &Path) -> Result<Outcome> {
    run_to(trainer, dir, trainer.config.train.max_steps)
}

/// [`run`], no further than optimizer step `end`, after which there is a checkpoint to go on from. Learning
/// rate and schedule are those of the whole run.
///
/// # Errors
/// As [`run`], and when `end` lies beyond the last step, or behind the run.
pub fn run_to(trainer: &mut Trainer, dir: &Path, end: usize) -> Result<Outcome> {
    let (step, max_steps) = (trainer.step(), trainer.config.train.max_steps);
    if end > max_steps || end < step {
        return Err(Error::invalid(format!(
            "the run cannot stop after step {end}: {step} of its {max_steps} steps are done"
        )));
    }
    let _listening = interrupt::listen();
    let mut run = trainer.ranks().together(Run::open(trainer, dir))?;
    run.evaluate_again(trainer)?;
    while trainer.step() < end {
        let step = trainer.step();
        run.begin_removals(trainer)?;
        let removed = trainer.apply_removals();
        for removal in &removed {
            run.event(&Event::Remove { step, kind: removal.kind, layer: removal.layer })?;
        }
        trainer.fit_channels(&removed)?;
        if let Err(error) = trainer.accumulate_gradients() {
            return Err(run.saved_despite(trainer, error));
        }
        let record = trainer.update_parameters()?;
        if trainer.has_exploded(&record) && run.go_back(trainer, &record)? {
            continue;
        }
        if !record.loss.is_finite() || !record.grad_norm.is_finite() {
            let loss = if record.loss.is_finite() { record.grad_norm } else { record.loss };
            return Err(run.diverged(step, loss));
        }
        run.last_good.clone_from(&run.checkpoint);
        run.step(&record)?;
        run.progress.step(&record, trainer);
        let (last, to_stop) = (trainer.step() == max_steps, trainer.is_to_stop());
        if save_is_due(trainer) || trainer.step() == end || to_stop {
            run.save(trainer)?;
        }
        // What a signal keeps from being evaluated is evaluated when the run goes on.
        if evaluation_is_due(trainer) && (last || !to_stop) {
            run.evaluate(trainer)?;
        }
        // During the evaluation too; ranks hear of it at the next step.
        if trainer.is_to_stop() && !last {
            run.save(trainer)?;
            return Err(Error::Interrupted { step, run: dir.to_path_buf() });
        }
    }
    run.end_of_adaptive(trainer)?;
    run.finish(trainer.step())
}

/// What a run writes while it trains; of several ranks, the first.
struct Run<'a> {
    dir: &'a Path,
    log: Option<MetricsLog>,
    progress: Progress,
    checkpoint: Option<PathBuf>,
    /// The step that `checkpoint` is of.
    saved: Option<usize>,
    /// A checkpoint may hold the very weights that make the next loss infinite: it is good once a step has
    /// followed.
    last_good: Option<PathBuf>,
}

impl<'a> Run<'a> {
    fn open(trainer: &Trainer, dir: &'a Path) -> Result<Run<'a>> {
        let checkpoint = trainer.resumed_from().map(Path::to_path_buf);
        let log = match trainer.ranks().is_first() {
            true => {
                checkpoint::clean(dir)?;
                Some(MetricsLog::open(dir, trainer.step())?)
            }
            false => None,
        };
        Ok(Run {
            dir,
            log,
            progress: Progress::new(trainer),
            saved: checkpoint.as_ref().map(|_| trainer.step()),
            checkpoint,
            last_good: None,
        })
    }

    /// Writes a checkpoint, unless there is one of this step. No rank goes on before it is there.
    fn save(&mut self, trainer: &Trainer) -> Result<()> {
        if self.saved != Some(trainer.step()) {
            trainer.check_ranks_agree()?;
            let written = self.write(trainer);
            trainer.ranks().together(written)?;
            self.saved = Some(trainer.step());
        }
        Ok(())
    }

    fn write(&mut self, trainer: &Trainer) -> Result<()> {
        self.sync()?;
        self.checkpoint = Some(match trainer.ranks().is_first() {
            true => trainer.save(self.dir)?,
            false => checkpoint::of_step(self.dir, trainer.step()),
        });
        Ok(())
    }

    fn event(&mut self, event: &Event) -> Result<()> {
        self.log.as_mut().map_or(Ok(()), |log| log.event(event))
    }

    fn step(&mut self, record: &StepRecord) -> Result<()> {
        self.log.as_mut().map_or(Ok(()), |log| log.step(record))
    }

    fn sync(&mut self) -> Result<()> {
        self.log.as_mut().map_or(Ok(()), MetricsLog::sync)
    }

    /// Lets an adaptive schedule begin with removals. They may explode: the checkpoint from before them is
    /// written first.
    fn begin_removals(&mut self, trainer: &mut Trainer) -> Result<()> {
        if trainer.removals_begin() {
            self.save(trainer)?;
        }
        let step = trainer.step();
        match trainer.begin_removals() {
            Some((removals, reason)) => self.event(&Event::Begin { step, removals, reason }),
            None => Ok(()),
        }
    }

    /// Goes back to before the removals that exploded, to make them over more steps. Where they have been
    /// tried often enough, a loss that is not finite is left to whoever looks at it next (false).
    fn go_back(&mut self, trainer: &mut Trainer, record: &StepRecord) -> Result<bool> {
        let began = trainer.adaptive().and_then(|adaptive| adaptive.state().began_last());
        let (Some(began), Some(taper_steps)) = (began, trainer.slow_down()) else {
            return match record.kl_loss.filter(|_| record.loss.is_finite()) {
                Some(kl) => Err(Error::invalid(format!(
                    "step {}: the KL to the teacher is {kl:.3}, above adaptive.explodes_at, however slowly the \
                     last removal goes; the run up to step {} is saved",
                    record.step + 1,
                    self.saved.unwrap_or_default()
                ))),
                None => Ok(false),
            };
        };
        let checkpoint = checkpoint::of_step(self.dir, began);
        let taken_back = match trainer.ranks().is_first() {
            true => checkpoint::go_back(self.dir, began).map(drop),
            false => Ok(()),
        };
        trainer.ranks().together(taken_back)?;
        trainer.go_back(&checkpoint)?;
        self.sync()?;
        if self.log.is_some() {
            self.log = Some(MetricsLog::open(self.dir, began)?);
        }
        let kl = record.kl_loss.filter(|kl| kl.is_finite() && record.loss.is_finite());
        self.event(&Event::GoBack { step: began, exploded: record.step, kl, taper_steps })?;
        self.progress.note(&format!(
            "step {}: {}; back to step {began}, and the same removal over {taper_steps} steps",
            record.step + 1,
            kl.map_or("the loss is not finite".into(), |kl| format!("the KL to the teacher is {kl:.3}"))
        ));
        self.saved = Some(began);
        self.checkpoint = Some(checkpoint);
        self.last_good = None;
        Ok(true)
    }

    /// What an adaptive run leaves behind: its schedule as a config, and a word about what has not gone.
    fn end_of_adaptive(&self, trainer: &Trainer) -> Result<()> {
        let Some(adaptive) = trainer.adaptive().filter(|_| trainer.ranks().is_first()) else { return Ok(()) };
        if trainer.step() == trainer.config.train.max_steps && !adaptive.is_done() {
            self.progress.note("the run was too short: LayerNorms are left that have not begun to go");
        }
        let mut config = trainer.config.clone();
        config.adaptive = AdaptiveConfig::default();
        config.schedule =
            ScheduleConfig { removals: adaptive.state().begun.clone(), ..ScheduleConfig::default() };
        let text =
            format!("# The schedule that this run found, to be run again as it is.\n{}", config.to_toml());
        write_text(&self.dir.join(REPLAY_FILE), &text)
    }

    /// Evaluates the step just done; what goes wrong in that is logged and told.
    fn evaluate(&mut self, trainer: &Trainer) -> Result<()> {
        let step = trainer.step() - 1;
        let reason = match caught(|| evaluate_now(trainer)) {
            Ok(None) => return Ok(()),
            Ok(Some(loss)) if loss.is_finite() => {
                self.progress.note(&format!("step {}: evaluation loss {loss:.4}", step + 1));
                return self.event(&Event::Eval { step, loss });
            }
            Ok(Some(loss)) => {
                let reason = format!("the evaluation loss is {loss}");
                if trainer.step() == trainer.config.train.max_steps {
                    self.event(&Event::EvalFailed { step, reason })?;
                    return Err(self.diverged(step, loss));
                }
                reason
            }
            Err(Error::OutOfMemory) => {
                "out of memory; a smaller eval.batch_size needs less (--resume DIR --set eval.batch_size=1)"
                    .into()
            }
            Err(error) => error.to_string(),
        };
        self.progress.note(&format!("step {}: the evaluation failed, the run goes on: {reason}", step + 1));
        self.event(&Event::EvalFailed { step, reason })
    }

    /// Makes up for the evaluation that was due at the checkpoint and that the end of the process has
    /// prevented.
    fn evaluate_again(&mut self, trainer: &Trainer) -> Result<()> {
        let step = trainer.step();
        let missing = self.log.as_ref().is_some_and(|log| log.evaluated() != step.checked_sub(1));
        match step > 0 && evaluation_is_due(trainer) && trainer.ranks().any(missing)? {
            true => self.evaluate(trainer),
            false => Ok(()),
        }
    }

    /// The end of a run that a step has failed in: it has changed nothing, what was done before it is saved.
    fn saved_despite(&mut self, trainer: &Trainer, error: Error) -> Error {
        if trainer.step() == 0 || self.saved == Some(trainer.step()) {
            return error;
        }
        // The other ranks may be gone: nobody is waited for.
        if !trainer.ranks().is_first() {
            return error;
        }
        if let Err(worse) = self.write(trainer) {
            return Error::invalid(format!("{error}; nor could what was done be saved: {worse}"));
        }
        let (step, dir) = (trainer.step(), self.dir.display());
        say(&format!("what was done up to step {step} is saved: --resume {dir}"));
        error
    }

    /// The end of a run whose loss is not a number; retention may have taken the checkpoint meanwhile.
    fn diverged(&self, step: usize, loss: f64) -> Error {
        Error::Diverged { step, loss, last_good: self.last_good.clone().filter(|path| path.is_dir()) }
    }

    fn finish(mut self, steps: usize) -> Result<Outcome> {
        self.sync()?;
        self.progress.finish();
        match self.checkpoint {
            Some(checkpoint) => Ok(Outcome { checkpoint, steps }),
            None => Err(Error::file(self.dir, "the run was already complete and has no checkpoint")),
        }
    }
}

fn save_is_due(trainer: &Trainer) -> bool {
    let (step, train) = (trainer.step(), &trainer.config.train);
    step.is_multiple_of(train.save_every) || step == train.max_steps || train.keep_steps.contains(&step)
}

fn evaluation_is_due(trainer: &Trainer) -> bool {
    let (step, every) = (trainer.step(), trainer.config.eval.every);
    step == trainer.config.train.max_steps || (every > 0 && step.is_multiple_of(every))
}

/// What `work` comes to; one that libtorch ends with a panic comes back as an error too.
fn caught<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(|| catching_lack_of_memory(work))).unwrap_or_else(|panic| {
        let text = text_of(panic.as_ref());
        Err(Error::Torch(text.lines().next().unwrap_or("unknown cause").to_string()))
    })
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
    let losses = evaluate_on(trainer.ranks(), &trainer.model, &trainer.ln, tokens, options, |_| {})?;
    Ok(Some(Summary::new(&losses.losses).mean))
}
