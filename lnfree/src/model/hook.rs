//! How caching, patching, ablation and losses on activations see a forward.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

pub use super::activation::{Activation, NamedActivation};
use crate::{Error, Result};

/// Sees every activation of a forward and may replace it.
pub trait Hook {
    /// Called once per activation; what it returns takes the activation's place. Return `value` to leave it
    /// as it is. Anything but a tensor of its shape, type and device is [`Error::Hook`], see
    /// [`ForwardPass::check`](crate::model::ForwardPass::check).
    fn on(&mut self, activation: Activation, value: Tensor) -> Tensor;

    /// Whether it is called with `activation`. What is not asked for need not be made: attention scores and
    /// patterns are a `[batch, head, pos, pos]` tensor per layer that attention does without, and an LN
    /// does without its scale. A closure is called with everything; [`without_patterns`] and [`only`] make
    /// it want less.
    fn wants(&self, _activation: Activation) -> bool {
        true
    }
}

/// Looks at nothing and costs nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHook;

impl Hook for NoHook {
    fn on(&mut self, _activation: Activation, value: Tensor) -> Tensor {
        value
    }

    fn wants(&self, _activation: Activation) -> bool {
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
/// let mut cache = Capture::of(["blocks.0.attn.hook_pattern", "blocks.5.hook_resid_post"])?;
/// let ids = Tensor::from_slice(&[5i64, 9, 2]).unsqueeze(0);
/// nano.model.forward(&ids, &nano.ln, Compute::default(), &mut cache)?;
/// assert_eq!(cache.get("blocks.0.attn.hook_pattern")?.size(), [1, 4, 3, 3]);
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
    /// Keeps these, given as [`Activation`]s or by TransformerLens' names.
    ///
    /// # Errors
    /// A name that is none.
    pub fn of<N: NamedActivation>(wanted: impl IntoIterator<Item = N>) -> Result<Capture> {
        let kept = wanted.into_iter().map(|name| Ok((name.activation()?, None)));
        Ok(Capture { kept: kept.collect::<Result<_>>()?, seen: false })
    }

    /// What the last forward made of it.
    ///
    /// # Errors
    /// When it was not asked for, or the last forward did not have it, and a name that is none.
    pub fn get(&self, activation: impl NamedActivation) -> Result<&Tensor> {
        let activation = activation.activation()?;
        let why = match self.kept.get(&activation) {
            Some(Some(kept)) => return Ok(kept),
            Some(None) if self.seen => {
                "the last forward had none: does the model have that block, and an LN there?"
            }
            Some(None) => "no forward has been run with it",
            None => "it was not asked for: name it in Capture::of",
        };
        Err(Error::invalid(format!("{activation} was not kept; {why}")))
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

    fn wants(&self, activation: Activation) -> bool {
        // With the first activation of a forward a new one begins.
        activation == Activation::Embed || self.kept.contains_key(&activation)
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

    fn wants(&self, activation: Activation) -> bool {
        !matches!(activation, Activation::Pattern(_) | Activation::AttnScores(_))
    }
}

/// See [`only`].
#[derive(Debug, Clone, Copy)]
pub struct Only<F> {
    wanted: Activation,
    hook: F,
}

/// A closure as a hook that is called with one activation alone, so that the rest of the forward is as fast
/// as without a hook.
///
/// ```
/// use lnfree::prelude::*;
///
/// # fn main() -> Result<()> {
/// let nano = LoadedModel::load(&locate_model("nano")?, None, Kind::Float, Device::Cpu)?;
/// let ids = Tensor::from_slice(&[5i64, 9, 2]).unsqueeze(0);
/// let mut ablate = only("blocks.3.attn.hook_z", |z| z.zeros_like())?;
/// let logits = nano.model.forward(&ids, &nano.ln, Compute::default(), &mut ablate)?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// A name that is none.
pub fn only<F: FnMut(Tensor) -> Tensor>(wanted: impl NamedActivation, hook: F) -> Result<Only<F>> {
    Ok(Only { wanted: wanted.activation()?, hook })
}

impl<F: FnMut(Tensor) -> Tensor> Hook for Only<F> {
    fn on(&mut self, activation: Activation, value: Tensor) -> Tensor {
        if activation == self.wanted { (self.hook)(value) } else { value }
    }

    fn wants(&self, activation: Activation) -> bool {
        activation == self.wanted
    }
}

/// What `hook` makes of `value`, if that can take its place.
///
/// # Errors
/// [`Error::Hook`] when it is of another shape, type or device, or no dense tensor.
pub(crate) fn replaced(hook: &mut dyn Hook, activation: Activation, value: Tensor) -> Result<Tensor> {
    if !hook.wants(activation) {
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
    Err(Error::Hook { activation: activation.to_string(), found, expected: described(&size, kind, device) })
}

/// `[2, 3] Float on Cpu`.
fn described(size: &[i64], kind: Kind, device: Device) -> String {
    format!("{size:?} {kind:?} on {device:?}")
}
