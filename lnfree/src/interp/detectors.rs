//! Heads whose attention looks like a pattern that is known beforehand.

use std::fmt;
use std::str::FromStr;

use tch::{Device, Kind, Tensor, no_grad};

use crate::model::hook::{Activation, Hook};
use crate::model::ln_state::LnState;
use crate::model::{Compute, Gpt2};
use crate::{Error, Result};

/// Heads that have a name, by the places that they attend to: those of TransformerLens' `detect_head`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadKind {
    /// The token before.
    PreviousToken,
    /// Earlier places of the same token.
    DuplicateToken,
    /// What came after earlier places of the same token.
    Induction,
}

/// Names, TransformerLens'.
const NAMES: [(&str, HeadKind); 3] = [
    ("previous_token_head", HeadKind::PreviousToken),
    ("duplicate_token_head", HeadKind::DuplicateToken),
    ("induction_head", HeadKind::Induction),
];

impl fmt::Display for HeadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES.iter().find(|(_, kind)| kind == self).map_or("", |(name, _)| name))
    }
}

impl FromStr for HeadKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<HeadKind> {
        let found = NAMES.iter().find(|(other, _)| *other == name).map(|(_, kind)| *kind);
        found.ok_or_else(|| {
            let names = NAMES.map(|(name, _)| name).join(", ");
            Error::invalid(format!("`{name}` is no kind of head; one of {names}"))
        })
    }
}

impl HeadKind {
    /// The attention that such a head would give: 1 where it looks and 0 elsewhere, float32
    /// `[batch, query, key]`, of `ids`, int64 `[batch, pos]`. A query with several such places has several
    /// ones, and the first occurrence of a token has none.
    ///
    /// # Errors
    /// If the ids are not `[batch, pos]`.
    pub fn detection_pattern(self, ids: &Tensor) -> Result<Tensor> {
        let &[batch, pos] = ids.size().as_slice() else {
            return Err(Error::invalid(format!("ids must be [batch, pos], not {:?}", ids.size())));
        };
        let options = (Kind::Float, ids.device());
        if self == HeadKind::PreviousToken {
            let before = Tensor::f_ones([pos, pos], options)?.f_tril(-1)?.f_triu(-1)?;
            return Ok(before.f_unsqueeze(0)?.f_expand([batch, pos, pos], false)?.f_contiguous()?);
        }
        let same = ids.f_unsqueeze(2)?.f_eq_tensor(&ids.f_unsqueeze(1)?)?.f_to_kind(Kind::Float)?;
        let earlier = same.f_tril(-1)?;
        if self == HeadKind::DuplicateToken {
            return Ok(earlier);
        }
        // One to the right: what came after; nothing comes after nothing.
        let nothing = Tensor::f_zeros([batch, pos, 1], options)?;
        let after = earlier.f_narrow(2, 0, pos - 1)?;
        // Where a query repeats the token right before it, what came after that one is the query itself: it
        // counts, as in TransformerLens.
        Ok(Tensor::f_cat(&[nothing, after], 2)?.f_tril(0)?)
    }
}

/// How an attention pattern and a detection pattern are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ErrorMeasure {
    /// Σ pattern · detection / Σ pattern: the share of a head's attention that goes where the detection
    /// pattern is 1; 0 to 1. NaN when nothing is left to share.
    #[default]
    Mul,
    /// 1 − mean |pattern − detection| · pos: 1 for the very pattern, −1 for nothing in common.
    Abs,
}

/// What is compared and how; the default is TransformerLens'.
#[derive(Debug, Clone, Copy, Default)]
pub struct DetectOptions {
    /// The measure.
    pub error_measure: ErrorMeasure,
    /// Leave out attention to position 0, whatever token is there: where heads rest that have nothing to say.
    pub exclude_bos: bool,
    /// Leave out attention of a position to itself.
    pub exclude_current_token: bool,
}

/// How much attention patterns, `[batch, head, query, key]`, look like `detection`, `[batch, query, key]` or
/// `[query, key]`: float64 `[batch, head]`.
///
/// The definitions are those of TransformerLens, `compute_head_attention_similarity_score` in
/// `transformer_lens/head_detector.py`, which rounds `abs` to three digits; this does not.
///
/// # Errors
/// If the shapes do not fit, or the detection pattern looks ahead.
pub fn similarity(pattern: &Tensor, detection: &Tensor, options: DetectOptions) -> Result<Tensor> {
    let &[batch, _, pos, keys] = pattern.size().as_slice() else {
        let size = pattern.size();
        return Err(Error::invalid(format!("a pattern is [batch, head, query, key], not {size:?}")));
    };
    let size = detection.size();
    let fits = pos == keys && (size == [pos, pos] || size == [batch, pos, pos] || size == [1, pos, pos]);
    if !fits {
        return Err(Error::invalid(format!(
            "a detection pattern for {batch} sequences of {pos} tokens is [query, key] of that length, \
             not {size:?}"
        )));
    }
    let detection = detection.f_to_kind(Kind::Double)?.f_to_device(pattern.device())?;
    let ahead = detection.f_triu(1)?.f_abs()?.f_max()?.f_double_value(&[])?;
    if ahead > 0.0 {
        return Err(Error::invalid("a detection pattern must be lower triangular: attention is causal"));
    }
    let detection = detection.f_reshape([-1, 1, pos, pos])?;
    let pattern = pattern.f_to_kind(Kind::Double)?;
    let mut counted = Tensor::f_ones([pos, pos], (Kind::Double, pattern.device()))?;
    if options.exclude_bos {
        let _ = counted.f_narrow(1, 0, 1)?.f_zero_()?;
    }
    if options.exclude_current_token {
        let _ = counted.f_fill_diagonal_(0.0, false)?;
    }
    let sum = |x: Tensor| x.f_sum_dim_intlist([-2i64, -1].as_slice(), false, Kind::Double);
    Ok(match options.error_measure {
        ErrorMeasure::Mul => {
            let pattern = pattern.f_mul(&counted)?;
            sum(pattern.f_mul(&detection)?)?.f_div(&sum(pattern)?)?
        }
        // The mean is over all pos² pairs, those left out too.
        ErrorMeasure::Abs => {
            let apart = pattern.f_sub(&detection)?.f_abs()?.f_mul(&counted)?;
            sum(apart)?.f_div_scalar(-(pos as f64))?.f_add_scalar(1.0)?
        }
    })
}

/// The score of every head for `kind` on `ids`, int64 `[batch, pos]` without padding, the mean over
/// sequences: `[layer][head]`.
///
/// Options hold for every sequence. (TransformerLens 2 forgets them when it is given a list of texts.)
///
/// # Errors
/// If the model cannot take the ids, or they are single tokens.
pub fn detect_head(
    model: &Gpt2,
    ln: &LnState,
    ids: &Tensor,
    kind: HeadKind,
    options: DetectOptions,
) -> Result<Vec<Vec<f64>>> {
    detect_pattern(model, ln, ids, &kind.detection_pattern(ids)?, options)
}

/// [`detect_head`] for a pattern of one's own, `[query, key]` or `[batch, query, key]`, lower triangular.
///
/// # Errors
/// As [`detect_head`] and [`similarity`].
pub fn detect_pattern(
    model: &Gpt2,
    ln: &LnState,
    ids: &Tensor,
    detection: &Tensor,
    options: DetectOptions,
) -> Result<Vec<Vec<f64>>> {
    if ids.size().get(1).is_some_and(|&pos| pos < 2) {
        return Err(Error::invalid(
            "a single token attends to itself alone: sequences of two tokens or more",
        ));
    }
    let ids = ids.f_to_device(model.device())?;
    let mut scorer = Scorer { detection, options, scores: Vec::new(), failed: None };
    let mut pass = model.pass(&ids, ln, Compute::default())?;
    let _stream = no_grad(|| model.residual(&ids, &mut pass, &mut scorer));
    pass.check()?;
    match scorer.failed {
        Some(error) => Err(error),
        None => Ok(scorer.scores),
    }
}

/// Scores every pattern as it comes by, so that none is kept.
struct Scorer<'a> {
    detection: &'a Tensor,
    options: DetectOptions,
    scores: Vec<Vec<f64>>,
    failed: Option<Error>,
}

impl Scorer<'_> {
    fn score(&self, pattern: &Tensor) -> Result<Vec<f64>> {
        let scores = similarity(pattern, self.detection, self.options)?;
        let means = scores.f_mean_dim(0i64, false, Kind::Double)?;
        Ok(Vec::try_from(means.f_to_device(Device::Cpu)?)?)
    }
}

impl Hook for Scorer<'_> {
    fn on(&mut self, _: Activation, pattern: Tensor) -> Tensor {
        match self.score(&pattern) {
            Ok(scores) => self.scores.push(scores),
            Err(error) => {
                self.failed.get_or_insert(error);
            }
        }
        pattern
    }

    fn wants(&self, activation: Activation) -> bool {
        matches!(activation, Activation::Pattern(_))
    }
}
