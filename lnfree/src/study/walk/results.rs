//! The models of a walk, what they lose, and what was published.

use crate::base::console::say;
use crate::config::FloatType;
use crate::data::dataset_options;
use crate::data::{DatasetOptions, TokenFile, open_dataset_with};
use crate::eval::locate_model;
use crate::eval::{EvalOptions, Evaluator};
use crate::study::plot::{EvalRow, Reference};
use crate::study::report::{Published, read_eval};
use crate::study::suite::{Suite, SuiteModel, finished, newest};
use crate::{Error, Result};

use super::Walk;
use tch::Device;

impl Walk {
    /// The models to evaluate: original, the vanilla control as it was released, and what this walk exports.
    pub fn models(&self) -> Vec<SuiteModel> {
        let label = self.suite.models[0].label.replace("original", "LN-free");
        let own = SuiteModel {
            label,
            model: self.export_dir().to_string_lossy().into_owned(),
            format: None,
            steps: Some(self.card().steps as u32),
            own: true,
            ..self.suite.models[0].clone()
        };
        self.suite.models.iter().cloned().chain([own]).collect()
    }

    /// The text that the walk looks at its models with: the first data set of its suite.
    ///
    /// # Errors
    /// When model or data set are not there and cannot be fetched.
    pub fn tokens(&self) -> Result<TokenFile> {
        let options = dataset_options(&locate_model(self.model())?, self.config.data.block_size);
        let options = DatasetOptions { max_sequences: self.suite.limit, ..options };
        open_dataset_with(self.suite.datasets[0].name, &options)
    }

    /// How its models are evaluated.
    pub fn eval_options(&self) -> EvalOptions {
        let dtype = if self.device == Device::Cpu { FloatType::Float32 } else { FloatType::Tf32 };
        let (batch_size, max_sequences) = (self.suite.batch_size, self.suite.limit);
        EvalOptions { batch_size, max_sequences, dtype, ..EvalOptions::default() }
    }

    /// Evaluates [`Walk::models`] on the data sets of the suite into [`Walk::eval_dir`], telling lines of
    /// progress. A result that is there and no older than its model is read instead: interrupted, it goes on
    /// with the next.
    ///
    /// # Errors
    /// When a model or a data set cannot be had, or a result cannot be written; after all others are done,
    /// [`Error::NotFinite`] when there was no mean.
    pub fn evaluate(&self) -> Result<Vec<EvalRow>> {
        let (folder, options) = (self.eval_dir(), self.eval_options());
        let (mut rows, mut lost) = (Vec::new(), Vec::new());
        for model in self.models() {
            let changed = newest(&locate_model(&model.model)?);
            let mut loaded: Option<Evaluator> = None;
            for dataset in &self.suite.datasets {
                if let Some(row) = finished(&model, dataset, &folder, options.max_sequences, changed) {
                    say(&format!("{} on {}: done before", model.label, dataset.name));
                    rows.push(row);
                    continue;
                }
                let evaluator = match loaded.take() {
                    Some(evaluator) => evaluator,
                    None => Evaluator::load(&model.label, &model.model, model.format, self.device)?,
                };
                match evaluator.evaluate_into(&folder, dataset.name, options) {
                    Err(Error::NotFinite(why)) => lost.push(why),
                    result => rows.push(read_eval(result?)?),
                }
                loaded = Some(evaluator);
            }
        }
        match lost.is_empty() {
            true => Ok(rows),
            false => Err(Error::NotFinite(lost.join("; "))),
        }
    }

    /// The row of the paper's table that this size has there, whatever is walked with here.
    ///
    /// # Errors
    /// Never, unless the paper's suite itself is broken.
    pub fn published(&self) -> Result<Vec<Published>> {
        let of_family =
            |p: &Published| p.label.strip_prefix(self.family).is_some_and(|rest| rest.starts_with(' '));
        Ok(Suite::find("paper")?.published.into_iter().filter(of_family).collect())
    }

    /// The same as rows for tables and figures.
    ///
    /// # Errors
    /// As [`Walk::published`].
    pub fn published_rows(&self) -> Result<Vec<EvalRow>> {
        Ok(self.published()?.iter().map(EvalRow::from).collect())
    }

    /// What was published for the models of [`Walk::models`], to be seen beside them, where both are of the
    /// same step. Nothing for a stand-in: its losses have nothing to do with the size's.
    pub fn references(&self) -> Vec<Reference> {
        if self.stand_in.is_some() {
            return Vec::new();
        }
        let reference = |p: &Published| {
            let (label, dataset) = (p.label.to_string(), p.dataset.to_string());
            Reference { label, dataset, mean: p.mean }
        };
        let models = self.models();
        let here = |p: &&Published| {
            models.iter().any(|model| model.label == p.label && model.steps == Some(p.steps))
        };
        self.suite.published.iter().filter(here).map(reference).collect()
    }
}
