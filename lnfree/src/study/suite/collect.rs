//! The results of a study from the files of its evaluations.

use std::path::Path;

use super::plan::finished_in;
use super::{StudyOptions, SuiteModel, step_notes};
use crate::Result;
use crate::base::atomic::write_text;
use crate::base::device::{cores, driver, memory};
use crate::study::plot::EvalRow;
use crate::study::report::{Comparison, Failure, Study, StudyModel, compare, differences};

/// The study that the finished evaluations make, in the order of the suite.
pub fn collect(options: &StudyOptions, failures: Vec<Failure>) -> Study {
    let suite = &options.suite;
    let (mut evaluations, mut comparisons): (Vec<EvalRow>, Vec<Comparison>) = (Vec::new(), Vec::new());
    for model in &suite.models {
        for dataset in &suite.datasets {
            let Some(row) = finished_in(options, model, dataset, None) else {
                continue;
            };
            let published = suite.published(&model.label, dataset.name);
            comparisons.push(compare(&row, model.steps, published, dataset.sample as u64, options.tolerance));
            evaluations.push(row);
        }
    }
    let (differences, pairing) = differences(&evaluations);
    let mut notes: Vec<String> = suite.notes.iter().map(|note| note.to_string()).collect();
    notes.extend(step_notes(suite));
    notes.extend(pairing);
    Study {
        title: suite.title.into(),
        facts: facts(options),
        models: suite.models.iter().map(described).collect(),
        source: suite.source,
        tolerance: options.tolerance,
        comparisons,
        differences,
        failures,
        notes,
        evaluations,
    }
}

fn described(model: &SuiteModel) -> StudyModel {
    let SuiteModel { label, model, steps, shape, .. } = model.clone();
    StudyModel { label, model, steps, parameters: shape.map(|shape| shape.parameters()) }
}

fn facts(options: &StudyOptions) -> Vec<(&'static str, String)> {
    let settings = &options.settings;
    let suite = &options.suite;
    let mut machine = format!("{} CPU cores", cores());
    if let Some(memory) = memory() {
        machine += &format!(", {} of memory", indicatif::BinaryBytes(memory.total));
    }
    for gpu in driver().map(|driver| driver.gpus).unwrap_or_default() {
        machine += &format!(", {} ({})", gpu.name, indicatif::BinaryBytes(gpu.memory));
    }
    let datasets = suite.datasets.iter().map(|dataset| format!("{} = {}", dataset.title, dataset.name));
    vec![
        ("data sets", datasets.collect::<Vec<_>>().join("; ")),
        (
            "sample",
            format!("the first {} sequences of each data set, or all where there are fewer", settings.limit),
        ),
        ("computed in", format!("{}, batches of {}", settings.dtype, settings.batch_size)),
        ("machine", machine),
        ("lnfree", env!("CARGO_PKG_VERSION").into()),
    ]
}

/// Writes `results.json`, `results.md` and `results.html` into `folder`.
///
/// # Errors
/// When one of them cannot be written.
pub fn write_results(study: &Study, folder: &Path) -> Result<()> {
    let json = folder.join("results.json");
    let text = serde_json::to_string_pretty(study).map_err(|error| crate::Error::file(&json, error))?;
    write_text(&json, &text)?;
    write_text(&folder.join("results.md"), &study.to_markdown())?;
    study.write_html(&folder.join("results.html"))
}
