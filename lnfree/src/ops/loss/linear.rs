//! Cross-entropy straight from what is unembedded, without ever holding all logits.
//!
//! Some rows of logits are made, read, and replaced by their gradient p − onehot(target); from that come the
//! gradients of what was unembedded and of the unembedding, before the next rows are made.

use tch::{Kind, Tensor};

use super::IGNORE;
use crate::Result;
use crate::base::device::for_cpu_kernels;
use crate::ops::{ROWS, add_product, logits_to_gradient, padded, product};

/// What [`linear_cross_entropy`] finds.
#[derive(Debug)]
pub struct LinearCrossEntropy {
    /// Mean cross-entropy over the targets that count, in nats, float32, 0-dim; not a number when none
    /// counts.
    pub loss: Tensor,
    /// The gradient of scale · loss at what was unembedded, `[n, n_embd]` in its type.
    pub grad: Tensor,
}

/// Mean cross-entropy of `last` `[n, n_embd]` unembedded by `head` `[vocab_size, n_embd]`, both float32 or
/// bfloat16, against `targets` int64 `[n]` ([`IGNORE`] counts for nothing), with the gradient of `scale`
/// times that. The gradient of `head` is added to `head_grad` `[vocab_size, n_embd]`; nothing is recorded for
/// autograd. `head` may have further rows of zeros, which are no tokens.
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
    let (n, vocab_size) = (last.size()[0], head_grad.size()[0]);
    let n_counted = targets.not_equal(IGNORE).sum(Kind::Double);
    let coefficient = scale / n_counted.clamp_min(1.0);
    let on_cpu = for_cpu_kernels(last);
    // Positions without a target are as good as any.
    let (last, targets) = match on_cpu {
        true => (padded(last, 0.0), padded(targets, IGNORE as f64)),
        false => (last.shallow_clone(), targets.shallow_clone()),
    };
    let grad = last.empty_like();
    let mut sum = Tensor::zeros([], (Kind::Double, last.device()));
    let rows = rows_at_a_time(vocab_size as u64, last.kind().elt_size_in_bytes() as u64, on_cpu) as i64;
    for (start, len) in pieces(last.size()[0], rows) {
        let (x, targets) = (last.narrow(0, start, len), targets.narrow(0, start, len));
        let mut logits = product(&x, &head.tr())?;
        let losses = logits_to_gradient(&mut logits, vocab_size, &targets.contiguous(), &coefficient)?;
        sum += losses.sum(Kind::Double);
        grad.narrow(0, start, len).copy_(&product(&logits, head)?);
        add_product(head_grad, &logits.tr(), &x)?;
    }
    let grad = grad.narrow(0, 0, n);
    Ok(LinearCrossEntropy { loss: (sum / n_counted).to_kind(Kind::Float), grad })
}

/// Rows of logits at a time: as many as pay for reading and writing the gradient of the unembedding once
/// more, which is as large as they are at n_embd rows; a small vocabulary's stay in the cache. `bytes`: of a
/// logit.
pub(crate) fn rows_at_a_time(vocab_size: u64, bytes: u64, on_cpu: bool) -> u64 {
    const CACHE: u64 = 16 << 20;
    const LARGEST: u64 = 1 << 30;
    let row = vocab_size.max(1) * bytes;
    let enough = if on_cpu { 2048 } else { 8192 };
    let rows = (CACHE / row).max(enough.min(LARGEST / row)).max(1);
    rows - rows % (ROWS as u64).min(rows)
}

/// Starts and lengths of the pieces of `0..n`.
fn pieces(n: i64, at_a_time: i64) -> impl Iterator<Item = (i64, i64)> {
    (0..n).step_by(at_a_time as usize).map(move |start| (start, at_a_time.min(n - start)))
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::base::device::Kernels;
    use crate::ops::float_rows_at_a_time;

    /// What GPUs do against the kernel for CPUs, on the same logits.
    #[test]
    fn gradients_by_libtorch_are_those_of_the_kernel() {
        tch::manual_seed(3);
        let targets = Tensor::from_slice(&[4, IGNORE, 0, 700, 3, IGNORE, 12]);
        let coefficient = Tensor::from(0.25f64);
        for (kind, close) in [(Kind::Float, 1e-6), (Kind::BFloat16, 2f64.powi(-8))] {
            // One target is as good as certain: p − 1 must not be lost in rounding.
            let logits = Tensor::randn([7, 701], (Kind::Float, Device::Cpu)) * 3.0;
            let _ = logits.get(3).get(700).fill_(20.0);
            let logits = logits.to_kind(kind);
            let mut expected = logits.copy();
            let losses = logits_to_gradient(&mut expected, 701, &targets, &coefficient).unwrap();
            let mut found = logits.copy();
            let sum = {
                let _plain = Kernels::Plain.on_this_thread();
                logits_to_gradient(&mut found, 701, &targets, &coefficient).unwrap().sum(Kind::Double)
            };
            let expected_sum = losses.sum(Kind::Double).double_value(&[]);
            assert!(
                (sum.double_value(&[]) / expected_sum - 1.0).abs() < 1e-6,
                "{kind:?} {sum} {expected_sum}"
            );
            let [found, expected] = [found, expected].map(|x| x.to_kind(Kind::Double));
            let error = ((&found - &expected).abs() / (expected.abs() + 1e-12)).max().double_value(&[]);
            assert!(error <= close * 2.0, "{kind:?} {error}");
            assert_eq!(found.get(1).abs().max().double_value(&[]), 0.0);
        }
    }

    #[test]
    fn what_is_float32_on_a_gpu_stays_within_half_a_gib() {
        let vocab = 50257;
        assert!(rows_at_a_time(vocab, 2, false) * vocab * 2 <= 1 << 30);
        assert!(float_rows_at_a_time(vocab) * vocab * 4 <= 256 << 20 && float_rows_at_a_time(vocab) > 1000);
        assert_eq!(float_rows_at_a_time(1 << 40), 1);
    }
}
