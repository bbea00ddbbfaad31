//! Cross-entropy and what is known of tokens, from logits that a kernel passes over once.

use tch::{Device, Kind, Tensor};

use super::product;
use crate::Result;
use crate::base::ffi::symbols::*;
use crate::base::ffi::{check, tensor};
use crate::ops::Mixture;
use crate::ops::padding::padded;

pub(crate) fn logits_to_gradient(
    logits: &mut Tensor,
    vocab_size: i64,
    targets: &Tensor,
    coefficient: &Tensor,
) -> Result<Tensor> {
    if logits.device() != Device::Cpu {
        let weights = (targets.ge(0).to_kind(Kind::Double) * coefficient).to_kind(Kind::Float);
        let (logits, targets) = (logits.as_ptr(), targets.as_ptr());
        // SAFETY: `choose` looked at types and shapes; the logits are the caller's alone.
        return tensor(unsafe {
            lnfree_gpu_logits_to_gradient(logits, vocab_size, targets, weights.as_ptr())
        });
    }
    let mut losses = Tensor::empty([logits.size()[0]], (Kind::Float, Device::Cpu));
    let coefficient = coefficient.double_value(&[]) as f32;
    let (logits, targets, out) = (logits.as_mut_ptr(), targets.as_ptr(), losses.as_mut_ptr());
    // SAFETY: `choose` looked at types, layout and range; both tensors that are written are the caller's
    // alone.
    check(unsafe { lnfree_logits_to_gradient(logits, vocab_size, targets, coefficient, out) })?;
    Ok(losses)
}

/// On the CPU.
pub(crate) fn distilled_gradient(
    logits: &mut Tensor,
    teacher: &Tensor,
    vocab_size: i64,
    targets: &Tensor,
    coefficient: &Tensor,
    Mixture { weight, temperature }: Mixture,
) -> Result<Tensor> {
    let mut losses = Tensor::empty([logits.size()[0], 2], (Kind::Float, Device::Cpu));
    let coefficient = coefficient.double_value(&[]) as f32;
    let (out, logits) = (losses.as_mut_ptr(), logits.as_mut_ptr());
    let (teacher, targets) = (teacher.as_ptr(), targets.as_ptr());
    // SAFETY: `choose` looked at types, layouts and range; both tensors that are written are the caller's
    // alone.
    check(unsafe {
        lnfree_distilled_gradient(logits, teacher, vocab_size, targets, weight, temperature, coefficient, out)
    })?;
    Ok(losses)
}

pub(crate) fn token_stats(
    last: &Tensor,
    head: &Tensor,
    vocab_size: i64,
    targets: &Tensor,
    tokens: i64,
) -> Result<Tensor> {
    let targets = targets.contiguous();
    if last.device() == Device::Cpu {
        return by_blocks(last, &head.narrow(0, 0, vocab_size), &targets, tokens.max(1));
    }
    let logits = product(last, &head.tr())?;
    // SAFETY: a product is dense, and there is a target for each of its rows.
    tensor(unsafe { lnfree_gpu_token_stats(logits.as_ptr(), vocab_size, targets.as_ptr()) })
}

/// The vocabulary taken `tokens` at a time: that reads the unembedding once, whatever the size of the cache.
fn by_blocks(last: &Tensor, head: &Tensor, targets: &Tensor, tokens: i64) -> Result<Tensor> {
    let targets = Vec::<i64>::try_from(targets)?;
    let (n, vocab_size) = (targets.len() as i64, head.size()[0]);
    let last = padded(last, 0.0);
    let blocks = (0..vocab_size).step_by(tokens as usize).map(|first| {
        let block = head.narrow(0, first, tokens.min(vocab_size - first));
        Ok((first, product(&last, &block.tr())?.narrow(0, 0, n)))
    });
    stats_of_blocks(blocks, &targets)
}

/// [`token_stats`] of logits `[n, tokens]`, rows of neighbours, that come with the first of their tokens.
pub(in crate::ops) fn stats_of_blocks(
    blocks: impl Iterator<Item = Result<(i64, Tensor)>>,
    targets: &[i64],
) -> Result<Tensor> {
    let mut sums = vec![TokenSums::NONE; targets.len()];
    for block in blocks {
        let (first, logits) = block?;
        // SAFETY: there are as many rows as targets and sums.
        check(unsafe { lnfree_add_logits(logits.as_ptr(), first, targets.as_ptr(), sums.as_mut_ptr()) })?;
    }
    let stats: Vec<f32> = sums.iter().zip(targets).flat_map(|(sums, target)| sums.stats(*target)).collect();
    Ok(Tensor::from_slice(&stats).view([targets.len() as i64, 4]))
}

impl TokenSums {
    /// Before any logit.
    const NONE: TokenSums =
        TokenSums { total: 0.0, weighted: 0.0, best: -1, top: f32::NEG_INFINITY, target: f32::NAN };

    /// Cross-entropy of `target`, entropy (both in nats), the largest probability, and whether the target has
    /// it (1 or 0).
    fn stats(&self, target: i64) -> [f32; 4] {
        let log_total = self.total.ln();
        let loss = log_total - (f64::from(self.target) - f64::from(self.top));
        let entropy = log_total - self.weighted / self.total;
        [loss as f32, entropy as f32, (1.0 / self.total) as f32, f32::from(u8::from(self.best == target))]
    }
}
