//! Loss, entropy and confidence of every token, from logits that are made some rows at a time.

use tch::{Device, Kind, Tensor};

use crate::device::threads;
use crate::native;
use crate::{Error, Result};

/// `[loss, entropy, confidence, correct]` of `n` tokens.
pub(super) enum Stats {
    /// Flat, on this side.
    Host(Vec<f32>),
    /// float32 `[n, 4]` on a GPU, perhaps still being computed.
    Device(Tensor),
}

impl Stats {
    /// The numbers, waited for.
    pub fn on_host(self) -> Result<Vec<f32>> {
        match self {
            Stats::Host(stats) => Ok(stats),
            Stats::Device(stats) => Ok(Vec::try_from(stats.to_device(Device::Cpu).view(-1))?),
        }
    }
}

/// Numbers of each of `n` tokens: `last` `[n, n_embd]` is what `unembed` turns into logits, `targets` int64 `[n]`.
///
/// # Errors
/// When a target is not in the vocabulary.
pub(super) fn token_stats(
    last: &Tensor,
    targets: &Tensor,
    rows: usize,
    unembed: impl Fn(&Tensor) -> Tensor,
) -> Result<Stats> {
    let n = last.size()[0];
    let rows = rows.max(1) as i64;
    let pieces = (0..n).step_by(rows as usize).map(|start| (start, rows.min(n - start)));
    if last.device() == Device::Cpu {
        let ids = Vec::<i64>::try_from(targets)?;
        let mut out = Vec::with_capacity(ids.len() * native::TOKEN_STATS);
        for (start, len) in pieces {
            let logits = unembed(&last.narrow(0, start, len));
            let ids = &ids[start as usize..(start + len) as usize];
            out.extend(native::token_stats(&logits, ids, threads())?);
        }
        return Ok(Stats::Host(out));
    }
    let parts: Vec<Tensor> = pieces
        .map(|(start, len)| piece(&unembed(&last.narrow(0, start, len)), &targets.narrow(0, start, len)))
        .collect();
    match parts.is_empty() {
        true => Err(Error::invalid("no tokens to evaluate")),
        false => Ok(Stats::Device(Tensor::cat(&parts, 0))),
    }
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
    fn both_ways_give_the_same_numbers_whatever_the_rows() {
        tch::manual_seed(3);
        // The logits themselves stand for the hidden states: the rows of a product depend on how many are made at a time.
        let logits = Tensor::randn([37, 1003], (Kind::Float, Device::Cpu)) * 8.0;
        let targets = Tensor::randint(1003, [37], (Kind::Int64, Device::Cpu));
        targets.narrow(0, 0, 20).copy_(&logits.narrow(0, 0, 20).argmax(-1, false));
        for kind in [Kind::Float, Kind::BFloat16] {
            let whole = piece(&logits.to_kind(kind), &targets);
            for rows in [1, 5, 36, 37, 1000] {
                let stats = token_stats(&logits, &targets, rows, |x| x.to_kind(kind)).unwrap();
                let stats = Tensor::from_slice(&stats.on_host().unwrap()).view([37, 4]);
                let difference = ((stats - &whole).abs() / (whole.abs() + 1.0)).max();
                assert!(difference.double_value(&[]) < 2e-6, "{kind:?}, {rows} rows: {difference}");
            }
        }
    }
}
