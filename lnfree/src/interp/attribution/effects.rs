//! Direct logit attribution of heads held against what taking them away does.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

use super::positions::Positions;
use super::sources::dot;
use crate::eval::quantile;
use crate::interp::cache::ActivationCache;
use crate::model::hook::Activation;
use crate::model::ln_state::LnState;
use crate::model::{Compute, Gpt2};
use crate::{Error, Result};

/// Resamples of an interval.
const RESAMPLES: usize = 2000;
/// The same data gives the same interval.
const SEED: u64 = 2357;
/// Added to the mean effect that is divided by, as in the paper's code.
const TINY: f64 = 1e-10;
/// Numbers that the activations of the sequences of one forward may be, 128 MiB.
const AT_A_TIME: i64 = 1 << 25;

/// Of which token the logit is attributed, in each sequence at the last position that a model reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EffectTarget {
    /// The last token that the model reads, as the paper's code has it.
    LastInput,
    /// The token that comes after what the model reads: it is given all tokens but the last.
    Next,
}

/// What every head adds to the logit of a token by direct logit attribution, and by taking it out of the
/// residual stream before ln_f, for each of n sequences: the normalised mean absolute error (NMAE) of the
/// paper (arXiv 2507.02559), with its code's definitions.
///
/// The logit is that less the mean over the vocabulary. A head's output is z_h W_O_h without what the values'
/// bias (with ln_1's bias in it) adds to it, which is the same at every position: TransformerLens' processing
/// moves it into the bias of the output projection.
#[derive(Debug)]
pub struct DirectEffects {
    /// Direct logit attribution with ln_f at the scale of the run, float64 `[n_layer · n_head, n]` on the
    /// CPU, layer after layer.
    pub dla: Tensor,
    /// logit(r) − logit(r − head) with ln_f computed anew, likewise.
    pub direct: Tensor,
    /// 100 · mean |dla − direct| / mean |direct| over sequences, percent, of each head.
    pub per_head_nmae: Vec<f64>,
    /// The same with means over heads and sequences, percent: what the paper's code prints.
    pub global_nmae: f64,
}

impl DirectEffects {
    /// Of a model on `ids`, int64 `[n, pos]`, without padding; a few sequences at a time. Nothing is put
    /// before the ids.
    ///
    /// # Errors
    /// If the model cannot take the ids, there are none, or the target is next and they are single tokens.
    pub fn of(model: &Gpt2, ln: &LnState, ids: &Tensor, target: EffectTarget) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let size = ids.size();
        // Says what is wrong with the shape.
        let _pass = model.pass(ids, ln, Compute::default())?;
        let needed = if target == EffectTarget::Next { 2 } else { 1 };
        let (n, pos) = (size[0], size[1]);
        if n == 0 || pos < needed || model.h.is_empty() {
            return Err(Error::invalid(format!(
                "direct effects need a block and sequences of {needed} tokens or more, not {size:?}"
            )));
        }
        let ids = ids.f_to_device(model.device())?;
        let tokens = ids.f_select(1, pos - 1)?;
        let read = ids.f_narrow(1, 0, if target == EffectTarget::Next { pos - 1 } else { pos })?;
        let mean = model.unembedding().f_mean_dim(0i64, false, Kind::Double)?;
        let biases = (0..model.h.len()).map(|layer| value_bias(model, ln, layer));
        let biases = biases.collect::<Result<Vec<_>>>()?;
        let per_sequence = pos * model.config.n_embd * model.config.n_layer.max(1);
        let each = (AT_A_TIME / per_sequence.max(1)).max(1);
        let (mut dla, mut direct) = (Vec::new(), Vec::new());
        for start in (0..n).step_by(each as usize) {
            let some = |x: &Tensor| x.f_narrow(0, start, each.min(n - start));
            let cache = ActivationCache::new(model, ln, &some(&read)?, |at| matches!(at, Activation::Z(_)))?;
            let [attributed, effects] = cache.effects(&some(&tokens)?, &mean, &biases)?;
            dla.push(attributed);
            direct.push(effects);
        }
        DirectEffects::new(Tensor::f_cat(&dla, 1)?, Tensor::f_cat(&direct, 1)?)
    }

    /// From both, `[head, n]`.
    fn new(dla: Tensor, direct: Tensor) -> Result<Self> {
        let [dla, direct] = [dla.f_to_device(Device::Cpu)?, direct.f_to_device(Device::Cpu)?];
        let (apart, size) = (dla.f_sub(&direct)?.f_abs()?, direct.f_abs()?);
        let means =
            |x: &Tensor| -> Result<Vec<f64>> { Ok(Vec::try_from(x.f_mean_dim(1i64, false, Kind::Double)?)?) };
        let (apart, size) = (means(&apart)?, means(&size)?);
        let per_head_nmae = apart.iter().zip(&size).map(|(apart, size)| nmae(*apart, *size)).collect();
        let heads = apart.len() as f64;
        let global_nmae = nmae(apart.iter().sum::<f64>() / heads, size.iter().sum::<f64>() / heads);
        Ok(Self { dla, direct, per_head_nmae, global_nmae })
    }

    /// The mean of the heads' NMAE, percent: what the paper reports.
    pub fn mean_nmae(&self) -> f64 {
        self.per_head_nmae.iter().sum::<f64>() / self.per_head_nmae.len() as f64
    }

    /// 95% bootstrap interval (percentiles) of [`mean_nmae`](Self::mean_nmae), heads and sequences both
    /// resampled with replacement.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn mean_nmae_interval(&self) -> Result<[f64; 2]> {
        self.interval(|pairs| pairs.iter().map(|pair| nmae(pair.0, pair.1)).sum::<f64>() / pairs.len() as f64)
    }

    /// 95% bootstrap interval of `global_nmae`, likewise.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn global_nmae_interval(&self) -> Result<[f64; 2]> {
        self.interval(|pairs| {
            let sum = pairs.iter().fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
            nmae(sum.0 / pairs.len() as f64, sum.1 / pairs.len() as f64)
        })
    }

    /// Of a statistic of the means of |dla − direct| and |direct| of every head.
    fn interval(&self, statistic: impl Fn(&[(f64, f64)]) -> f64) -> Result<[f64; 2]> {
        let (apart, size) = (self.dla.f_sub(&self.direct)?.f_abs()?, self.direct.f_abs()?);
        let (heads, n) = apart.size2()?;
        let (heads, n) = (heads as usize, n as usize);
        let mut random = ChaCha8Rng::seed_from_u64(SEED);
        let mut found = Vec::with_capacity(RESAMPLES);
        for _ in 0..RESAMPLES {
            let mut weights = vec![0.0f64; n];
            for _ in 0..n {
                weights[random.random_range(0..n)] += 1.0 / n as f64;
            }
            let weights = Tensor::f_from_slice(&weights)?;
            let apart = Vec::<f64>::try_from(apart.f_matmul(&weights)?)?;
            let size = Vec::<f64>::try_from(size.f_matmul(&weights)?)?;
            let pairs = (0..heads).map(|_| {
                let head = random.random_range(0..heads);
                (apart[head], size[head])
            });
            found.push(statistic(&pairs.collect::<Vec<_>>()) as f32);
        }
        found.sort_by(f32::total_cmp);
        Ok([quantile(&found, 0.025), quantile(&found, 0.975)])
    }
}

impl ActivationCache<'_> {
    /// Attribution and direct effect of every head at the last position, float64 `[n_layer · n_head, batch]`
    /// each. `tokens` `[batch]`; `mean`: the unembedding's over the vocabulary; `biases`: of the values of
    /// each block.
    fn effects(&self, tokens: &Tensor, mean: &Tensor, biases: &[Tensor]) -> Result<[Tensor; 2]> {
        let last = Positions::Last;
        let read = self.unembedding_of(&self.tokens(tokens, last)?)?.f_sub(mean)?;
        let direction = self.reading(&read, last, false)?.direction;
        let stream = last.of(&self.residual)?.f_unsqueeze(0)?;
        let logit = self.read_anew(&stream, &read, last)?;
        let (mut dla, mut direct) = (Vec::new(), Vec::new());
        for (layer, bias) in biases.iter().enumerate() {
            let heads = self.heads(layer, last, Some(bias))?;
            dla.push(dot(&heads, &direction)?.f_squeeze_dim(-1)?);
            let without = self.read_anew(&stream.f_sub(&heads)?, &read, last)?;
            direct.push(logit.f_sub(&without)?.f_squeeze_dim(-1)?);
        }
        Ok([Tensor::f_cat(&dla, 0)?, Tensor::f_cat(&direct, 0)?])
    }
}

/// What is in every value of a block whatever it reads, so in z too, since attention sums to 1: float32
/// `[head, d_head]`. With ln_1's bias, where the values have one to read.
fn value_bias(model: &Gpt2, ln: &LnState, layer: usize) -> Result<Tensor> {
    let block = &model.h[layer];
    let (n, head) = (model.config.n_embd, model.config.n_head);
    let map = &block.attn.c_attn;
    let mut bias = map.bias.f_narrow(0, 2 * n, n)?.f_to_kind(Kind::Double)?;
    if let Some(ln_1) = &block.ln_1 {
        let folded = if ln.faces_agree(layer, false) { ln_1.folded.main } else { ln_1.folded.v };
        if !folded {
            let weight = map.weight.f_narrow(1, 2 * n, n)?.f_to_kind(Kind::Double)?;
            bias = bias.f_add(&weight.f_tr()?.f_matmul(&ln_1.bias.f_to_kind(Kind::Double)?)?)?;
        }
    }
    Ok(bias.f_reshape([head, -1])?.f_to_kind(Kind::Float)?)
}

/// Percent.
fn nmae(apart: f64, size: f64) -> f64 {
    100.0 * apart / (size + TINY)
}
