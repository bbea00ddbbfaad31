//! A training run: model, LN state, optimizer and data, and what one step does to them.

mod gradients;
mod per_channel;
mod start;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

use super::{Mode, StepRecord};
use crate::base::device::CoreSharing;
use crate::base::ranks::Ranks;
use crate::base::{hex, interrupt};
use crate::config::Config;
use crate::config::LrSchedule;
use crate::config::norm::ln_names;
use crate::config::schedule::{ListedRemoval, Removal, Schedule};
use crate::data::{Loader, TokenFile};
use crate::model::Gpt2;
use crate::model::ln_state::LnState;
use crate::train::Lora;
use crate::train::adaptive::{Adaptive, Reason};
use crate::train::checkpoint::{self, TrainerState};
use crate::train::optim::{AdamW, clip_coefficient};
use crate::train::teacher::Teacher;
use crate::{Error, Result};

/// Everything that a run changes.
pub struct Trainer {
    /// The config.
    pub config: Config,
    /// The parameters, leaves with gradients.
    pub model: Gpt2,
    /// Which LNs are fake.
    pub ln: LnState,
    mode: Mode,
    /// All that goes; of an adaptive run, what has begun to go.
    schedule: Schedule,
    adaptive: Option<Adaptive>,
    lr: LrSchedule,
    optimizer: AdamW,
    lora: Option<Lora>,
    teacher: Option<Teacher>,
    batches: Loader,
    /// Identity of the token data, taken at the start: a save must not depend on data that can be read.
    fingerprint: String,
    eval_tokens: Option<TokenFile>,
    model_dir: PathBuf,
    resumed_from: Option<PathBuf>,
    step: usize,
    tokens: u64,
    /// Sequences that go through at a time.
    micro_batch: usize,
    /// This process among those that train.
    ranks: Ranks,
    /// Whether a rank was asked to stop when all last heard of each other.
    told_to_stop: bool,
    /// Losses of the step in progress (total, cross-entropy, auxiliary, KL, distance of the streams), and
    /// when it began.
    sums: Tensor,
    started: Instant,
    /// Gives way to other programs between the threads' work.
    _sharing: Option<CoreSharing>,
}

impl Trainer {
    /// Optimizer steps done, which is the 0-based number of the next one.
    pub fn step(&self) -> usize {
        self.step
    }

    /// Sequences of a batch that go through at a time.
    pub fn micro_batch(&self) -> usize {
        self.micro_batch
    }

    /// This process among those that train.
    pub fn ranks(&self) -> &Ranks {
        &self.ranks
    }

    /// Lets this be one of several processes that train together: each takes its share of every batch's
    /// sequences, and all have the same parameters after every step. What one process would compute, they do
    /// up to the order of sums.
    ///
    /// # Errors
    /// A batch with fewer sequences than there are ranks, ranks whose configs, data or weights are not the
    /// same, or a rank that is lost.
    pub fn join(&mut self, ranks: Ranks) -> Result<()> {
        let batch_size = self.config.train.batch_size;
        let enough = match batch_size < ranks.size() {
            true => Err(Error::Config {
                origin: "config".into(),
                key: "train.batch_size".into(),
                message: format!("{batch_size} sequences are too few for {} ranks", ranks.size()),
            }),
            false => Ok(()),
        };
        ranks.together(enough)?;
        let about = format!("{}\n{:?}\n{}", self.config.to_toml(), self.mode, self.fingerprint);
        ranks.agree("config or data", &hex(&Sha256::digest(about)))?;
        self.ranks = ranks;
        self.check_ranks_agree()
    }

    /// Makes sure that all ranks have the same parameters, which every step leaves them.
    ///
    /// # Errors
    /// When they do not, or a rank is lost.
    pub(super) fn check_ranks_agree(&self) -> Result<()> {
        if self.ranks.is_alone() {
            return Ok(());
        }
        let _guard = tch::no_grad_guard();
        let sums = self.model.named_parameters().into_iter().map(|(_, p)| p.sum(Kind::Double));
        let sums: Vec<Tensor> = sums.map(|sum| sum.to_device(Device::Cpu)).collect();
        let numbers = Vec::<f64>::try_from(Tensor::stack(&sums, 0))?;
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.ranks.agree("model", &format!("{} {}", self.step, hex(&Sha256::digest(bytes))))
    }

    /// Whether a signal, at this rank or another, has asked the run to stop after this step.
    pub(super) fn is_to_stop(&self) -> bool {
        if self.ranks.is_alone() { interrupt::requested() } else { self.told_to_stop }
    }

    /// The checkpoint that this run was resumed from.
    pub fn resumed_from(&self) -> Option<&Path> {
        self.resumed_from.as_deref()
    }

    /// What the run does about LN.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Validation tokens, if there are any.
    pub fn eval_tokens(&self) -> Option<&TokenFile> {
        self.eval_tokens.as_ref()
    }

    /// The optimizer, to look at gradients and moments.
    pub fn optimizer(&self) -> &AdamW {
        &self.optimizer
    }

    /// The adapters, where only these train; the model holds their sums with the frozen matrices.
    pub fn lora(&self) -> Option<&Lora> {
        self.lora.as_ref()
    }

    /// The next removal after `step`.
    pub fn next_removal(&self, step: usize) -> Option<Removal> {
        self.schedule.next_after(step)
    }

    /// The schedule that is found while the run goes on, where the config wants one.
    pub fn adaptive(&self) -> Option<&Adaptive> {
        self.adaptive.as_ref()
    }

    /// Whether removals begin with the next step; until [`Trainer::begin_removals`] nothing has changed.
    pub fn removals_begin(&self) -> bool {
        self.adaptive.as_ref().is_some_and(|adaptive| adaptive.begins(self.step))
    }

    /// Lets an adaptive schedule begin with removals before the next step, if it is time, and returns them
    /// with the reason.
    pub fn begin_removals(&mut self) -> Option<(Vec<ListedRemoval>, Reason)> {
        let adaptive = self.adaptive.as_mut()?;
        let begun = adaptive.begin(self.step)?;
        self.schedule = adaptive.schedule();
        Some(begun)
    }

    /// Whether a step shows that a removal of an adaptive schedule has failed.
    pub(super) fn has_exploded(&self, record: &StepRecord) -> bool {
        let finite = record.loss.is_finite() && record.grad_norm.is_finite();
        let kl = record.kl_loss.filter(|_| finite);
        self.adaptive.as_ref().is_some_and(|adaptive| adaptive.has_exploded(kl))
    }

    /// Lets the removals that began last take longer, once the run goes back to before them: over how many
    /// steps; `None` when they have been tried often enough.
    pub(super) fn slow_down(&mut self) -> Option<usize> {
        self.adaptive.as_mut()?.slow_down()
    }

    /// Carries out the removals of the next step, closes the gates of those to come as far as they are due,
    /// and returns the former. Earlier ones are part of the state already: a checkpoint is written after a
    /// step, with everything that was due until then.
    pub fn apply_removals(&mut self) -> Vec<Removal> {
        let due = self.schedule.at(self.step).to_vec();
        for removal in &due {
            self.ln.remove(removal.kind, removal.layer);
        }
        self.ln.set_gates(self.schedule.gates_at(self.step));
        due
    }

    /// One optimizer step over the config's micro-batches: [`Trainer::accumulate_gradients`], then
    /// [`Trainer::update_parameters`].
    ///
    /// # Errors
    /// As these.
    pub fn train_step(&mut self) -> Result<StepRecord> {
        self.accumulate_gradients()?;
        self.update_parameters()
    }

    /// Clips the gathered gradients and takes the optimizer step. Numbers are read back from the device once,
    /// here.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn update_parameters(&mut self) -> Result<StepRecord> {
        let lr = self.lr.at(self.step);
        let norm = self.optimizer.grad_norm();
        self.optimizer.step(lr, &clip_coefficient(&norm, self.config.train.max_grad_norm))?;
        if let Some(lora) = &self.lora {
            lora.merge()?;
        }
        let numbers = self.read_back(&norm)?;
        let tokens = self.config.tokens_per_step();
        let record = StepRecord {
            step: self.step,
            loss: numbers[0],
            ce_loss: numbers[1],
            aux_loss: numbers[2],
            lr,
            kl_loss: self.teacher.as_ref().map(|_| numbers[3]),
            hidden_loss: self.teacher.as_ref().filter(|t| t.hidden_weight > 0.0).map(|_| numbers[4]),
            grad_norm: numbers[5],
            tokens,
            // A clock that stands still gives a wrong rate, and no infinite one.
            tokens_per_s: tokens as f64 / self.started.elapsed().as_secs_f64().max(1e-9),
            stds: self.stds(&numbers[6..]),
        };
        if let (Some(adaptive), Some(kl)) = (&mut self.adaptive, record.kl_loss) {
            adaptive.observe(self.step, kl);
        }
        self.step += 1;
        self.tokens += tokens as u64;
        Ok(record)
    }

    /// Writes a checkpoint into the run directory `dir`.
    ///
    /// # Errors
    /// When it cannot be written; earlier checkpoints are untouched.
    pub fn save(&self, dir: &Path) -> Result<PathBuf> {
        let mut config = self.config.clone();
        // How a batch is parted is in its last digits: a continuation parts it likewise, whatever memory
        // there is.
        config.train.micro_batch_size = Some(self.micro_batch);
        let state = TrainerState {
            format: checkpoint::FORMAT,
            lnfree: env!("CARGO_PKG_VERSION").into(),
            mode: self.mode,
            step: self.step,
            optimizer_steps: self.optimizer.steps(),
            data_position: self.batches.position(),
            data_fingerprint: self.fingerprint.clone(),
            tokens: self.tokens,
            base_model: self.model_dir.clone(),
            adaptive: self.adaptive.as_ref().map(|adaptive| adaptive.state().clone()),
            config,
        };
        let ln = (self.mode == Mode::WithoutLn).then_some(&self.ln);
        checkpoint::save(dir, &state, &self.model, ln, &self.moments_and_adapters())
    }

    /// What a continuation needs beside model and LN state.
    fn moments_and_adapters(&self) -> BTreeMap<String, Tensor> {
        let mut state = self.optimizer.state();
        state.extend(self.lora.as_ref().map(Lora::state).unwrap_or_default());
        state
    }

    /// Losses, gradient norm and running standard deviations in one copy to the host.
    fn read_back(&self, norm: &Tensor) -> Result<Vec<f64>> {
        let mut parts = vec![self.sums.shallow_clone(), norm.view(1)];
        if self.mode == Mode::WithoutLn {
            parts.push(self.ln.statistics.running.select(1, 0));
        }
        let all = Tensor::cat(&parts, 0).to_device(Device::Cpu).to_kind(Kind::Double);
        Ok(Vec::<f64>::try_from(all)?)
    }

    fn stds(&self, running: &[f64]) -> BTreeMap<String, f64> {
        ln_names(self.ln.n_layer()).into_iter().zip(running.iter().copied()).collect()
    }
}
