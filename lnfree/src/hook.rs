//! How caching, patching, ablation and losses on activations see a forward.

use tch::Tensor;

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
}

/// Any closure is a hook.
impl<F: FnMut(Activation, Tensor) -> Tensor> Hook for F {
    fn on(&mut self, activation: Activation, value: Tensor) -> Tensor {
        self(activation, value)
    }
}
