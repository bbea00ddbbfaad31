//! The names of data sets, and how one is asked for.

/// The data sets that come with the repository, and their texts.
pub(super) const EMBEDDED: [(&str, &str); 3] = [
    ("nano-train", "sotu-train.parquet"),
    ("nano-owt", "sotu-val.parquet"),
    ("nano-pile", "moby-dick.parquet"),
];
/// The names of data sets on the Hugging Face hub: the peer's, and one for each part of OpenWebText.
pub(super) const HUB: [&str; 7] = [
    "openwebtext",
    "openwebtext-val",
    "openwebtext-train",
    "pile-apollo",
    "pile-apollo-luca",
    "pile-10k",
    "pile-uncopyrighted",
];

/// Whether a data set is one of those.
pub(super) fn is_named(name: &str) -> bool {
    HUB.contains(&name) || EMBEDDED.iter().any(|(embedded, _)| *embedded == name)
}

/// The folder of the embedded tokenizer.
pub(super) const NANO: &str = "nano";
/// The tokenizer of data sets on the hub.
pub(super) const GPT2: &str = "gpt2";

/// Which part of a data set that has several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Split {
    /// What is trained on.
    Train,
    /// What is evaluated on; the peer's `-d openwebtext`.
    #[default]
    Validation,
}

/// How a data set is prepared where that is not done yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetOptions {
    /// Tokens in a sequence.
    pub block_size: usize,
    /// Sequences at most, of data sets on the hub; of the Pile's also the rows that are read, the peer's
    /// `num_samples`. The validation split of OpenWebText is always whole.
    pub max_sequences: usize,
    /// Tokenizer for text, a folder or a name on the hub; `gpt2` where there is none. Embedded data sets have
    /// their own, token data sets need none.
    pub tokenizer: Option<String>,
    /// What `openwebtext` stands for; `openwebtext-val` and `openwebtext-train` say it themselves.
    pub split: Split,
}

impl DatasetOptions {
    /// For evaluation as the peer does it: sequences of `block_size` tokens, 10,000 at most, GPT-2's
    /// tokenizer.
    pub fn new(block_size: usize) -> Self {
        Self { block_size, max_sequences: 10_000, tokenizer: None, split: Split::default() }
    }
}
