//! What parts of a model do: heads that repeat, heads that rest on the first position, the size of the
//! residual stream, neurons that set how sure a model is.

mod entropy_neurons;
mod heads;
mod residual_norms;
mod sinks;

pub use entropy_neurons::{EntropyNeurons, MeanAblation, Outcome};
pub use heads::{HeadScores, RepeatedTokens};
pub use residual_norms::{Growth, NormAt, ResidualNorms, Spread};
pub use sinks::AttentionSinks;
