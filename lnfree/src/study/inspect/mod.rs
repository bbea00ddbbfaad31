//! What a model's folder holds, by its files alone: nothing is computed with it.

mod evidence;
mod tools;

use std::path::PathBuf;

use serde::Serialize;
use tch::Tensor;

use crate::config::{Gpt2Config, Mode, run_state};
use crate::eval::locate_model;
use crate::export::has_tokenizer;
use crate::hub::{full_name, made_of};
use crate::model::ln_state::LnState;
use crate::model::weights::{Weights, read_weights};
use crate::model::{LoadOptions, LoadedModel, ModelFormat};
use crate::model::{check_not_written_over, check_shapes, config_dir, detect};
use crate::{Error, Result};

pub use tools::Tool;

/// What a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// One of the models that everything began with, with LN.
    Original,
    /// Fine-tuned with LN kept.
    Vanilla,
    /// Any other GPT-2 with LN.
    WithLn,
    /// A training checkpoint in which some LNs are gone and some are not.
    HalfRemoved,
    /// A training checkpoint in which every LN divides by a constant.
    Checkpoint,
    /// LN kept in name: a huge ε and weights to match.
    Scaled,
    /// No LN among the weights.
    Folded,
    /// LNs that are the identity.
    Identity,
    /// A model without LN whose config another program has written over: what loads it computes something
    /// else.
    WrittenOver,
}

impl What {
    /// As people say it.
    pub fn name(self) -> &'static str {
        match self {
            What::Original => "original, with LN",
            What::Vanilla => "vanilla, fine-tuned with LN kept",
            What::WithLn => "a GPT-2 with LN",
            What::HalfRemoved => "half removed: a checkpoint with some LNs gone",
            What::Checkpoint => "a checkpoint without LN",
            What::Scaled => "scaled: without LN, kept in name by a huge ε",
            What::Folded => "folded: without LN, and without its weights",
            What::Identity => "identity: without LN, its place taken by LNs that change nothing",
            What::WrittenOver => "written over: a model without LN whose config.json is not its own any more",
        }
    }
}

/// What a model's files say of it. Its JSON is what `lnfree inspect --json` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// What was asked about.
    pub model: String,
    /// Where its files are.
    pub folder: PathBuf,
    /// What it is.
    pub what: What,
    /// The name of what it is stored as, see [`ModelFormat`].
    pub format: String,
    /// By what that is known, one sentence each.
    pub evidence: Vec<String>,
    /// Blocks.
    pub n_layer: i64,
    /// Attention heads in each block.
    pub n_head: i64,
    /// Width of the residual stream.
    pub n_embd: i64,
    /// Longest sequence, in tokens.
    pub block_size: i64,
    /// Number of token ids.
    pub vocab_size: i64,
    /// Numbers that are there, a tied unembedding counted once.
    pub parameters: u64,
    /// What they are stored in; several types are joined by commas.
    pub dtype: String,
    /// Whether a tokenizer lies beside them.
    pub tokenizer: bool,
    /// What loads it.
    pub tools: Vec<Tool>,
}

/// Looks at the model `name`: a folder, a run directory, a file of weights, `nano…`, or a name of the hub.
///
/// # Errors
/// One line when it is no model: nothing of that name, no GPT-2, damaged files, weights that are not those of
/// the config.
pub fn inspect(name: &str) -> Result<Inspection> {
    let folder = locate_model(name)?;
    let beside = config_dir(&folder)?;
    let config = Gpt2Config::read(&beside)?;
    let weights = read_weights(&folder)?;
    let unread = check_shapes(&weights, &config).map_err(|error| Error::file(&folder, error))?;
    let format = detect(&config, &weights);
    let written_over = check_not_written_over(&config, &weights, format).err();
    let ln = match format {
        ModelFormat::Checkpoint => Some(
            LoadedModel::load_with(&folder, LoadOptions { allow_non_finite: true, ..Default::default() })?.ln,
        ),
        _ => None,
    };
    let state = run_state::state(&beside)?;
    let what = match (&written_over, &ln) {
        (Some(_), _) => What::WrittenOver,
        (None, Some(ln)) => of_checkpoint(ln),
        (None, None) => of_format(format, name, state.as_ref().map(|state| state.mode)),
    };
    let mut signs = evidence::of_files(&config, &weights, format);
    signs.extend(written_over);
    signs.extend(ln.as_ref().map(evidence::of_state));
    signs.extend(state.as_ref().map(evidence::of_run));
    signs.extend(evidence::of_unread(&unread, ln.is_some()));
    let tied = |name: &str| config.tie_word_embeddings && name == "lm_head.weight";
    let read = weights.iter().filter(|(name, _)| !tied(name) && !unread.contains(name));
    let read: Vec<&Tensor> = read.map(|(_, tensor)| tensor).collect();
    Ok(Inspection {
        model: name.into(),
        what,
        format: format.to_string(),
        evidence: signs,
        n_layer: config.n_layer,
        n_head: config.n_head,
        n_embd: config.n_embd,
        block_size: config.block_size,
        vocab_size: config.vocab_size,
        parameters: read.iter().map(|tensor| tensor.numel() as u64).sum(),
        dtype: evidence::dtypes(read.iter().map(|tensor| tensor.kind())),
        tokenizer: has_tokenizer(&beside),
        tools: tools::of(what, &config),
        folder,
    })
}

fn of_checkpoint(ln: &LnState) -> What {
    if ln.all_fake() {
        What::Checkpoint
    } else if evidence::removed(ln) > 0 {
        What::HalfRemoved
    } else {
        What::WithLn
    }
}

fn of_format(format: ModelFormat, name: &str, mode: Option<Mode>) -> What {
    match format {
        ModelFormat::Identity => What::Identity,
        ModelFormat::Folded => What::Folded,
        ModelFormat::Scaled => What::Scaled,
        ModelFormat::Checkpoint => What::Checkpoint,
        ModelFormat::Transformers => match mode {
            Some(Mode::WithLn) => What::Vanilla,
            Some(_) => What::WithLn,
            None if made_of(name).is_some() => What::Vanilla,
            None if full_name(name).is_some() || name == "nano" => What::Original,
            None => What::WithLn,
        },
    }
}
