//! What a study lists: its models, and what failed.

use serde::Serialize;

/// A model of a study.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StudyModel {
    /// What the tables call it.
    pub label: String,
    /// Path or hub name.
    pub model: String,
    /// Steps of fine-tuning, where they are known.
    pub steps: Option<u32>,
    /// Numbers that are stored, where they are known.
    pub parameters: Option<u64>,
}

/// An evaluation that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The model's label.
    pub label: String,
    /// The data set's name.
    pub dataset: String,
    /// The last thing the evaluation said.
    pub why: String,
}
