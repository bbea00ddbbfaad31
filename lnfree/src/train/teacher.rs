//! The frozen model that a distilled run stays close to.

use std::path::Path;

use tch::{Kind, Tensor};

use crate::config::DistillConfig;
use crate::model::hook::{Activation, Hook};
use crate::model::ln_state::LnState;
use crate::model::{Gpt2, LoadedModel};
use crate::ops::loss::{Mixture, Teaching};
use crate::{Error, Result};

/// A model that is read and never trained, ready for forwards in the type of a run's matrix products.
#[derive(Debug)]
pub struct Teacher {
    model: Gpt2,
    ln: LnState,
    dtype: Kind,
    /// How much it counts.
    pub mixture: Mixture,
    /// Weight of the distance of the residual streams.
    pub hidden_weight: f64,
}

/// What a teacher makes of a batch.
#[derive(Debug)]
pub struct Taught {
    /// What it unembeds where a next token is to be predicted, `[batch · (pos − 1), n_embd]` in the type of
    /// matrix products.
    last: Tensor,
    /// Its residual stream after every block but the last, float32 `[batch, pos, n_embd]`, where the model is
    /// to stay close to that too.
    pub(super) streams: Vec<Tensor>,
}

/// Keeps the residual stream after the first blocks, with whatever graph it has.
#[derive(Debug)]
pub(super) struct Streams {
    pub kept: Vec<Tensor>,
    blocks: usize,
}

impl Streams {
    pub fn of(blocks: usize) -> Streams {
        Streams { kept: Vec::with_capacity(blocks), blocks }
    }
}

impl Hook for Streams {
    fn on(&mut self, _: Activation, stream: Tensor) -> Tensor {
        self.kept.push(stream.shallow_clone());
        stream
    }

    fn wants(&self, activation: Activation) -> bool {
        matches!(activation, Activation::ResidPost(layer) if layer < self.blocks)
    }
}

impl Teacher {
    /// The model in `dir`, of any format, for a student with `vocab_size` tokens.
    ///
    /// # Errors
    /// Files that are missing or damaged, and a teacher that has other tokens or too few positions for
    /// sequences of `block_size` tokens.
    pub fn load(
        config: &DistillConfig,
        dir: &Path,
        student: &Gpt2,
        block_size: usize,
        dtype: Kind,
    ) -> Result<Teacher> {
        let loaded = LoadedModel::load(dir, None, Kind::Float, student.device())?;
        let (found, wanted) = (loaded.model.config.vocab_size, student.config.vocab_size);
        if found != wanted {
            let message = format!("has {found} tokens, the model that is to learn from it {wanted}");
            return Err(Error::file(dir, message));
        }
        let positions = loaded.model.config.block_size;
        if (positions as usize) < block_size {
            let message = format!("has {positions} positions, data.block_size is {block_size}");
            return Err(Error::file(dir, message));
        }
        if config.hidden_weight > 0.0 {
            let shape = |model: &Gpt2| (model.h.len(), model.config.n_embd);
            let ((blocks, n_embd), (wanted_blocks, wanted)) = (shape(&loaded.model), shape(student));
            if (blocks, n_embd) != (wanted_blocks, wanted) || blocks < 2 {
                return Err(Error::file(
                    dir,
                    format!(
                        "has {blocks} blocks of n_embd {n_embd}, the model that is to learn from it {wanted_blocks} \
                         of {wanted}: distill.hidden_weight needs the same, and two blocks or more"
                    ),
                ));
            }
        }
        let model = loaded.model.for_inference(&loaded.ln, dtype)?;
        let mixture = Mixture { weight: config.weight, temperature: config.temperature };
        Ok(Teacher { model, ln: loaded.ln, dtype, mixture, hidden_weight: config.hidden_weight })
    }

    /// What it makes of `input_ids`, int64 `[batch, pos]`.
    ///
    /// # Errors
    /// When the input does not fit the model.
    pub fn forward(&self, input_ids: &Tensor) -> Result<Taught> {
        let blocks = if self.hidden_weight > 0.0 { self.model.h.len() - 1 } else { 0 };
        let mut streams = Streams::of(blocks);
        let last = self.model.unembedded(input_ids, &self.ln, self.dtype, &mut streams)?;
        Ok(Taught { last, streams: streams.kept })
    }

    /// What the loss of a batch takes, with what [`Teacher::forward`] found for it.
    pub fn teaching<'a>(&'a self, taught: &'a Taught) -> Teaching<'a> {
        Teaching { last: &taught.last, head: self.model.unembedding(), mixture: self.mixture }
    }
}
