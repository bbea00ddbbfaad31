//! The names of data sets, and how one is asked for.

/// A data set that comes with lnfree.
pub(super) struct Embedded {
    pub name: &'static str,
    /// What it was called before, and may still be called.
    pub alias: Option<&'static str>,
    /// Its text, in `data/`.
    pub text: &'static str,
}

/// The data sets that come with lnfree.
static EMBEDDED: [Embedded; 5] = [
    Embedded { name: "nano-train", alias: None, text: "train.parquet" },
    Embedded { name: "nano-val", alias: None, text: "val.parquet" },
    Embedded { name: "nano-test", alias: None, text: "test.parquet" },
    Embedded { name: "nano-addresses", alias: Some("nano-owt"), text: "sotu-val.parquet" },
    Embedded { name: "nano-moby-dick", alias: Some("nano-pile"), text: "moby-dick.parquet" },
];

impl Embedded {
    /// The one that is called so, today or before.
    pub fn find(name: &str) -> Option<&'static Embedded> {
        EMBEDDED.iter().find(|embedded| embedded.name == name || embedded.alias == Some(name))
    }

    /// The names of all.
    pub fn names() -> Vec<&'static str> {
        EMBEDDED.iter().map(|embedded| embedded.name).collect()
    }
}

/// The name of today for a data set that may be called by the one it had before.
pub(crate) fn name_of_today(name: &str) -> &str {
    Embedded::find(name).map_or(name, |embedded| embedded.name)
}

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
    HUB.contains(&name) || Embedded::find(name).is_some()
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
