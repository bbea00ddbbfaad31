//! What a suite is: models, data sets, and the figures published or recorded for them.

use crate::model::{ModelFormat, Shape};
use crate::study::report::Published;

/// A study: models by data sets.
#[derive(Debug, Clone)]
pub struct Suite {
    /// What it is called on the command line.
    pub name: &'static str,
    /// Heading of its results.
    pub title: &'static str,
    /// Where the figures come from.
    pub source: &'static str,
    /// In the order of the table.
    pub models: Vec<SuiteModel>,
    /// The models that others were made of, whichever are chosen.
    pub originals: Vec<SuiteModel>,
    /// In the order of the table.
    pub datasets: Vec<SuiteDataset>,
    /// Figures to compare with.
    pub published: Vec<Published>,
    /// Sequences evaluated at most, unless the user says otherwise.
    pub limit: usize,
    /// Sequences in one forward, unless the user says otherwise.
    pub batch_size: usize,
    /// What a reader has to know about the published figures: one sentence each.
    pub notes: &'static [&'static str],
}

impl Suite {
    /// `published`, or `recorded` where the figures are our own.
    pub fn figures(&self) -> &'static str {
        Published::word(self.published.iter().any(|figure| figure.recorded))
    }
}

/// A model of a suite.
#[derive(Debug, Clone, PartialEq)]
pub struct SuiteModel {
    /// What tables and files call it.
    pub label: String,
    /// Path or hub name.
    pub model: String,
    /// How it is stored; `None` for what its files say.
    pub format: Option<ModelFormat>,
    /// The models that it is compared with; empty where there is one family only.
    pub family: String,
    /// Steps of fine-tuning, where they are known; only then it is held against published figures.
    pub steps: Option<u32>,
    /// Its size; `None` where that will be known only when it is there.
    pub shape: Option<Shape>,
    /// Whether it is the user's own and not the suite's.
    pub own: bool,
}

/// A data set of a suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuiteDataset {
    /// What `eval -d` takes.
    pub name: &'static str,
    /// What the paper calls it.
    pub title: &'static str,
    /// Sequences that the published figures were measured on at most.
    pub sample: usize,
    /// Sequences that it has, about; only what is planned and shown follows from it.
    pub sequences: usize,
    /// Whether it comes with lnfree, so that nothing is downloaded.
    pub embedded: bool,
}
