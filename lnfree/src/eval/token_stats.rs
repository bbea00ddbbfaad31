//! Loss, entropy and confidence of every token, from logits that are made some rows at a time.

use tch::{Device, Tensor};

use super::memory::Chunk;
use crate::base::device::for_cpu_kernels;
use crate::ops::{self, Reading, padded};
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

/// Numbers of each of `n` tokens: `last` `[n, n_embd]` is unembedded by `head` `[vocab_size, n_embd]`,
/// `targets` int64 `[n]`.
///
/// # Errors
/// When a target is not in the vocabulary.
pub(super) fn token_stats(last: &Tensor, head: &Tensor, targets: &Tensor, chunk: Chunk) -> Result<Stats> {
    let vocab_size = head.size()[0];
    // Rows of zeros, which are no tokens.
    let head = if for_cpu_kernels(last) { head.shallow_clone() } else { padded(head, 0.0) };
    let parts = pieces(last.size()[0], chunk.rows).map(|(start, len)| {
        let (x, targets) = (last.narrow(0, start, len), targets.narrow(0, start, len));
        ops::token_stats(&x, &head, vocab_size, &targets, chunk.tokens as i64)
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

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;
    use crate::base::device::Kernels;

    /// By the reference, all at once.
    fn piece(last: &Tensor, head: &Tensor, targets: &Tensor) -> Tensor {
        let _plain = Kernels::Plain.on_this_thread();
        let last = last.to_kind(Kind::Float);
        ops::token_stats(&last, &head.to_kind(Kind::Float), head.size()[0], targets, 1).unwrap()
    }

    #[test]
    fn both_ways_give_the_same_numbers_whatever_the_chunks() {
        tch::manual_seed(3);
        let last = Tensor::randn([37, 16], (Kind::Float, Device::Cpu)) * 2.0;
        let head = Tensor::randn([1003, 16], (Kind::Float, Device::Cpu));
        let targets = Tensor::randint(1003, [37], (Kind::Int64, Device::Cpu));
        let logits = last.linear::<Tensor>(&head, None);
        targets.narrow(0, 0, 20).copy_(&logits.narrow(0, 0, 20).argmax(-1, false));
        let whole = piece(&last, &head, &targets);
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
        let whole = piece(&last, &head, &targets);
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
