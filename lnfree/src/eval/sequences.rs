//! What one sequence, and one range of positions, came to.

use serde::{Deserialize, Serialize};

use super::finite::number;

/// One sequence of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SequenceLoss {
    /// Its number in the token file, from 0.
    pub sequence: usize,
    /// Mean cross-entropy of its predicted tokens, in nats.
    #[serde(deserialize_with = "number")]
    pub loss: f64,
    /// Predicted tokens.
    pub n_tokens: usize,
}

/// Mean loss of the tokens at some positions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PositionLoss {
    /// First position predicted from; 0 has seen one token.
    pub from: usize,
    /// The position after the last one.
    pub to: usize,
    /// Mean cross-entropy in nats; NaN, null in JSON, where one of the losses is not finite.
    #[serde(deserialize_with = "number")]
    pub mean: f64,
}
