//! The results of a study from the files of its analyses.

use std::path::Path;

use serde::Serialize;

use super::plan::{InterpPlan, finished};
use crate::base::atomic::write_text;
use crate::study::analyses::{Findings, Request, Row, compare, markdown, write_page};
use crate::{Error, Result};

/// What a suite of analyses came to. Its JSON is `results.json`.
#[derive(Serialize)]
pub struct InterpResults {
    /// The suite's name.
    pub suite: String,
    /// Published or recorded figures beside what was found.
    pub comparisons: Vec<Row>,
    /// What did not work: model, analysis and why.
    pub failures: Vec<String>,
    /// All that was found, model by model, in the order of the suite.
    pub findings: Vec<Findings>,
}

impl InterpResults {
    /// Of the finished analyses of a plan's models. Figures of those that are not finished have nothing
    /// beside them.
    pub fn collect(plan: &InterpPlan, failures: Vec<String>) -> InterpResults {
        let requests = &plan.suite.requests;
        let found = |job| requests.iter().filter_map(move |request| finished(&plan.out, job, request));
        let findings: Vec<Findings> = plan.jobs.iter().flat_map(found).collect();
        let labels = plan.jobs.iter().map(|job| job.model.label.as_str());
        let asked: Vec<(&str, &Request)> =
            labels.flat_map(|label| requests.iter().map(move |request| (label, request))).collect();
        let comparisons = compare(&findings, &asked, plan.suite.name);
        InterpResults { suite: plan.suite.name.into(), comparisons, failures, findings }
    }

    /// Writes `results.json`, `results.md` and `results.html` into `folder`.
    ///
    /// # Errors
    /// When one of them cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let json = folder.join("results.json");
        let text = serde_json::to_string_pretty(self).map_err(|error| Error::file(&json, error))?;
        write_text(&json, &text)?;
        let text = markdown(&self.findings, &self.comparisons, &self.failures);
        write_text(&folder.join("results.md"), &text)?;
        write_page(&self.findings, &self.comparisons, &self.failures, &folder.join("results.html"))
    }
}
