//! GPT-2 with Hugging Face names, whose LayerNorms can be taken out one site at a time.

mod activation;
mod cache;
mod check_shapes;
mod fold;
mod generation_config;
mod gpt2;
pub mod hook;
mod inference;
mod layer_norm;
pub mod ln_state;
pub mod ln_statistics;
mod load;
pub mod names;
mod parameters;
mod pass;
mod shape;
mod step;
mod stream;
pub mod weights;

pub use crate::config::Gpt2Config;
pub use cache::KvCache;
pub use check_shapes::check_shapes;
pub(crate) use fold::Folding;
pub(crate) use generation_config::GENERATION;
pub use generation_config::GenerationConfig;
pub use gpt2::{Attention, Block, Conv1d, Gpt2, Mlp, causal_attention, gelu};
pub use layer_norm::LayerNorm;
pub use load::{LoadOptions, LoadedModel, ModelFormat, state_tensors};
pub(crate) use load::{check_not_written_over, config_dir, detect};
pub use pass::{Compute, ForwardPass};
pub use shape::Shape;
pub use step::StepModel;
