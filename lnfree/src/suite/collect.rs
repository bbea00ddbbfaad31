//! The results of a study from the files of its evaluations.

use std::path::Path;

use super::StudyOptions;
use super::plan::finished;
use crate::Result;
use crate::atomic::write_text;
use crate::device::{cores, driver, memory};
use crate::plot::EvalRow;
use crate::report::{Comparison, Failure, Study, compare, differences};

/// The study that the finished evaluations make, in the order of the suite.
pub fn collect(options: &StudyOptions, failures: Vec<Failure>) -> Study {
    let suite = &options.suite;
    let (mut evaluations, mut comparisons): (Vec<EvalRow>, Vec<Comparison>) = (Vec::new(), Vec::new());
    for model in &suite.models {
        for dataset in &suite.datasets {
            let Some(row) = finished(model, dataset, options, None) else { continue };
            let published = suite.published(&model.label, dataset.name);
            comparisons.push(compare(&row, published, dataset.sample as u64, options.tolerance));
            evaluations.push(row);
        }
    }
    let (differences, pairing) = differences(&evaluations);
    let mut notes: Vec<String> = suite.notes.iter().map(|note| note.to_string()).collect();
    notes.extend(pairing);
    Study {
        title: suite.title.into(),
        facts: facts(options),
        source: suite.source,
        tolerance: options.tolerance,
        comparisons,
        differences,
        failures,
        notes,
        evaluations,
    }
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
    let models = suite.models.iter().map(|model| {
        let steps = match model.steps {
            None | Some(0) => String::new(),
            Some(steps) => format!(", {steps} steps of fine-tuning"),
        };
        format!("{} = {}{steps}", model.label, model.model)
    });
    let datasets = suite.datasets.iter().map(|dataset| format!("{} = {}", dataset.title, dataset.name));
    vec![
        ("models", models.collect::<Vec<_>>().join("; ")),
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
