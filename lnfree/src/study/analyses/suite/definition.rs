//! What is asked of which models.

use super::names::request_key;
use super::{nano, paper};
use crate::study::analyses::Request;
use crate::study::suite::{Suite, SuiteModel};
use crate::{Error, Result};

/// A study: models by analyses.
#[derive(Debug, Clone)]
pub struct InterpSuite {
    /// What it is called on the command line.
    pub name: &'static str,
    /// In the order of the tables.
    pub models: Vec<SuiteModel>,
    /// In the order of the pages.
    pub requests: Vec<Request>,
    /// Where the models are from; it knows what each was made of.
    studied: Suite,
}

impl InterpSuite {
    /// The suite called `name`: `nano`, or `paper` with the sizes into which the paper looks.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(name: &str) -> Result<InterpSuite> {
        let studied = Suite::find(name)?;
        let (families, requests): (&[&str], Vec<Request>) = match studied.name {
            "paper" => (&paper::FAMILIES, paper::requests()),
            _ => (&[], nano::requests()),
        };
        let wanted = |model: &&SuiteModel| {
            families.is_empty() || families.iter().any(|family| *family == model.family)
        };
        let models = studied.models.iter().filter(wanted).cloned().collect();
        Ok(InterpSuite { name: studied.name, models, requests, studied })
    }

    /// Keeps the models that `models` names (by label, model or family, in any case) and the analyses that
    /// `analyses` names; an empty list keeps all.
    ///
    /// # Errors
    /// When a name is none of the suite's; the message lists those.
    pub fn select(&mut self, models: &[String], analyses: &[String]) -> Result<()> {
        if let Some(wish) = models.iter().find(|wish| !self.models.iter().any(|m| is_model(m, wish))) {
            let there: Vec<&str> = self.models.iter().map(|model| model.label.as_str()).collect();
            return Err(self.unknown("model", wish, &there));
        }
        if let Some(wish) = analyses.iter().find(|wish| !self.requests.iter().any(|r| is_request(r, wish))) {
            let there: Vec<&str> = self.requests.iter().map(request_key).collect();
            return Err(self.unknown("analysis", wish, &there));
        }
        self.models.retain(|model| models.is_empty() || models.iter().any(|wish| is_model(model, wish)));
        self.requests.retain(|r| analyses.is_empty() || analyses.iter().any(|wish| is_request(r, wish)));
        Ok(())
    }

    fn unknown(&self, what: &str, wish: &str, there: &[&str]) -> Error {
        let (suite, there) = (self.name, there.join(", "));
        Error::invalid(format!("{what} {wish}: not in the suite {suite}, which has {there}"))
    }

    /// The original that a model was made of, chosen or not; `None` for an original.
    pub fn original_of(&self, model: &SuiteModel) -> Option<&SuiteModel> {
        self.studied.original_of(model)
    }
}

fn is_model(model: &SuiteModel, wish: &str) -> bool {
    let names = [model.label.as_str(), model.model.as_str(), model.short_name(), model.family.as_str()];
    names.iter().any(|name| !name.is_empty() && name.eq_ignore_ascii_case(wish))
}

/// An analysis by its name, or by that of its files where a suite has several of a kind.
fn is_request(request: &Request, wish: &str) -> bool {
    [request.name(), request_key(request)].iter().any(|name| name.eq_ignore_ascii_case(wish))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_analysis_has_a_file_of_its_own() {
        for (name, models) in [("nano", 3), ("paper", 6)] {
            let suite = InterpSuite::find(name).unwrap();
            assert_eq!(suite.models.len(), models);
            let mut keys: Vec<&str> = suite.requests.iter().map(request_key).collect();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), suite.requests.len(), "{keys:?}");
            let originals = suite.models.iter().filter(|model| suite.original_of(model).is_none());
            assert!(originals.map(|model| model.steps).all(|steps| steps == Some(0)));
        }
    }

    #[test]
    fn models_and_analyses_are_chosen_by_their_names() {
        let mut suite = InterpSuite::find("paper").unwrap();
        suite.select(&["small".into()], &["patching".into(), "SINKS".into()]).unwrap();
        let keys: Vec<&str> = suite.requests.iter().map(request_key).collect();
        assert_eq!((suite.models.len(), keys), (3, vec!["sinks", "patching-repeated", "patching-ioi"]));
        suite.select(&[], &["patching-ioi".into()]).unwrap();
        assert_eq!(suite.requests.len(), 1);
        let error = suite.select(&["Large original".into()], &[]).unwrap_err().to_string();
        assert!(error.contains("Large original") && error.contains("Small LN-free"), "{error}");
        let error = suite.select(&[], &["heads".into()]).unwrap_err().to_string();
        assert!(error.contains("heads") && error.contains("patching-ioi"), "{error}");
    }
}
