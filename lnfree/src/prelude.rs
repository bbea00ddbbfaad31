//! All that a notebook imports.

pub use tch::{self, Device, Kind, Tensor};

pub use crate::config::Config;
pub use crate::data::{TokenFile, Tokenizer, locate_model, open_dataset};
pub use crate::eval::{EvalOptions, EvalRecord, Summary, evaluate};
pub use crate::export::{CardFacts, ExportFormat, export};
pub use crate::generate::{SampleOptions, generate};
pub use crate::hook::{Activation, Hook, NoHook};
pub use crate::model::{Compute, Gpt2, LoadedModel, ModelFormat};
pub use crate::norm::{LnMode, LnSite, LnState, NormSettings, RemovalKind};
pub use crate::schedule::{Schedule, ScheduleConfig};
pub use crate::stds::{StdDict, measure};
pub use crate::train::{Mode, StartOptions, Trainer, run};
pub use crate::{Error, Result};
