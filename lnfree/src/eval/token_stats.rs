//! Loss, entropy and confidence of every token, from logits that are made some rows at a time.

use tch::{Device, Kind, Tensor};

use super::memory::Chunk;
use crate::base::device::{for_cpu_kernels, for_gpu_kernels};
use crate::ops::padded;
use crate::ops::{Reading, TokenSums, add_logits, gpu_token_stats, product};
use crate::{Error, Result};

/// `[loss, entropy, confidence, correct]` of `n` tokens.
pub(super) enum Stats {
    /// Flat, on this side.
    Host(Vec<f32>),
    /// float32 `[n, 4]`, on its way from a GPU that perhaps still computes it.
    OnTheWay(Reading),
}

impl Stats {
    /// The numbers, waited for.
    pub fn on_host(self) -> Result<Vec<f32>> {
        match self {
            Stats::Host(stats) => Ok(stats),
            Stats::OnTheWay(stats) => Ok(Vec::try_from(stats.end()?.view(-1))?),
        }
    }
}

/// Numbers of each of `n` tokens: `last` `[n, n_embd]` is unembedded by `head` `[vocab_size, n_embd]`, `targets` int64 `[n]`.
///
/// # Errors
/// When a target is not in the vocabulary.
pub(super) fn token_stats(last: &Tensor, head: &Tensor, targets: &Tensor, chunk: Chunk) -> Result<Stats> {
    let pieces = pieces(last.size()[0], chunk.rows);
    if for_cpu_kernels(last) {
        let ids = Vec::<i64>::try_from(targets)?;
        let mut out = Vec::with_capacity(4 * ids.len());
        for (start, len) in pieces {
            let ids = &ids[start as usize..(start + len) as usize];
            out.extend(on_cpu(&last.narrow(0, start, len), head, ids, chunk.tokens)?);
        }
        return Ok(Stats::Host(out));
    }
    let ours = for_gpu_kernels(last);
    // Rows of zeros, which are no tokens.
    let rows = if ours { padded(head, 0.0) } else { head.shallow_clone() };
    let parts = pieces.map(|(start, len)| {
        let (x, targets) = (last.narrow(0, start, len), targets.narrow(0, start, len));
        match ours {
            true => gpu_token_stats(&product(&x, &rows.tr())?, head.size()[0], &targets.contiguous()),
            false => Ok(piece(&x.linear::<Tensor>(&rows, None), &targets)),
        }
    });
    let parts = parts.collect::<Result<Vec<Tensor>>>()?;
    if parts.is_empty() {
        return Err(Error::invalid("no tokens to evaluate"));
    }
    let stats = Tensor::cat(&parts, 0);
    match stats.device() {
        Device::Cpu => Ok(Stats::Host(Vec::try_from(stats.view(-1))?)),
        _ => Ok(Stats::OnTheWay(Reading::begin(&stats)?)),
    }
}

/// Starts and lengths of the pieces of `0..n`.
fn pieces(n: i64, at_a_time: usize) -> impl Iterator<Item = (i64, i64)> {
    let at_a_time = at_a_time.max(1) as i64;
    (0..n).step_by(at_a_time as usize).map(move |start| (start, at_a_time.min(n - start)))
}

/// Flat `[n, 4]`, the vocabulary taken `tokens` at a time: that reads the unembedding once, whatever the size of the cache.
fn on_cpu(last: &Tensor, head: &Tensor, targets: &[i64], tokens: usize) -> Result<Vec<f32>> {
    let vocab_size = head.size()[0];
    if let Some(id) = targets.iter().find(|id| !(0..vocab_size).contains(*id)) {
        return Err(Error::invalid(format!("token {id} is outside the vocabulary of {vocab_size} tokens")));
    }
    let (n, last) = (targets.len() as i64, padded(last, 0.0));
    let mut sums = vec![TokenSums::NONE; targets.len()];
    for (first, len) in pieces(vocab_size, tokens) {
        let logits = product(&last, &head.narrow(0, first, len).tr())?;
        add_logits(&logits.narrow(0, 0, n), first, targets, &mut sums)?;
    }
    Ok(sums.iter().zip(targets).flat_map(|(sums, target)| sums.stats(*target)).collect())
}

/// float32 `[n, 4]` of logits `[n, vocab_size]`, in libtorch's operations, for any device.
fn piece(logits: &Tensor, targets: &Tensor) -> Tensor {
    let logits = logits.to_kind(Kind::Float);
    let correct = logits.argmax(-1, true).eq_tensor(&targets.unsqueeze(-1)).to_kind(Kind::Float);
    // Below the largest logit, sums lose no digits to what all logits have in common.
    let below = &logits - logits.amax([-1i64], true);
    let target = below.gather(-1, &targets.unsqueeze(-1), false);
    let log_total = below.logsumexp([-1i64], true);
    let mean = ((&below - &log_total).exp() * &below).sum_dim_intlist([-1i64].as_slice(), true, Kind::Float);
    Tensor::cat(&[&log_total - target, &log_total - mean, (-&log_total).exp(), correct], -1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_give_the_same_numbers_whatever_the_chunks() {
        tch::manual_seed(3);
        let last = Tensor::randn([37, 16], (Kind::Float, Device::Cpu)) * 2.0;
        let head = Tensor::randn([1003, 16], (Kind::Float, Device::Cpu));
        let targets = Tensor::randint(1003, [37], (Kind::Int64, Device::Cpu));
        let logits = last.linear::<Tensor>(&head, None);
        targets.narrow(0, 0, 20).copy_(&logits.narrow(0, 0, 20).argmax(-1, false));
        let whole = piece(&logits, &targets);
        for (rows, tokens) in [(1, 1003), (5, 1), (36, 7), (37, 1002), (1000, 5000)] {
            let stats = token_stats(&last, &head, &targets, Chunk { rows, tokens }).unwrap();
            let stats = Tensor::from_slice(&stats.on_host().unwrap()).view([37, 4]);
            let difference = ((stats - &whole).abs() / (whole.abs() + 1.0)).max();
            assert!(difference.double_value(&[]) < 2e-6, "{rows} x {tokens}: {difference}");
        }
        let wrong = Tensor::full([37], 1003, (Kind::Int64, Device::Cpu));
        assert!(token_stats(&last, &head, &wrong, Chunk { rows: 37, tokens: 1003 }).is_err());
    }

    #[test]
    fn bfloat16_logits_are_read_as_they_are() {
        tch::manual_seed(4);
        // One hot row a position picks the column, so that the products are exact.
        let head = (Tensor::randn([999, 8], (Kind::Float, Device::Cpu)) * 9.0).to_kind(Kind::BFloat16);
        let last = Tensor::eye(8, (Kind::BFloat16, Device::Cpu));
        let targets = Tensor::randint(999, [8], (Kind::Int64, Device::Cpu));
        targets.narrow(0, 0, 4).copy_(&head.tr().narrow(0, 0, 4).argmax(-1, false));
        let whole = piece(&head.tr(), &targets);
        let stats = token_stats(&last, &head, &targets, Chunk { rows: 3, tokens: 100 }).unwrap();
        let stats = Tensor::from_slice(&stats.on_host().unwrap()).view([8, 4]);
        let difference = ((stats - &whole).abs() / (whole.abs() + 1.0)).max();
        assert!(difference.double_value(&[]) < 2e-6, "{difference}");
    }

    #[test]
    fn logits_that_are_not_numbers_give_losses_that_are_not() {
        let last = Tensor::from_slice(&[1.0f32, 0.0, 0.0, f32::NAN, 0.0, 1.0]).view([3, 2]);
        let head = Tensor::from_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).view([3, 2]);
        let targets = Tensor::from_slice(&[0i64, 1, 2]);
        let stats = token_stats(&last, &head, &targets, Chunk { rows: 3, tokens: 2 }).unwrap();
        let stats = stats.on_host().unwrap();
        assert!(stats[0].is_finite() && stats[4].is_nan() && stats[8].is_finite(), "{stats:?}");
    }
}
