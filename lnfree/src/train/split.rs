//! A batch in parts that fit the memory, with the result of the whole.
//!
//! The paper's code takes means over one batch of the config: of the cross-entropy over the targets that
//! count, of σ and of the auxiliary loss over all positions. A part therefore weighs as much as it has of
//! what a mean is taken over: its counted targets for the cross-entropy, its sequences (all equally long) for
//! the rest. The target of the auxiliary loss is a mean of the whole batch too, which must be known before
//! the first gradient: it takes one more forward.

use std::ops::Range;
use std::panic::resume_unwind;

use tch::{Kind, Tensor};

use crate::base::caught::{caught, text_of};
use crate::base::error::is_lack_of_memory;
use crate::base::ranks::Ranks;
use crate::model::hook::NoHook;
use crate::model::ln_state::LnState;
use crate::model::{Compute, StepModel};
use crate::ops::loss::{IGNORE, sigma_sums};
use crate::{Error, Result};

/// Some sequences of a batch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    /// The first.
    pub start: i64,
    /// How many.
    pub len: i64,
    /// Its share of the batch's targets that count; not a number where none do.
    pub of_targets: f64,
    /// Its share of the batch's sequences.
    pub of_sequences: f64,
}

/// The parts of a rank's share of a batch, `micro_batch` sequences each, with their weights in the whole
/// batch; `targets` int64 `[batch, pos − 1]` on the host: on a GPU, counting them would wait for all that it
/// still has to compute.
///
/// # Errors
/// When libtorch fails.
pub fn parts(targets: &Tensor, share: Range<i64>, micro_batch: i64) -> Result<Vec<Part>> {
    let batch = targets.size()[0];
    if micro_batch >= batch && share == (0..batch) {
        return Ok(vec![Part { start: 0, len: batch, of_targets: 1.0, of_sequences: 1.0 }]);
    }
    let ids = Vec::<i64>::try_from(targets.reshape([-1]))?;
    let counted = ids.chunks(targets.size()[1].max(1) as usize);
    let counted: Vec<f64> =
        counted.map(|row| row.iter().filter(|&&id| id != IGNORE).count() as f64).collect();
    let total: f64 = counted.iter().sum();
    let starts = share.clone().step_by(micro_batch.max(1) as usize);
    Ok(starts
        .map(|start| {
            let len = micro_batch.min(share.end - start);
            let here: f64 = counted[start as usize..(start + len) as usize].iter().sum();
            Part { start, len, of_targets: here / total, of_sequences: len as f64 / batch as f64 }
        })
        .collect())
}

/// The target of the auxiliary loss over a whole batch, 0-dim: a forward of each part, without gradients, on
/// every rank those of its share. `compute` gives each its dropout.
///
/// # Errors
/// When the input does not fit the model, or a rank is lost.
pub fn aux_target(
    step: &StepModel,
    ln: &LnState,
    input_ids: &Tensor,
    parts: &[Part],
    ranks: &Ranks,
    compute: impl Fn(usize) -> Compute,
) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    let model = &step.model;
    let mut sums: Option<(Tensor, Tensor)> = None;
    for (i, part) in parts.iter().enumerate() {
        let ids = input_ids.narrow(0, part.start, part.len);
        let mut pass = model.pass(&ids, ln, Compute { observe: false, ..compute(i) })?;
        let residual = model.residual(&ids, &mut pass, &mut NoHook);
        let (sigma, n) = sigma_sums(&residual, &pass.is_eot, model.config.layer_norm_epsilon);
        sums = Some(match sums {
            Some((sum, count)) => (sum + sigma, count + n),
            None => (sigma, n),
        });
    }
    let (sum, count) = sums.ok_or_else(|| Error::invalid("a batch without any part"))?;
    if ranks.is_alone() {
        return Ok(sum / count.clamp_min(1.0));
    }
    let both = Tensor::stack(&[sum, count.to_kind(Kind::Float)], 0);
    ranks.sum(&[both.shallow_clone()])?;
    Ok(both.get(0) / both.get(1).clamp_min(1.0))
}

/// The next smaller micro-batch that divides `batch_size`: half of `micro_batch` where that does.
pub fn smaller(batch_size: usize, micro_batch: usize) -> Option<usize> {
    (1..=micro_batch / 2).rev().find(|&n| batch_size.is_multiple_of(n))
}

/// Runs `work`; a lack of memory in it comes back as [`Error::OutOfMemory`], without a word on stderr,
/// whether libtorch returned it as an error or ended an operation with it. Any other panic goes on.
///
/// # Errors
/// As `work`, and when memory does not suffice.
pub fn catching_lack_of_memory<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    match caught(|panic| is_lack_of_memory(&text_of(panic)), work) {
        Ok(Err(error)) if is_lack_of_memory(&error.to_string()) => Err(Error::OutOfMemory),
        Ok(outcome) => outcome,
        Err(panic) if is_lack_of_memory(&text_of(panic.as_ref())) => Err(Error::OutOfMemory),
        Err(panic) => resume_unwind(panic),
    }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use tch::Device;

    use super::*;

    #[test]
    fn parts_weigh_what_they_have_of_each_mean() {
        let targets = Tensor::from_slice(&[1, 2, IGNORE, 3, IGNORE, IGNORE, 4, 5]).view([4, 2]);
        let whole = parts(&targets, 0..4, 4).unwrap();
        assert_eq!(whole, [Part { start: 0, len: 4, of_targets: 1.0, of_sequences: 1.0 }]);
        let three = parts(&targets, 0..4, 2).unwrap();
        assert_eq!(three.iter().map(|p| p.of_targets).collect::<Vec<_>>(), [0.6, 0.4]);
        assert_eq!(three.iter().map(|p| p.of_sequences).collect::<Vec<_>>(), [0.5, 0.5]);
        // Sequences without any target that counts weigh nothing.
        assert_eq!(parts(&targets, 0..4, 1).unwrap()[2].of_targets, 0.0);
    }

    #[test]
    fn the_shares_of_ranks_weigh_as_much_as_the_batch() {
        let targets = Tensor::from_slice(&[1, 2, IGNORE, 3, IGNORE, IGNORE, 4, 5]).view([4, 2]);
        let [first, second] = [0..3, 3..4].map(|share| parts(&targets, share, 2).unwrap());
        assert_eq!(first.iter().map(|p| (p.start, p.len)).collect::<Vec<_>>(), [(0, 2), (2, 1)]);
        assert_eq!(second, [Part { start: 3, len: 1, of_targets: 0.4, of_sequences: 0.25 }]);
        let sum = |weight: fn(&Part) -> f64| first.iter().chain(&second).map(weight).sum::<f64>();
        assert_eq!([sum(|p| p.of_targets), sum(|p| p.of_sequences)], [1.0, 1.0]);
        // All of a batch on one rank of two is a part of it all the same.
        assert_eq!(parts(&targets, 0..2, 4).unwrap()[0].of_sequences, 0.5);
    }

    #[test]
    fn the_next_micro_batch_divides_the_batch() {
        assert_eq!([18, 9, 3, 1].map(|n| smaller(18, n)), [Some(9), Some(3), Some(1), None]);
        assert_eq!([40, 20, 10, 5].map(|n| smaller(40, n)), [Some(20), Some(10), Some(5), Some(2)]);
    }

    #[test]
    fn what_libtorch_cannot_allocate_comes_back_as_an_error() {
        let absurd =
            catching_lack_of_memory(|| Ok(Tensor::zeros([1 << 40, 1 << 12], (Kind::Float, Device::Cpu))));
        assert!(matches!(absurd, Err(Error::OutOfMemory)), "{absurd:?}");
        // What buffers of our own kernels come to.
        let ours = catching_lack_of_memory(|| -> Result<()> {
            Err(Error::from(tch::TchError::Torch("std::bad_alloc".into())))
        });
        assert!(matches!(ours, Err(Error::OutOfMemory)), "{ours:?}");
        let fine = catching_lack_of_memory(|| Ok(Tensor::zeros([2], (Kind::Float, Device::Cpu)).numel()));
        assert_eq!(fine.unwrap(), 2);
        let other = catch_unwind(|| catching_lack_of_memory(|| -> Result<()> { panic!("something else") }));
        assert!(other.is_err());
    }
}
