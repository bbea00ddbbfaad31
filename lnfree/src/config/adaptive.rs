//! A schedule that waits for the model to recover, and what it has come to.

use serde::{Deserialize, Serialize};

use super::schedule::ListedRemoval;

/// `[adaptive]`: removals that wait until the model is back at its teacher.
///
/// The `[schedule]` then says the order, the step of the first removal, and by when the last one is to be
/// done; removals of the same step still go together. Between these, the next ones begin once the mean KL to
/// the teacher over `window` steps is at most `tolerance`, or when the time left is no more than they need. A
/// step whose KL is above `explodes_at`, or whose loss is not finite, takes the run back to the checkpoint
/// before the removal that it came of, which is then made over twice as many steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdaptiveConfig {
    /// KL to the teacher, nats per token, at which the next removal begins; unset, all go by the schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<f64>,
    /// Steps that this is a mean of, all after the removal before.
    pub window: usize,
    /// KL of one step, nats per token, with which a removal has failed.
    pub explodes_at: f64,
    /// How often a removal is tried again before the run ends.
    pub retries: usize,
}

impl Default for AdaptiveConfig {
    fn default() -> Self {
        AdaptiveConfig { tolerance: None, window: 5, explodes_at: 1.0, retries: 4 }
    }
}

/// What an adaptive schedule has come to: a part of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AdaptiveState {
    /// The removals that have begun, with the steps that were found for them.
    pub begun: Vec<ListedRemoval>,
    /// KL of the last steps since the last of them was complete, nats per token.
    pub recent: Vec<f64>,
    /// For groups of removals that exploded, counted from 0: how many times, and the steps that they now
    /// take.
    pub slower: Vec<(usize, usize, usize)>,
}

impl AdaptiveState {
    /// The step before which the last removals began: where a run goes back to if they explode.
    pub fn began_last(&self) -> Option<usize> {
        self.begun.last().map(|removal| removal.step - removal.taper_steps)
    }
}
