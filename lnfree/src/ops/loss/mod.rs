//! The training losses: next-token cross-entropy and the auxiliary loss that keeps σ even across positions.

mod linear;

use tch::{Kind, Reduction, Tensor};

pub use super::types::{IGNORE, Mixture};
pub(crate) use linear::rows_at_a_time;
pub use linear::{
    HeadGradient, LinearCrossEntropy, LinearDistillation, Teaching, linear_cross_entropy, linear_distillation,
};

use crate::ops::sigma_of;

/// Next-token targets of `input_ids` `[batch, pos]`: int64 `[batch, pos − 1]`. With `ignore` (the id of
/// end-of-text), predicting that token counts for nothing, as in the paper's code.
pub fn targets(input_ids: &Tensor, ignore: Option<i64>) -> Tensor {
    let shifted = input_ids.narrow(1, 1, input_ids.size()[1] - 1);
    match ignore {
        Some(id) => shifted.masked_fill(&shifted.eq(id), IGNORE),
        None => shifted,
    }
}

/// The positions that have a next token, `[batch, pos − 1, ..]` of `[batch, pos, ..]`: what is unembedded for
/// a loss, so that the much larger logits need not be cut.
pub fn predicting(x: &Tensor) -> Tensor {
    x.narrow(1, 0, x.size()[1] - 1)
}

/// Mean cross-entropy in nats over the targets that count. `logits` `[batch, pos − 1, vocab_size]` in any
/// dtype (the sum is in float32), `targets` `[batch, pos − 1]`. Not a number when no target counts.
pub fn cross_entropy(logits: &Tensor, targets: &Tensor) -> Tensor {
    let (logits, targets) = flat(logits, targets);
    logits.cross_entropy_loss::<Tensor>(&targets, None, Reduction::Mean, IGNORE, 0.0)
}

/// Cross-entropy per token in nats, float32 `[batch, pos − 1]`.
pub fn token_losses(logits: &Tensor, targets: &Tensor) -> Tensor {
    let size = targets.size();
    let (logits, targets) = flat(logits, targets);
    logits.cross_entropy_loss::<Tensor>(&targets, None, Reduction::None, IGNORE, 0.0).view(size.as_slice())
}

fn flat(logits: &Tensor, targets: &Tensor) -> (Tensor, Tensor) {
    let vocab_size = logits.size()[2];
    (logits.reshape([-1, vocab_size]).to_kind(Kind::Float), targets.reshape([-1]))
}

/// How far a residual stream lies from a teacher's, which gets no gradient: the mean over all positions of
/// ‖C(x − t)‖² / ‖C t‖², where C takes the mean over n_embd out. Both float32 `[batch, pos, n_embd]`; 0-dim.
pub fn stream_distance(x: &Tensor, teacher: &Tensor) -> Tensor {
    let squares = |x: &Tensor| {
        let x = x - x.mean_dim(-1i64, true, Kind::Float);
        x.square().sum_dim_intlist(-1i64, false, Kind::Float)
    };
    let teacher = teacher.detach();
    (squares(&(x - &teacher)) / squares(&teacher).clamp_min(f64::from(f32::MIN_POSITIVE))).mean(Kind::Float)
}

/// The auxiliary loss of arXiv 2507.02559: mean over all positions of (σ_t − target)² at the input of ln_f,
/// where target is the mean σ over positions that are neither position 0 nor end-of-text, without gradient.
///
/// `residual` float32 `[batch, pos, n_embd]`, `is_eot` bool `[batch, pos, 1]`. 0-dim result; zero when no
/// position counts.
pub fn aux_loss(residual: &Tensor, is_eot: &Tensor, eps: f64) -> Tensor {
    let sigma = sigma_of(residual, eps);
    let (sum, count) = sums(&sigma.detach(), is_eot);
    (sigma - sum / count.clamp_min(1.0)).square().mean(Kind::Float)
}

/// [`aux_loss`] around a target that is known, 0-dim: that of a whole batch for a part of it.
pub fn aux_loss_around(residual: &Tensor, target: &Tensor, eps: f64) -> Tensor {
    (sigma_of(residual, eps) - target).square().mean(Kind::Float)
}

/// Sum of σ over the positions that the target of [`aux_loss`] is a mean of, and how many these are; both
/// 0-dim, without gradient.
pub fn sigma_sums(residual: &Tensor, is_eot: &Tensor, eps: f64) -> (Tensor, Tensor) {
    sums(&sigma_of(&residual.detach(), eps), is_eot)
}

fn sums(sigma: &Tensor, is_eot: &Tensor) -> (Tensor, Tensor) {
    let counts = is_eot.squeeze_dim(-1).logical_not();
    let _ = counts.narrow(1, 0, 1).fill_(0);
    let weight = counts.to_kind(Kind::Float);
    let total = weight.sum(Kind::Float);
    ((sigma * weight).sum(Kind::Float), total)
}
