//! How large a GPT-2 is, and how much work its forward is.

use super::Gpt2Config;

/// The sizes that parameters and work follow from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Blocks.
    pub n_layer: u64,
    /// Width of the residual stream.
    pub n_embd: u64,
    /// Positions.
    pub block_size: u64,
    /// Tokens in the vocabulary.
    pub vocab_size: u64,
    /// Whether the unembedding is a matrix of its own.
    pub untied: bool,
    /// Whether there are LNs among the weights; a folded model has none.
    pub norms: bool,
}

impl Shape {
    /// A GPT-2 as released: 1024 positions, 50257 tokens, tied.
    pub const fn gpt2(n_layer: u64, n_embd: u64) -> Shape {
        Shape { n_layer, n_embd, block_size: 1024, vocab_size: 50_257, untied: false, norms: true }
    }

    /// Blocks, heads and width of a released size, by its name on the hub, with or without its owner.
    pub fn published(name: &str) -> Option<(i64, i64, i64)> {
        match name.strip_prefix("openai-community/").unwrap_or(name) {
            "gpt2" | "gpt2-small" => Some((12, 12, 768)),
            "gpt2-medium" => Some((24, 16, 1024)),
            "gpt2-large" => Some((36, 20, 1280)),
            "gpt2-xl" => Some((48, 25, 1600)),
            _ => None,
        }
    }

    /// The released size that has the shape and the vocabulary of a `config.json`: what a library that knows
    /// models by their names is to be told.
    pub fn released(config: &Gpt2Config) -> Option<&'static str> {
        let shape = (config.n_layer, config.n_head, config.n_embd);
        let mut names = ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"].into_iter();
        names.find(|name| Shape::published(name) == Some(shape) && config.vocab_size == 50_257)
    }

    /// The shape that a `config.json` describes.
    pub fn of(config: &Gpt2Config) -> Shape {
        let size = |n: i64| n.unsigned_abs();
        Shape {
            n_layer: size(config.n_layer),
            n_embd: size(config.n_embd),
            block_size: size(config.block_size),
            vocab_size: size(config.vocab_size),
            untied: !config.tie_word_embeddings,
            norms: !config.is_folded(),
        }
    }

    /// Numbers to be stored: in each block 12 d² + 9 d of them, the MLP being four times as wide as d, and 2
    /// d for each LN, of which a block has two.
    pub fn parameters(&self) -> u64 {
        let d = self.n_embd;
        let norms = if self.norms { 2 * self.n_layer + 1 } else { 0 };
        self.embeddings() + self.n_layer * (12 * d * d + 9 * d) + 2 * d * norms
    }

    /// Those of them that are in the embeddings, an untied unembedding included.
    pub fn embeddings(&self) -> u64 {
        (self.vocab_size * (1 + u64::from(self.untied)) + self.block_size) * self.n_embd
    }

    /// Multiplications and additions of a forward over sequences of `seq` tokens, per token: two for each
    /// weight of a block and of the unembedding, and in each block 2 d (seq + 1) for causal scores and their
    /// product with the values.
    pub fn flop_per_token(&self, seq: u64) -> f64 {
        let (d, layers) = (self.n_embd as f64, self.n_layer as f64);
        let weights = 12.0 * layers * d * d + self.vocab_size as f64 * d;
        2.0 * weights + 2.0 * layers * d * (seq as f64 + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_those_of_the_released_models() {
        let count = |layers, width| Shape::gpt2(layers, width).parameters();
        // `sum(p.numel() for p in GPT2LMHeadModel(...).parameters())` in transformers 4.57.
        assert_eq!(
            [count(12, 768), count(24, 1024), count(36, 1280), count(48, 1600)],
            [124_439_808, 354_823_168, 774_030_080, 1_557_611_200]
        );
        let config = Gpt2Config::new(6, 4, 128, 128, 4096).unwrap();
        assert_eq!(Shape::of(&config).parameters(), 1_730_560);
    }

    #[test]
    fn a_released_size_is_known_by_shape_and_vocabulary() {
        let of = |n_layer, n_head, n_embd, vocab_size| {
            Shape::released(&Gpt2Config::new(n_layer, n_head, n_embd, 1024, vocab_size).unwrap())
        };
        assert_eq!(of(12, 12, 768, 50_257), Some("gpt2"));
        assert_eq!(of(48, 25, 1600, 50_257), Some("gpt2-xl"));
        assert_eq!(of(12, 12, 768, 50_258), None);
        assert_eq!(of(12, 16, 768, 50_257), None);
    }

    #[test]
    fn what_an_export_has_is_counted_and_what_it_lacks_is_not() {
        let mut config = Gpt2Config::new(6, 4, 128, 128, 4096).unwrap();
        config.tie_word_embeddings = false;
        // The unembedding of its own beside the 13 LNs.
        assert_eq!(Shape::of(&config).parameters(), 1_730_560 + 4096 * 128);
        config.other.insert("lnfree_format".into(), "folded".into());
        assert_eq!(Shape::of(&config).parameters(), 1_730_560 + 4096 * 128 - 13 * 2 * 128);
    }
}
