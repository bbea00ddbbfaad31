//! Carries a plan out, one process a model.

use std::time::Duration;

use super::child::{Evaluating, failed_dataset, reason};
use super::plan::{finished_in, result_path};
use super::progress::Progress;
use super::{Job, Plan, StudyOptions, SuiteDataset};
use crate::base::atomic::remove_leftovers;
use crate::base::interrupt;
use crate::study::report::{Failure, compare};
use crate::{Error, Result};

/// How often a running evaluation is looked after.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Does what `plan` has still to do, and returns what failed; everything else has left its result in the
/// study's folder.
///
/// The folder is to be this process's own (see [`crate::train::lock_run`]), and [`interrupt::install`] called
/// before.
///
/// # Errors
/// [`Error::Stopped`] when a signal asked for it: what is finished stays; or when the folder cannot be
/// written or no process be started. What goes wrong within an evaluation is no error but a failure.
pub fn run(plan: &Plan, options: &StudyOptions) -> Result<Vec<Failure>> {
    remove_leftovers(&options.out)?;
    options.settings.write(&options.out)?;
    let mut progress = Progress::new(plan);
    let mut failures = Vec::new();
    for job in plan.jobs.iter().filter(|job| !job.pending.is_empty()) {
        let done = evaluate(job, plan, options, &mut progress);
        if done.is_err() {
            progress.close();
        }
        failures.extend(done?);
    }
    progress.close();
    Ok(failures)
}

/// One model on its pending data sets, which the child takes in this order.
fn evaluate(job: &Job, plan: &Plan, options: &StudyOptions, progress: &mut Progress) -> Result<Vec<Failure>> {
    for dataset in &job.pending {
        // An old result must not be taken for the new one.
        let path = result_path(&options.out, &job.model, dataset);
        if path.exists() {
            std::fs::remove_file(&path).map_err(Error::io(&path))?;
        }
    }
    let mut child = Evaluating::start(job, options)?;
    let mut of_model = OfModel { job, plan, options, open: job.pending.clone(), failures: Vec::new() };
    let mut said = Vec::new();
    of_model.begin_next(progress);
    loop {
        // Asked first: what it said and wrote before its end is then seen below.
        let ended = child.ended()?;
        of_model.take_results(progress);
        for line in child.said() {
            // Errors come again with the evaluation that they belong to.
            if !line.starts_with("error:") && !line.starts_with("lnfree:") {
                progress.say(&format!("  {line}"));
            }
            said.push(line);
            of_model.take_failure(&said, progress);
        }
        if let Some(status) = ended {
            while let Some(dataset) = of_model.open.first().cloned() {
                of_model.fail(&dataset, reason(&said, status), progress);
            }
            return Ok(of_model.failures);
        }
        if interrupt::requested() {
            child.stop();
            return Err(Error::Stopped { kept: options.out.clone() });
        }
        if let Some(dataset) = of_model.open.first() {
            progress.now(&format!("{} on {}", job.model.label, dataset.name));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// What is known of one model's evaluations while they go on.
struct OfModel<'a> {
    job: &'a Job,
    plan: &'a Plan,
    options: &'a StudyOptions,
    open: Vec<SuiteDataset>,
    failures: Vec<Failure>,
}

impl OfModel<'_> {
    fn begin_next(&self, progress: &mut Progress) {
        if let Some(dataset) = self.open.first() {
            progress.begin(self.plan.work(&self.job.model, dataset).1);
        }
    }

    /// Announces the evaluations whose results have appeared.
    fn take_results(&mut self, progress: &mut Progress) {
        let (model, suite) = (&self.job.model, &self.options.suite);
        for dataset in self.open.clone() {
            let Some(row) = finished_in(self.options, model, &dataset, None) else {
                continue;
            };
            let published = suite.published(&model.label, dataset.name);
            let result = compare(&row, model.steps, published, dataset.sample as u64, self.options.tolerance);
            progress.finished(self.plan.work(model, &dataset).1, &result, row.details.seconds);
            self.close(&dataset, progress);
        }
    }

    /// Announces the evaluation that the last line says has failed; the child goes on with the next.
    fn take_failure(&mut self, said: &[String], progress: &mut Progress) {
        let Some((name, why)) = said.last().and_then(|line| failed_dataset(line)) else { return };
        if let Some(dataset) = self.open.iter().find(|dataset| dataset.name == name).cloned() {
            self.fail(&dataset, why.to_string(), progress);
        }
    }

    fn fail(&mut self, dataset: &SuiteDataset, why: String, progress: &mut Progress) {
        let (label, name) = (self.job.model.label.clone(), dataset.name.to_string());
        let failure = Failure { label, dataset: name, why };
        progress.failed(self.plan.work(&self.job.model, dataset).1, &failure);
        self.failures.push(failure);
        self.close(dataset, progress);
    }

    fn close(&mut self, dataset: &SuiteDataset, progress: &mut Progress) {
        self.open.retain(|other| other != dataset);
        self.begin_next(progress);
    }
}
