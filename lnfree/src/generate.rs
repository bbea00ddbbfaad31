//! Sampling text from a model.

use rand::SeedableRng;
use rand::distr::{Distribution, weighted::WeightedIndex};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

use crate::config::FloatType;
use crate::device::has_cpu_kernels;
use crate::model::{Gpt2, KvCache};
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
/// A [`Generator`] in float32 for one text.
///
/// # Errors
/// When the prompt is empty or has a token outside the vocabulary, or an option is not a sensible number.
pub fn generate(
    model: &Gpt2,
    ln: &LnState,
    prompt: &[u32],
    options: SampleOptions,
    on_token: impl FnMut(u32) -> bool,
) -> Result<Vec<u32>> {
    Generator::new(model, ln, FloatType::Float32)?.generate(prompt, options, on_token)
}

/// A model made ready to write texts; see [`Gpt2::for_inference`] for what that is.
///
/// Keys and values of earlier tokens are kept ([`KvCache`]), so that each new token costs one position. Contexts longer than the
/// model's positions lose their beginning; every token then has another position than before, nothing that was kept holds any
/// more, and the whole context is computed for each further token.
///
/// ```
/// use lnfree::prelude::*;
///
/// # fn main() -> Result<()> {
/// let dir = locate_model("nano")?;
/// let nano = LoadedModel::load(&dir, None, Kind::Float, Device::Cpu)?;
/// let prompt = Tokenizer::from_dir(&dir)?.encode("Fellow citizens")?;
/// let generator = Generator::new(&nano.model, &nano.ln, FloatType::Float32)?;
/// let options = SampleOptions { max_new_tokens: 10, ..SampleOptions::default() };
/// let texts = generator.generate_many(&[&prompt, &prompt], options, |_, _| true)?;
/// assert_eq!(texts[0], generator.generate(&prompt, options, |_| true)?);
/// # Ok(())
/// # }
/// ```
pub struct Generator<'a> {
    model: Gpt2,
    ln: &'a LnState,
    kind: Kind,
}

impl<'a> Generator<'a> {
    /// Prepares `model` for matrix products in `dtype`.
    ///
    /// # Errors
    /// A type that the device cannot do.
    pub fn new(model: &Gpt2, ln: &'a LnState, dtype: FloatType) -> Result<Generator<'a>> {
        let _guard = tch::no_grad_guard();
        dtype.prepare(model.device())?;
        let mut model = model.for_inference(ln, dtype.kind())?;
        if has_cpu_kernels(model.device()) && dtype.kind() == Kind::Float {
            // A single float32 row times [n_embd, vocab_size] takes two thirds of the time that it takes times [vocab_size, n_embd].
            let head = model.unembedding().transpose(0, 1).contiguous().transpose(0, 1);
            model.lm_head = Some(head);
        }
        Ok(Generator { model, ln, kind: dtype.kind() })
    }

    /// As [`generate`].
    ///
    /// # Errors
    /// As [`generate`].
    pub fn generate(
        &self,
        prompt: &[u32],
        options: SampleOptions,
        mut on_token: impl FnMut(u32) -> bool,
    ) -> Result<Vec<u32>> {
        Ok(self.generate_many(&[prompt], options, |_, id| on_token(id))?.remove(0))
    }

    /// Continues many prompts, those of equal length together: faster than one after the other. Text i is what
    /// [`Generator::generate`] makes of prompt i with the seed `options.seed + i`; `on_token` is told i and the token.
    ///
    /// # Errors
    /// As [`generate`].
    pub fn generate_many(
        &self,
        prompts: &[&[u32]],
        options: SampleOptions,
        mut on_token: impl FnMut(usize, u32) -> bool,
    ) -> Result<Vec<Vec<u32>>> {
        options.check()?;
        let mut texts = Vec::with_capacity(prompts.len());
        for (i, prompt) in prompts.iter().enumerate() {
            texts.push(Text::new(i, prompt, &self.model, options)?);
        }
        // Stable: the texts of one length keep their order.
        texts.sort_by_key(|text| text.n_prompt);
        for group in texts.chunk_by_mut(|a, b| a.n_prompt == b.n_prompt) {
            self.continue_all(group, options, &mut on_token)?;
        }
        texts.sort_by_key(|text| text.i);
        Ok(texts.iter().map(Text::new_ids).collect())
    }

    /// Continues texts of one length until all have ended.
    fn continue_all(
        &self,
        texts: &mut [Text],
        options: SampleOptions,
        on_token: &mut dyn FnMut(usize, u32) -> bool,
    ) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let longest = texts[0].n_prompt + options.max_new_tokens;
        let mut cache = KvCache::new(&self.model, texts.len() as i64, longest as i64, self.kind);
        for _ in 0..options.max_new_tokens {
            let unseen = match cache.is_empty() || cache.is_full() {
                true => texts[0].ids.len().min(self.model.config.block_size as usize),
                false => 1,
            };
            if cache.is_full() {
                cache.clear();
            }
            let ids: Vec<i64> = texts.iter().flat_map(|text| text.last(unseen)).copied().collect();
            let ids = Tensor::from_slice(&ids).view([texts.len() as i64, -1]).to_device(self.model.device());
            let candidates = Candidates::of(&self.model.decode(&ids, self.ln, &mut cache)?, options)?;
            for (row, text) in texts.iter_mut().enumerate() {
                let id = candidates.sample(row, &mut text.rng)?;
                text.add(id, self.model.config.eot_token_id(), on_token);
            }
            if texts.iter().all(|text| text.ended) {
                break;
            }
        }
        Ok(())
    }
}

/// A text in the making.
struct Text {
    i: usize,
    n_prompt: usize,
    ids: Vec<i64>,
    rng: ChaCha8Rng,
    /// Where the text ends; a batch computes on beyond that for the sake of the others.
    end: usize,
    ended: bool,
}

impl Text {
    fn new(i: usize, prompt: &[u32], model: &Gpt2, options: SampleOptions) -> Result<Text> {
        if prompt.is_empty() {
            return Err(Error::invalid("the prompt has no tokens; start from end-of-text instead"));
        }
        let vocab_size = model.config.vocab_size;
        if let Some(id) = prompt.iter().find(|&&id| i64::from(id) >= vocab_size) {
            return Err(Error::invalid(format!("token {id} is outside the vocabulary of {vocab_size}")));
        }
        Ok(Text {
            i,
            n_prompt: prompt.len(),
            ids: prompt.iter().map(|&id| i64::from(id)).collect(),
            rng: ChaCha8Rng::seed_from_u64(options.seed.wrapping_add(i as u64)),
            end: prompt.len(),
            ended: false,
        })
    }

    fn last(&self, n: usize) -> &[i64] {
        &self.ids[self.ids.len() - n..]
    }

    fn add(&mut self, id: i64, eot: Option<i64>, on_token: &mut dyn FnMut(usize, u32) -> bool) {
        self.ids.push(id);
        if self.ended {
            return;
        }
        self.ended = eot == Some(id);
        if !self.ended {
            self.end = self.ids.len();
            self.ended = !on_token(self.i, id as u32);
        }
    }

    fn new_ids(&self) -> Vec<u32> {
        self.ids[self.n_prompt..self.end].iter().map(|&id| id as u32).collect()
    }
}

/// The tokens that may come next, most likely first, on the host.
struct Candidates {
    /// How many there are for each text.
    k: usize,
    ids: Vec<i64>,
    /// Their probabilities; none where the first is always taken.
    weights: Vec<f64>,
}

impl Candidates {
    /// Of logits `[batch, vocab_size]`.
    fn of(logits: &Tensor, options: SampleOptions) -> Result<Candidates> {
        let n = logits.size()[1];
        let k = match (options.temperature == 0.0, options.top_k) {
            (true, _) => 1,
            (_, 0) => n,
            (_, k) => i64::try_from(k).map_or(n, |k| k.min(n)),
        };
        let (top, ids) = logits.to_kind(Kind::Double).topk(k, -1, true, true);
        let weights = match options.temperature == 0.0 {
            true => Vec::new(),
            false => Vec::try_from((top / options.temperature).softmax(-1, Kind::Double).view(-1))?,
        };
        Ok(Candidates { k: k as usize, ids: Vec::try_from(ids.to_device(Device::Cpu).view(-1))?, weights })
    }

    /// Draws one for text `row`.
    fn sample(&self, row: usize, rng: &mut ChaCha8Rng) -> Result<i64> {
        let of_row = row * self.k..(row + 1) * self.k;
        let ids = &self.ids[of_row.clone()];
        let Some(weights) = self.weights.get(of_row) else { return Ok(ids[0]) };
        let choice = WeightedIndex::new(weights).map_err(|_| {
            Error::invalid("the model's probabilities are not numbers; are its weights finite?")
        })?;
        Ok(ids[choice.sample(rng)])
    }
}
