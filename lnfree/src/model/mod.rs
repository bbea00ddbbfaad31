//! GPT-2 with Hugging Face names, whose LayerNorms can be taken out one site at a time.

mod attention;
mod block;
mod cache;
mod check_shapes;
mod conv1d;
mod fold;
mod generation_config;
pub mod hook;
mod inference;
mod layer_norm;
pub mod ln_state;
pub mod ln_statistics;
mod load;
pub mod names;
mod parameters;
mod shape;
mod step;
mod stream;
pub mod weights;

use std::cell::OnceCell;

use tch::{Kind, Tensor};

pub use crate::config::Gpt2Config;
pub use attention::{Attention, causal_attention};
pub use block::{Block, Mlp};
pub use cache::KvCache;
pub use check_shapes::check_shapes;
pub use conv1d::{Conv1d, gelu};
pub(crate) use fold::Folded;
pub(crate) use generation_config::GENERATION;
pub use generation_config::GenerationConfig;
pub use layer_norm::LayerNorm;
pub use load::{LoadOptions, LoadedModel, ModelFormat, state_tensors};
pub use shape::Shape;
pub use step::StepModel;

use crate::config::norm::LnSite;
use crate::model::hook::{Activation, Hook, replaced};
use crate::model::ln_state::LnState;
use crate::ops::Stream;
use crate::{Error, Result};

/// A GPT-2: parameters only. Which LNs are fake is in a [`LnState`], given to every forward.
///
/// The folded model, which has no LN at all, is a `Gpt2` whose LN fields are `None`.
#[derive(Debug)]
pub struct Gpt2 {
    /// Sizes and constants.
    pub config: Gpt2Config,
    /// Token embedding, `[vocab_size, n_embd]`; also the unembedding unless `lm_head` is there.
    pub wte: Tensor,
    /// Position embedding, `[block_size, n_embd]`.
    pub wpe: Tensor,
    /// The blocks.
    pub h: Vec<Block>,
    /// The final LN.
    pub ln_f: Option<LayerNorm>,
    /// An untied unembedding, `[vocab_size, n_embd]`.
    pub lm_head: Option<Tensor>,
}

/// How a forward computes; the default is an evaluation in float32.
#[derive(Debug, Clone, Copy)]
pub struct Compute {
    /// Matrix products and attention run in this type; the residual stream and LNs stay in float32.
    pub dtype: Kind,
    /// Report what every LN sees, and let fake LNs follow it where the settings say so.
    pub observe: bool,
    /// Dropout with the probabilities of the config, from this seed.
    pub dropout_seed: Option<u64>,
}

impl Default for Compute {
    fn default() -> Self {
        Compute { dtype: Kind::Float, observe: false, dropout_seed: None }
    }
}

/// Everything a forward needs besides its input and the parameters.
pub struct Pass<'a> {
    /// Which LNs are fake and what they divide by.
    pub ln: &'a LnState,
    /// How to compute.
    pub compute: Compute,
    /// Position of the first token; 0 unless a [`KvCache`] holds what came before.
    pub start: i64,
    /// Positions of end-of-text tokens, bool `[batch, pos, 1]`.
    pub is_eot: Tensor,
    /// What the LNs saw, `[2]` each, in the order of [`crate::config::norm::ln_names`].
    pub observed: Vec<Option<Tensor>>,
    /// What was wrong with the first thing a hook returned that cannot be used.
    refused: OnceCell<Error>,
}

impl Pass<'_> {
    /// What the LNs saw in this forward, float32 `[n_ln, 2]`; `None` if nothing was observed.
    pub fn observations(&self) -> Option<Tensor> {
        let rows: Option<Vec<&Tensor>> = self.observed.iter().map(Option::as_ref).collect();
        rows.map(|rows| Tensor::stack(&rows, 0))
    }

    /// Whether everything that the hook returned could take its activation's place; [`Gpt2::forward`] asks,
    /// after the other parts of a forward their caller has to. Where it could not, the rest of the forward is
    /// NaN and the hook is not called again.
    ///
    /// # Errors
    /// [`Error::Hook`] about the first that could not.
    pub fn check(&mut self) -> Result<()> {
        self.refused.take().map_or(Ok(()), Err)
    }

    /// `value`, or what `hook` puts in its place.
    pub(crate) fn seen(&self, activation: Activation, value: Tensor, hook: &mut dyn Hook) -> Tensor {
        if self.refused.get().is_some() {
            return value;
        }
        let (size, options) = (value.size(), (value.kind(), value.device()));
        replaced(hook, activation, value).unwrap_or_else(|error| {
            let _ = self.refused.set(error);
            Tensor::full(size, f64::NAN, options)
        })
    }

    /// `x` with dropout of probability `p`, if this pass has dropout.
    pub(crate) fn dropout(&self, x: Tensor, p: f64) -> Tensor {
        if self.compute.dropout_seed.is_some() && p > 0.0 { x.dropout(p, true) } else { x }
    }

    /// `weight` in the type that matrix products run in.
    pub(crate) fn cast(&self, weight: &Tensor) -> Tensor {
        weight.to_kind(self.compute.dtype)
    }
}

impl Gpt2 {
    /// Prepares a forward over `input_ids`, int64 `[batch, pos]`.
    ///
    /// # Errors
    /// When the input is longer than the model's positions, or not `[batch, pos]`.
    pub fn pass<'a>(&self, input_ids: &Tensor, ln: &'a LnState, compute: Compute) -> Result<Pass<'a>> {
        let size = input_ids.size();
        let &[_, pos] = size.as_slice() else {
            return Err(Error::invalid(format!("input_ids must be [batch, pos], not {size:?}")));
        };
        if pos > self.config.block_size {
            return Err(Error::invalid(format!(
                "sequences of {pos} tokens do not fit the model's {} positions; cut the data to that length",
                self.config.block_size
            )));
        }
        if input_ids.device() == tch::Device::Cpu {
            crate::base::device::products();
        }
        let eot = self.config.eot_token_id().unwrap_or(-1);
        let n_ln = 2 * self.h.len() + 1;
        Ok(Pass {
            ln,
            compute,
            start: 0,
            is_eot: input_ids.eq(eot).unsqueeze(-1),
            observed: (0..n_ln).map(|_| None).collect(),
            refused: OnceCell::new(),
        })
    }

    /// Logits `[batch, pos, vocab_size]` of `input_ids`, int64 `[batch, pos]`, in the dtype of `compute`.
    ///
    /// # Errors
    /// As [`Gpt2::pass`], and [`Error::Hook`] when `hook` returns what cannot take an activation's place.
    pub fn forward(
        &self,
        input_ids: &Tensor,
        ln: &LnState,
        compute: Compute,
        hook: &mut dyn Hook,
    ) -> Result<Tensor> {
        let mut pass = self.pass(input_ids, ln, compute)?;
        let residual = self.residual(input_ids, &mut pass, hook);
        let last = self.final_norm(&residual, &mut pass, hook);
        pass.check()?;
        Ok(self.unembed(&last, &pass))
    }

    /// The residual stream after the last block, float32 `[batch, pos, n_embd]`.
    pub fn residual(&self, input_ids: &Tensor, pass: &mut Pass, hook: &mut dyn Hook) -> Tensor {
        let x = self.embed(input_ids, pass, hook);
        self.blocks(x, pass, hook)
    }

    /// The residual stream after the last block from the one before the first.
    pub(crate) fn blocks(&self, x: Tensor, pass: &mut Pass, hook: &mut dyn Hook) -> Tensor {
        let mut x = Stream::of(x);
        for (layer, block) in self.h.iter().enumerate() {
            x = block.forward(layer, x, self.h.get(layer + 1), pass, hook);
        }
        x.x
    }

    /// Token plus position embedding, float32 `[batch, pos, n_embd]`.
    pub fn embed(&self, input_ids: &Tensor, pass: &Pass, hook: &mut dyn Hook) -> Tensor {
        self.embedded(self.look_up(input_ids, pass.start), pass, hook)
    }

    /// [`Gpt2::embed`] before dropout, of tokens from position `start` on.
    pub(crate) fn look_up(&self, input_ids: &Tensor, start: i64) -> Tensor {
        let pos = input_ids.size()[1];
        let tokens = Tensor::embedding(&self.wte, input_ids, -1, false, false);
        (tokens + self.wpe.narrow(0, start, pos)).to_kind(Kind::Float)
    }

    /// [`Gpt2::embed`] from [`Gpt2::look_up`].
    pub(crate) fn embedded(&self, x: Tensor, pass: &Pass, hook: &mut dyn Hook) -> Tensor {
        if let Some(seed) = pass.compute.dropout_seed {
            seed_dropout(seed, 0);
        }
        pass.seen(Activation::Embed, pass.dropout(x, self.config.embd_pdrop), hook)
    }

    /// ln_f of the residual stream, float32 `[batch, pos, n_embd]`.
    pub fn final_norm(&self, residual: &Tensor, pass: &mut Pass, hook: &mut dyn Hook) -> Tensor {
        let last = match &self.ln_f {
            Some(ln_f) => ln_f.forward(&Stream::of(residual.shallow_clone()), LnSite::LnF, pass),
            None => residual.shallow_clone(),
        };
        pass.seen(Activation::Final, last, hook)
    }

    /// Logits of the normalised residual stream, `[.., vocab_size]`.
    pub fn unembed(&self, last: &Tensor, pass: &Pass) -> Tensor {
        pass.cast(last).linear::<Tensor>(&pass.cast(self.unembedding()), None)
    }

    /// The unembedding, `[vocab_size, n_embd]`.
    pub fn unembedding(&self) -> &Tensor {
        self.lm_head.as_ref().unwrap_or(&self.wte)
    }

    /// Number of parameters, a tied unembedding counted once.
    pub fn n_parameters(&self) -> usize {
        self.named_parameters().iter().map(|(_, t)| t.numel()).sum()
    }
}

/// Seeds libtorch's generator for one part of a forward (0 is the embedding, 1 + layer a block): a block that is computed
/// again for its gradients, or a run that is resumed, then drops the same activations.
pub(crate) fn seed_dropout(seed: u64, part: usize) {
    tch::manual_seed((seed.wrapping_add(part as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 1) as i64);
}
