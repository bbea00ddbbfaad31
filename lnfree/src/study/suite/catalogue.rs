//! The suites that there are, and what is chosen of them.

use std::path::Path;

use super::definition::{Suite, SuiteDataset, SuiteModel};
use super::steps::steps_of;
use super::{nano, paper};
use crate::data::name_of_today;
use crate::model::{Gpt2Config, Shape};
use crate::study::report::Published;
use crate::{Error, Result};

impl Suite {
    /// The names that `--suite` takes.
    pub const NAMES: [&str; 2] = ["paper", "nano"];

    /// The suite called `name`.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(name: &str) -> Result<Suite> {
        let mut suite = match name {
            "paper" => paper::suite(),
            "nano" => nano::suite(),
            _ => {
                return Err(Error::invalid(format!("suite {name}: there are {}", Self::NAMES.join(" and "))));
            }
        };
        suite.originals = suite.models.iter().filter(|model| model.steps == Some(0)).cloned().collect();
        Ok(suite)
    }

    /// Keeps the models that `models` names (by label, model or family, in any case) and the data sets that
    /// `datasets` names; an empty list keeps all.
    ///
    /// # Errors
    /// When a name is none of the suite's; the message lists those.
    pub fn select(&mut self, models: &[String], datasets: &[String]) -> Result<()> {
        for wish in models {
            if !self.models.iter().any(|model| model.is_called(wish)) {
                let names: Vec<&str> = self.models.iter().map(|m| m.short_name()).collect();
                let mut families: Vec<String> = self.models.iter().map(|m| m.family.to_lowercase()).collect();
                families.dedup();
                families.retain(|family| !family.is_empty());
                let families = families.iter().map(|family| format!("{family}, ")).collect::<String>();
                return Err(Error::invalid(format!(
                    "model {wish}: not in the suite {}, which has {families}{}; others come in with --add LABEL=MODEL",
                    self.name,
                    names.join(", ")
                )));
            }
        }
        for wish in datasets {
            if !self.datasets.iter().any(|dataset| dataset.is_called(wish)) {
                let names: Vec<&str> = self.datasets.iter().map(|d| d.name).collect();
                return Err(Error::invalid(format!(
                    "data set {wish}: not in the suite {}, which has {}",
                    self.name,
                    names.join(", ")
                )));
            }
        }
        self.models.retain(|model| models.is_empty() || models.iter().any(|wish| model.is_called(wish)));
        self.datasets.retain(|d| datasets.is_empty() || datasets.iter().any(|wish| d.is_called(wish)));
        Ok(())
    }

    /// Takes a model of the user's own in, given as `LABEL=MODEL`.
    ///
    /// # Errors
    /// When it is not of that form, or the label is taken.
    pub fn add(&mut self, label_and_model: &str) -> Result<()> {
        let parts = label_and_model.split_once('=').map(|(label, model)| (label.trim(), model.trim()));
        let Some((label, model)) = parts.filter(|(label, model)| !label.is_empty() && !model.is_empty())
        else {
            return Err(Error::invalid(format!("--add {label_and_model}: write LABEL=MODEL")));
        };
        let slug = crate::eval::result_name(label, "");
        if let Some(taken) = self.models.iter().find(|m| crate::eval::result_name(&m.label, "") == slug) {
            return Err(Error::invalid(format!(
                "--add {label_and_model}: {} is evaluated under that label already; choose another",
                taken.model
            )));
        }
        let config = Gpt2Config::read(Path::new(model)).ok();
        self.models.push(SuiteModel {
            label: label.into(),
            model: model.into(),
            format: None,
            family: String::new(),
            steps: steps_of(Path::new(model)),
            shape: config.as_ref().map(Shape::of),
            own: true,
        });
        Ok(())
    }

    /// The original of the suite that `model` was made of, chosen or not: that of its family, of one's own
    /// model that of its shape. `None` for an original, and for a model that fits none.
    pub fn original_of(&self, model: &SuiteModel) -> Option<&SuiteModel> {
        let size = |shape: Shape| (shape.n_layer, shape.n_embd);
        let fits = |original: &SuiteModel| match model.own {
            true => model.shape.map(size) == original.shape.map(size),
            false => model.family == original.family,
        };
        self.originals.iter().find(|original| fits(original) && original.model != model.model)
    }

    /// The figure published for a model on a data set.
    pub fn published(&self, label: &str, dataset: &str) -> Option<&Published> {
        self.published.iter().find(|p| p.label == label && p.dataset == dataset)
    }
}

impl SuiteModel {
    /// Its name without the organisation.
    pub fn short_name(&self) -> &str {
        self.model.rsplit('/').next().unwrap_or(&self.model)
    }

    fn is_called(&self, wish: &str) -> bool {
        let family = (!self.family.is_empty()).then_some(self.family.as_str());
        // The hub calls the smallest original `gpt2`, so that name is a model's and not the family's.
        let names = [Some(self.label.as_str()), Some(self.model.as_str()), Some(self.short_name()), family];
        names.into_iter().flatten().any(|name| name.eq_ignore_ascii_case(wish))
    }
}

impl SuiteDataset {
    fn is_called(&self, wish: &str) -> bool {
        let name = name_of_today(&wish.to_lowercase()).to_owned();
        self.name == name || self.title.eq_ignore_ascii_case(wish)
    }
}
