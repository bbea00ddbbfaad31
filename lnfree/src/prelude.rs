//! All that a notebook imports.
//!
//! ```
//! use lnfree::prelude::*;
//!
//! # fn main() -> Result<()> {
//! let loaded = LoadedModel::load(&locate_model("nano")?, None, Kind::Float, Device::Cpu)?;
//! let tokens = open_dataset("nano-owt", 128)?;
//! let options = EvalOptions { max_sequences: 16, ..EvalOptions::default() };
//! let losses = evaluate(&loaded.model, &loaded.ln, &tokens, options, |_| {})?;
//! println!("{:.4} nats per token", Summary::new(&losses.losses).mean);
//!
//! // Any closure is a hook: it sees every activation by its name and may replace it.
//! let ids = tokens.batch(&[0])?;
//! let mut ablate = |at: Activation, x: Tensor| if at == Activation::MlpOut(3) { x.zeros_like() } else { x };
//! let logits = loaded.model.forward(&ids, &loaded.ln, Compute::default(), &mut ablate)?;
//! assert_eq!(logits.size(), [1, 128, 4096]);
//! # Ok(())
//! # }
//! ```

pub use tch::{self, Device, Kind, Tensor};

pub use crate::config::{Config, FloatType};
pub use crate::data::{DatasetOptions, Split, TokenFile, Tokenizer, open_dataset, open_dataset_with};
pub use crate::eval::{
    EvalOptions, EvalRecord, Evaluation, PairedDifference, Summary, evaluate, mean_interval,
};
pub use crate::export::{CardFacts, ExportFormat, export};
pub use crate::generate::{SampleOptions, generate};
pub use crate::hook::{Activation, Hook, NoHook};
pub use crate::hub::{locate_model, locate_tokenizer};
pub use crate::model::{Compute, Gpt2, LoadedModel, ModelFormat};
pub use crate::norm::{LnMode, LnSite, LnState, NormSettings, RemovalKind};
pub use crate::schedule::{Schedule, ScheduleConfig};
pub use crate::stds::{StdDict, measure};
pub use crate::train::{Mode, StartOptions, Trainer, run};
pub use crate::{Error, Result};
