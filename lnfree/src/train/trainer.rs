//! A training run: model, LN state, optimizer and data, and what one step does to them.

mod gradients;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tch::{Device, Kind, Tensor};

use super::begin::{initial_state, pretrain_config, set_dropout};
use super::fit::check_fit;
use super::{Mode, StepRecord};
use crate::checkpoint::{self, TrainerState};
use crate::config::{Config, TrainConfig};
use crate::data::{Loader, TokenFile};
use crate::device::available_memory;
use crate::model::{Gpt2, LoadedModel, Shape};
use crate::norm::{LnState, ln_names};
use crate::optim::{AdamW, AdamWConfig, LrSchedule, clip_coefficient, is_decayed};
use crate::plan::{Passes, fitting_micro_batch, usable};
use crate::schedule::{Removal, Schedule};
use crate::{Error, Result};

/// Where a new run takes things from.
#[derive(Debug)]
pub struct StartOptions {
    /// With LN, without, or from scratch.
    pub mode: Mode,
    /// The model's directory; for [`Mode::Pretrain`], where tokenizer files are found.
    pub model_dir: PathBuf,
    /// Training tokens.
    pub tokens: TokenFile,
    /// Validation tokens.
    pub eval_tokens: Option<TokenFile>,
    /// Where to compute.
    pub device: Device,
}

/// Everything that a run changes.
pub struct Trainer {
    /// The config.
    pub config: Config,
    /// The parameters, leaves with gradients.
    pub model: Gpt2,
    /// Which LNs are fake.
    pub ln: LnState,
    mode: Mode,
    schedule: Schedule,
    lr: LrSchedule,
    optimizer: AdamW,
    batches: Loader,
    eval_tokens: Option<TokenFile>,
    model_dir: PathBuf,
    resumed_from: Option<PathBuf>,
    step: usize,
    tokens: u64,
    /// Sequences that go through at a time.
    micro_batch: usize,
    /// Losses of the step in progress (total, cross-entropy, auxiliary), and when it began.
    sums: Tensor,
    started: Instant,
}

impl Trainer {
    /// A run at step 0.
    ///
    /// # Errors
    /// Files that are missing or damaged, data that does not fit the model, a model that does not fit the config.
    pub fn new(config: Config, start: StartOptions) -> Result<Trainer> {
        let kind = config.train.param_dtype.kind();
        let device = start.device;
        let (model, ln) = match start.mode {
            Mode::Pretrain => {
                let model = Gpt2::init(pretrain_config(&config)?, config.train.seed, device)?;
                check_fit(&config, &model, &start)?;
                let ln = LnState::plain(model.h.len(), device);
                (model, ln)
            }
            _ => {
                let loaded = LoadedModel::load(&start.model_dir, None, kind, device)?;
                check_fit(&config, &loaded.model, &start)?;
                let ln = initial_state(&config, &loaded, start.mode, &start.tokens)?;
                (loaded.model, ln)
            }
        };
        Trainer::assemble(config, start, model, ln)
    }

    /// A run at step 0 of a model that is there already, in the LN state `ln`; `start.model_dir` is not read.
    ///
    /// # Errors
    /// Data or a config that does not fit the model.
    pub fn of_model(config: Config, start: StartOptions, model: Gpt2, ln: LnState) -> Result<Trainer> {
        check_fit(&config, &model, &start)?;
        Trainer::assemble(config, start, model, ln)
    }

    /// A run where its newest checkpoint left it; `start.model_dir` is not read.
    ///
    /// # Errors
    /// A damaged checkpoint, or data other than the run began with.
    pub fn resume(config: Config, start: StartOptions, checkpoint: &Path) -> Result<Trainer> {
        let (state, moments) = checkpoint::load(checkpoint)?;
        let kind = config.train.param_dtype.kind();
        let loaded = LoadedModel::load(checkpoint, None, kind, start.device)?;
        check_fit(&config, &loaded.model, &start)?;
        let mut trainer = Trainer::assemble(config, start, loaded.model, loaded.ln)?;
        let fingerprint = trainer.batches.file().fingerprint()?;
        if fingerprint != state.data_fingerprint {
            return Err(Error::file(
                trainer.batches.file().path(),
                "is not the data that this run was trained on; resume with the same data, or start a new run",
            ));
        }
        trainer.optimizer.load(moments, state.optimizer_steps).map_err(|e| Error::file(checkpoint, e))?;
        trainer.step = state.step;
        trainer.tokens = state.tokens;
        trainer.model_dir = state.base_model;
        trainer.batches.seek(state.data_position);
        trainer.resumed_from = Some(checkpoint.to_path_buf());
        Ok(trainer)
    }

    fn assemble(config: Config, start: StartOptions, mut model: Gpt2, ln: LnState) -> Result<Trainer> {
        config.train.dtype.prepare(model.device())?;
        if let Some(p) = config.train.dropout {
            set_dropout(&mut model, p);
        }
        if let Some(id) = config.model.eot_token_id {
            model.config.eos_token_ids = vec![id];
        }
        let batches = Loader::new(start.tokens, config.train.seed, config.data.shuffle, start.device)?;
        if batches.block_size() != config.data.block_size {
            let (found, wanted) = (batches.block_size(), config.data.block_size);
            let message = format!("has sequences of {found} tokens, data.block_size is {wanted}");
            return Err(Error::file(batches.file().path(), message));
        }
        model.set_requires_grad(true);
        let decay_ln = config.train.decay_ln.unwrap_or(start.mode == Mode::WithoutLn);
        let optimizer =
            AdamW::new(model.named_parameters(), |name| is_decayed(name, decay_ln), adamw(&config.train));
        let micro_batch = micro_batch(&config, start.mode, &model);
        let schedule = match start.mode {
            Mode::WithoutLn => config.schedule(),
            Mode::WithLn | Mode::Pretrain => Schedule::empty(),
        };
        Ok(Trainer {
            lr: config.lr_schedule(),
            config,
            model,
            ln,
            mode: start.mode,
            schedule,
            optimizer,
            batches,
            eval_tokens: start.eval_tokens,
            model_dir: start.model_dir,
            resumed_from: None,
            step: 0,
            tokens: 0,
            micro_batch,
            sums: Tensor::zeros([3], (Kind::Float, start.device)),
            started: Instant::now(),
        })
    }

    /// Optimizer steps done, which is the 0-based number of the next one.
    pub fn step(&self) -> usize {
        self.step
    }

    /// Sequences of a batch that go through at a time.
    pub fn micro_batch(&self) -> usize {
        self.micro_batch
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

    /// The next removal after `step`.
    pub fn next_removal(&self, step: usize) -> Option<Removal> {
        self.schedule.next_after(step)
    }

    /// Carries out the removals of the next step and returns them. Earlier ones are part of the state already: a
    /// checkpoint is written after a step, with everything that was due until then.
    pub fn apply_removals(&mut self) -> Vec<Removal> {
        let due = self.schedule.at(self.step).to_vec();
        for removal in &due {
            self.ln.remove(removal.kind, removal.layer);
        }
        due
    }

    /// One optimizer step over the config's micro-batches: [`Trainer::accumulate_gradients`], then
    /// [`Trainer::update_parameters`].
    ///
    /// # Errors
    /// When the data cannot be read.
    pub fn train_step(&mut self) -> Result<StepRecord> {
        self.accumulate_gradients()?;
        self.update_parameters()
    }

    /// Clips the gathered gradients and takes the optimizer step. Numbers are read back from the device once, here.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn update_parameters(&mut self) -> Result<StepRecord> {
        let lr = self.lr.at(self.step);
        let norm = self.optimizer.grad_norm();
        self.optimizer.step(lr, &clip_coefficient(&norm, self.config.train.max_grad_norm))?;
        let numbers = self.read_back(&norm)?;
        let tokens = self.config.tokens_per_step();
        let record = StepRecord {
            step: self.step,
            loss: numbers[0],
            ce_loss: numbers[1],
            aux_loss: numbers[2],
            lr,
            grad_norm: numbers[3],
            tokens,
            tokens_per_s: tokens as f64 / self.started.elapsed().as_secs_f64(),
            stds: self.stds(&numbers[4..]),
        };
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
        // How a batch is parted is in its last digits: a continuation parts it likewise, whatever memory there is.
        config.train.micro_batch_size = Some(self.micro_batch);
        let state = TrainerState {
            lnfree: env!("CARGO_PKG_VERSION").into(),
            mode: self.mode,
            step: self.step,
            optimizer_steps: self.optimizer.steps(),
            data_position: self.batches.position(),
            data_fingerprint: self.batches.file().fingerprint()?,
            tokens: self.tokens,
            base_model: self.model_dir.clone(),
            config,
        };
        let ln = (self.mode == Mode::WithoutLn).then_some(&self.ln);
        checkpoint::save(dir, &state, &self.model, ln, &self.optimizer)
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

/// Sequences at a time: the config's, or as many as fit beside the model and Adam's moments, which are there.
fn micro_batch(config: &Config, mode: Mode, model: &Gpt2) -> usize {
    let train = &config.train;
    train.micro_batch_size.unwrap_or_else(|| {
        let wish = Passes::of(config, mode, train.batch_size as u64);
        let free = available_memory(model.device()).unwrap_or(u64::MAX);
        let fitting = fitting_micro_batch(&Shape::of(&model.config), wish, model.device(), |memory| {
            memory.still_to_come() <= usable(free, model.device())
        });
        fitting.unwrap_or(1) as usize
    })
}

fn adamw(train: &TrainConfig) -> AdamWConfig {
    AdamWConfig {
        beta1: train.beta1,
        beta2: train.beta2,
        eps: train.adam_eps,
        weight_decay: train.weight_decay,
    }
}
