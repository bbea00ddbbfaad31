//! The file of a result.

use serde::{Deserialize, Serialize};

use super::Request;
use crate::study::found::Found;

/// What an analysis found in one model: the file of a result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    /// What was asked.
    pub request: Request,
    /// What tables call the model.
    pub label: String,
    /// The model's path or name.
    pub model: String,
    /// The original that it was compared with, if any.
    pub original: Option<String>,
    /// Seconds of computing.
    pub seconds: f64,
    /// What was found.
    #[serde(flatten)]
    pub found: Found,
}
