//! What is read of predictions: one number for each text of a batch.

use std::fmt;

use tch::{Device, Kind, Tensor};

use crate::model::Gpt2;
use crate::{Error, Result};

/// Logits `[batch, vocab_size]` to numbers `[batch]`.
type OfLogits<'a> = Box<dyn Fn(&Tensor) -> Tensor + 'a>;

/// Numbers that are unembedded at a time when a metric reads all logits: 64 MiB of float32.
const LOGITS_AT_A_TIME: i64 = 1 << 24;

/// One number for each text, read of the logits at one position, usually the last, or the mean over several.
/// Only these positions are unembedded, and of them no more tokens than are read.
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
/// // The loss of the tokens at positions 1 and 2, each predicted at the position before it.
/// let ids = Tensor::from_slice(&[2i64, 0, 1]).view([1, 3]);
/// let loss = Metric::loss(&ids.narrow(1, 1, 2)).at_positions(&[0, 1]);
/// assert_eq!(loss.of_logits(&Tensor::zeros([1, 2, 3], (Kind::Float, Device::Cpu)))?.size(), [1]);
/// # Ok(())
/// # }
/// ```
pub struct Metric<'a> {
    at: At,
    read: Read<'a>,
}

/// Which positions are read.
#[derive(Debug)]
enum At {
    Last,
    /// These, ascending.
    These(Vec<i64>),
    Every,
}

/// What is read of each. Tensors are `[batch, ..]`, the same at every position, or `[batch, read, ..]`.
enum Read<'a> {
    /// The logits of two tokens, int64 `[.., 2]`: the first less the second.
    Difference(Tensor),
    /// The loss of one token, int64.
    Loss(Tensor),
    /// The divergence from the distribution of other logits, `[.., vocab_size]`.
    Divergence(Tensor),
    /// Any function.
    Function(OfLogits<'a>),
}

impl<'a> Metric<'a> {
    /// Any function of logits, `[batch, vocab_size]` to `[batch]`, both float32. For attribution patching it
    /// has to be differentiable. With several positions it is called for each.
    pub fn new(function: impl Fn(&Tensor) -> Tensor + 'a) -> Metric<'a> {
        Metric { at: At::Last, read: Read::Function(Box::new(function)) }
    }

    /// Logit of the first of two tokens less that of the second, `answers` int64 `[batch, 2]`, or
    /// `[batch, read, 2]` for each of the positions read: that of Wang et al., "Interpretability in the Wild"
    /// (arXiv 2211.00593). Only these tokens are unembedded.
    pub fn logit_difference(answers: &Tensor) -> Metric<'a> {
        Metric { at: At::Last, read: Read::Difference(answers.shallow_clone()) }
    }

    /// Cross-entropy in nats of one token, `targets` int64 `[batch]`, or `[batch, read]` for each of the
    /// positions read.
    pub fn loss(targets: &Tensor) -> Metric<'a> {
        Metric { at: At::Last, read: Read::Loss(targets.shallow_clone()) }
    }

    /// KL(reference ‖ prediction) in nats, where the reference is the distribution of logits
    /// `[batch, vocab_size]`, or `[batch, read, vocab_size]` for each of the positions read: usually those of
    /// the clean run.
    pub fn kl_divergence(reference: &Tensor) -> Metric<'a> {
        Metric { at: At::Last, read: Read::Divergence(reference.detach()) }
    }

    /// Reads position `position`, 0-based, instead of the last.
    pub fn at(self, position: i64) -> Metric<'a> {
        self.at_positions(&[position])
    }

    /// Reads these positions, 0-based and ascending: the metric is the mean over them.
    pub fn at_positions(self, positions: &[i64]) -> Metric<'a> {
        Metric { at: At::These(positions.to_vec()), ..self }
    }

    /// Reads every position of a text: the metric is the mean over them.
    pub fn at_every_position(self) -> Metric<'a> {
        Metric { at: At::Every, ..self }
    }

    /// The metric of logits at the position read, `[batch, vocab_size]`, or at all of those read, in their
    /// order, `[batch, read, vocab_size]`: float32 `[batch]`.
    ///
    /// # Errors
    /// If it is made for another batch or for other positions, a token is not in the vocabulary, or the
    /// function does not return one number for each text.
    pub fn of_logits(&self, logits: &Tensor) -> Result<Tensor> {
        let (size, mut logits) = (logits.size(), logits.f_to_kind(Kind::Float)?);
        if size.len() == 2 {
            logits = logits.f_unsqueeze(1)?;
        }
        let &[batch, read, vocab_size] = logits.size().as_slice() else {
            return Err(Error::invalid(format!(
                "a metric reads logits [batch, vocab_size] or [batch, read, vocab_size], not {size:?}"
            )));
        };
        let expected = match &self.at {
            At::Last => 1,
            At::These(positions) => positions.len() as i64,
            At::Every => read.max(1),
        };
        if read != expected {
            return Err(Error::invalid(format!(
                "a metric of {expected} positions, and logits {size:?} of {read}: give those that it reads"
            )));
        }
        let each = self.each(batch, read, vocab_size, logits.device())?;
        let found = (0..read).map(|at| each.of(&logits.f_select(1, at)?, at));
        mean(&Tensor::f_stack(&found.collect::<Result<Vec<_>>>()?, -1)?)
    }

    /// Which of `pos` positions are read: one at least, ascending.
    ///
    /// # Errors
    /// If there is no such position.
    pub(crate) fn positions(&self, pos: i64) -> Result<Vec<i64>> {
        let positions = match &self.at {
            At::Last => vec![pos - 1],
            At::These(positions) => positions.clone(),
            At::Every => (0..pos).collect(),
        };
        if positions.is_empty() {
            return Err(Error::invalid("a metric at no position: name one at least"));
        }
        if !positions.is_sorted_by(|a, b| a < b) {
            return Err(Error::invalid(format!(
                "a metric at positions {positions:?}: name them in ascending order, each once"
            )));
        }
        if let Some(none) = positions.iter().find(|at| !(0..pos).contains(*at)) {
            return Err(Error::invalid(format!("a metric at position {none} of texts of {pos} positions")));
        }
        Ok(positions)
    }

    /// Where the last `n` of the positions read are in a tensor that begins at position `from`, int64 `[n]`:
    /// those from `from` on, of texts of `pos` positions; and how many are read in all.
    ///
    /// # Errors
    /// As [`Metric::positions`].
    pub(crate) fn places(&self, pos: i64, from: i64, device: Device) -> Result<(Tensor, i64)> {
        let positions = self.positions(pos)?;
        let read = positions.len() as i64;
        let places = positions.into_iter().filter(|at| *at >= from).map(|at| at - from);
        Ok((Tensor::f_from_slice(&places.collect::<Vec<i64>>())?.f_to_device(device)?, read))
    }

    /// The metric of several runs of a batch at each of the last `n` of `read` positions, from what is
    /// unembedded there, `[runs, batch, n, n_embd]`: `[runs, batch, n]`, whose mean over all positions is
    /// the metric.
    ///
    /// # Errors
    /// As [`Metric::of_logits`].
    pub(crate) fn of_runs(&self, model: &Gpt2, last: &Tensor, read: i64) -> Result<Tensor> {
        let (runs, batch, n, n_embd) = last.size4()?;
        let each = self.each(batch, read, model.unembedding().size()[0], last.device())?;
        if let Each::Difference(answers) = &each {
            let answers = answers.f_narrow(1, read - n, n)?;
            let rows = model.unembedding().f_index_select(0, &answers.f_reshape([-1])?)?;
            let rows = rows.f_to_kind(Kind::Float)?.f_view([batch, n, 2, n_embd])?;
            let direction = rows.f_select(2, 0)?.f_sub(&rows.f_select(2, 1)?)?;
            return Ok(last.f_mul(&direction)?.f_sum_dim_intlist(-1i64, false, Kind::Float)?);
        }
        let head = model.unembedding().f_to_kind(Kind::Float)?;
        // Several runs and positions share one reading of the unembedding.
        let last = last.f_transpose(1, 2)?.f_reshape([runs * n, batch, n_embd])?;
        let at_a_time = (LOGITS_AT_A_TIME / (batch * head.size()[0]).max(1)).max(1);
        let mut found = Vec::new();
        for start in (0..runs * n).step_by(at_a_time as usize) {
            let rows = last.f_narrow(0, start, at_a_time.min(runs * n - start))?;
            let logits = rows.f_linear::<Tensor>(&head, None)?;
            for row in 0..logits.size()[0] {
                let at = read - n + (start + row) % n;
                found.push(each.of(&logits.f_get(row)?, at)?);
            }
        }
        Ok(Tensor::f_stack(&found, 0)?.f_reshape([runs, n, batch])?.f_transpose(1, 2)?)
    }

    /// What is read of each of `read` positions of `batch` texts, on `device`.
    fn each(&self, batch: i64, read: i64, vocab_size: i64, device: Device) -> Result<Each<'_>> {
        Ok(match &self.read {
            Read::Difference(answers) => {
                let answers = tokens("answer tokens", answers, device)?;
                Each::Difference(at_each("answer tokens", &answers, batch, read, &[2])?)
            }
            Read::Loss(targets) => {
                let targets = tokens("target tokens", targets, device)?;
                Each::Loss(at_each("target tokens", &targets, batch, read, &[])?)
            }
            Read::Divergence(reference) => {
                let wanted = reference.f_to_device(device)?.f_log_softmax(-1, Kind::Float)?;
                Each::Divergence(at_each("reference logits", &wanted, batch, read, &[vocab_size])?)
            }
            Read::Function(function) => Each::Function(function),
        })
    }
}

/// [`Read`] for a batch, at every position read and on its device: `[batch, read, ..]`.
enum Each<'a> {
    Difference(Tensor),
    Loss(Tensor),
    /// The logarithms of the reference's probabilities.
    Divergence(Tensor),
    Function(&'a OfLogits<'a>),
}

impl Each<'_> {
    /// The number of each text, `[batch]`, of logits `[batch, vocab_size]` at the `at`-th position read.
    fn of(&self, logits: &Tensor, at: i64) -> Result<Tensor> {
        let found = match self {
            Each::Difference(answers) => {
                let found = logits.f_gather(-1, &answers.f_select(1, at)?, false)?;
                found.f_select(1, 0)?.f_sub(&found.f_select(1, 1)?)?
            }
            Each::Loss(targets) => {
                let targets = targets.f_select(1, at)?.f_unsqueeze(-1)?;
                let found = logits.f_log_softmax(-1, Kind::Float)?.f_gather(-1, &targets, false)?;
                found.f_squeeze_dim(-1)?.f_neg()?
            }
            Each::Divergence(wanted) => {
                let wanted = wanted.f_select(1, at)?;
                let difference = wanted.f_sub(&logits.f_log_softmax(-1, Kind::Float)?)?;
                wanted.f_exp()?.f_mul(&difference)?.f_sum_dim_intlist(-1i64, false, Kind::Float)?
            }
            Each::Function(function) => function(logits),
        };
        one_a_text(found, logits.size()[0])
    }
}

impl fmt::Debug for Metric<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read = match &self.read {
            Read::Difference(_) => "logit difference",
            Read::Loss(_) => "loss",
            Read::Divergence(_) => "KL divergence",
            Read::Function(_) => "function of logits",
        };
        f.debug_struct("Metric").field("at", &self.at).field("read", &read).finish()
    }
}

/// The mean over positions, the last axis.
pub(crate) fn mean(by_position: &Tensor) -> Result<Tensor> {
    Ok(by_position.f_mean_dim(-1i64, false, Kind::Float)?)
}

/// What a metric is made of, at every position read: `[batch, read, ..]` of what is that or `[batch, ..]`.
fn at_each(what: &str, x: &Tensor, batch: i64, read: i64, rest: &[i64]) -> Result<Tensor> {
    let size = x.size();
    let [one, each] = [&[batch][..], &[batch, read][..]].map(|first| [first, rest].concat());
    match size {
        size if size == one => Ok(x.f_unsqueeze(1)?.f_expand(&each, false)?),
        size if size == each => Ok(x.shallow_clone()),
        size => Err(Error::invalid(format!(
            "{what} must be {one:?} or {each:?} for a batch of {batch} and {read} positions, not {size:?}"
        ))),
    }
}

/// Tokens that a metric is made of, on a device.
fn tokens(what: &str, ids: &Tensor, device: Device) -> Result<Tensor> {
    match ids.kind() {
        Kind::Int64 => Ok(ids.f_to_device(device)?),
        other => Err(Error::invalid(format!("{what} must be int64, not {other:?}"))),
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
