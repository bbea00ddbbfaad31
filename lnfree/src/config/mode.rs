//! What a run does.

use serde::{Deserialize, Serialize};

/// What a run does about LN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Removes LN on the config's schedule.
    WithoutLn,
    /// Keeps LN: the vanilla control.
    WithLn,
    /// Trains from scratch, with LN.
    Pretrain,
}
