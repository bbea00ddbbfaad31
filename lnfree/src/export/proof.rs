//! What an export is held against: the model that it was made of.

use std::fmt;

use tch::{Kind, Tensor};

use super::identity::epsilon_error;
use crate::Result;
use crate::model::hook::{Activation, Hook, NoHook};
use crate::model::ln_state::LnState;
use crate::model::{Compute, Gpt2};

/// Positions whose insides are compared, in each of two sequences: every layer and component is unembedded.
const POSITIONS_INSIDE: i64 = 16;

/// How far the reloaded export is from the model it was made of, on the same tokens in float32.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Proof {
    /// Largest absolute difference of a logit.
    pub max_abs: f64,
    /// Root mean square of the differences over that of the logits.
    pub relative_rms: f64,
    /// Logits compared.
    pub n_logits: usize,
    /// The logit lens, that is ln_f and the unembedding of the stream behind a block: the largest relative
    /// RMS difference of all blocks.
    pub lens: f64,
    /// Direct logit attribution, that is what ln_f and the unembedding make of what the embedding, an
    /// attention or an MLP adds to the stream: the largest RMS difference of all of them, over the largest
    /// RMS.
    pub attribution: f64,
    /// Largest variance over n_embd of the residual stream at these tokens.
    pub variance: f64,
    /// What ε takes from a stream of that variance, see [`epsilon_error`]; zero where no LN is left.
    pub epsilon_error: f64,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Proof { max_abs, relative_rms, n_logits, lens, attribution, variance, epsilon_error } = self;
        write!(
            f,
            "{n_logits} logits compared with the model it was made of: largest difference {max_abs:.2e}, relative RMS \
             {relative_rms:.2e}; logit lens {lens:.2e}, direct logit attribution {attribution:.2e}; largest variance of \
             the residual stream {variance:.3e}"
        )?;
        if *epsilon_error > 0.0 {
            write!(f, ", of which epsilon takes {epsilon_error:.1e}")?;
        }
        Ok(())
    }
}

/// Compares two models, each with its LN state, on the same tokens in float32.
///
/// # Errors
/// When the models do not take the same input.
pub fn compare(a: (&Gpt2, &LnState), b: (&Gpt2, &LnState)) -> Result<Proof> {
    let _guard = tch::no_grad_guard();
    let ids = tokens(a.0);
    let mut stream = LargestVariance(0.0);
    let x = a.0.forward(&ids, a.1, Compute::default(), &mut NoHook)?.to_kind(Kind::Double);
    let y = b.0.forward(&ids, b.1, Compute::default(), &mut stream)?.to_kind(Kind::Double);
    let difference = &x - &y;
    let few = ids.narrow(1, 0, ids.size()[1].min(POSITIONS_INSIDE)).contiguous();
    let (a, b_inside) = (Inside::of(a, &few)?, Inside::of(b, &few)?);
    let epsilon = b.0.ln_f.as_ref().filter(|_| !b.1.lnf.is_fake()).map(|ln_f| ln_f.eps);
    Ok(Proof {
        max_abs: difference.abs().max().double_value(&[]),
        relative_rms: rms(&difference) / rms(&x),
        n_logits: x.numel(),
        lens: a.lens_distance(&b_inside)?,
        attribution: a.attribution_distance(&b_inside)?,
        variance: stream.0,
        epsilon_error: epsilon.map_or(0.0, |epsilon| epsilon_error(stream.0, epsilon)),
    })
}

/// Two sequences, int64 `[2, pos]`; the second begins with the token that begins texts, whose stream is the
/// largest in many models.
fn tokens(model: &Gpt2) -> Tensor {
    let config = &model.config;
    let pos = config.block_size.min(256);
    // Multiples of a prime spread over the vocabulary: the same tokens every time, without touching the
    // global generator.
    let mut ids: Vec<i64> = (0..2 * pos).map(|i| (i * 7919 + 13) % config.vocab_size).collect();
    if let Some(begin) = config.eot_token_id() {
        ids[pos as usize] = begin;
    }
    Tensor::from_slice(&ids).view([2, pos]).to_device(model.device())
}

fn rms(x: &Tensor) -> f64 {
    x.square().mean(Kind::Double).sqrt().double_value(&[])
}

/// The largest variance over n_embd that the residual stream has had.
struct LargestVariance(f64);

impl Hook for LargestVariance {
    fn on(&mut self, _activation: Activation, value: Tensor) -> Tensor {
        self.0 = self.0.max(value.var_dim(-1i64, false, false).max().double_value(&[]));
        value
    }

    fn wants(&self, activation: Activation) -> bool {
        use Activation::{ResidMid, ResidPost, ResidPre};
        matches!(activation, ResidPre(_) | ResidMid(_) | ResidPost(_))
    }
}

/// The stream behind every block, and what is added to it on the way.
#[derive(Default)]
struct Streams {
    behind: Vec<Tensor>,
    added: Vec<Tensor>,
}

impl Hook for Streams {
    fn on(&mut self, activation: Activation, value: Tensor) -> Tensor {
        let kept = value.to_kind(Kind::Float).copy();
        if matches!(activation, Activation::ResidPost(_)) {
            self.behind.push(kept);
        } else {
            self.added.push(kept);
        }
        value
    }

    fn wants(&self, activation: Activation) -> bool {
        use Activation::{AttnOut, Embed, MlpOut, PosEmbed, ResidPost};
        matches!(activation, Embed | PosEmbed | AttnOut(_) | MlpOut(_) | ResidPost(_))
    }
}

/// A model and what it makes of some tokens.
struct Inside<'a> {
    model: &'a Gpt2,
    ln: &'a LnState,
    ids: &'a Tensor,
    streams: Streams,
}

impl<'a> Inside<'a> {
    fn of((model, ln): (&'a Gpt2, &'a LnState), ids: &'a Tensor) -> Result<Inside<'a>> {
        let mut streams = Streams::default();
        let _logits = model.forward(ids, ln, Compute::default(), &mut streams)?;
        Ok(Inside { model, ln, ids, streams })
    }

    /// What ln_f makes of a stream `[batch, pos, n_embd]`.
    fn normed(&self, stream: &Tensor) -> Result<Tensor> {
        let mut pass = self.model.pass(self.ids, self.ln, Compute::default())?;
        Ok(self.model.final_norm(stream, &mut pass, &mut NoHook))
    }

    /// Logits of what ln_f hands on, float64.
    fn unembedded(&self, last: &Tensor) -> Result<Tensor> {
        let pass = self.model.pass(self.ids, self.ln, Compute::default())?;
        Ok(self.model.unembed(last, &pass).to_kind(Kind::Double))
    }

    fn lens(&self, stream: &Tensor) -> Result<Tensor> {
        self.unembedded(&self.normed(stream)?)
    }

    /// What of the logits is an added part's: without ln_f's shift, which is nobody's.
    fn attribution(&self, part: &Tensor) -> Result<Tensor> {
        self.unembedded(&(self.normed(part)? - self.normed(&part.zeros_like())?))
    }

    fn lens_distance(&self, other: &Inside) -> Result<f64> {
        let mut largest = 0f64;
        for (x, y) in self.streams.behind.iter().zip(&other.streams.behind) {
            let (x, y) = (self.lens(x)?, other.lens(y)?);
            largest = larger(largest, rms(&(&x - &y)) / rms(&x));
        }
        Ok(largest)
    }

    fn attribution_distance(&self, other: &Inside) -> Result<f64> {
        let (mut difference, mut size) = (0f64, 0f64);
        for (x, y) in self.streams.added.iter().zip(&other.streams.added) {
            let (x, y) = (self.attribution(x)?, other.attribution(y)?);
            difference = larger(difference, rms(&(&x - &y)));
            size = larger(size, rms(&x));
        }
        Ok(difference / size)
    }
}

/// The larger one, NaN if one is none.
fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}
