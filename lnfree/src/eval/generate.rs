//! Sampling text from a model.

mod candidates;
mod options;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

use self::candidates::Candidates;
pub use self::options::SampleOptions;
use crate::base::device::{has_cpu_kernels, share_cores};
use crate::config::FloatType;
use crate::data::Tokenizer;
use crate::model::ln_state::LnState;
use crate::model::{Gpt2, KvCache, LoadedModel};
use crate::{Error, Result};

/// Continues `prompt`; `on_token` is told each new token and stops the text by returning false. Every end
/// token of the model's config stops it too. A [`Generator`] in float32 for one text.
///
/// # Errors
/// When the prompt is empty or has a token outside the vocabulary, an option is not a sensible number, or the
/// model's logits are not finite.
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
/// Keys and values of earlier tokens are kept ([`KvCache`]), so that each new token costs one position.
/// Contexts longer than the model's positions lose their beginning; every token then has another position
/// than before, nothing that was kept holds any more, and the whole context is computed for each further
/// token.
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
    /// Each of them ends a text.
    end_tokens: Vec<i64>,
    /// Tokens that are never drawn, bool `[vocab_size]`.
    barred: Option<Tensor>,
}

impl<'a> Generator<'a> {
    /// Prepares `model` for matrix products in `dtype`.
    ///
    /// # Errors
    /// A type that the device cannot do.
    pub fn new(model: &Gpt2, ln: &'a LnState, dtype: FloatType) -> Result<Generator<'a>> {
        let _guard = tch::no_grad_guard();
        dtype.prepare(model.device())?;
        let dtype = dtype.in_effect(model.device());
        let mut model = model.for_inference(ln, dtype.kind())?;
        if has_cpu_kernels(model.device()) && dtype.kind() == Kind::Float {
            // A single float32 row times [n_embd, vocab_size] takes two thirds of the time that it takes
            // times [vocab_size, n_embd].
            let head = model.unembedding().transpose(0, 1).contiguous().transpose(0, 1);
            model.lm_head = Some(head);
        }
        let end_tokens = model.config.eos_token_ids.clone();
        Ok(Generator { model, ln, kind: dtype.kind(), end_tokens, barred: None })
    }

    /// [`Generator::new`] of a loaded model, whose texts end where its `generation_config.json` says.
    ///
    /// # Errors
    /// As [`Generator::new`], and when that file cannot be read.
    pub fn of(loaded: &'a LoadedModel, dtype: FloatType) -> Result<Generator<'a>> {
        let end_tokens = loaded.generation_config()?.eos_token_ids;
        Ok(Generator::new(&loaded.model, &loaded.ln, dtype)?.ending_at(&end_tokens))
    }

    /// Each of these tokens, and no other, ends a text.
    pub fn ending_at(mut self, end_tokens: &[i64]) -> Generator<'a> {
        self.end_tokens = end_tokens.to_vec();
        self
    }

    /// Draws no token that `tokenizer` does not have. Vocabularies are often padded to a number that is fast
    /// to compute with.
    pub fn tokens_of(mut self, tokenizer: &Tokenizer) -> Generator<'a> {
        let barred: Vec<bool> = (0..self.model.config.vocab_size)
            .map(|id| !u32::try_from(id).is_ok_and(|id| tokenizer.has_id(id)))
            .collect();
        let any = barred.contains(&true);
        self.barred = any.then(|| Tensor::from_slice(&barred).to_device(self.model.device()));
        self
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

    /// Continues many prompts, those of equal length together: faster than one after the other. Text i is
    /// what [`Generator::generate`] makes of prompt i with the seed `options.seed + i`; `on_token` is told i
    /// and the token.
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
        let _sharing = share_cores(self.model.device());
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
            let logits = self.model.decode(&ids, self.ln, &mut cache)?;
            let candidates = Candidates::of(&self.adjusted(&logits, texts, options)?, options)?;
            for (row, text) in texts.iter_mut().enumerate() {
                let id = candidates.sample(row, &mut text.rng)?;
                text.add(id, &self.end_tokens, on_token);
            }
            if texts.iter().all(|text| text.ended) {
                break;
            }
        }
        Ok(())
    }

    /// Finite logits `[batch, vocab_size]` as float64, as the options and the tokenizer want them before one
    /// is drawn.
    fn adjusted(&self, logits: &Tensor, texts: &[Text], options: SampleOptions) -> Result<Tensor> {
        let mut logits = candidates::finite(logits)?;
        if options.repetition_penalty != 1.0 {
            let ids: Vec<&[i64]> = texts.iter().map(|text| text.ids.as_slice()).collect();
            logits = candidates::penalised(&logits, &ids, options.repetition_penalty)?;
        }
        let n_new = texts.first().map_or(0, |text| text.ids.len() - text.n_prompt);
        if n_new < options.min_new_tokens {
            for &id in self.end_tokens.iter().filter(|id| (0..logits.size()[1]).contains(id)) {
                let _ = logits.f_narrow(1, id, 1)?.f_fill_(f64::NEG_INFINITY)?;
            }
        }
        match &self.barred {
            Some(barred) => Ok(logits.f_masked_fill(barred, f64::NEG_INFINITY)?),
            None => Ok(logits),
        }
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

    fn add(&mut self, id: i64, end_tokens: &[i64], on_token: &mut dyn FnMut(usize, u32) -> bool) {
        self.ids.push(id);
        if self.ended {
            return;
        }
        self.ended = end_tokens.contains(&id);
        if !self.ended {
            self.end = self.ids.len();
            self.ended = !on_token(self.i, id as u32);
        }
    }

    fn new_ids(&self) -> Vec<u32> {
        self.ids[self.n_prompt..self.end].iter().map(|&id| id as u32).collect()
    }
}
