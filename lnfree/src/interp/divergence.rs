//! How far the outputs of two models lie apart on the same tokens, in the measures of the paper's code.
//!
//! [`faithfulness`](crate::eval::faithfulness) is the divergence itself, of whole data sets. What is here are
//! the numbers of the paper's `mech_interp/metrics.py`, which adds 1e-8 to every probability and divides by
//! the sum again before it compares.

use tch::{Kind, Tensor, no_grad};

use crate::model::hook::NoHook;
use crate::model::ln_state::LnState;
use crate::model::{Compute, Gpt2};
use crate::{Error, Result};

/// Added to every probability before it is compared.
const SMALL: f64 = 1e-8;
/// Added to a probability before its logarithm is a loss or an entropy.
const TINY: f64 = 1e-10;
/// Bins of the confidence axis.
const BINS: usize = 10;

/// Jensen–Shannon divergence of softmax(`p`) and softmax(`q`), logits `[.., vocab_size]`, nats `[..]`:
/// (KL(p ‖ m) + KL(q ‖ m))/2 with m = (p + q)/2.
///
/// `top`: only the union of the `top` most likely tokens of either is compared (20 in the paper), the
/// probabilities of the others being zero before 1e-8 is added to all.
///
/// # Errors
/// If the shapes differ, or there are no `top` tokens.
pub fn jsd(p: &Tensor, q: &Tensor, top: Option<i64>) -> Result<Tensor> {
    let [p, q] = compared(p, q, top)?;
    let m = p.f_add(&q)?.f_mul_scalar(0.5)?;
    Ok(kl(&p, &m)?.f_add(&kl(&q, &m)?)?.f_mul_scalar(0.5)?)
}

/// (KL(p ‖ q) + KL(q ‖ p))/2 of softmax(`p`) and softmax(`q`); otherwise as [`jsd`].
///
/// # Errors
/// As [`jsd`].
pub fn symmetric_kl(p: &Tensor, q: &Tensor, top: Option<i64>) -> Result<Tensor> {
    let [p, q] = compared(p, q, top)?;
    Ok(kl(&p, &q)?.f_add(&kl(&q, &p)?)?.f_mul_scalar(0.5)?)
}

/// Σ p log(p/q) over the last dimension.
fn kl(p: &Tensor, q: &Tensor) -> Result<Tensor> {
    Ok(p.f_mul(&p.f_log()?.f_sub(&q.f_log()?)?)?.f_sum_dim_intlist(-1i64, false, Kind::Float)?)
}

/// Both distributions as they are compared.
fn compared(p: &Tensor, q: &Tensor, top: Option<i64>) -> Result<[Tensor; 2]> {
    let (size, other) = (p.size(), q.size());
    if size != other || size.is_empty() {
        return Err(Error::invalid(format!("logits {size:?} cannot be compared with logits {other:?}")));
    }
    let [mut p, mut q] = [p.f_to_kind(Kind::Float)?, q.f_to_kind(Kind::Float)?];
    if let Some(top) = top {
        let above = |x: &Tensor| -> Result<Tensor> {
            let least = x.f_topk(top, -1, true, true)?.0.f_narrow(-1, top - 1, 1)?;
            Ok(x.f_ge_tensor(&least)?)
        };
        if top < 1 || size.last().is_some_and(|&vocab| top > vocab) {
            return Err(Error::invalid(format!("the {top} most likely tokens of {size:?} logits are none")));
        }
        let out = above(&p)?.f_logical_or(&above(&q)?)?.f_logical_not()?;
        [p, q] = [p.f_masked_fill(&out, f64::NEG_INFINITY)?, q.f_masked_fill(&out, f64::NEG_INFINITY)?];
    }
    let probabilities = |x: &Tensor| -> Result<Tensor> {
        let x = x.f_softmax(-1, Kind::Float)?.f_add_scalar(SMALL)?;
        Ok(x.f_div(&x.f_sum_dim_intlist(-1i64, true, Kind::Float)?)?)
    };
    Ok([probabilities(&p)?, probabilities(&q)?])
}

/// What a model says at every position that has a next token, each `[batch, pos − 1]`.
#[derive(Debug)]
pub struct Predictions {
    /// −log(p + 1e-10) of the next token, nats, float32.
    pub ce_loss: Tensor,
    /// −Σ p log(p + 1e-10), nats, float32.
    pub entropy: Tensor,
    /// Probability of the most likely token, float32.
    pub max_prob: Tensor,
    /// Whether the most likely token comes next, bool.
    pub correct: Tensor,
}

impl Predictions {
    /// Of a model on `ids`, int64 `[batch, pos]`, two positions or more, without padding; a sequence at a
    /// time.
    ///
    /// # Errors
    /// If the model cannot take the ids, or they are single tokens.
    pub fn of(model: &Gpt2, ln: &LnState, ids: &Tensor) -> Result<Self> {
        Predictions::stacked(&for_each_sequence(ids, |row| of_logits(&logits(model, ln, row)?, row))?)
    }

    /// What the first of two models says and how far that is from what the second says, by one forward of
    /// each: [`Predictions::of`] the first, and [`Divergences::between`] both.
    ///
    /// # Errors
    /// As these.
    pub fn beside(p: (&Gpt2, &LnState), q: (&Gpt2, &LnState), ids: &Tensor) -> Result<(Self, Divergences)> {
        let parts = for_each_sequence(ids, |row| {
            let own = logits(p.0, p.1, row)?;
            Ok((of_logits(&own, row)?, divergences(&own, &logits(q.0, q.1, row)?)?))
        })?;
        let (said, apart): (Vec<Self>, Vec<[Tensor; 4]>) = parts.into_iter().unzip();
        Ok((Predictions::stacked(&said)?, Divergences::stacked(&apart)?))
    }

    /// Those of all sequences, of which each is one part.
    fn stacked(parts: &[Self]) -> Result<Self> {
        let stacked = |part: fn(&Self) -> &Tensor| -> Result<Tensor> {
            let parts: Vec<&Tensor> = parts.iter().map(part).collect();
            Ok(Tensor::f_stack(&parts, 0)?)
        };
        Ok(Self {
            ce_loss: stacked(|p| &p.ce_loss)?,
            entropy: stacked(|p| &p.entropy)?,
            max_prob: stacked(|p| &p.max_prob)?,
            correct: stacked(|p| &p.correct)?,
        })
    }

    /// Expected calibration error with 10 bins of equal width, 0 to 1: |share of correct − mean confidence|
    /// of each bin, weighted by its tokens. A confidence of exactly 1 is in the last bin; the paper's code
    /// leaves it out.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn calibration_error(&self) -> Result<f64> {
        let flat = |x: &Tensor| -> Result<Vec<f64>> {
            let x = x.f_reshape([-1])?.f_to_kind(Kind::Double)?;
            Ok(Vec::try_from(x.f_to_device(tch::Device::Cpu)?)?)
        };
        let (confidence, correct) = (flat(&self.max_prob)?, flat(&self.correct)?);
        let mut gaps = [0.0; BINS];
        for (p, correct) in confidence.iter().zip(&correct) {
            gaps[((p * BINS as f64) as usize).min(BINS - 1)] += correct - p;
        }
        Ok(gaps.iter().map(|gap: &f64| gap.abs()).sum::<f64>() / confidence.len().max(1) as f64)
    }
}

/// Divergences of two models at every position that has a next token, each float32 `[batch, pos − 1]`, nats.
#[derive(Debug)]
pub struct Divergences {
    /// [`jsd`].
    pub jsd: Tensor,
    /// [`jsd`] of the 20 most likely tokens.
    pub jsd_top20: Tensor,
    /// [`symmetric_kl`].
    pub symmetric_kl: Tensor,
    /// [`symmetric_kl`] of the 20 most likely tokens.
    pub symmetric_kl_top20: Tensor,
}

impl Divergences {
    /// Of two models of one vocabulary on `ids`, int64 `[batch, pos]`, two positions or more, without
    /// padding; a sequence at a time. The models may be on two devices: the first one's is where they are
    /// compared.
    ///
    /// # Errors
    /// Models of other vocabularies, ids that one cannot take, and as [`jsd`].
    pub fn between(p: (&Gpt2, &LnState), q: (&Gpt2, &LnState), ids: &Tensor) -> Result<Self> {
        let parts =
            for_each_sequence(ids, |row| divergences(&logits(p.0, p.1, row)?, &logits(q.0, q.1, row)?))?;
        Divergences::stacked(&parts)
    }

    /// Those of all sequences, of which each is one part.
    fn stacked(parts: &[[Tensor; 4]]) -> Result<Self> {
        let stacked = |i: usize| -> Result<Tensor> {
            let parts: Vec<&Tensor> = parts.iter().map(|part| &part[i]).collect();
            Ok(Tensor::f_stack(&parts, 0)?)
        };
        Ok(Self {
            jsd: stacked(0)?,
            jsd_top20: stacked(1)?,
            symmetric_kl: stacked(2)?,
            symmetric_kl_top20: stacked(3)?,
        })
    }
}

/// `f` of every sequence, `[1, pos]`.
fn for_each_sequence<T>(ids: &Tensor, f: impl Fn(&Tensor) -> Result<T>) -> Result<Vec<T>> {
    let &[batch, pos] = ids.size().as_slice() else {
        return Err(Error::invalid(format!("ids must be [batch, pos], not {:?}", ids.size())));
    };
    if batch == 0 || pos < 2 {
        return Err(Error::invalid("predictions need a sequence of two tokens or more"));
    }
    (0..batch).map(|row| no_grad(|| f(&ids.f_narrow(0, row, 1)?))).collect()
}

/// Logits at all positions but the last, float32 `[pos − 1, vocab_size]`.
fn logits(model: &Gpt2, ln: &LnState, row: &Tensor) -> Result<Tensor> {
    let row = row.f_to_device(model.device())?;
    let logits = model.forward(&row, ln, Compute::default(), &mut NoHook)?;
    Ok(logits.f_squeeze_dim(0)?.f_narrow(0, 0, row.size()[1] - 1)?)
}

/// [`Divergences`] of one sequence, `[pos − 1]` each, in their order.
fn divergences(p: &Tensor, q: &Tensor) -> Result<[Tensor; 4]> {
    let (q, top) = (q.f_to_device(p.device())?, Some(20));
    Ok([jsd(p, &q, None)?, jsd(p, &q, top)?, symmetric_kl(p, &q, None)?, symmetric_kl(p, &q, top)?])
}

/// [`Predictions`] of one sequence, `[pos − 1]` each.
fn of_logits(logits: &Tensor, row: &Tensor) -> Result<Predictions> {
    let p = logits.f_softmax(-1, Kind::Float)?;
    let targets = row.f_to_device(p.device())?.f_squeeze_dim(0)?.f_narrow(0, 1, p.size()[0])?;
    let log = p.f_add_scalar(TINY)?.f_log()?;
    let (max_prob, most_likely) = p.f_max_dim(-1, false)?;
    Ok(Predictions {
        ce_loss: log.f_gather(-1, &targets.f_unsqueeze(-1)?, false)?.f_squeeze_dim(-1)?.f_neg()?,
        entropy: p.f_mul(&log)?.f_sum_dim_intlist(-1i64, false, Kind::Float)?.f_neg()?,
        max_prob,
        correct: most_likely.f_eq_tensor(&targets)?,
    })
}
