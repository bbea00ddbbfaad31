//! What a run begins with: the LN state, the shape of a new model, dropout.

use std::path::Path;

use super::Mode;
use crate::config::Config;
use crate::data::TokenFile;
use crate::eval::stds::{StdDict, measure};
use crate::model::ln_state::LnState;
use crate::model::{Gpt2, Gpt2Config, LoadedModel, ModelFormat};
use crate::{Error, Result};

/// Sequences that the first standard deviations are measured on.
const MEASURED_SEQUENCES: usize = 64;

/// Sets every dropout probability of a model.
pub(super) fn set_dropout(model: &mut Gpt2, p: f64) {
    let config = &mut model.config;
    (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) = (p, p, p);
    for block in &mut model.h {
        block.resid_pdrop = p;
        block.attn.attn_pdrop = p;
    }
}

/// The LN state that a run begins with. A checkpoint with LNs already removed is trained on from that state.
pub(super) fn initial_state(
    config: &Config,
    loaded: &LoadedModel,
    mode: Mode,
    tokens: &TokenFile,
) -> Result<LnState> {
    match (loaded.format, mode) {
        (ModelFormat::Transformers, Mode::WithoutLn) => {
            let stds = if config.norm.init == "measure" {
                let batch = config.eval.batch_size;
                measure(&loaded.model, &loaded.ln, tokens, MEASURED_SEQUENCES, batch)?
            } else {
                StdDict::read(Path::new(&config.norm.init))?
            };
            let initial =
                stds.initial(config.model.n_layer).map_err(|e| match config.norm.init.as_str() {
                    "measure" => e,
                    path => Error::file(path, e),
                })?;
            Ok(LnState::real(&initial, config.norm.clone(), loaded.model.device()))
        }
        (ModelFormat::Transformers, _) => Ok(loaded.ln.copy()),
        (ModelFormat::Checkpoint, Mode::WithoutLn) => {
            let mut ln = loaded.ln.copy();
            ln.settings = config.norm.clone();
            Ok(ln)
        }
        (format, _) => Err(Error::file(
            &loaded.path,
            format!("is a model of format {format}; this mode trains an ordinary GPT-2 with LN"),
        )),
    }
}

/// The shape of a model to be made, from the `[model]` table.
pub(super) fn pretrain_config(config: &Config) -> Result<Gpt2Config> {
    let model = &config.model;
    let need = |value: Option<usize>, key: &str| {
        value.map(|v| v as i64).ok_or_else(|| Error::Config {
            origin: "config".into(),
            key: format!("model.{key}"),
            message: "is needed to make a model from scratch".into(),
        })
    };
    let shape = Gpt2Config::new(
        model.n_layer as i64,
        need(model.n_head, "n_head")?,
        need(model.n_embd, "n_embd")?,
        need(model.block_size, "block_size")?,
        need(model.vocab_size, "vocab_size")?,
    )?;
    let initializer_range = model.initializer_range.unwrap_or(shape.initializer_range);
    Ok(Gpt2Config { initializer_range, ..shape })
}
