//! `interp`: one analysis of models side by side.

mod request;
mod text;

use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use lnfree::Error;
use lnfree::analyses::{Findings, Sample, Subject, analyse, write_arrow, write_page};
use lnfree::atomic::write_text;
use lnfree::data::{dataset_options, open_dataset_with};
use lnfree::eval::locate_model;
use lnfree::model::Gpt2Config;
use lnfree::output::{Kept, check_apart, check_file, keep_file};

pub(super) use self::request::InterpCommand;
use self::request::{Common, SampleArgs};
pub(super) use self::text::{short, table};
use super::out::outln;

/// Sequences where it is not said how many.
const SEQUENCES: usize = 100;
/// Positions where it is not said how many: the paper's.
const POSITIONS: usize = 512;
/// Steps of a bar for one analysis of one model.
pub(super) const PARTS: f64 = 1000.0;

/// A model and what tables call it.
struct Named {
    label: String,
    model: String,
}

pub(super) fn interp(command: InterpCommand) -> anyhow::Result<()> {
    let common = command.common();
    let models = named_models(&common.models)?;
    check_outputs(&command, &models)?;
    let device = common.device.device()?;
    let request = command.request(|sample| sized(sample, &models));
    let bar = bar(models.len());
    let (mut findings, mut failures, mut first) = (Vec::new(), Vec::new(), None::<Error>);
    for (at, Named { label, model }) in models.iter().enumerate() {
        let progress = |part: f64| {
            bar.set_message(label.clone());
            bar.set_position(((at as f64 + part) * PARTS) as u64);
        };
        progress(0.0);
        let subject = Subject::load(label, model, command.against(), common.tokenizer.as_deref(), device);
        match subject.and_then(|subject| analyse(&subject, &request, progress)) {
            Ok(found) => findings.push(found),
            Err(error) => {
                // What one model lacks must not cost the others.
                failures.push(format!("{label}: {error}"));
                first = first.or(Some(error));
            }
        }
    }
    bar.finish_and_clear();
    if models.len() == 1
        && let Some(error) = first
    {
        return Err(error.into());
    }
    failures.iter().for_each(|failure| crate::panics::warn(&format!("error: {failure}")));
    // Before anything is printed: whoever reads that may be gone.
    let written = if findings.is_empty() { Ok(()) } else { write(common, &findings, &failures) };
    text::print(&findings);
    written?;
    let (failed, all) = (failures.len(), models.len());
    anyhow::ensure!(failed == 0, "{failed} of {all} models failed, see above");
    Ok(())
}

/// Models with their labels, which have to differ.
fn named_models(given: &[String]) -> lnfree::Result<Vec<Named>> {
    let mut models: Vec<Named> = Vec::new();
    for text in given {
        // A folder may have the sign in its name.
        let (label, model) = match text.split_once('=') {
            Some(parts) if !Path::new(text).exists() => parts,
            _ => (text.as_str(), text.as_str()),
        };
        if label.is_empty() || model.is_empty() {
            return Err(Error::invalid(format!("--model {text}: write MODEL or LABEL=MODEL")));
        }
        if models.iter().any(|other| other.label == label) {
            return Err(Error::invalid(format!(
                "--model {text}: another one is called {label}; write LABEL=MODEL"
            )));
        }
        models.push(Named { label: label.into(), model: model.into() });
    }
    Ok(models)
}

/// What was not said of a sample: as much as every model and the data have.
fn sized(args: &SampleArgs, models: &[Named]) -> Sample {
    let (mut sequences, mut positions) = (SEQUENCES, POSITIONS);
    if args.n_sequences.is_none() || args.positions.is_none() {
        for model in models {
            // What cannot be had here is the analysis' own error.
            let Ok((there, length)) = extent(&model.model, &args.data) else { continue };
            (sequences, positions) = (sequences.min(there), positions.min(length));
        }
    }
    Sample {
        data: args.data.clone(),
        sequences: args.n_sequences.unwrap_or(sequences),
        positions: args.positions.unwrap_or(positions),
    }
}

/// Sequences of a data set, and the positions of each that a model can take.
fn extent(model: &str, data: &str) -> lnfree::Result<(usize, usize)> {
    let dir = locate_model(model)?;
    let block_size = Gpt2Config::read(&dir)?.block_size as usize;
    let tokens = open_dataset_with(data, &dataset_options(&dir, block_size))?;
    Ok((tokens.n_sequences(), tokens.block_size().map_or(block_size, |length| length.min(block_size))))
}

/// Refuses what cannot be written, before the work.
fn check_outputs(command: &InterpCommand, models: &[Named]) -> lnfree::Result<()> {
    let common = command.common();
    let files = [("--json", &common.json), ("--arrow", &common.arrow), ("--html", &common.html)];
    let outputs: Vec<(String, PathBuf)> =
        files.into_iter().filter_map(|(option, path)| Some((option.to_string(), path.clone()?))).collect();
    outputs.iter().try_for_each(|(option, path)| check_file(option, path))?;
    let data = command.sample().map(|sample| ("--data".to_string(), PathBuf::from(&sample.data)));
    let mut inputs: Vec<(String, PathBuf)> = data.into_iter().collect();
    let folders = models.iter().map(|model| ("--model", Path::new(&model.model)));
    for (option, folder) in folders.chain(command.sae().map(|folder| ("--sae", folder))) {
        let Ok(files) = std::fs::read_dir(folder) else { continue };
        inputs.extend(files.flatten().map(|file| (option.to_string(), file.path())));
    }
    check_apart(&outputs, &inputs)
}

/// Writes all that was asked for, each as well as it can be.
fn write(common: &Common, findings: &[Findings], failures: &[String]) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(findings)?;
    let json = common.json.as_ref().map(|to| keep_file(to, |path| write_text(path, &text)));
    if let Some(Kept::Nowhere(_)) = json {
        outln!("{text}");
    }
    let arrow = common.arrow.as_ref().map(|to| keep_file(to, |path| write_arrow(findings, path)));
    let html = common.html.as_ref().map(|to| keep_file(to, |path| write_page(findings, &[], failures, path)));
    let kept = [json, arrow, html].into_iter().flatten().map(Kept::here);
    let failed: Vec<String> = kept.filter_map(|kept| Some(kept.err()?.to_string())).collect();
    anyhow::ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

/// A bar over so many analyses.
pub(super) fn bar(analyses: usize) -> ProgressBar {
    let bar = ProgressBar::new(analyses as u64 * PARTS as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {percent}%  {msg}  (left {eta})") {
        bar.set_style(style);
    }
    bar
}
