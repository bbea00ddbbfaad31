//! One forward with what it went through, for analyses that read many activations of the same run.

use std::collections::{BTreeMap, BTreeSet};

use tch::Tensor;

use crate::config::norm::LnSite;
use crate::model::hook::{Activation, Hook, NamedActivation};
use crate::model::ln_state::LnState;
use crate::model::{Compute, Gpt2};
use crate::{Error, Result};

/// What ln_f divides by.
const FINAL_SCALE: Activation = Activation::Scale(LnSite::LnF);

/// Logits `[batch, pos, vocab_size]`, float32, of `ids`, int64 `[batch, pos]` without padding, and the
/// activations that `wanted` says yes to: TransformerLens' `run_with_cache` with its filter on names.
///
/// Attention patterns and scores are computed only where they are wanted. Nothing is put before the ids:
/// position 0 is a beginning-of-text token only if the ids have one there. To change activations on the way,
/// give [`Gpt2::forward`] a hook.
///
/// ```
/// use lnfree::interp::{attribution_needs, run_with_cache};
/// use lnfree::prelude::*;
///
/// # fn main() -> Result<()> {
/// let nano = LoadedModel::load(&locate_model("nano")?, None, Kind::Float, Device::Cpu)?;
/// let ids = Tensor::from_slice(&[5i64, 9, 2]).unsqueeze(0);
/// let pattern = |at: Activation| matches!(at, Activation::Pattern(_));
/// let (logits, cache) =
///     run_with_cache(&nano.model, &nano.ln, &ids, |at| attribution_needs(at) || pattern(at))?;
/// assert_eq!(logits.size(), [1, 3, 4096]);
/// assert_eq!(cache.get("blocks.0.attn.hook_pattern")?.size(), [1, 4, 3, 3]);
/// assert_eq!(cache.get(("pattern", 0))?, cache.get(Activation::Pattern(0))?);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// If the model cannot take the ids.
pub fn run_with_cache<'a>(
    model: &'a Gpt2,
    ln: &'a LnState,
    ids: &Tensor,
    wanted: impl Fn(Activation) -> bool,
) -> Result<(Tensor, ActivationCache<'a>)> {
    let (last, cache) = record(model, ln, ids, wanted)?;
    let _guard = tch::no_grad_guard();
    let pass = model.pass(&cache.ids, ln, Compute::default())?;
    Ok((model.unembed(&last, &pass), cache))
}

/// Whether an activation is among those that the functions on an [`ActivationCache`] read: the embeddings,
/// the residual stream before and within the blocks, what attention and MLPs add to it, heads before their
/// output projection and neurons. For `wanted` of [`run_with_cache`].
pub fn attribution_needs(activation: Activation) -> bool {
    use Activation::{AttnOut, Embed, MlpOut, MlpPost, PosEmbed, ResidMid, ResidPre, Z};
    matches!(
        activation,
        Embed | PosEmbed | ResidPre(_) | ResidMid(_) | AttnOut(_) | MlpOut(_) | Z(_) | MlpPost(_)
    )
}

/// The activations of one forward, and the model, LN state and ids that they are of, so that functions which
/// attribute logits to them always divide by the scales of this very run.
///
/// Activations are looked up by [`Activation`], by TransformerLens' full name (`"blocks.3.attn.hook_z"`), or
/// by its short forms `("z", 3)` and `("scale", 3, "ln1")`. They have no graph.
#[derive(Debug)]
pub struct ActivationCache<'a> {
    pub(super) model: &'a Gpt2,
    pub(super) ln: &'a LnState,
    /// int64 `[batch, pos]`, on the model's device.
    pub(super) ids: Tensor,
    /// The residual stream after the last block, which is always kept, float32 `[batch, pos, n_embd]`.
    pub(super) residual: Tensor,
    /// What ln_f divided by, `[batch, pos, 1]` or `[batch, pos, n_embd]`, always kept; `None` where nothing
    /// normalises the stream before it is unembedded.
    pub(super) scale: Option<Tensor>,
    kept: BTreeMap<Activation, Tensor>,
}

impl<'a> ActivationCache<'a> {
    /// As [`run_with_cache`], but makes no logits, which are most of the memory of a forward.
    ///
    /// # Errors
    /// If the model cannot take the ids.
    pub fn new(
        model: &'a Gpt2,
        ln: &'a LnState,
        ids: &Tensor,
        wanted: impl Fn(Activation) -> bool,
    ) -> Result<Self> {
        Ok(record(model, ln, ids, wanted)?.1)
    }

    /// An activation, in the shape that [`Activation`] states.
    ///
    /// # Errors
    /// A name that is none, a block that the model does not have, and what was not kept.
    pub fn get(&self, activation: impl NamedActivation) -> Result<&Tensor> {
        let activation = activation.activation()?;
        let n_layer = self.model.h.len();
        if activation.layer().is_some_and(|layer| layer >= n_layer) {
            return Err(Error::invalid(format!(
                "{activation} is in no block of a model with {n_layer}, counted from 0"
            )));
        }
        self.kept.get(&activation).ok_or_else(|| {
            Error::invalid(format!(
                "{activation} was not kept; `wanted` has to say yes to it, and the model to have it"
            ))
        })
    }

    /// TransformerLens' names of what was kept, in the order of the forward.
    pub fn names(&self) -> Vec<String> {
        let all = Activation::all(self.model.h.len());
        all.filter(|activation| self.kept.contains_key(activation)).map(|of| of.to_string()).collect()
    }

    /// Bytes that the kept tensors hold, those that share their memory counted once. Includes the residual
    /// stream after the last block and the scale of ln_f, which are always kept.
    pub fn bytes(&self) -> usize {
        let mut counted = BTreeSet::new();
        let tensors = self.kept.values().chain([&self.residual]).chain(&self.scale);
        let new = tensors.filter(|tensor| counted.insert(tensor.data_ptr() as usize));
        new.map(|tensor| tensor.numel() * tensor.kind().elt_size_in_bytes()).sum()
    }

    /// The ids of the run, int64 `[batch, pos]`, on the model's device.
    pub fn ids(&self) -> &Tensor {
        &self.ids
    }
}

/// What ln_f hands on, and the rest of the forward.
fn record<'a>(
    model: &'a Gpt2,
    ln: &'a LnState,
    ids: &Tensor,
    wanted: impl Fn(Activation) -> bool,
) -> Result<(Tensor, ActivationCache<'a>)> {
    let _guard = tch::no_grad_guard();
    // A copy: the ids are read again by whoever attributes logits, and are the caller's to change.
    let ids = ids.f_to_device(model.device())?.copy();
    let mut keeper = Keeper { wanted, kept: BTreeMap::new(), scale: None };
    let mut pass = model.pass(&ids, ln, Compute::default())?;
    let residual = model.residual(&ids, &mut pass, &mut keeper).detach();
    let last = model.final_norm(&residual, &mut pass, &mut keeper);
    pass.check()?;
    let Keeper { kept, scale, .. } = keeper;
    Ok((last, ActivationCache { model, ln, ids, residual, scale, kept }))
}

/// Keeps what is wanted, and the scale of ln_f.
struct Keeper<F> {
    wanted: F,
    kept: BTreeMap<Activation, Tensor>,
    scale: Option<Tensor>,
}

impl<F: Fn(Activation) -> bool> Hook for Keeper<F> {
    fn on(&mut self, activation: Activation, value: Tensor) -> Tensor {
        if activation == FINAL_SCALE {
            self.scale = Some(value.detach());
        }
        if (self.wanted)(activation) {
            let kept = match activation {
                // Views of a tensor three times their size: a copy lets that go.
                Activation::Q(_) | Activation::K(_) | Activation::V(_) => value.detach().copy(),
                // No forward writes into an activation once a hook has seen it.
                _ => value.detach(),
            };
            self.kept.insert(activation, kept);
        }
        value
    }

    fn wants(&self, activation: Activation) -> bool {
        activation == FINAL_SCALE || (self.wanted)(activation)
    }
}

/// TransformerLens' short forms: what, and in which block.
impl NamedActivation for (&str, usize) {
    fn activation(self) -> Result<Activation> {
        let (short, layer) = self;
        let of: fn(usize) -> Activation = match short {
            "q" | "query" => Activation::Q,
            "k" | "key" => Activation::K,
            "v" | "value" => Activation::V,
            "z" => Activation::Z,
            "pattern" | "attn" => Activation::Pattern,
            "attn_scores" | "attn_logits" => Activation::AttnScores,
            "attn_out" => Activation::AttnOut,
            "pre" | "mlp_pre" => Activation::MlpPre,
            "post" | "mlp_post" => Activation::MlpPost,
            "mlp_out" => Activation::MlpOut,
            "resid_pre" => Activation::ResidPre,
            "resid_mid" => Activation::ResidMid,
            "resid_post" => Activation::ResidPost,
            "result" => {
                return Err(Error::invalid(
                    "a forward makes no `result` of single heads; stack_head_results computes them from z",
                ));
            }
            _ => return format!("blocks.{layer}.{short}").parse(),
        };
        Ok(of(layer))
    }
}

/// TransformerLens' short forms with the part of the block: `("scale", 3, "ln1")`.
impl NamedActivation for (&str, usize, &str) {
    fn activation(self) -> Result<Activation> {
        let (short, layer, part) = self;
        format!("blocks.{layer}.{part}.hook_{short}").parse()
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::config::Gpt2Config;

    #[test]
    fn what_is_kept_has_its_names_and_its_size() {
        let model = Gpt2::init(Gpt2Config::new(2, 2, 16, 12, 50).unwrap(), 0, Device::Cpu).unwrap();
        let ln = LnState::plain(2, Device::Cpu);
        let ids = Tensor::from_slice(&[3i64, 4, 9, 3, 1, 2]).view([2, 3]);
        let cache = ActivationCache::new(&model, &ln, &ids, |_| false).unwrap();
        // 2 · 3 positions of the last stream and of ln_f's scale, float32.
        assert_eq!((cache.names().len(), cache.bytes()), (0, 6 * 16 * 4 + 6 * 4));
        let last_two = |at: Activation| matches!(at, Activation::ResidPost(_) | Activation::Q(1));
        let cache = ActivationCache::new(&model, &ln, &ids, last_two).unwrap();
        assert_eq!(
            cache.names(),
            ["blocks.0.hook_resid_post", "blocks.1.attn.hook_q", "blocks.1.hook_resid_post"]
        );
        // The stream after the last block is the one that is kept anyway.
        assert_eq!(cache.bytes(), 3 * 6 * 16 * 4 + 6 * 4);
        let (q, stream) = (cache.get(("q", 1)).unwrap(), cache.get("blocks.1.hook_resid_post").unwrap());
        assert_eq!((q.size(), stream.size()), (vec![2, 3, 2, 8], vec![2, 3, 16]));
        assert_eq!((q.kind(), q.requires_grad()), (Kind::Float, false));
        for (refused, why) in [
            (cache.get(("z", 0)), "blocks.0.attn.hook_z was not kept"),
            (cache.get(("z", 2)), "in no block of a model with 2"),
            (cache.get(("result", 0)), "stack_head_results"),
            (cache.get(("nothing", 0)), "`blocks.0.nothing` is no activation"),
            (cache.get(("scale", 0, "ln3")), "`blocks.0.ln3.hook_scale` is no activation"),
        ] {
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains(why) && refused.lines().count() == 1, "{refused}");
        }
    }

    #[test]
    fn a_later_change_of_the_ids_is_not_seen() {
        let model = Gpt2::init(Gpt2Config::new(1, 2, 16, 12, 50).unwrap(), 0, Device::Cpu).unwrap();
        let ln = LnState::plain(1, Device::Cpu);
        let mut ids = Tensor::from_slice(&[3i64, 4, 9]).view([1, 3]);
        let cache = ActivationCache::new(&model, &ln, &ids, |_| true).unwrap();
        let _ = ids.fill_(0);
        assert_eq!(Vec::<i64>::try_from(cache.ids().view([3])).unwrap(), [3, 4, 9]);
        let scale = cache.get(("scale", 0, "ln1")).unwrap();
        assert_eq!(scale.size(), [1, 3, 1]);
    }
}
