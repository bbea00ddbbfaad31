//! How to sample, by choice or as a model's authors say.

use crate::model::GenerationConfig;
use crate::{Error, Result};

/// How to sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampleOptions {
    /// Tokens to add.
    pub max_new_tokens: usize,
    /// Tokens to add before one that ends the text may be drawn.
    pub min_new_tokens: usize,
    /// Logits are divided by it; 0 always takes the most likely token.
    pub temperature: f64,
    /// Only the k most likely tokens are drawn from; 0 draws from all.
    pub top_k: usize,
    /// Only the most likely tokens that together have this probability are drawn from; 1 draws from all.
    pub top_p: f64,
    /// Positive logits of tokens that prompt and text already have are divided by it, negative ones
    /// multiplied; 1 changes nothing (Keskar et al. 2019, arXiv 1909.05858).
    pub repetition_penalty: f64,
    /// The same seed gives the same text.
    pub seed: u64,
}

impl Default for SampleOptions {
    fn default() -> Self {
        SampleOptions {
            max_new_tokens: 100,
            min_new_tokens: 0,
            temperature: 0.8,
            top_k: 40,
            top_p: 1.0,
            repetition_penalty: 1.0,
            seed: 0,
        }
    }
}

impl SampleOptions {
    /// What a model's `generation_config.json` says, for a prompt of `n_prompt` tokens, and the defaults
    /// where it says nothing. Where it says that is to be sampled, that are transformers' defaults:
    /// temperature 1 and top_k 50.
    pub fn of(config: &GenerationConfig, n_prompt: usize) -> SampleOptions {
        let default = SampleOptions::default();
        let (temperature, top_k) = match config.do_sample {
            Some(true) => (1.0, 50),
            _ => (default.temperature, default.top_k),
        };
        let beyond = |length: usize| length.saturating_sub(n_prompt);
        SampleOptions {
            // A prompt that is too long already still gets a token, as in transformers.
            max_new_tokens: config
                .max_new_tokens
                .or(config.max_length.map(|length| beyond(length).max(1)))
                .unwrap_or(default.max_new_tokens),
            min_new_tokens: config.min_new_tokens.unwrap_or(0).max(config.min_length.map_or(0, beyond)),
            temperature: match config.do_sample {
                Some(false) => 0.0,
                _ => config.temperature.unwrap_or(temperature),
            },
            top_k: config.top_k.unwrap_or(top_k),
            top_p: config.top_p.unwrap_or(default.top_p),
            repetition_penalty: config.repetition_penalty.unwrap_or(default.repetition_penalty),
            seed: default.seed,
        }
    }

    /// Refuses what cannot be sampled with, before a model is loaded for it.
    ///
    /// # Errors
    /// A temperature that is negative or no number, a `top_p` outside 0 to 1, a penalty that is not positive.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: &str, value: f64, wanted: &str| {
            Err(Error::invalid(format!("{what} {value} must be {wanted}")))
        };
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return wrong("temperature", self.temperature, "0 or a positive number");
        }
        if !(0.0..=1.0).contains(&self.top_p) {
            return wrong("top_p", self.top_p, "a number from 0 to 1");
        }
        if !(self.repetition_penalty.is_finite() && self.repetition_penalty > 0.0) {
            return wrong("repetition_penalty", self.repetition_penalty, "a positive number");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_the_whole_text_leave_the_prompt_out() {
        let config = GenerationConfig { max_length: Some(50), min_length: Some(12), ..Default::default() };
        let options = SampleOptions::of(&config, 10);
        assert_eq!((options.max_new_tokens, options.min_new_tokens), (40, 2));
        assert_eq!(SampleOptions::of(&config, 70).max_new_tokens, 1);
        let config = GenerationConfig { max_new_tokens: Some(7), ..config };
        assert_eq!(SampleOptions::of(&config, 10).max_new_tokens, 7);
    }

    #[test]
    fn what_the_file_does_not_say_is_a_default() {
        assert_eq!(SampleOptions::of(&GenerationConfig::default(), 3), SampleOptions::default());
        let sampled = GenerationConfig { do_sample: Some(true), top_p: Some(0.9), ..Default::default() };
        let options = SampleOptions::of(&sampled, 3);
        assert_eq!((options.temperature, options.top_k, options.top_p), (1.0, 50, 0.9));
        let likely =
            GenerationConfig { do_sample: Some(false), temperature: Some(0.7), ..Default::default() };
        assert_eq!(SampleOptions::of(&likely, 3).temperature, 0.0);
    }

    #[test]
    fn what_cannot_be_sampled_with_is_refused() {
        let good = SampleOptions::default();
        good.check().unwrap();
        for bad in [
            SampleOptions { temperature: f64::NAN, ..good },
            SampleOptions { temperature: -1.0, ..good },
            SampleOptions { top_p: 1.5, ..good },
            SampleOptions { top_p: f64::NAN, ..good },
            SampleOptions { repetition_penalty: 0.0, ..good },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
