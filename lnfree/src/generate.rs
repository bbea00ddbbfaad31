//! Sampling text from a model.

use rand::SeedableRng;
use rand::distr::{Distribution, weighted::WeightedIndex};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

use crate::hook::NoHook;
use crate::model::{Compute, Gpt2};
use crate::norm::LnState;
use crate::{Error, Result};

/// How to sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampleOptions {
    /// Tokens to add.
    pub max_new_tokens: usize,
    /// Logits are divided by it; 0 always takes the most likely token.
    pub temperature: f64,
    /// Only the k most likely tokens are drawn from; 0 draws from all.
    pub top_k: usize,
    /// The same seed gives the same text.
    pub seed: u64,
}

impl Default for SampleOptions {
    fn default() -> Self {
        SampleOptions { max_new_tokens: 100, temperature: 0.8, top_k: 40, seed: 0 }
    }
}

impl SampleOptions {
    /// Refuses what cannot be sampled with, before a model is loaded for it.
    ///
    /// # Errors
    /// A temperature that is negative or no number.
    pub fn check(&self) -> Result<()> {
        match self.temperature {
            t if t.is_finite() && t >= 0.0 => Ok(()),
            t => Err(Error::invalid(format!("temperature {t} must be 0 or a positive number"))),
        }
    }
}

/// Continues `prompt`; `on_token` is told each new token and stops the text by returning false. End-of-text stops it too.
/// Contexts longer than the model's positions lose their beginning.
///
/// # Errors
/// When the prompt is empty or has a token outside the vocabulary, or an option is not a sensible number.
pub fn generate(
    model: &Gpt2,
    ln: &LnState,
    prompt: &[u32],
    options: SampleOptions,
    mut on_token: impl FnMut(u32) -> bool,
) -> Result<Vec<u32>> {
    let _guard = tch::no_grad_guard();
    if prompt.is_empty() {
        return Err(Error::invalid("the prompt has no tokens; start from end-of-text instead"));
    }
    options.check()?;
    if let Some(id) = prompt.iter().find(|&&id| i64::from(id) >= model.config.vocab_size) {
        return Err(Error::invalid(format!(
            "token {id} is outside the vocabulary of {}",
            model.config.vocab_size
        )));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    let mut ids: Vec<i64> = prompt.iter().map(|&id| i64::from(id)).collect();
    let mut new = Vec::new();
    for _ in 0..options.max_new_tokens {
        let context = &ids[ids.len().saturating_sub(model.config.block_size as usize)..];
        let input = Tensor::from_slice(context).unsqueeze(0).to_device(model.device());
        let mut pass = model.pass(&input, ln, Compute::default())?;
        let residual = model.residual(&input, &mut pass, &mut NoHook);
        let last = model.final_norm(&residual, &mut pass, &mut NoHook).get(0).get(-1);
        let id = sample(&model.unembed(&last, &pass), options, &mut rng)?;
        if model.config.eot_token_id() == Some(id) {
            break;
        }
        ids.push(id);
        new.push(id as u32);
        if !on_token(id as u32) {
            break;
        }
    }
    Ok(new)
}

/// Draws one token from `logits` `[vocab_size]`.
fn sample(logits: &Tensor, options: SampleOptions, rng: &mut ChaCha8Rng) -> Result<i64> {
    let n = logits.size()[0];
    let k = if options.temperature == 0.0 { 1 } else { (options.top_k as i64).clamp(0, n) };
    let (top, indices) = logits.to_kind(Kind::Double).topk(if k == 0 { n } else { k }, -1, true, true);
    let indices = Vec::<i64>::try_from(indices.to_device(tch::Device::Cpu))?;
    if options.temperature == 0.0 {
        return Ok(indices[0]);
    }
    let weights = Vec::<f64>::try_from((top / options.temperature).softmax(-1, Kind::Double))?;
    let choice = WeightedIndex::new(&weights)
        .map_err(|_| Error::invalid("the model's probabilities are not numbers; are its weights finite?"))?;
    Ok(indices[choice.sample(rng)])
}
