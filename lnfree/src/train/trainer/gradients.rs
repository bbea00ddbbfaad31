//! The gradients of one optimizer step, whatever memory there is for them.

use std::time::Instant;

use tch::{Kind, Tensor};

use super::Trainer;
use crate::base::console::say;
use crate::base::device::release_cached_memory;
use crate::base::interrupt;
use crate::base::ranks::Ranks;
use crate::config::Config;
use crate::model::ln_state::LnState;
use crate::model::{Compute, Gpt2, StepModel};
use crate::ops::loss::targets;
use crate::train::split::{Part, aux_target, catching_lack_of_memory, parts, smaller};
use crate::train::teacher::Teacher;
use crate::train::{BackwardRecipe, Mode, backward};
use crate::{Error, Result};

impl Trainer {
    /// Forwards and backwards of one optimizer step; gradients are left on the parameters, those of all ranks
    /// added up. Where memory does not suffice, the step begins again with half as many sequences at a time,
    /// and the run goes on with these; among several ranks it fails, as the others cannot begin again.
    ///
    /// # Errors
    /// When the data cannot be read, a rank is lost, and [`Error::OutOfMemory`] when memory does not suffice
    /// for one sequence. All is then as before the step, and the same call may be made again once the cause
    /// is mended.
    pub fn accumulate_gradients(&mut self) -> Result<()> {
        self.started = Instant::now();
        let (position, ln) = (self.batches.position(), self.ln.copy());
        loop {
            let batch_size = self.config.train.batch_size;
            let smaller = match self.ln.follows_within_a_forward() || !self.ranks.is_alone() {
                true => None,
                false => smaller(batch_size, self.micro_batch),
            };
            let gathered = catching_lack_of_memory(|| {
                self.accumulate()?;
                self.sum_over_ranks()
            });
            let Err(error) = gathered else { return Ok(()) };
            self.model.clear_gradients();
            self.batches.seek(position);
            self.ln = ln.copy();
            let (Error::OutOfMemory, Some(smaller)) = (&error, smaller) else { return Err(error) };
            // What a GPU's allocator keeps is in pieces for the larger parts.
            release_cached_memory(self.model.device());
            let result =
                if self.drops() { "dropout then draws other numbers" } else { "which has the same result" };
            say(&format!(
                "step {}: out of memory with {} sequences at a time; the step begins again with {smaller}, {result}",
                self.step + 1,
                self.micro_batch
            ));
            self.micro_batch = smaller;
        }
    }

    fn accumulate(&mut self) -> Result<()> {
        let train = &self.config.train;
        let (accumulation, batch_size) = (train.gradient_accumulation_steps, train.batch_size);
        let ignore = if train.predict_eot { None } else { self.model.config.eot_token_id() };
        self.sums = Tensor::zeros([5], (Kind::Float, self.model.device()));
        let recipe = StepRecipe {
            config: &self.config,
            model: &self.model,
            teacher: self.teacher.as_ref(),
            ranks: &self.ranks,
            mode: self.mode,
            step: self.step,
        };
        let whole = self.ln.follows_within_a_forward();
        let at_a_time = if whole { batch_size } else { self.micro_batch } as i64;
        let all_of_it = (whole && !self.ranks.is_alone()).then(|| self.all_of_a_batch());
        let share = self.ranks.share_of(batch_size);
        let share = share.start as i64..share.end as i64;
        let (ln, tokens) = (self.ln.copy(), self.config.tokens_per_step());
        StepModel::run(&self.model, &ln, recipe.compute(0, 0), tokens, |step| {
            for micro in 0..accumulation {
                let (on_host, ids) = self.batches.next_on_both_sides(batch_size)?;
                let parts = match all_of_it {
                    Some(part) => vec![part],
                    None => parts(&targets(&on_host, ignore), share.clone(), at_a_time)?,
                };
                let targets = targets(&ids, ignore);
                let (losses, observed) = recipe.batch(step, &self.ln, &ids, &targets, &parts, micro)?;
                self.sums += losses / accumulation as f64;
                if let Some(observed) = observed {
                    self.ranks.sum(&[observed.shallow_clone()])?;
                    self.ln.observe(&observed);
                }
            }
            Ok(())
        })?;
        self.lora.as_ref().map_or(Ok(()), |lora| lora.take_gradients(&self.model))
    }

    /// A batch of which no part can be computed by itself: every rank computes all of it, and weighs as much
    /// as any other.
    fn all_of_a_batch(&self) -> Part {
        let share = 1.0 / self.ranks.size() as f64;
        Part { start: 0, len: self.config.train.batch_size as i64, of_targets: share, of_sequences: share }
    }

    /// Adds up what the ranks have found in a step: gradients, losses, and whether one of them was asked to
    /// stop, so that all stop after the same step.
    fn sum_over_ranks(&mut self) -> Result<()> {
        if self.ranks.is_alone() {
            return Ok(());
        }
        let asked = Tensor::from_slice(&[f32::from(u8::from(interrupt::requested()))]);
        let mut all = self.optimizer.gradients();
        all.extend([self.sums.shallow_clone(), asked.shallow_clone()]);
        self.ranks.sum(&all)?;
        self.told_to_stop = f64::try_from(asked.get(0))? > 0.0;
        Ok(())
    }

    /// Whether dropout is on: it draws other numbers where a batch is parted otherwise.
    pub(in crate::train) fn drops(&self) -> bool {
        drops(&self.model)
    }
}

fn drops(model: &Gpt2) -> bool {
    let config = &model.config;
    config.resid_pdrop > 0.0 || config.embd_pdrop > 0.0 || config.attn_pdrop > 0.0
}

/// What is the same for all micro-batches of an optimizer step.
struct StepRecipe<'a> {
    config: &'a Config,
    model: &'a Gpt2,
    teacher: Option<&'a Teacher>,
    ranks: &'a Ranks,
    mode: Mode,
    step: usize,
}

impl StepRecipe<'_> {
    /// One batch of the config, or of it what is this rank's, in parts: their losses (total, cross-entropy,
    /// auxiliary, KL to the teacher, distance of the streams), and what the LNs saw, as far as these parts
    /// have a part in it.
    fn batch(
        &self,
        step: &StepModel,
        ln: &LnState,
        ids: &Tensor,
        targets: &Tensor,
        parts: &[Part],
        micro: usize,
    ) -> Result<(Tensor, Option<Tensor>)> {
        let train = &self.config.train;
        let in_parts = parts.iter().any(|part| part.len < train.batch_size as i64);
        let target = match in_parts && train.aux_loss_weight != 0.0 {
            true => Some(aux_target(step, ln, ids, parts, self.ranks, |part| self.compute(micro, part))?),
            false => None,
        };
        let mut sums = Tensor::zeros([5], (Kind::Float, ids.device()));
        let mut seen: Option<Tensor> = None;
        for (i, &Part { start, len, of_targets, of_sequences }) in parts.iter().enumerate() {
            let scale = 1.0 / train.gradient_accumulation_steps as f64;
            let recipe = BackwardRecipe {
                teacher: self.teacher,
                compute: self.compute(micro, i),
                aux_weight: train.aux_loss_weight,
                scale: scale * of_targets,
                aux_scale: scale * of_sequences,
                aux_target: target.as_ref(),
                checkpointing: train.gradient_checkpointing,
            };
            let (ids, targets) = (ids.narrow(0, start, len), targets.narrow(0, start, len));
            let losses = backward(step, ln, &ids, &targets, recipe)?;
            // The mean over no target is not a number, and weighs nothing.
            let [cross_entropy, kl] = [losses.cross_entropy, losses.kl].map(|mean| match of_targets == 0.0 {
                true => mean.zeros_like(),
                false => mean * of_targets,
            });
            let [aux, hidden] = [losses.aux, losses.hidden].map(|mean| mean * of_sequences);
            let total = match self.teacher {
                Some(teacher) => {
                    let [of_targets, of_teacher] = teacher.mixture.factors();
                    let learned = &cross_entropy * of_targets + &kl * of_teacher;
                    learned + &hidden * teacher.hidden_weight + &aux
                }
                None => &cross_entropy + &aux,
            };
            sums += Tensor::stack(&[total, cross_entropy, aux, kl, hidden], 0);
            if let Some(observed) = losses.observed {
                let weighted = observed * of_sequences;
                seen = Some(seen.map_or_else(|| weighted.shallow_clone(), |seen| seen + &weighted));
            }
        }
        Ok((sums, seen))
    }

    fn compute(&self, micro: usize, part: usize) -> Compute {
        // Every rank draws numbers of its own.
        let part = part + self.ranks.share_of(self.config.train.batch_size).start;
        // One seed per micro-batch, far enough apart for the parts of the model to add their own number.
        let position = (self.step * self.config.train.gradient_accumulation_steps + micro) as u64;
        let seed = self
            .config
            .train
            .seed
            .wrapping_mul(0x2545_F491_4F6C_DD1D)
            .wrapping_add(position << 12)
            .wrapping_add((part as u64) << 44);
        Compute {
            dtype: self.config.train.dtype.in_effect(self.model.device()).kind(),
            observe: self.mode == Mode::WithoutLn,
            dropout_seed: drops(self.model).then_some(seed),
        }
    }
}

#[cfg(all(test, feature = "kernels", feature = "study"))]
#[path = "gradients_tests.rs"]
mod tests;
