//! How caching, patching, ablation and losses on activations see a forward.

use std::collections::BTreeMap;

use tch::Tensor;

use crate::{Error, Result};

/// A named activation of a forward, in TransformerLens' vocabulary. Layers are 0-based.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Activation {
    /// Token plus position embedding, `[batch, pos, n_embd]`.
    Embed,
    /// Residual stream before block, `[batch, pos, n_embd]`.
    ResidPre(usize),
    /// Queries, `[batch, head, pos, d_head]`.
    Q(usize),
    /// Keys, `[batch, head, pos, d_head]`.
    K(usize),
    /// Values, `[batch, head, pos, d_head]`.
    V(usize),
    /// Scaled and causally masked attention scores, `[batch, head, query_pos, key_pos]`.
    AttnScores(usize),
    /// Attention probabilities, `[batch, head, query_pos, key_pos]`.
    Pattern(usize),
    /// Attention-weighted values before the output projection, `[batch, head, pos, d_head]`.
    Z(usize),
    /// What attention adds to the residual stream, `[batch, pos, n_embd]`.
    AttnOut(usize),
    /// Residual stream between attention and MLP, `[batch, pos, n_embd]`.
    ResidMid(usize),
    /// MLP before its non-linearity, `[batch, pos, n_inner]`.
    MlpPre(usize),
    /// MLP after its non-linearity, `[batch, pos, n_inner]`.
    MlpPost(usize),
    /// What the MLP adds to the residual stream, `[batch, pos, n_embd]`.
    MlpOut(usize),
    /// Residual stream after block, `[batch, pos, n_embd]`; after the last block this is the input of ln_f.
    ResidPost(usize),
    /// Output of ln_f, `[batch, pos, n_embd]`.
    Final,
}

/// Sees every activation of a forward and may replace it.
pub trait Hook {
    /// Called once per activation; what it returns takes the activation's place. Return `value` to leave it as it is.
    fn on(&mut self, activation: Activation, value: Tensor) -> Tensor;

    /// Whether it may look at activations or replace them. Where it does not, work that makes several of them at once is open to a forward.
    fn looks(&self) -> bool {
        true
    }

    /// Whether attention scores and patterns are wanted; they cost a `[batch, head, pos, pos]` tensor per layer, which
    /// scaled-dot-product attention never makes.
    fn wants_pattern(&self) -> bool {
        false
    }
}

/// Looks at nothing and costs nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHook;

impl Hook for NoHook {
    #[inline(always)]
    fn on(&mut self, _activation: Activation, value: Tensor) -> Tensor {
        value
    }

    fn looks(&self) -> bool {
        false
    }
}

/// Keeps the activations that it was asked for, as TransformerLens' `run_with_cache` does.
///
/// ```
/// use lnfree::prelude::*;
///
/// # fn main() -> Result<()> {
/// let nano = LoadedModel::load(&locate_model("nano")?, None, Kind::Float, Device::Cpu)?;
/// let mut cache = Capture::of([Activation::Pattern(0), Activation::ResidPost(5)]);
/// nano.model.forward(&Tensor::from_slice(&[5i64, 9, 2]).unsqueeze(0), &nano.ln, Compute::default(), &mut cache)?;
/// assert_eq!(cache.get(Activation::Pattern(0))?.size(), [1, 4, 3, 3]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Capture {
    kept: BTreeMap<Activation, Option<Tensor>>,
}

impl Capture {
    /// Keeps these.
    pub fn of(wanted: impl IntoIterator<Item = Activation>) -> Capture {
        Capture { kept: wanted.into_iter().map(|activation| (activation, None)).collect() }
    }

    /// What the last forward made of it.
    ///
    /// # Errors
    /// When it was not asked for, or no forward has had it.
    pub fn get(&self, activation: Activation) -> Result<&Tensor> {
        let kept = self.kept.get(&activation).and_then(Option::as_ref);
        kept.ok_or_else(|| {
            Error::invalid(format!("{activation:?} was not kept: ask for it and run a forward"))
        })
    }
}

impl Hook for Capture {
    fn on(&mut self, activation: Activation, value: Tensor) -> Tensor {
        if let Some(kept) = self.kept.get_mut(&activation) {
            *kept = Some(value.detach());
        }
        value
    }

    fn wants_pattern(&self) -> bool {
        self.kept.keys().any(|a| matches!(a, Activation::Pattern(_) | Activation::AttnScores(_)))
    }
}

/// Any closure is a hook.
impl<F: FnMut(Activation, Tensor) -> Tensor> Hook for F {
    fn on(&mut self, activation: Activation, value: Tensor) -> Tensor {
        self(activation, value)
    }
}
