//! AdamW with savable state, gradient clipping and the learning-rate schedule.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use crate::ops::{AdamWStep, fused_adamw};

/// Constants of AdamW.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub eps: f64,
    /// Decoupled weight decay of decayed parameters.
    pub weight_decay: f64,
}

/// One trained parameter with its moments.
#[derive(Debug)]
struct Slot {
    name: String,
    param: Tensor,
    decayed: bool,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
}

/// AdamW with decoupled weight decay (arXiv 1711.05101): p ← p·(1 − lr·wd), then
/// p ← p − lr·m̂ / (sqrt(v̂) + eps).
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    slots: Vec<Slot>,
    steps: u64,
}

impl AdamW {
    /// Moments of zero for `parameters`; `decayed` says which ones weight decay pulls on.
    pub fn new(
        parameters: Vec<(String, Tensor)>,
        decayed: impl Fn(&str) -> bool,
        config: AdamWConfig,
    ) -> AdamW {
        let slots = parameters
            .into_iter()
            .map(|(name, param)| Slot {
                decayed: decayed(&name),
                exp_avg: param.zeros_like().detach(),
                exp_avg_sq: param.zeros_like().detach(),
                name,
                param,
            })
            .collect();
        AdamW { config, slots, steps: 0 }
    }

    /// One step from the gradients that are there, each multiplied by `grad_scale` (float32, 0-dim) first;
    /// clears them.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn step(&mut self, lr: f64, grad_scale: &Tensor) -> crate::Result<()> {
        let _guard = tch::no_grad_guard();
        self.steps += 1;
        let AdamWConfig { beta1, beta2, eps, weight_decay } = self.config;
        let grads: Vec<Tensor> = self.slots.iter().map(|slot| slot.param.grad()).collect();
        let count = Tensor::full([], self.steps as f64, (Kind::Float, grad_scale.device()));
        let divisor = grad_scale.reciprocal();
        for decayed in [true, false] {
            let slots = self.slots.iter().zip(&grads).filter(|(s, g)| s.decayed == decayed && g.defined());
            let slots: Vec<_> = slots.map(|(s, g)| [&s.param, g, &s.exp_avg, &s.exp_avg_sq]).collect();
            let weight_decay = if decayed { weight_decay } else { 0.0 };
            let constants = AdamWStep { lr, betas: (beta1, beta2), weight_decay, eps };
            fused_adamw(&slots, &count, constants, &divisor)?;
        }
        for mut grad in grads {
            if grad.defined() {
                let _ = grad.zero_();
            }
        }
        Ok(())
    }

    /// The gradients that are there, in the order of the parameters, sharing storage with them.
    pub fn gradients(&self) -> Vec<Tensor> {
        self.slots.iter().map(|slot| slot.param.grad()).filter(Tensor::defined).collect()
    }

    /// L2 norm over all gradients, 0-dim float32, on the device.
    pub fn grad_norm(&self) -> Tensor {
        let _guard = tch::no_grad_guard();
        let norms: Vec<Tensor> =
            self.gradients().iter().map(|g| g.norm_scalaropt_dtype(2.0, Kind::Float)).collect();
        Tensor::stack(&norms, 0).norm_scalaropt_dtype(2.0, Kind::Float)
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Moments by name (`NAME.exp_avg`, `NAME.exp_avg_sq`), sharing storage with the optimizer.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        let mut state = BTreeMap::new();
        for slot in &self.slots {
            state.insert(format!("{}.exp_avg", slot.name), slot.exp_avg.shallow_clone());
            state.insert(format!("{}.exp_avg_sq", slot.name), slot.exp_avg_sq.shallow_clone());
        }
        state
    }

    /// Puts saved moments back.
    ///
    /// # Errors
    /// When a moment is missing or has another shape; names it.
    pub fn load(&mut self, mut state: BTreeMap<String, Tensor>, steps: u64) -> crate::Result<()> {
        for slot in &mut self.slots {
            for (suffix, moment) in [("exp_avg", &mut slot.exp_avg), ("exp_avg_sq", &mut slot.exp_avg_sq)] {
                let name = format!("{}.{suffix}", slot.name);
                let saved = state
                    .remove(&name)
                    .ok_or_else(|| crate::Error::invalid(format!("optimizer state has no tensor {name}")))?;
                if saved.size() != moment.size() {
                    let (found, wanted) = (saved.size(), moment.size());
                    return Err(crate::Error::invalid(format!(
                        "optimizer state {name} has shape {found:?}, expected {wanted:?}"
                    )));
                }
                moment.copy_(&saved);
            }
        }
        self.steps = steps;
        Ok(())
    }
}

/// The factor that brings gradients of L2 norm `norm` down to at most `max`: min(1, max / (norm + 1e-6)), as
/// PyTorch does.
pub fn clip_coefficient(norm: &Tensor, max: f64) -> Tensor {
    (max / (norm + 1e-6)).clamp_max(1.0)
}

/// Whether weight decay pulls on a parameter: matrices and embeddings yes, biases never; LN weights only if
/// `decay_ln`.
///
/// Hugging Face leaves out biases and the weights of `nn.LayerNorm`; the paper's fake LN is another class, so
/// in its runs without LN the LN weights are decayed too.
pub fn is_decayed(name: &str, decay_ln: bool) -> bool {
    let is_ln = name.starts_with("ln_f.") || name.contains(".ln_1.") || name.contains(".ln_2.");
    name.ends_with(".weight") && (decay_ln || !is_ln)
}
