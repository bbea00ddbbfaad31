//! Keys that may be left out, and what they then mean.

/// Key, and what it means that it is unset.
pub const MAY_BE_UNSET: [(&str, &str); 24] = [
    ("model.n_head", "the model's own; pretrain needs it"),
    ("model.n_embd", "the model's own; pretrain needs it"),
    ("model.block_size", "the model's own; pretrain needs it"),
    ("model.vocab_size", "the model's own; pretrain needs it"),
    ("model.initializer_range", "0.02, GPT-2's; only for pretrain"),
    ("model.embedding_range", "model.initializer_range; only for pretrain"),
    ("model.sinusoidal_positions", "the model's own position embedding; pretrain: a random one"),
    ("model.eot_token_id", "that of the model's config.json"),
    ("train.micro_batch_size", "as many sequences at a time as memory has room for"),
    ("train.dropout", "that of the model's config.json"),
    ("train.decay_ln", "true without LN, false with LN"),
    ("train.keep_steps", "none beside keep_checkpoints"),
    ("schedule.start_ln2", "ln_2 stays"),
    ("schedule.start_ln1qk", "ln_1 of queries and keys stays"),
    ("schedule.start_ln1v", "ln_1 of values stays"),
    ("schedule.start_lnf", "ln_f stays"),
    ("schedule.start_eot", "the special σ̄ of end-of-text stays"),
    ("schedule.start_bos", "the special σ̄ of position 0 stays"),
    ("schedule.order", "block 0 first"),
    ("schedule.removals", "start, gap and order say when which LN goes"),
    ("adaptive.tolerance", "every removal at the step of the schedule"),
    ("distill.teacher", "no teacher: the loss is the cross-entropy"),
    ("lora.rank", "everything trains"),
    ("data.eval", "no evaluations during training"),
];

impl super::Config {
    /// The keys of [`MAY_BE_UNSET`] that are, with what that means.
    pub fn unset(&self) -> Vec<(&'static str, &'static str)> {
        let set: toml::Table = self.to_toml().parse().unwrap_or_default();
        let is_set = |key: &str| {
            let (table, key) = key.split_once('.').unwrap_or_default();
            set.get(table).and_then(|table| table.get(key)).is_some()
        };
        MAY_BE_UNSET.into_iter().filter(|(key, _)| !is_set(key)).collect()
    }
}
