//! Logits as the sum of everybody's shares, with the number that says how exactly.

use tch::{Kind, Tensor};

use super::positions::Positions;
use super::sources::{Detail, Source};
use crate::Result;
use crate::interp::cache::ActivationCache;

/// A logit, or a difference of two, as a sum over everybody who writes to the residual stream.
///
/// For a model whose ln_f divides by constants, whatever it is stored as, the shares are what the model
/// itself adds up. For one with a real ln_f they are so only at the scale that ln_f had: they sum to the
/// logit all the same, but taking a component away would change the scale too, which `freezing_nmae`
/// measures.
#[derive(Debug)]
pub struct LogitDecomposition {
    /// TransformerLens' labels of the components, see [`Detail`].
    pub labels: Vec<String>,
    /// What each adds, float64 `[component, batch, pos]`.
    pub shares: Tensor,
    /// What is nobody's, the bias of ln_f through the unembedding: float64 `[batch, pos]`. In a folded model
    /// it is part of the last MLP's bias, and so of the share `bias` (or of the last MLP).
    pub constant: Tensor,
    /// Shares and constant together, float64 `[batch, pos]`.
    pub sum: Tensor,
    /// What the model itself computes, in float32: float64 `[batch, pos]`.
    pub logits: Tensor,
    /// Largest |sum − logits| over the largest absolute logit, of either token where it is a difference: the
    /// rounding of the model's own float32 arithmetic, 1e-5 or less.
    pub relative_error: f64,
    /// Whether the shares are exact: ln_f divides by constants, or is not there.
    pub is_exact: bool,
    /// What it costs to keep a real ln_f at its scale: how far the shares are from the direct effects of
    /// taking each component away, logit(r) − logit(r − c) with ln_f computed anew, in percent: 100 · mean
    /// |share − effect| / mean |effect| over components and positions. `None` where they are exact.
    pub freezing_nmae: Option<f64>,
}

impl LogitDecomposition {
    /// The share of a component, float64 `[batch, pos]`; `None` if there is no such label.
    pub fn share(&self, label: &str) -> Option<Tensor> {
        let at = self.labels.iter().position(|found| found == label)?;
        self.shares.f_get(at as i64).ok()
    }

    /// Components with the mean of their absolute shares over batch and positions, the largest first.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn ranked(&self) -> Result<Vec<(&str, f64)>> {
        let sizes = self.shares.f_abs()?.f_mean_dim([1i64, 2].as_slice(), false, Kind::Double)?;
        let sizes = Vec::<f64>::try_from(sizes.f_to_device(tch::Device::Cpu)?)?;
        let mut ranked: Vec<(&str, f64)> = self.labels.iter().map(String::as_str).zip(sizes).collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
        Ok(ranked)
    }
}

impl ActivationCache<'_> {
    /// Takes the logits of `tokens` apart, or with `incorrect_tokens` how much higher they are than theirs
    /// (shapes as in [`logit_attrs`](Self::logit_attrs)). LNs of the blocks may be real: a decomposition is
    /// of what components write, not of why.
    ///
    /// With a real ln_f every component is also taken away once, which with [`Detail::Neurons`] and all
    /// positions takes as long as some forwards; memory is that of a single layer's heads.
    ///
    /// # Errors
    /// If one of the components was not kept (see [`attribution_needs`](crate::interp::attribution_needs)),
    /// or tokens are of another shape, or none of the model's.
    pub fn decompose_logits(
        &self,
        tokens: &Tensor,
        incorrect_tokens: Option<&Tensor>,
        detail: Detail,
        positions: Positions,
    ) -> Result<LogitDecomposition> {
        let _guard = tch::no_grad_guard();
        let correct = self.tokens(tokens, positions)?;
        let incorrect = incorrect_tokens.map(|tokens| self.tokens(tokens, positions)).transpose()?;
        let mut read = self.unembedding_of(&correct)?;
        let mut logits = self.own_logits(&correct, positions)?;
        let mut size = largest(&logits)?;
        if let Some(incorrect) = &incorrect {
            let other = self.own_logits(incorrect, positions)?;
            size = size.max(largest(&other)?);
            read = read.f_sub(&self.unembedding_of(incorrect)?)?;
            logits = logits.f_sub(&other)?;
        }
        let reading = self.reading(&read, positions, false)?;
        let sources = detail.sources(self.model.h.len());
        let shares = sources.iter().map(|source| self.writes(*source, positions)?.dot(&reading.direction));
        let shares = Tensor::f_cat(&shares.collect::<Result<Vec<_>>>()?, 0)?;
        let sum = shares.f_sum_dim_intlist(0i64, false, Kind::Double)?.f_add(&reading.constant)?;
        let relative_error = largest(&sum.f_sub(&logits)?)? / size;
        let is_exact = self.scale.is_none() || self.ln.lnf.is_fake();
        let freezing_nmae = match is_exact {
            true => None,
            false => Some(self.cost_of_freezing(&sources, &shares, &read, positions)?),
        };
        let labels = sources.iter().flat_map(|source| source.labels(self.model)).collect();
        let constant = reading.constant;
        Ok(LogitDecomposition {
            labels,
            shares,
            constant,
            sum,
            logits,
            relative_error,
            is_exact,
            freezing_nmae,
        })
    }

    /// The model's own logits of tokens `[batch, pos]`, a sequence at a time: float64 `[batch, pos]`.
    fn own_logits(&self, tokens: &Tensor, positions: Positions) -> Result<Tensor> {
        let normed = positions.of(&self.final_norm(&self.residual, Positions::All)?)?;
        let rows = (0..tokens.size()[0]).map(|row| -> Result<Tensor> {
            let logits = self.unembed(&normed.f_narrow(0, row, 1)?)?;
            let tokens = tokens.f_narrow(0, row, 1)?.f_unsqueeze(-1)?;
            Ok(logits.f_gather(-1, &tokens, false)?.f_squeeze_dim(-1)?)
        });
        let logits = Tensor::f_cat(&rows.collect::<Result<Vec<_>>>()?, 0)?;
        Ok(logits.f_to_kind(Kind::Double)?)
    }

    /// See [`LogitDecomposition::freezing_nmae`].
    fn cost_of_freezing(
        &self,
        sources: &[Source],
        shares: &Tensor,
        read: &Tensor,
        positions: Positions,
    ) -> Result<f64> {
        let stream = positions.of(&self.residual)?.f_unsqueeze(0)?;
        let logit = self.read_anew(&stream, read, positions)?;
        let total = |x: &Tensor| -> Result<f64> { Ok(x.f_abs()?.f_sum(Kind::Double)?.f_double_value(&[])?) };
        let (mut apart, mut size, mut at) = (0.0f64, 0.0f64, 0i64);
        for source in sources {
            let writes = self.writes(*source, positions)?;
            for (start, n) in writes.parts() {
                let without = stream.f_sub(&writes.values(start, n)?)?;
                let effect = logit.f_sub(&self.read_anew(&without, read, positions)?)?;
                apart += total(&shares.f_narrow(0, at + start, n)?.f_sub(&effect)?)?;
                size += total(&effect)?;
            }
            at += writes.count();
        }
        Ok(100.0 * apart / size)
    }
}

/// The largest absolute value.
fn largest(x: &Tensor) -> Result<f64> {
    Ok(x.f_abs()?.f_max()?.f_double_value(&[])?)
}
