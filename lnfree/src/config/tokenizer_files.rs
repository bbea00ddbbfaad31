//! The names of a tokenizer's files.

/// The files of a tokenizer, any of which may be missing: what is loaded, fetched from the hub, and copied
/// beside models.
pub const TOKENIZER_FILES: [&str; 6] = [TOKENIZER, VOCAB, MERGES, CONFIG, SPECIAL_MAP, ADDED];

pub(crate) const TOKENIZER: &str = "tokenizer.json";
pub(crate) const VOCAB: &str = "vocab.json";
pub(crate) const MERGES: &str = "merges.txt";
pub(crate) const CONFIG: &str = "tokenizer_config.json";
pub(crate) const SPECIAL_MAP: &str = "special_tokens_map.json";
pub(crate) const ADDED: &str = "added_tokens.json";
