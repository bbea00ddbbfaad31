//! What a model's heads do: scores of attention heads on tokens that are said twice.

mod heads;

pub use heads::{HeadScores, RepeatedTokens};
