//! What of a study is still to do.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::definition::InterpSuite;
use super::names::{request_key, result_path};
use crate::Result;
use crate::hub::{Hub, Settings, embedded_model};
use crate::study::analyses::{Findings, Request};
use crate::study::suite::{SuiteModel, newest};

/// One model and what is to be done with it.
#[derive(Debug, Clone)]
pub struct InterpJob {
    /// The model.
    pub model: SuiteModel,
    /// The original that its predictions are compared with; `None` for an original.
    pub original: Option<String>,
    /// Whose tokenizer it uses: its original's, or its own.
    pub tokenizer: String,
    /// Analyses that are still to do.
    pub pending: Vec<Request>,
    /// Analyses that are finished.
    pub finished: Vec<Request>,
    /// When the model's files were last written; a result that is older is of another model.
    changed: Option<SystemTime>,
}

/// A study before it starts.
#[derive(Debug, Clone)]
pub struct InterpPlan {
    /// What is asked of which models.
    pub suite: InterpSuite,
    /// The folder of the results.
    pub out: PathBuf,
    /// One entry a model, in the order of the suite.
    pub jobs: Vec<InterpJob>,
}

impl InterpPlan {
    /// Looks at what is there. Asks no network and writes nothing.
    ///
    /// # Errors
    /// When the hub's variables make no sense.
    pub fn new(suite: &InterpSuite, out: &Path) -> Result<InterpPlan> {
        let offline = Hub::new(Settings { offline: true, ..Settings::from_env()? });
        let jobs = suite.models.iter().map(|model| job(suite, model, out, &offline)).collect();
        Ok(InterpPlan { suite: suite.clone(), out: out.to_path_buf(), jobs })
    }

    /// Analyses still to do, of all models together.
    pub fn pending(&self) -> usize {
        self.jobs.iter().map(|job| job.pending.len()).sum()
    }

    /// Analyses that are finished, of all models together.
    pub fn finished(&self) -> usize {
        self.jobs.iter().map(|job| job.finished.len()).sum()
    }
}

fn job(suite: &InterpSuite, model: &SuiteModel, out: &Path, offline: &Hub) -> InterpJob {
    let folder = match Path::new(&model.model).exists() {
        true => Some(PathBuf::from(&model.model)),
        false => embedded_model(&model.model).or_else(|_| offline.model(&model.model)).ok(),
    };
    let original = suite.original_of(model).map(|original| original.model.clone());
    let mut job = InterpJob {
        model: model.clone(),
        tokenizer: original.clone().unwrap_or_else(|| model.model.clone()),
        original,
        pending: Vec::new(),
        finished: Vec::new(),
        changed: folder.as_deref().and_then(newest),
    };
    let requests = suite.requests.iter().cloned();
    let (done, pending): (Vec<Request>, Vec<Request>) =
        requests.partition(|request| finished(out, &job, request).is_some());
    (job.finished, job.pending) = (done, pending);
    job
}

/// What was found, if its file is in `out`, whole, and of this model and request; of predictions also against
/// the same original.
pub fn finished(out: &Path, job: &InterpJob, request: &Request) -> Option<Findings> {
    let path = result_path(out, &job.model.label, request);
    let found: Findings = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
    let written = std::fs::metadata(&path).and_then(|meta| meta.modified()).ok()?;
    let newer = job.changed.is_none_or(|changed| written >= changed);
    let same = found.request == *request && found.label == job.model.label && found.model == job.model.model;
    let against = !matches!(request, Request::Outputs(_)) || found.original == job.original;
    (newer && same && against).then_some(found)
}

impl fmt::Display for InterpPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "suite {}: {} models × {} analyses: {} to do, {} finished in {}",
            self.suite.name,
            self.suite.models.len(),
            self.suite.requests.len(),
            self.pending(),
            self.finished(),
            self.out.display()
        )?;
        let width = |of: fn(&SuiteModel) -> &str| {
            self.jobs.iter().map(|job| of(&job.model).chars().count()).max().unwrap_or(0)
        };
        let (label, model) = (width(|m| &m.label), width(|m| &m.model));
        let keys = |requests: &[Request]| match requests {
            [] => "nothing".to_string(),
            some => some.iter().map(request_key).collect::<Vec<_>>().join(" "),
        };
        for InterpJob { model: of, pending, finished, .. } in &self.jobs {
            writeln!(
                f,
                "  {:<label$}  {:<model$}  to do: {}; finished: {}",
                of.label,
                of.model,
                keys(pending),
                keys(finished)
            )?;
        }
        Ok(())
    }
}
