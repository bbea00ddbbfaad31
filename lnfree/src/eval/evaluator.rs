//! A model with all that its evaluations on named data sets need, and the files of their results.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tch::Device;

use super::{EvalOptions, EvalRecord, Evaluation, Faithfulness, RunFacts, evaluate, faithfulness, files};
use crate::base::atomic::write_text;
use crate::base::console::say;
use crate::base::device::{device_name, peak_memory, reset_peak_memory};
use crate::base::output::{check_folder, keep_folder};
use crate::data::{DatasetOptions, TokenFile, Tokenizer, open_dataset_with};
use crate::data::{GPT2_VOCAB, dataset_options};
use crate::eval::locate_model;
use crate::hub::locate_tokenizer;
use crate::model::{LoadOptions, LoadedModel, ModelFormat};
use crate::{Error, Result};

/// Time between lines of progress.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// A model to be evaluated.
pub struct Evaluator {
    /// What tables and figures call it.
    pub label: String,
    /// Path or hub name.
    pub name: String,
    /// The model itself.
    pub loaded: LoadedModel,
    /// For the text of its worst sequences; `None` where none fits.
    pub tokenizer: Option<Tokenizer>,
    /// How data sets are prepared for it.
    pub data: DatasetOptions,
}

impl Evaluator {
    /// A model by path or name, in float32; a run directory stands for its latest checkpoint. Without
    /// `format` its folder says what it is stored as.
    ///
    /// # Errors
    /// When there is no such model, or it cannot be read.
    pub fn load(label: &str, name: &str, format: Option<ModelFormat>, device: Device) -> Result<Evaluator> {
        Evaluator::load_with(label, name, LoadOptions { format, device, ..LoadOptions::default() })
    }

    /// A model by path or name, loaded as `options` say.
    ///
    /// # Errors
    /// As [`Evaluator::load`].
    pub fn load_with(label: &str, name: &str, options: LoadOptions) -> Result<Evaluator> {
        let dir = locate_model(name)?;
        let loaded = LoadedModel::load_with(&dir, options)?;
        let tokenizer = Tokenizer::from_dir(&dir).or_else(|_| data_tokenizer(&loaded)).ok();
        let data = dataset_options(&dir, loaded.model.config.block_size as usize);
        Ok(Evaluator { label: label.into(), name: name.into(), loaded, tokenizer, data })
    }

    /// Evaluates it on a data set, by name or path; `progress` is told how many sequences of how many are
    /// done.
    ///
    /// # Errors
    /// When the data cannot be read or does not fit the model, and as [`evaluate`].
    pub fn evaluate(
        &self,
        data: &str,
        options: EvalOptions,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<(EvalRecord, Evaluation)> {
        let (tokens, total) = self.tokens(data, options)?;
        let device = self.loaded.model.device();
        reset_peak_memory(device);
        let started = Instant::now();
        let evaluation =
            evaluate(&self.loaded.model, &self.loaded.ln, &tokens, options, |done| progress(done, total))?;
        let run = self.facts(&tokens, &evaluation, options, started.elapsed().as_secs_f64())?;
        let names = (self.name.clone(), self.loaded.format.to_string(), data.to_string());
        let record =
            EvalRecord::new(self.label.clone(), names, &evaluation, &tokens, self.tokenizer.as_ref(), run)?;
        Ok((record, evaluation))
    }

    /// How far its predictions on a data set lie from those of `reference`; `progress` as in
    /// [`Evaluator::evaluate`].
    ///
    /// # Errors
    /// As [`Evaluator::evaluate`] and [`faithfulness`].
    pub fn compare(
        &self,
        reference: &Evaluator,
        data: &str,
        options: EvalOptions,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Faithfulness> {
        let (tokens, total) = self.tokens(data, options)?;
        let found =
            faithfulness(&reference.loaded, &self.loaded, &tokens, options, |done| progress(done, total))?;
        Ok(Faithfulness { reference: reference.name.clone(), ..found })
    }

    /// Evaluates it on a data set, telling lines of progress, and writes the result into `folder` as
    /// [`write_result`] does; returns the path of the JSON file. A folder that then cannot be written costs
    /// no result: the error says where that is instead.
    ///
    /// # Errors
    /// When the folder cannot be written, before anything is computed; as [`Evaluator::evaluate`], when the
    /// files cannot be written, and, once they are, as [`Evaluation::check`].
    pub fn evaluate_into(
        &self,
        folder: impl AsRef<Path>,
        data: &str,
        options: EvalOptions,
    ) -> Result<PathBuf> {
        let folder = folder.as_ref();
        check_folder("the folder", folder)?;
        let mut last_line = Instant::now();
        let (record, evaluation) = self.evaluate(data, options, |done, total| {
            if last_line.elapsed() >= LINE_EVERY {
                last_line = Instant::now();
                say(&format!("{} on {data}: {done} of {total} sequences", self.label));
            }
        })?;
        keep_folder(folder, |folder| write_result(folder, &record, &evaluation, false).map(drop)).here()?;
        evaluation.check(&self.label, data)?;
        Ok(result_path(folder, &record, "json"))
    }

    /// A data set prepared for the model, and how many of its sequences are read.
    fn tokens(&self, data: &str, options: EvalOptions) -> Result<(TokenFile, usize)> {
        let wish = DatasetOptions { max_sequences: options.max_sequences, ..self.data.clone() };
        let tokens = open_dataset_with(data, &wish)?;
        tokens.check_vocab(self.loaded.model.config.vocab_size as usize)?;
        let total = tokens.n_sequences().min(options.max_sequences);
        Ok((tokens, total))
    }

    fn facts(
        &self,
        tokens: &TokenFile,
        evaluation: &Evaluation,
        options: EvalOptions,
        seconds: f64,
    ) -> Result<RunFacts> {
        let device = self.loaded.model.device();
        let read: usize = evaluation.sequences.iter().map(|s| s.n_tokens + 1).sum();
        Ok(RunFacts {
            dtype: options.dtype.in_effect(device).name().into(),
            device: device_name(device),
            batch_size: options.batch_size,
            max_sequences: options.max_sequences,
            drop_last: options.drop_last,
            data_sha256: tokens.fingerprint()?,
            seconds,
            tokens_per_s: read as f64 / seconds,
            peak_memory: peak_memory(device),
        })
    }
}

/// Writes LABEL--DATA.json, LABEL--DATA.sequences.arrow, and with `keep_losses` LABEL--DATA.losses.arrow into
/// `folder`; returns the path of the first.
///
/// # Errors
/// When a file cannot be written.
pub fn write_result(
    folder: &Path,
    record: &EvalRecord,
    evaluation: &Evaluation,
    keep_losses: bool,
) -> Result<PathBuf> {
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let path = |end: &str| result_path(folder, record, end);
    if keep_losses {
        files::write_losses(&path("losses.arrow"), evaluation)?;
    }
    files::write_sequences(&path("sequences.arrow"), &evaluation.sequences)?;
    // Last: where it is, the others are.
    let json = path("json");
    let text = serde_json::to_string_pretty(record).map_err(|e| Error::file(&json, e))?;
    write_text(&json, &text)?;
    Ok(json)
}

fn result_path(folder: &Path, record: &EvalRecord, end: &str) -> PathBuf {
    folder.join(format!("{}.{end}", files::result_name(&record.label, &record.dataset)))
}

/// The tokenizer that GPT-2s without one of their own were made with.
fn data_tokenizer(loaded: &LoadedModel) -> Result<Tokenizer> {
    let name = if loaded.model.config.vocab_size == GPT2_VOCAB { "gpt2" } else { "nano" };
    let tokenizer = Tokenizer::from_dir(locate_tokenizer(name)?)?;
    match tokenizer.vocab_size() as i64 == loaded.model.config.vocab_size {
        true => Ok(tokenizer),
        false => Err(Error::invalid("no tokenizer of this vocabulary")),
    }
}
