//! Where a run begins.

use std::path::PathBuf;

use tch::Device;

use crate::config::Mode;
use crate::data::TokenFile;

/// Where a new run takes things from.
#[derive(Debug)]
pub struct StartOptions {
    /// With LN, without, or from scratch.
    pub mode: Mode,
    /// The model's directory; for [`Mode::Pretrain`], where tokenizer files are found.
    pub model_dir: PathBuf,
    /// Training tokens.
    pub tokens: TokenFile,
    /// Validation tokens.
    pub eval_tokens: Option<TokenFile>,
    /// Where to compute.
    pub device: Device,
}
