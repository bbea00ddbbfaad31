//! One patch by a whole forward: slow, and of any activation.

use tch::{Kind, Tensor};

use super::pair::Patching;
use super::replace::{Replacement, Replacements, mask_of};
use crate::model::Compute;
use crate::model::hook::{Activation, NamedActivation};
use crate::{Error, Result};

impl Patching<'_> {
    /// Patches any activation, all of it or at one position (of patterns and scores the position that looks)
    /// or head, and computes a whole forward: metric, float32 `[batch]`. What the sweeps give, without what
    /// they save.
    ///
    /// # Errors
    /// An activation that the model does not have, a position or head that this activation does not have.
    pub fn recompute(
        &self,
        activation: impl NamedActivation,
        position: Option<i64>,
        head: Option<i64>,
    ) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let at = activation.activation()?;
        let clean = self.of_clean([at])?;
        let value = clean.get(at)?;
        let mask = part_of(at, value, position, head)?;
        let all = vec![Replacement { at, mask, value: value.shallow_clone() }];
        let mut hook = Replacements { batch: self.base.batch(), all };
        let (model, ids) = (self.base.model, &self.base.ids);
        let logits = model.forward(ids, self.base.ln, Compute::default(), &mut hook)?;
        let (places, _) = self.metric.places(self.base.pos(), 0, logits.device())?;
        self.metric.of_logits(&logits.f_index_select(1, &places)?)
    }
}

/// Where a position and a head are in `[runs, batch, ..]` of an activation: bool, broadcasting.
fn part_of(at: Activation, value: &Tensor, position: Option<i64>, head: Option<i64>) -> Result<Tensor> {
    use Activation::*;
    let square = matches!(at, Pattern(_) | AttnScores(_));
    let head_dim = match at {
        Pattern(_) | AttnScores(_) => Some(1),
        Q(_) | K(_) | V(_) | Z(_) => Some(2),
        _ => None,
    };
    let mut mask = Tensor::f_ones([1], (Kind::Bool, value.device()))?;
    for (dim, index, what) in
        [(Some(if square { 2 } else { 1 }), position, "position"), (head_dim, head, "head")]
    {
        let Some(index) = index else { continue };
        let len = dim.and_then(|dim: usize| value.size().get(dim).copied()).unwrap_or(0);
        let Some(dim) = dim.filter(|_| (0..len).contains(&index)) else {
            return Err(Error::invalid(format!("{at} has no {what} {index}: it has {len}")));
        };
        // The first axis is that of runs.
        let here = mask_of(dim + 1, value.dim() + 1, len, &[index], value.device())?;
        mask = mask.f_logical_and(&here)?;
    }
    Ok(mask)
}
