//! Whether config, model and data fit together: said before the first step, not in the middle of a run.

use std::path::Path;

use super::start_options::StartOptions;
use crate::config::{Config, Mode, ModelConfig};
use crate::data::TokenFile;
use crate::model::Gpt2;
use crate::{Error, Result};

/// Checks a loaded model against the config and the token files.
///
/// # Errors
/// Names the file or key that does not fit.
pub(super) fn check_fit(config: &Config, model: &Gpt2, start: &StartOptions) -> Result<()> {
    let vocab_size = model.config.vocab_size;
    if model.h.len() != config.model.n_layer {
        let (found, wanted) = (model.h.len(), config.model.n_layer);
        let message = format!("has {found} blocks, model.n_layer is {wanted}");
        return Err(Error::file(&start.model_dir, message));
    }
    if start.mode != Mode::Pretrain {
        check_shape(&config.model, model, &start.model_dir)?;
    }
    check_rank(config, model, start)?;
    if let Some(id) = config.model.eot_token_id.filter(|id| !(0..vocab_size).contains(id)) {
        let message = format!("model.eot_token_id = {id} lies outside the vocabulary of {vocab_size} tokens");
        return Err(Error::invalid(message));
    }
    start.tokens.check_vocab(vocab_size as usize)?;
    check_lengths(&start.tokens, 1, model)?;
    let Some(eval) = &start.eval_tokens else { return Ok(()) };
    eval.check_vocab(vocab_size as usize)?;
    check_lengths(eval, config.eval.max_sequences, model)
}

/// What a config says of a model that is there already: its shape has to be the model's, and what new weights
/// are drawn from has no meaning.
fn check_shape(config: &ModelConfig, model: &Gpt2, dir: &Path) -> Result<()> {
    let found = &model.config;
    for (key, wanted, found) in [
        ("n_head", config.n_head, found.n_head),
        ("n_embd", config.n_embd, found.n_embd),
        ("block_size", config.block_size, found.block_size),
        ("vocab_size", config.vocab_size, found.vocab_size),
    ] {
        if let Some(wanted) = wanted.filter(|wanted| *wanted as i64 != found) {
            return Err(Error::file(dir, format!("has {key} = {found}, model.{key} is {wanted}")));
        }
    }
    for (key, value) in
        [("initializer_range", config.initializer_range), ("embedding_range", config.embedding_range)]
    {
        if value.is_some() {
            let message = "is about new weights, which only pretrain makes; leave it out".into();
            return Err(Error::Config { origin: "config".into(), key: format!("model.{key}"), message });
        }
    }
    Ok(())
}

/// Adapters are for weights that are there, and smaller than these.
fn check_rank(config: &Config, model: &Gpt2, start: &StartOptions) -> Result<()> {
    let Some(rank) = config.lora.rank else { return Ok(()) };
    let n_embd = model.config.n_embd;
    let message = if start.mode == Mode::Pretrain {
        "is for models that are there; pretrain makes new weights, which all have to train: leave it out"
            .into()
    } else if rank as i64 > n_embd {
        format!("{rank} is more than the model's n_embd = {n_embd}: to train everything, leave it out")
    } else {
        return Ok(());
    };
    Err(Error::Config { origin: "config".into(), key: "lora.rank".into(), message })
}

/// Checks the lengths of the first `n` sequences, or all at once where they are equal.
fn check_lengths(tokens: &TokenFile, n: usize, model: &Gpt2) -> Result<()> {
    let positions = model.config.block_size as usize;
    let n = if tokens.block_size().is_some() { 1 } else { n.min(tokens.n_sequences()) };
    for i in 0..n {
        let length = tokens.sequence_len(i)?;
        if length > positions {
            let message = format!("has sequences of {length} tokens, the model has {positions} positions");
            return Err(Error::file(tokens.path(), message));
        }
    }
    Ok(())
}
