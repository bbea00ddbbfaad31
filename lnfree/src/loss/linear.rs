//! Cross-entropy straight from what is unembedded, without ever holding all logits.
//!
//! Some rows of logits are made, read, and replaced by their gradient p − onehot(target); from that come the gradients of what was
//! unembedded and of the unembedding, before the next rows are made.

use tch::{Device, Kind, Tensor};

use super::IGNORE;
use crate::Result;
use crate::native::{add_product, logits_to_gradient, product};

/// What [`linear_cross_entropy`] finds.
#[derive(Debug)]
pub struct LinearCrossEntropy {
    /// Mean cross-entropy over the targets that count, in nats, float32, 0-dim; not a number when none counts.
    pub loss: Tensor,
    /// The gradient of scale · loss at what was unembedded, `[n, n_embd]` in its type.
    pub grad: Tensor,
}

/// Mean cross-entropy of `last` `[n, n_embd]` unembedded by `head` `[vocab_size, n_embd]`, both float32 or bfloat16, against `targets` int64
/// `[n]` ([`IGNORE`] counts for nothing), with the gradient of `scale` times that. The gradient of `head` is added to `head_grad`, of its
/// shape; nothing is recorded for autograd.
///
/// # Errors
/// A target outside the vocabulary (on a CPU), and what libtorch says.
pub fn linear_cross_entropy(
    last: &Tensor,
    head: &Tensor,
    targets: &Tensor,
    scale: f64,
    head_grad: &mut Tensor,
) -> Result<LinearCrossEntropy> {
    let _guard = tch::no_grad_guard();
    let (n, vocab_size) = (last.size()[0], head.size()[0]);
    let counts = targets.not_equal(IGNORE);
    let n_counted = counts.sum(Kind::Float);
    let on_cpu = last.device() == Device::Cpu;
    let coefficient = if on_cpu { scale / n_counted.double_value(&[]).max(1.0) } else { scale };
    let grad = last.empty_like();
    let mut sum = Tensor::zeros([], (Kind::Double, last.device()));
    let rows = rows_at_a_time(vocab_size as u64, last.kind().elt_size_in_bytes() as u64, on_cpu) as i64;
    for (start, len) in pieces(n, rows) {
        let (x, targets) = (last.narrow(0, start, len), targets.narrow(0, start, len));
        let mut logits = product(&x, &head.tr())?;
        if on_cpu {
            sum += logits_to_gradient(&mut logits, &targets, coefficient as f32)?.sum(Kind::Double);
        } else {
            let counts = counts.narrow(0, start, len).to_kind(Kind::Float);
            let weights = (counts * coefficient / n_counted.clamp_min(1.0)).unsqueeze(-1);
            let (losses, gradient) = gradient_of(&logits, &targets, &weights);
            sum += losses;
            logits = gradient.to_kind(x.kind());
        }
        grad.narrow(0, start, len).copy_(&product(&logits, head)?);
        add_product(head_grad, &logits.tr(), &x)?;
    }
    Ok(LinearCrossEntropy { loss: (sum / n_counted).to_kind(Kind::Float), grad })
}

/// Sum of the losses, float64, and the gradient of Σ weights · loss, float32, in libtorch's operations, for any device. `weights` `[n, 1]`.
fn gradient_of(logits: &Tensor, targets: &Tensor, weights: &Tensor) -> (Tensor, Tensor) {
    let mut log_p = logits.to_kind(Kind::Float).log_softmax(-1, Kind::Float);
    let at = targets.clamp_min(0).unsqueeze(-1);
    let counted = targets.not_equal(IGNORE).unsqueeze(-1);
    let losses = -(log_p.gather(-1, &at, false) * counted).sum(Kind::Double);
    let gradient = log_p.exp_().g_mul_(weights).scatter_add(-1, &at, &-weights);
    (losses, gradient)
}

/// Rows of logits at a time: as many as pay for reading and writing the gradient of the unembedding once more, which is as large as they are
/// at n_embd rows; a small vocabulary's stay in the cache. `bytes`: of a logit.
pub(crate) fn rows_at_a_time(vocab_size: u64, bytes: u64, on_cpu: bool) -> u64 {
    const CACHE: u64 = 16 << 20;
    const LARGEST: u64 = 1 << 30;
    let row = vocab_size.max(1) * bytes;
    let enough = if on_cpu { 2048 } else { 8192 };
    (CACHE / row).max(enough.min(LARGEST / row)).max(1)
}

/// Starts and lengths of the pieces of `0..n`.
fn pieces(n: i64, at_a_time: i64) -> impl Iterator<Item = (i64, i64)> {
    (0..n).step_by(at_a_time as usize).map(move |start| (start, at_a_time.min(n - start)))
}
