//! How caching, patching, ablation and losses on activations see a forward.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

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
    /// Called once per activation; what it returns takes the activation's place. Return `value` to leave it
    /// as it is. Anything but a tensor of its shape, type and device is [`Error::Hook`], see
    /// [`Pass::check`](crate::model::Pass::check).
    fn on(&mut self, activation: Activation, value: Tensor) -> Tensor;

    /// Whether it may look at activations or replace them. One that does not is never called, and work that
    /// makes several of them at once is open to a forward.
    fn looks(&self) -> bool {
        true
    }

    /// Whether it is called with attention scores and patterns; they cost a `[batch, head, pos, pos]` tensor
    /// per layer, which scaled-dot-product attention never makes. A hook that does without says so, as
    /// [`without_patterns`] does for a closure.
    fn wants_pattern(&self) -> bool {
        true
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

    fn wants_pattern(&self) -> bool {
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
    /// Whether a forward has been seen.
    seen: bool,
}

impl Capture {
    /// Keeps these.
    pub fn of(wanted: impl IntoIterator<Item = Activation>) -> Capture {
        let kept = wanted.into_iter().map(|activation| (activation, None)).collect();
        Capture { kept, seen: false }
    }

    /// What the last forward made of it.
    ///
    /// # Errors
    /// When it was not asked for, or the last forward did not have it.
    pub fn get(&self, activation: Activation) -> Result<&Tensor> {
        let why = match self.kept.get(&activation) {
            Some(Some(kept)) => return Ok(kept),
            Some(None) if self.seen => "the last forward had none: does the model have that block?",
            Some(None) => "no forward has been run with it",
            None => "it was not asked for: name it in Capture::of",
        };
        Err(Error::invalid(format!("{activation:?} was not kept; {why}")))
    }
}

impl Hook for Capture {
    fn on(&mut self, activation: Activation, value: Tensor) -> Tensor {
        if activation == Activation::Embed {
            // A forward begins: what is left of the one before is not its own.
            self.kept.values_mut().for_each(|kept| *kept = None);
        }
        self.seen = true;
        if let Some(kept) = self.kept.get_mut(&activation) {
            *kept = Some(value.detach());
        }
        value
    }

    fn wants_pattern(&self) -> bool {
        self.kept.keys().any(|a| matches!(a, Activation::Pattern(_) | Activation::AttnScores(_)))
    }
}

/// Any closure is a hook, and is called with every activation.
///
/// ```
/// use lnfree::prelude::*;
///
/// # fn main() -> Result<()> {
/// let nano = LoadedModel::load(&locate_model("nano")?, None, Kind::Float, Device::Cpu)?;
/// let ids = Tensor::from_slice(&[5i64, 9, 2]).unsqueeze(0);
/// // Every head of block 0 looks at its own position only.
/// let mut patch = |at: Activation, x: Tensor| match at {
///     Activation::Pattern(0) => Tensor::eye(3, (Kind::Float, Device::Cpu)).expand_as(&x),
///     _ => x,
/// };
/// let patched = nano.model.forward(&ids, &nano.ln, Compute::default(), &mut patch)?;
/// let plain = nano.model.forward(&ids, &nano.ln, Compute::default(), &mut NoHook)?;
/// assert!((patched - plain).abs().max().double_value(&[]) > 0.1);
/// # Ok(())
/// # }
/// ```
impl<F: FnMut(Activation, Tensor) -> Tensor> Hook for F {
    fn on(&mut self, activation: Activation, value: Tensor) -> Tensor {
        self(activation, value)
    }
}

/// See [`without_patterns`].
#[derive(Debug, Clone, Copy)]
pub struct WithoutPatterns<F>(F);

/// A closure as a hook that is not called with attention scores and patterns, so that attention is as fast as
/// without a hook.
pub fn without_patterns<F: FnMut(Activation, Tensor) -> Tensor>(hook: F) -> WithoutPatterns<F> {
    WithoutPatterns(hook)
}

impl<F: FnMut(Activation, Tensor) -> Tensor> Hook for WithoutPatterns<F> {
    fn on(&mut self, activation: Activation, value: Tensor) -> Tensor {
        self.0(activation, value)
    }

    fn wants_pattern(&self) -> bool {
        false
    }
}

/// What `hook` makes of `value`, if that can take its place.
///
/// # Errors
/// [`Error::Hook`] when it is of another shape, type or device, or no dense tensor.
pub(crate) fn replaced(hook: &mut dyn Hook, activation: Activation, value: Tensor) -> Result<Tensor> {
    if !hook.looks() {
        return Ok(value);
    }
    let (size, kind, device) = (value.size(), value.kind(), value.device());
    let out = hook.on(activation, value);
    let found = match () {
        () if !out.defined() => "nothing (an undefined tensor)".into(),
        () if out.is_sparse() || out.is_mkldnn() => "a tensor that is not dense".into(),
        () if out.size() == size && out.kind() == kind && out.device() == device => return Ok(out),
        () => described(&out.size(), out.kind(), out.device()),
    };
    Err(Error::Hook {
        activation: format!("{activation:?}"),
        found,
        expected: described(&size, kind, device),
    })
}

/// `[2, 3] Float on Cpu`.
fn described(size: &[i64], kind: Kind, device: Device) -> String {
    format!("{size:?} {kind:?} on {device:?}")
}
