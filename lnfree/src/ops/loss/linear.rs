//! Cross-entropy straight from what is unembedded, without ever holding all logits.
//!
//! Some rows of logits are made, read, and replaced by their gradient p − onehot(target); from that come the
//! gradients of what was unembedded and of the unembedding, before the next rows are made.

use tch::{Kind, Tensor};

use super::IGNORE;
use crate::Result;
use crate::base::device::for_cpu_kernels;
use crate::ops::{Mixture, ROWS, add_product, distilled_gradient, logits_to_gradient, padded, product};

/// What [`linear_cross_entropy`] finds.
#[derive(Debug)]
pub struct LinearCrossEntropy {
    /// Mean cross-entropy over the targets that count, in nats, float32, 0-dim; not a number when none
    /// counts.
    pub loss: Tensor,
    /// The gradient of scale · loss at what was unembedded, `[n, n_embd]` in its type.
    pub grad: Tensor,
}

/// Where the gradient of an unembedding goes.
#[derive(Debug)]
pub enum HeadGradient<'a> {
    /// Added to this, `[vocab_size, n_embd]`.
    Into(&'a mut Tensor),
    /// Not made: the unembedding, with so many tokens, does not train.
    Unmade(i64),
}

impl<'a> From<&'a mut Tensor> for HeadGradient<'a> {
    fn from(gradient: &'a mut Tensor) -> Self {
        HeadGradient::Into(gradient)
    }
}

impl HeadGradient<'_> {
    fn vocab_size(&self) -> i64 {
        match self {
            HeadGradient::Into(gradient) => gradient.size()[0],
            HeadGradient::Unmade(vocab_size) => *vocab_size,
        }
    }
}

/// Mean cross-entropy of `last` `[n, n_embd]` unembedded by `head` `[vocab_size, n_embd]`, both float32 or
/// bfloat16, against `targets` int64 `[n]` ([`IGNORE`] counts for nothing), with the gradient of `scale`
/// times that. The gradient of `head` goes where `head_grad` says; nothing is recorded for autograd. `head`
/// may have further rows of zeros, which are no tokens.
///
/// # Errors
/// A target outside the vocabulary (on a CPU), and what libtorch says.
pub fn linear_cross_entropy<'a>(
    last: &Tensor,
    head: &Tensor,
    targets: &Tensor,
    scale: f64,
    head_grad: impl Into<HeadGradient<'a>>,
) -> Result<LinearCrossEntropy> {
    let mut sum = Tensor::zeros([], (Kind::Double, last.device()));
    let (n_counted, grad) = by_rows(last, head, targets, scale, head_grad.into(), |logits, rows| {
        let losses = logits_to_gradient(logits, rows.vocab_size, rows.targets, rows.coefficient)?;
        sum += losses.sum(Kind::Double);
        Ok(())
    })?;
    Ok(LinearCrossEntropy { loss: (sum / n_counted).to_kind(Kind::Float), grad })
}

/// Some rows of what is unembedded.
struct Rows<'a> {
    start: i64,
    len: i64,
    vocab_size: i64,
    targets: &'a Tensor,
    /// What the gradient of a row's loss is multiplied by, float64, 0-dim.
    coefficient: &'a Tensor,
}

/// Makes some rows of logits at a time, which `to_gradient` replaces by their gradients, and goes on from
/// these. Returns how many targets count, and the gradient at `last`.
fn by_rows(
    last: &Tensor,
    head: &Tensor,
    targets: &Tensor,
    scale: f64,
    mut head_grad: HeadGradient,
    mut to_gradient: impl FnMut(&mut Tensor, Rows) -> Result<()>,
) -> Result<(Tensor, Tensor)> {
    let _guard = tch::no_grad_guard();
    let (n, vocab_size) = (last.size()[0], head_grad.vocab_size());
    let n_counted = targets.not_equal(IGNORE).sum(Kind::Double);
    let coefficient = scale / n_counted.clamp_min(1.0);
    let on_cpu = for_cpu_kernels(last);
    // Positions without a target are as good as any.
    let (last, targets) = match on_cpu {
        true => (padded(last, 0.0), padded(targets, IGNORE as f64)),
        false => (last.shallow_clone(), targets.shallow_clone()),
    };
    let grad = last.empty_like();
    let rows = rows_at_a_time(vocab_size as u64, last.kind().elt_size_in_bytes() as u64, on_cpu) as i64;
    for (start, len) in pieces(last.size()[0], rows) {
        let (x, targets) = (last.narrow(0, start, len), targets.narrow(0, start, len).contiguous());
        let mut logits = product(&x, &head.tr())?;
        to_gradient(
            &mut logits,
            Rows { start, len, vocab_size, targets: &targets, coefficient: &coefficient },
        )?;
        grad.narrow(0, start, len).copy_(&product(&logits, head)?);
        if let HeadGradient::Into(gradient) = &mut head_grad {
            add_product(gradient, &logits.tr(), &x)?;
        }
    }
    Ok((n_counted, grad.narrow(0, 0, n)))
}

/// What a teacher says of the same positions.
#[derive(Debug, Clone, Copy)]
pub struct Teaching<'a> {
    /// What it unembeds, `[n, n_embd]`; its width may be another.
    pub last: &'a Tensor,
    /// Its unembedding, `[vocab_size.., n_embd]`, of one type with `last`.
    pub head: &'a Tensor,
    /// How much it counts.
    pub mixture: Mixture,
}

/// What [`linear_distillation`] finds.
#[derive(Debug)]
pub struct LinearDistillation {
    /// The mixed loss, (1 − w) · cross-entropy + w T² · KL, float32, 0-dim.
    pub loss: Tensor,
    /// Mean cross-entropy over the targets that count, nats.
    pub cross_entropy: Tensor,
    /// Mean KL(teacher ‖ student) at the temperature over the same positions, nats.
    pub kl: Tensor,
    /// The gradient of scale · loss at what was unembedded, `[n, n_embd]` in its type.
    pub grad: Tensor,
}

/// Without a teacher.
impl From<LinearCrossEntropy> for LinearDistillation {
    fn from(LinearCrossEntropy { loss, grad }: LinearCrossEntropy) -> Self {
        LinearDistillation { kl: loss.zeros_like(), cross_entropy: loss.shallow_clone(), loss, grad }
    }
}

/// [`linear_cross_entropy`] of a loss that is partly the distance to a teacher: neither model's logits are
/// ever whole.
///
/// # Errors
/// As [`linear_cross_entropy`].
pub fn linear_distillation<'a>(
    last: &Tensor,
    head: &Tensor,
    targets: &Tensor,
    teaching: Teaching,
    scale: f64,
    head_grad: impl Into<HeadGradient<'a>>,
) -> Result<LinearDistillation> {
    let Teaching { last: taught, head: taught_head, mixture } = teaching;
    let taught = tch::no_grad(|| if for_cpu_kernels(taught) { padded(taught, 0.0) } else { taught.detach() });
    let mut sums = Tensor::zeros([2], (Kind::Double, last.device()));
    let (n_counted, grad) = by_rows(last, head, targets, scale, head_grad.into(), |logits, rows| {
        let teacher = product(&taught.narrow(0, rows.start, rows.len), &taught_head.tr())?;
        let Rows { vocab_size, targets, coefficient, .. } = rows;
        let losses = distilled_gradient(logits, &teacher, vocab_size, targets, coefficient, mixture)?;
        sums += losses.sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
        Ok(())
    })?;
    let means = sums / n_counted;
    let (cross_entropy, kl) = (means.get(0), means.get(1));
    let [of_targets, of_teacher] = mixture.factors();
    let loss = (&cross_entropy * of_targets + &kl * of_teacher).to_kind(Kind::Float);
    let [cross_entropy, kl] = [cross_entropy, kl].map(|mean| mean.to_kind(Kind::Float));
    Ok(LinearDistillation { loss, cross_entropy, kl, grad })
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
            // A probability near 1 is rounded in its 24th bit, and 1 is taken from it.
            let rounded = 0.25 * 2f64.powi(-23);
            let error = ((&found - &expected).abs() - rounded).clamp_min(0.0) / (expected.abs() + 1e-12);
            assert!(error.max().double_value(&[]) <= close * 2.0, "{kind:?} {error}");
            assert_eq!(found.get(1).abs().max().double_value(&[]), 0.0);
        }
    }

    /// The loss as one writes it down, on whole logits, and autograd.
    fn by_autograd(
        logits: &Tensor,
        teacher: &Tensor,
        targets: &Tensor,
        Mixture { weight, temperature }: Mixture,
    ) -> [Tensor; 3] {
        let counted = targets.ge(0);
        let ce = logits.cross_entropy_loss::<Tensor>(targets, None, tch::Reduction::Mean, IGNORE, 0.0);
        let [log_p, log_q] =
            [logits, teacher].map(|logits| (logits / temperature).log_softmax(-1, Kind::Double));
        let kl = (log_q.exp() * (&log_q - log_p)).sum_dim_intlist([-1i64].as_slice(), false, Kind::Double);
        let kl = (kl * &counted).sum(Kind::Double) / counted.sum(Kind::Double);
        [&ce * (1.0 - weight) + &kl * (weight * temperature * temperature), ce, kl]
    }

    #[test]
    fn distillation_is_what_autograd_makes_of_the_formula() {
        tch::manual_seed(5);
        let randn = |size: [i64; 2]| Tensor::randn(size, (Kind::Float, Device::Cpu));
        // More rows than are taken at a time, and a teacher of another width.
        let n = 3000;
        let (last, head) = (randn([n, 8]), randn([301, 8]));
        let (taught, taught_head) = (randn([n, 5]), randn([301, 5]) * 0.7);
        let targets = Tensor::randint(301, [n], (Kind::Int64, Device::Cpu));
        let _ = targets.narrow(0, 7, 90).fill_(IGNORE as f64);
        for (weight, temperature) in [(1.0, 1.0), (0.3, 1.0), (1.0, 2.0), (0.6, 3.0)] {
            let mixture = Mixture { weight, temperature };
            let teaching = Teaching { last: &taught, head: &taught_head, mixture };
            let mut head_grad = head.zeros_like();
            let found = linear_distillation(&last, &head, &targets, teaching, 0.5, &mut head_grad).unwrap();
            let [x, w] = [&last, &head].map(|x| x.to_kind(Kind::Double).set_requires_grad(true));
            let teacher = taught.mm(&taught_head.tr()).to_kind(Kind::Double);
            let [loss, ce, kl] = by_autograd(&x.mm(&w.tr()), &teacher, &targets, mixture);
            (&loss * 0.5).backward();
            for (found, expected) in [(&found.loss, &loss), (&found.cross_entropy, &ce), (&found.kl, &kl)] {
                let (found, expected) = (found.double_value(&[]), expected.double_value(&[]));
                assert!((found / expected - 1.0).abs() < 1e-5, "{mixture:?}: {found}, not {expected}");
            }
            for (found, expected) in [(&found.grad, x.grad()), (&head_grad, w.grad())] {
                let error = (found - &expected).abs().max() / expected.abs().max();
                assert!(error.double_value(&[]) < 1e-5, "{mixture:?}: {error}");
            }
        }
    }

    #[test]
    fn a_student_that_is_its_teacher_has_nothing_to_learn() {
        tch::manual_seed(6);
        let (last, head) = (
            Tensor::randn([9, 8], (Kind::Float, Device::Cpu)),
            Tensor::randn([70, 8], (Kind::Float, Device::Cpu)),
        );
        let targets = Tensor::arange(9, (Kind::Int64, Device::Cpu));
        let mixture = Mixture { weight: 1.0, temperature: 2.0 };
        let teaching = Teaching { last: &last, head: &head, mixture };
        let mut head_grad = head.zeros_like();
        let found = linear_distillation(&last, &head, &targets, teaching, 1.0, &mut head_grad).unwrap();
        assert!(found.kl.double_value(&[]).abs() < 1e-6, "{}", found.kl);
        assert!(
            found.grad.abs().max().double_value(&[]) < 1e-7 && found.cross_entropy.double_value(&[]) > 1.0
        );
    }

    #[test]
    fn what_is_float32_on_a_gpu_stays_within_half_a_gib() {
        let vocab = 50257;
        assert!(rows_at_a_time(vocab, 2, false) * vocab * 2 <= 1 << 30);
        assert!(float_rows_at_a_time(vocab) * vocab * 4 <= 256 << 20 && float_rows_at_a_time(vocab) > 1000);
        assert_eq!(float_rows_at_a_time(1 << 40), 1);
    }
}
