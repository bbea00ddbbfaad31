//! What is read of a prediction: one number for each text of a batch.

use std::fmt;

use tch::{Kind, Tensor};

use crate::model::Gpt2;
use crate::{Error, Result};

/// Logits `[batch, vocab_size]` to numbers `[batch]`.
type OfLogits<'a> = Box<dyn Fn(&Tensor) -> Result<Tensor> + 'a>;

/// Numbers that are unembedded at a time when a metric reads all logits: 64 MiB of float32.
const LOGITS_AT_A_TIME: i64 = 1 << 24;

/// One number for each text, read of the logits at one position, usually the last. Only that position is
/// unembedded, and of it no more tokens than are read.
///
/// ```
/// use lnfree::interp::Metric;
/// use lnfree::prelude::*;
///
/// # fn main() -> Result<()> {
/// // " Mary" rather than " John", say.
/// let answers = Tensor::from_slice(&[2i64, 0]).view([1, 2]);
/// let logits = Tensor::from_slice(&[0.5f32, -1.0, 3.0]).view([1, 3]);
/// let difference = Metric::logit_difference(&answers).of_logits(&logits)?;
/// assert_eq!(difference.double_value(&[0]), 2.5);
/// // Any function of logits [batch, vocab_size] is one.
/// let largest = Metric::new(|logits| logits.amax([-1i64], false));
/// assert_eq!(largest.of_logits(&logits)?.double_value(&[0]), 3.0);
/// # Ok(())
/// # }
/// ```
pub struct Metric<'a> {
    position: Option<i64>,
    read: Read<'a>,
}

enum Read<'a> {
    /// The logits of two tokens, int64 `[batch, 2]`: the first less the second.
    Difference(Tensor),
    /// Those of all.
    Vocabulary(OfLogits<'a>),
}

impl<'a> Metric<'a> {
    /// Any function of logits, `[batch, vocab_size]` to `[batch]`, both float32. For attribution patching it
    /// has to be differentiable.
    pub fn new(function: impl Fn(&Tensor) -> Tensor + 'a) -> Metric<'a> {
        Metric::fallible(move |logits| Ok(function(logits)))
    }

    fn fallible(function: impl Fn(&Tensor) -> Result<Tensor> + 'a) -> Metric<'a> {
        Metric { position: None, read: Read::Vocabulary(Box::new(function)) }
    }

    /// Logit of the first of two tokens less that of the second, `answers` int64 `[batch, 2]`: that of Wang
    /// et al., "Interpretability in the Wild" (arXiv 2211.00593). Only these two tokens are unembedded.
    pub fn logit_difference(answers: &Tensor) -> Metric<'a> {
        Metric { position: None, read: Read::Difference(answers.shallow_clone()) }
    }

    /// Cross-entropy in nats of one token, `targets` int64 `[batch]`.
    pub fn loss(targets: &Tensor) -> Metric<'a> {
        let targets = targets.shallow_clone();
        Metric::fallible(move |logits| {
            let targets = targets.f_to_device(logits.device())?.f_unsqueeze(-1)?;
            let found = logits.f_log_softmax(-1, Kind::Float)?.f_gather(-1, &targets, false)?;
            Ok(found.f_squeeze_dim(-1)?.f_neg()?)
        })
    }

    /// KL(reference ‖ prediction) in nats, where the reference is the distribution of logits
    /// `[batch, vocab_size]`: usually those of the clean run.
    pub fn kl_divergence(reference: &Tensor) -> Metric<'a> {
        let reference = reference.detach();
        Metric::fallible(move |logits| {
            let wanted = reference.f_to_device(logits.device())?.f_log_softmax(-1, Kind::Float)?;
            let difference = wanted.f_sub(&logits.f_log_softmax(-1, Kind::Float)?)?;
            Ok(wanted.f_exp()?.f_mul(&difference)?.f_sum_dim_intlist(-1i64, false, Kind::Float)?)
        })
    }

    /// Reads position `position`, 0-based, instead of the last.
    pub fn at(self, position: i64) -> Metric<'a> {
        Metric { position: Some(position), ..self }
    }

    /// The metric of logits at the position read, `[batch, vocab_size]`: float32 `[batch]`.
    ///
    /// # Errors
    /// If it is made for another batch, a token is not in the vocabulary, or the function does not return
    /// one number for each text.
    pub fn of_logits(&self, logits: &Tensor) -> Result<Tensor> {
        let (size, logits) = (logits.size(), logits.f_to_kind(Kind::Float)?);
        let &[batch, _] = size.as_slice() else {
            return Err(Error::invalid(format!("a metric reads logits [batch, vocab_size], not {size:?}")));
        };
        match &self.read {
            Read::Difference(answers) => {
                let answers = checked_answers(answers, batch)?.f_to_device(logits.device())?;
                let found = logits.f_gather(-1, &answers, false)?;
                Ok(found.f_select(1, 0)?.f_sub(&found.f_select(1, 1)?)?)
            }
            Read::Vocabulary(function) => one_a_text(function(&logits)?, batch),
        }
    }

    /// Which of `pos` positions is read.
    ///
    /// # Errors
    /// If there is no such position.
    pub(crate) fn position(&self, pos: i64) -> Result<i64> {
        let position = self.position.unwrap_or(pos - 1);
        match (0..pos).contains(&position) {
            true => Ok(position),
            false => {
                Err(Error::invalid(format!("a metric at position {position} of texts of {pos} positions")))
            }
        }
    }

    /// The metric of several runs of a batch from what is unembedded, `[runs, batch, n_embd]`: `[runs,
    /// batch]`.
    ///
    /// # Errors
    /// As [`Metric::of_logits`].
    pub(crate) fn of_runs(&self, model: &Gpt2, last: &Tensor) -> Result<Tensor> {
        let size = last.size();
        let &[runs, batch, n_embd] = size.as_slice() else {
            return Err(Error::invalid(format!("runs [runs, batch, n_embd], not {size:?}")));
        };
        let function = match &self.read {
            Read::Difference(answers) => {
                let answers = checked_answers(answers, batch)?.f_to_device(last.device())?;
                let rows = model.unembedding().f_index_select(0, &answers.f_reshape([-1])?)?;
                let rows = rows.f_to_kind(Kind::Float)?.f_view([batch, 2, n_embd])?;
                let direction = rows.f_select(1, 0)?.f_sub(&rows.f_select(1, 1)?)?;
                return Ok(last.f_mul(&direction)?.f_sum_dim_intlist(-1i64, false, Kind::Float)?);
            }
            Read::Vocabulary(function) => function,
        };
        let head = model.unembedding().f_to_kind(Kind::Float)?;
        // Several runs share one reading of the unembedding.
        let at_a_time = (LOGITS_AT_A_TIME / (batch * head.size()[0]).max(1)).max(1);
        let mut found = Vec::new();
        for start in (0..runs).step_by(at_a_time as usize) {
            let logits =
                last.f_narrow(0, start, at_a_time.min(runs - start))?.f_linear::<Tensor>(&head, None)?;
            for run in 0..logits.size()[0] {
                found.push(one_a_text(function(&logits.f_get(run)?)?, batch)?);
            }
        }
        Ok(Tensor::f_stack(&found, 0)?)
    }
}

impl fmt::Debug for Metric<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = match &self.read {
            Read::Difference(_) => "logit difference",
            Read::Vocabulary(_) => "function of logits",
        };
        f.debug_struct("Metric").field("position", &self.position).field("read", &read).finish()
    }
}

/// Answer tokens that are those of a batch.
fn checked_answers(answers: &Tensor, batch: i64) -> Result<&Tensor> {
    let size = answers.size();
    match size == [batch, 2] && answers.kind() == Kind::Int64 {
        true => Ok(answers),
        false => Err(Error::invalid(format!(
            "answer tokens must be int64 [batch, 2] for a batch of {batch}, not {:?} {size:?}",
            answers.kind()
        ))),
    }
}

/// What a function of logits returned, float32, if it is one number for each text.
fn one_a_text(found: Tensor, batch: i64) -> Result<Tensor> {
    let size = found.size();
    match size == [batch] {
        true => Ok(found.f_to_kind(Kind::Float)?),
        false => Err(Error::invalid(format!("a metric must return [batch], here [{batch}], not {size:?}"))),
    }
}
