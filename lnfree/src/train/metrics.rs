//! `metrics.jsonl` and TensorBoard files of a run directory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::tensorboard::EventWriter;
use crate::base::atomic::write_text;
use crate::config::norm::RemovalKind;
use crate::config::schedule::ListedRemoval;
use crate::train::adaptive::Reason;
use crate::{Error, Result};

/// One optimizer step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// 0-based optimizer step.
    pub step: usize,
    /// What is minimised, mean over micro-batches, nats per token: cross-entropy, with a teacher mixed with
    /// T² times `kl_loss` and with weighted `hidden_loss`, plus weighted auxiliary loss.
    pub loss: f64,
    /// Cross-entropy alone.
    pub ce_loss: f64,
    /// Auxiliary loss times its weight, as it enters `loss`.
    pub aux_loss: f64,
    /// KL(teacher ‖ model) at the teacher's temperature; only with a teacher.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl_loss: Option<f64>,
    /// Distance of the residual streams from the teacher's, before its weight; only where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden_loss: Option<f64>,
    /// The learning rate of this step.
    pub lr: f64,
    /// L2 norm of the gradients before clipping.
    pub grad_norm: f64,
    /// Tokens of this step.
    pub tokens: usize,
    /// Tokens per second of this step, wall time.
    pub tokens_per_s: f64,
    /// Running standard deviation of every LN after this step; empty for runs that keep LN.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stds: BTreeMap<String, f64>,
}

/// Something that happened at a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A removal, before the step.
    Remove {
        /// 0-based optimizer step.
        step: usize,
        /// What went.
        kind: RemovalKind,
        /// 0-based block; `None` for ln_f.
        layer: Option<usize>,
    },
    /// An adaptive schedule begins with removals, before the step.
    Begin {
        /// 0-based optimizer step.
        step: usize,
        /// What goes, and the steps before which it is complete.
        removals: Vec<ListedRemoval>,
        /// Why now.
        #[serde(flatten)]
        reason: Reason,
    },
    /// The run has gone back to the checkpoint of this step: the removals that began there exploded.
    GoBack {
        /// 0-based optimizer step that is done again.
        step: usize,
        /// The one that showed it.
        exploded: usize,
        /// KL to the teacher there, nats per token; none where the loss was not finite.
        kl: Option<f64>,
        /// Steps that the removals are now made over.
        taper_steps: usize,
    },
    /// An evaluation, after the step.
    Eval {
        /// 0-based optimizer step.
        step: usize,
        /// Mean cross-entropy on the validation data, nats per token.
        loss: f64,
    },
    /// An evaluation, after the step, that gave no loss; training went on.
    EvalFailed {
        /// 0-based optimizer step.
        step: usize,
        /// Why, in one line.
        reason: String,
    },
}

/// Writes a run's metrics; continues those of an interrupted run.
pub(super) struct MetricsLog {
    path: PathBuf,
    file: File,
    board: EventWriter,
    /// The step of the last evaluation, also of one that failed.
    evaluated: Option<usize>,
}

impl MetricsLog {
    /// Opens the files of a run directory. Lines of steps after `step`, which will be done again, are dropped
    /// first, a half-written last line too.
    pub(super) fn open(dir: &Path, step: usize) -> Result<MetricsLog> {
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let path = dir.join("metrics.jsonl");
        let (kept, evaluated) = kept_lines(&path, step)?;
        write_text(&path, &kept.concat())?;
        let file = File::options().append(true).open(&path).map_err(Error::io(&path))?;
        let board = EventWriter::resume(dir, step)?;
        Ok(MetricsLog { path, file, board, evaluated })
    }

    /// The step of the last evaluation that is logged, also of one that failed.
    pub(super) fn evaluated(&self) -> Option<usize> {
        self.evaluated
    }

    pub(super) fn step(&mut self, record: &StepRecord) -> Result<()> {
        self.line(record)?;
        for (tag, value) in [
            ("train/loss", record.loss),
            ("train/ce_loss", record.ce_loss),
            ("train/aux_loss", record.aux_loss),
            ("train/lr", record.lr),
            ("train/grad_norm", record.grad_norm),
            ("train/tokens_per_s", record.tokens_per_s),
        ] {
            self.board.add_scalar(tag, record.step, value)?;
        }
        for (tag, value) in [("train/kl_loss", record.kl_loss), ("train/hidden_loss", record.hidden_loss)] {
            if let Some(value) = value {
                self.board.add_scalar(tag, record.step, value)?;
            }
        }
        for (name, std) in &record.stds {
            self.board.add_scalar(&format!("std/{name}"), record.step, *std)?;
        }
        Ok(())
    }

    pub(super) fn event(&mut self, event: &Event) -> Result<()> {
        self.line(event)?;
        match event {
            Event::Eval { step, loss } => {
                self.evaluated = Some(*step);
                self.board.add_scalar("eval/loss", *step, *loss)
            }
            Event::EvalFailed { step, .. } => {
                self.evaluated = Some(*step);
                Ok(())
            }
            Event::Remove { .. } | Event::Begin { .. } | Event::GoBack { .. } => Ok(()),
        }
    }

    /// Makes sure that what was logged survives whatever comes next.
    pub(super) fn sync(&mut self) -> Result<()> {
        self.file.sync_data().map_err(Error::io(&self.path))?;
        self.board.flush()
    }

    fn line(&mut self, value: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_string(value).map_err(|e| Error::file(&self.path, e))?;
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(Error::io(&self.path))
    }
}

/// The step of the last evaluation that the run directory `dir` has logged, up to `steps` steps.
pub(super) fn last_evaluated(dir: &Path, steps: usize) -> Result<Option<usize>> {
    Ok(kept_lines(&dir.join("metrics.jsonl"), steps)?.1)
}

/// The lines of `path` that belong to steps before `step`, and the step of the last evaluation among them.
fn kept_lines(path: &Path, step: usize) -> Result<(Vec<String>, Option<usize>)> {
    #[derive(Deserialize)]
    struct Line {
        step: usize,
        #[serde(default)]
        event: String,
    }
    let (mut kept, mut evaluated) = (Vec::new(), None);
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((kept, evaluated)),
        opened => opened.map_err(Error::io(path))?,
    };
    for line in BufReader::new(file).lines() {
        let line = line.map_err(Error::io(path))?;
        let Ok(parsed) = serde_json::from_str::<Line>(&line) else { continue };
        if parsed.step < step {
            kept.push(line + "\n");
            if ["eval", "eval_failed"].contains(&parsed.event.as_str()) {
                evaluated = Some(parsed.step);
            }
        }
    }
    Ok((kept, evaluated))
}
