//! How large the residual stream is, at the first position and at the others.

use tch::{Kind, Tensor, no_grad};

use crate::config::norm::LnSite;
use crate::model::hook::{Activation, Capture};
use crate::model::ln_state::LnState;
use crate::model::{Compute, Gpt2};
use crate::{Error, Result};

/// L2 norms of the centred residual stream along a forward, as the paper's code takes them: from the token
/// and the position embedding, over the stream before and after every MLP, to what is unembedded.
///
/// Every vector has its mean over n_embd taken out first, which is all that a reader behind an LN sees, and
/// what TransformerLens' `center_writing_weights` does. The last one is what ln_f makes of the stream before
/// γ and β; without LN, or where ln_f is fake, it is the stream as it is. (The last MLP of a folded model
/// adds ln_f's β to the stream: its last two norms are of something else than those of the checkpoint.)
#[derive(Debug, Clone, PartialEq)]
pub struct ResidualNorms {
    /// In the order of a forward.
    pub norms: Vec<NormAt>,
    /// Between neighbours of `norms`.
    pub growth: Vec<Growth>,
}

/// Norms at one place of the forward.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormAt {
    /// Where.
    pub at: Activation,
    /// At position 0, over sequences.
    pub first: Spread,
    /// At all later positions.
    pub others: Spread,
}

/// Mean and standard deviation (unbiased; NaN of a single value).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub std: f64,
}

/// From one place of the forward to the next, at the same position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Growth {
    /// The earlier place.
    pub from: Activation,
    /// The later place.
    pub to: Activation,
    /// Mean of later norm over earlier norm at position 0.
    pub first: f64,
    /// The same at all later positions.
    pub others: f64,
    /// Mean cosine of the two vectors at position 0.
    pub cosine_first: f64,
    /// The same at all later positions.
    pub cosine_others: f64,
}

impl ResidualNorms {
    /// Of a model on `ids`, int64 `[batch, pos]`, two positions or more, without padding. Keeps
    /// `4 · n_layer + 5` tensors of `[batch, pos, n_embd]` float32, and makes no logits.
    ///
    /// # Errors
    /// If the model cannot take the ids, or they are single tokens.
    pub fn of(model: &Gpt2, ln: &LnState, ids: &Tensor) -> Result<Self> {
        if ids.size().get(1).is_some_and(|&pos| pos < 2) {
            return Err(Error::invalid("norms at later positions need sequences of two tokens or more"));
        }
        let ids = ids.to_device(model.device());
        let places: Vec<Activation> = places(model.h.len()).collect();
        let mut cache = Capture::of(places.iter().copied())?;
        let mut pass = model.pass(&ids, ln, Compute::default())?;
        let _kept_in_cache = no_grad(|| model.residual(&ids, &mut pass, &mut cache));
        pass.check()?;
        let streams = places.iter().map(|&at| Ok((at, centred(cache.get(at)?))));
        let mut streams = streams.collect::<Result<Vec<_>>>()?;
        if let Some((_, last)) = streams.last() {
            let normalised = match &model.ln_f {
                Some(ln_f) if !ln.mode(LnSite::LnF).is_fake() => {
                    last / (last.square().mean_dim(-1i64, true, Kind::Float) + ln_f.eps).sqrt()
                }
                _ => last.shallow_clone(),
            };
            streams.push((Activation::Normalized(LnSite::LnF), normalised));
        }
        let norms = streams.iter().map(|(at, x)| {
            let [first, others] = positions(&norm(x)).map(|x| Spread::of(&x));
            NormAt { at: *at, first, others }
        });
        let later = streams.iter().skip(1);
        let growth = streams.iter().zip(later).map(|((from, x), (to, y))| growth((*from, x), (*to, y)));
        Ok(Self { norms: norms.collect(), growth: growth.collect() })
    }
}

/// Where the stream is looked at before ln_f.
fn places(n_layer: usize) -> impl Iterator<Item = Activation> {
    let blocks = (0..n_layer).flat_map(|layer| [Activation::ResidMid(layer), Activation::ResidPost(layer)]);
    [Activation::Embed, Activation::PosEmbed].into_iter().chain(blocks)
}

/// Without its mean over n_embd, float32.
fn centred(x: &Tensor) -> Tensor {
    let x = x.to_kind(Kind::Float);
    &x - x.mean_dim(-1i64, true, Kind::Float)
}

/// L2 norms of `[batch, pos, n_embd]`, `[batch, pos]`.
fn norm(x: &Tensor) -> Tensor {
    x.square().sum_dim_intlist(-1i64, false, Kind::Double).sqrt()
}

/// What `[batch, pos]` has at position 0, and at all later ones.
fn positions(x: &Tensor) -> [Tensor; 2] {
    [x.narrow(1, 0, 1), x.narrow(1, 1, x.size()[1] - 1)]
}

impl Spread {
    fn of(x: &Tensor) -> Spread {
        let std = if x.numel() > 1 { x.std(true).double_value(&[]) } else { f64::NAN };
        Spread { mean: x.mean(Kind::Double).double_value(&[]), std }
    }
}

fn growth((from, x): (Activation, &Tensor), (to, y): (Activation, &Tensor)) -> Growth {
    let (norm_x, norm_y) = (norm(x), norm(y));
    let product = (x * y).sum_dim_intlist(-1i64, false, Kind::Double);
    let mean = |x: Tensor| x.mean(Kind::Double).double_value(&[]);
    let [first, others] = positions(&(&norm_y / &norm_x)).map(mean);
    let [cosine_first, cosine_others] = positions(&(product / (norm_x * norm_y))).map(mean);
    Growth { from, to, first, others, cosine_first, cosine_others }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::config::Gpt2Config;

    #[test]
    fn norms_are_those_of_the_formula() {
        let model = Gpt2::init(Gpt2Config::new(2, 2, 16, 12, 50).unwrap(), 0, Device::Cpu).unwrap();
        let ln = LnState::plain(2, Device::Cpu);
        let ids = Tensor::from_slice(&[3i64, 4, 9, 3, 1, 2]).view([2, 3]);
        let found = ResidualNorms::of(&model, &ln, &ids).unwrap();
        assert_eq!((found.norms.len(), found.growth.len()), (7, 6));
        // sqrt(Σ (x − mean)²) of the embedding of token 3, which stands first in both.
        let row = Vec::<f64>::try_from(model.wte.get(3).to_kind(Kind::Double)).unwrap();
        let mean = row.iter().sum::<f64>() / 16.0;
        let expected = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>().sqrt();
        assert!((found.norms[0].first.mean - expected).abs() < 1e-6);
        assert!(found.norms[0].first.std < 1e-9);
        // A real ln_f leaves √n_embd, but for ε.
        assert!(found.norms[6].first.mean < 4.0 && found.norms[6].others.mean > 3.5);
        assert!((found.growth[5].cosine_others - 1.0).abs() < 1e-6);
        let alone = ResidualNorms::of(&model, &ln, &ids.narrow(0, 0, 1)).unwrap();
        assert!(alone.norms[0].first.std.is_nan() && alone.norms[0].first.mean.is_finite());
        assert!(ResidualNorms::of(&model, &ln, &ids.narrow(1, 0, 1)).is_err());
    }
}
