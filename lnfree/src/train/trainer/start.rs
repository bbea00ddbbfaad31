//! How a run comes to be: new, of a model that is there, or where a checkpoint left it.

use std::path::Path;
use std::time::Instant;

use tch::{Kind, Tensor};

use super::Trainer;
use crate::base::device::available_memory;
use crate::base::device::share_cores;
use crate::base::ranks::Ranks;
use crate::config::Mode;
use crate::config::schedule::Schedule;
use crate::config::{Config, TrainConfig};
use crate::data::{Loader, Repeats};
use crate::model::ln_state::LnState;
use crate::model::weights::Weights;
use crate::model::{Gpt2, LoadedModel, Shape};
use crate::train::adaptive::Adaptive;
use crate::train::begin::{initial_state, pretrain_config, set_dropout};
use crate::train::checkpoint::{self, TrainerState, locate_model};
use crate::train::fit::check_fit;
use crate::train::memory::{Passes, fitting_micro_batch, usable};
use crate::train::optim::{AdamW, AdamWConfig, is_decayed};
use crate::train::teacher::Teacher;
use crate::train::{Lora, StartOptions};
use crate::{Error, Result};

impl Trainer {
    /// A run at step 0.
    ///
    /// # Errors
    /// Files that are missing or damaged, data that does not fit the model, a model that does not fit the
    /// config.
    pub fn new(config: Config, start: StartOptions) -> Result<Trainer> {
        let kind = config.train.param_dtype.kind();
        let device = start.device;
        let (model, ln) = match start.mode {
            Mode::Pretrain => {
                let mut model = Gpt2::init(pretrain_config(&config)?, config.train.seed, device)?;
                if let Some(range) = config.model.embedding_range {
                    model.scale_embeddings(range / model.config.initializer_range);
                }
                if let Some(amplitude) = config.model.sinusoidal_positions {
                    model.set_sinusoidal_positions(amplitude);
                }
                check_fit(&config, &model, &start)?;
                let ln = LnState::plain(model.h.len(), device);
                (model, ln)
            }
            _ => {
                let mut loaded = LoadedModel::load(&start.model_dir, None, kind, device)?;
                check_fit(&config, &loaded.model, &start)?;
                add_sinusoids(&config, &mut loaded.model);
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
    pub fn of_model(config: Config, start: StartOptions, mut model: Gpt2, ln: LnState) -> Result<Trainer> {
        check_fit(&config, &model, &start)?;
        add_sinusoids(&config, &mut model);
        Trainer::assemble(config, start, model, ln)
    }

    /// A run where its newest checkpoint left it; `start.model_dir` is not read.
    ///
    /// # Errors
    /// A damaged checkpoint, or data other than the run began with.
    pub fn resume(config: Config, start: StartOptions, checkpoint: &Path) -> Result<Trainer> {
        let (state, saved) = checkpoint::load(checkpoint)?;
        let kind = config.train.param_dtype.kind();
        let loaded = LoadedModel::load(checkpoint, None, kind, start.device)?;
        check_fit(&config, &loaded.model, &start)?;
        let mut trainer = Trainer::assemble(config, start, loaded.model, loaded.ln)?;
        if trainer.fingerprint != state.data_fingerprint {
            return Err(Error::file(
                trainer.batches.file().path(),
                "is not the data that this run was trained on; resume with the same data, or start a new run",
            ));
        }
        trainer.take_over(state, saved, checkpoint)?;
        trainer.resumed_from = Some(checkpoint.to_path_buf());
        Ok(trainer)
    }

    /// Goes back to a checkpoint of this run. What an adaptive schedule has learned of its tapers stays.
    ///
    /// # Errors
    /// A damaged checkpoint.
    pub(in crate::train) fn go_back(&mut self, checkpoint: &Path) -> Result<()> {
        let (mut state, saved) = checkpoint::load(checkpoint)?;
        let loaded = LoadedModel::load(checkpoint, None, self.model.wte.kind(), self.model.device())?;
        let weights = loaded.model.named_parameters().into_iter();
        tch::no_grad(|| -> Result<()> {
            for ((_, mut here), (_, saved)) in self.model.named_parameters().into_iter().zip(weights) {
                here.f_copy_(&saved)?;
            }
            Ok(())
        })?;
        self.ln = loaded.ln;
        self.model.clear_gradients();
        if let (Some(adaptive), Some(there)) = (&self.adaptive, &mut state.adaptive) {
            there.slower.clone_from(&adaptive.state().slower);
        }
        self.take_over(state, saved, checkpoint)
    }

    /// All of a checkpoint but model and LN state.
    fn take_over(&mut self, state: TrainerState, saved: Weights, checkpoint: &Path) -> Result<()> {
        let damaged = |e| Error::file(checkpoint, e);
        if let Some(lora) = &self.lora {
            lora.load(&saved).map_err(damaged)?;
        }
        self.optimizer.load(saved, state.optimizer_steps).map_err(damaged)?;
        if let (Some(adaptive), Some(there)) = (&mut self.adaptive, state.adaptive) {
            adaptive.restore(there);
            self.schedule = adaptive.schedule();
        }
        self.step = state.step;
        // Those of the step that the checkpoint was written after, which may still have to be evaluated.
        let last = state.step.checked_sub(1);
        self.ln.set_gates(last.map(|last| self.schedule.gates_at(last)).unwrap_or_default());
        self.tokens = state.tokens;
        self.model_dir = state.base_model;
        self.batches.seek(state.data_position);
        Ok(())
    }

    fn assemble(config: Config, start: StartOptions, mut model: Gpt2, ln: LnState) -> Result<Trainer> {
        config.train.dtype.prepare(model.device())?;
        if let Some(p) = config.train.dropout {
            set_dropout(&mut model, p);
        }
        if let Some(id) = config.model.eot_token_id {
            model.config.eos_token_ids = vec![id];
        }
        let batches = Loader::new(start.tokens, config.train.seed, config.data.shuffle, start.device)?
            .with_repeats(repeats(&config, &model));
        if batches.block_size() != config.data.block_size {
            let (found, wanted) = (batches.block_size(), config.data.block_size);
            let message = format!("has sequences of {found} tokens, data.block_size is {wanted}");
            return Err(Error::file(batches.file().path(), message));
        }
        model.set_requires_grad(true);
        let decay_ln = config.train.decay_ln.unwrap_or(start.mode == Mode::WithoutLn);
        let lora = config.lora.rank.map(|rank| Lora::new(&model, rank, config.train.seed)).transpose()?;
        let optimizer = match &lora {
            // The paper's code decays both matrices of an adapter.
            Some(lora) => AdamW::new(lora.named_parameters(), |_| true, adamw(&config.train)),
            None => {
                AdamW::new(model.named_parameters(), |name| is_decayed(name, decay_ln), adamw(&config.train))
            }
        };
        // Before the teacher is there: what it takes is among what the plan still counts.
        let micro_batch = micro_batch(&config, start.mode, &model);
        let teacher = teacher(&config, &model)?;
        let planned = match start.mode {
            Mode::WithoutLn => config.schedule(),
            Mode::WithLn | Mode::Pretrain => Schedule::empty(),
        };
        let adaptive = Adaptive::new(&config.adaptive, &planned);
        Ok(Trainer {
            lr: config.lr_schedule(),
            config,
            model,
            ln,
            mode: start.mode,
            schedule: if adaptive.is_some() { Schedule::empty() } else { planned },
            adaptive,
            optimizer,
            lora,
            teacher,
            fingerprint: batches.file().fingerprint()?,
            batches,
            eval_tokens: start.eval_tokens,
            model_dir: start.model_dir,
            resumed_from: None,
            step: 0,
            tokens: 0,
            micro_batch,
            ranks: Ranks::alone(),
            told_to_stop: false,
            sums: Tensor::zeros([5], (Kind::Float, start.device)),
            started: Instant::now(),
            _sharing: share_cores(start.device),
        })
    }
}

/// Changes the position embedding of a model that is there as its config says.
fn add_sinusoids(config: &Config, model: &mut Gpt2) {
    if let Some(amplitude) = config.model.sinusoidal_positions {
        model.add_sinusoidal_positions(amplitude);
    }
}

/// The teacher that a config names.
fn teacher(config: &Config, student: &Gpt2) -> Result<Option<Teacher>> {
    let Some(name) = &config.distill.teacher else { return Ok(None) };
    let dir = locate_model(name).map_err(|error| Error::Config {
        origin: "config".into(),
        key: "distill.teacher".into(),
        message: error.to_string(),
    })?;
    let dtype = config.train.dtype.in_effect(student.device()).kind();
    Teacher::load(&config.distill, &dir, student, config.data.block_size, dtype).map(Some)
}

/// Sequences at a time: the config's, or as many as fit beside the model and Adam's moments, which are there.
fn micro_batch(config: &Config, mode: Mode, model: &Gpt2) -> usize {
    let train = &config.train;
    train.micro_batch_size.unwrap_or_else(|| {
        let wish = Passes::of(config, mode, train.batch_size as u64).on(model.device());
        let free = available_memory(model.device()).unwrap_or(u64::MAX);
        let fitting = fitting_micro_batch(&Shape::of(&model.config), wish, model.device(), |memory| {
            memory.still_to_come() <= usable(free, model.device())
        });
        fitting.unwrap_or(1) as usize
    })
}

/// The share of repeating sequences that the config asks for, in the model's tokens.
fn repeats(config: &Config, model: &Gpt2) -> Repeats {
    Repeats {
        passages: config.data.repeated_passages,
        random: config.data.repeated_random,
        vocab_size: model.config.vocab_size,
        eot: model.config.eos_token_ids.first().copied(),
    }
}

fn adamw(train: &TrainConfig) -> AdamWConfig {
    AdamWConfig {
        beta1: train.beta1,
        beta2: train.beta2,
        eps: train.adam_eps,
        weight_decay: train.weight_decay,
    }
}
