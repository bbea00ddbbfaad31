//! The frozen model that a distilled run stays close to.

use std::path::Path;

use tch::{Kind, Tensor};

use crate::config::DistillConfig;
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
        let model = loaded.model.for_inference(&loaded.ln, dtype)?;
        let mixture = Mixture { weight: config.weight, temperature: config.temperature };
        Ok(Teacher { model, ln: loaded.ln, dtype, mixture })
    }

    /// What it unembeds where a next token is to be predicted, `[batch · (pos − 1), n_embd]` in the type of
    /// matrix products. `input_ids` int64 `[batch, pos]`.
    ///
    /// # Errors
    /// When the input does not fit the model.
    pub fn last(&self, input_ids: &Tensor) -> Result<Tensor> {
        self.model.unembedded(input_ids, &self.ln, self.dtype)
    }

    /// What the loss of a batch takes, with what [`Teacher::last`] found for it.
    pub fn teaching<'a>(&'a self, last: &'a Tensor) -> Teaching<'a> {
        Teaching { last, head: self.model.unembedding(), mixture: self.mixture }
    }
}
