//! What of a study is still to do, and what that needs of the machine.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use indicatif::{BinaryBytes, HumanBytes};
use tch::Device;

use super::{StudyOptions, SuiteDataset, SuiteModel};
use crate::base::device::{disk_free, driver, memory};
use crate::eval::result_name;
use crate::hub::{Hub, Settings, embedded_model};
use crate::model::ModelFormat;
use crate::study::plot::EvalRow;
use crate::study::report::read_eval;
use crate::train::memory::evaluation_bytes;
use crate::{Error, Result};

/// Numbers are stored in four bytes at most.
const BYTES_PER_PARAMETER: u64 = 4;

/// One model and what is to be done with it.
#[derive(Debug, Clone)]
pub struct Job {
    /// The model.
    pub model: SuiteModel,
    /// Data sets that it has still to be evaluated on.
    pub pending: Vec<SuiteDataset>,
    /// Data sets that it has been evaluated on, with these settings.
    pub finished: Vec<SuiteDataset>,
    /// Bytes to download at most; `None` where that is not known before the model is there.
    pub download: Option<u64>,
}

/// A study before it starts.
#[derive(Debug, Clone)]
pub struct Plan {
    /// One entry a model, in the order of the suite.
    pub jobs: Vec<Job>,
    options: StudyOptions,
    /// Bytes to download at most of originals that others are only compared with.
    originals: u64,
    /// Where downloads go, and what is free there.
    cache: (PathBuf, Option<u64>),
}

impl Plan {
    /// Looks at what is there: finished results, cached models, memory and disks. Asks no network and writes
    /// nothing.
    ///
    /// # Errors
    /// When the folder of results holds a study with other settings, or the hub's variables make no sense.
    pub fn new(options: &StudyOptions) -> Result<Plan> {
        options.settings.check(&options.out)?;
        let hub = Settings::from_env()?;
        let cache = hub.cache.clone();
        let offline = Hub::new(Settings { offline: true, ..hub });
        let jobs: Vec<Job> = options.suite.models.iter().map(|model| job(model, options, &offline)).collect();
        let chosen = |original: &SuiteModel| options.suite.models.iter().any(|m| m.model == original.model);
        let to_do = jobs.iter().filter(|job| !job.pending.is_empty());
        let mut others: Vec<&SuiteModel> = to_do.filter_map(|job| options.original_of(&job.model)).collect();
        others.retain(|original| !chosen(original));
        others.dedup_by_key(|original| &original.model);
        let originals = others.into_iter().filter_map(|original| download(original, &offline)).sum();
        let free = free_at(&cache);
        Ok(Plan { jobs, options: options.clone(), originals, cache: (cache, free) })
    }

    /// Evaluations still to do.
    pub fn pending(&self) -> usize {
        self.jobs.iter().map(|job| job.pending.len()).sum()
    }

    /// Evaluations that are finished.
    pub fn finished(&self) -> usize {
        self.jobs.iter().map(|job| job.finished.len()).sum()
    }

    /// Sequences of `dataset` that are evaluated, about.
    pub fn sequences(&self, dataset: &SuiteDataset) -> usize {
        dataset.sequences.min(self.options.settings.limit)
    }

    /// Tokens of one evaluation, about, and the operations they take; 0 where the model's size is not known.
    /// Comparing takes a forward of either model more.
    pub fn work(&self, model: &SuiteModel, dataset: &SuiteDataset) -> (u64, f64) {
        let shape = model.shape.as_ref();
        let forwards = if self.options.original_of(model).is_some() { 3.0 } else { 1.0 };
        let tokens = self.sequences(dataset) as u64 * shape.map_or(0, |shape| shape.block_size);
        (tokens, forwards * tokens as f64 * shape.map_or(0.0, |shape| shape.flop_per_token(shape.block_size)))
    }

    /// Tokens and operations that are still to do.
    fn total(&self) -> (u64, f64) {
        let each = self.jobs.iter().flat_map(|job| job.pending.iter().map(|d| self.work(&job.model, d)));
        each.fold((0, 0.0), |sum, work| (sum.0 + work.0, sum.1 + work.1))
    }

    fn to_do(&self) -> impl Iterator<Item = &Job> {
        self.jobs.iter().filter(|job| !job.pending.is_empty())
    }

    /// Bytes to download at most, as far as known.
    fn download(&self) -> u64 {
        self.originals + self.to_do().filter_map(|job| job.download).sum::<u64>()
    }

    /// Memory that the largest model takes at least, and its label; batches are fitted to what is left.
    fn largest(&self) -> Option<(u64, &str)> {
        let dtype = self.options.settings.dtype.parse().unwrap_or_default();
        let needs = |job: &'_ Job| {
            let original = self.options.original_of(&job.model).and_then(|original| original.shape);
            let shapes: Vec<_> = [Some(job.model.shape?), original].into_iter().flatten().collect();
            Some(evaluation_bytes(&shapes, dtype))
        };
        self.to_do().filter_map(|job| Some((needs(job)?, job.model.label.as_str()))).max()
    }

    /// What of the machine's memory can be had for it.
    fn memory(&self) -> Option<u64> {
        match self.options.device {
            Device::Cuda(index) => Some(driver().ok()?.gpus.get(index)?.memory),
            _ => memory().map(|memory| memory.available),
        }
    }

    /// Refuses a study that this machine has no room for.
    ///
    /// # Errors
    /// Too little memory for the largest model, or too little disk for what has to be downloaded.
    pub fn check(&self) -> Result<()> {
        if let (Some((needed, label)), Some(there)) = (self.largest(), self.memory())
            && needed > there
        {
            return Err(Error::invalid(format!(
                "{label} needs at least {} of memory and {} are free: free some, or choose other models with --models",
                BinaryBytes(needed),
                BinaryBytes(there)
            )));
        }
        let needed = self.download();
        if let (folder, Some(free)) = &self.cache
            && needed > *free
        {
            return Err(Error::invalid(format!(
                "up to {} have to be downloaded into {}, where {} are free: free some, set HF_HOME to another disk, or \
                 choose other models with --models",
                HumanBytes(needed),
                folder.display(),
                HumanBytes(*free)
            )));
        }
        Ok(())
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StudyOptions { suite, settings, out, .. } = &self.options;
        let (models, datasets) = (suite.models.len(), suite.datasets.len());
        writeln!(
            f,
            "suite {}: {models} models × {datasets} data sets; evaluations: {} to do, {} finished in {}",
            suite.name,
            self.pending(),
            self.finished(),
            out.display()
        )?;
        let width = |of: fn(&SuiteModel) -> &str| {
            suite.models.iter().map(|m| of(m).chars().count()).max().unwrap_or(0)
        };
        let (label, model) = (width(|m| &m.label), width(|m| &m.model));
        for job in &self.jobs {
            let size = job
                .model
                .shape
                .map_or("? parameters".into(), |s| format!("{:.1}M parameters", s.parameters() as f64 / 1e6));
            let download = match job.download {
                Some(0) => "here".into(),
                Some(bytes) => format!("to download: up to {}", HumanBytes(bytes)),
                None => "size not known yet".into(),
            };
            let to_do = format!("{} of {datasets} to do", job.pending.len());
            writeln!(
                f,
                "  {:<label$}  {:<model$}  {size:>18}  {to_do}, {download}",
                job.model.label, job.model.model
            )?;
        }
        for dataset in &suite.datasets {
            let about = if dataset.embedded { "" } else { "about " };
            writeln!(
                f,
                "  {} ({}): {about}{} sequences",
                dataset.name,
                dataset.title,
                self.sequences(dataset)
            )?;
        }
        if self.pending() == 0 {
            return Ok(());
        }
        let (tokens, flop) = self.total();
        writeln!(f, "  work: {:.1}M tokens, {flop:.1e} FLOP in {}", tokens as f64 / 1e6, settings.dtype)?;
        if self.download() > 0 {
            let (folder, free) = &self.cache;
            let free = free.map_or("unknown".into(), |free| HumanBytes(free).to_string());
            writeln!(
                f,
                "  disk: up to {} into {}, free: {free}",
                HumanBytes(self.download()),
                folder.display()
            )?;
        }
        if let Some((needed, of)) = self.largest() {
            let there = self.memory().map_or("unknown".into(), |there| BinaryBytes(there).to_string());
            writeln!(f, "  memory: at least {} for {of}, free: {there}", BinaryBytes(needed))?;
        }
        Ok(())
    }
}

/// The folder of a model that is here.
fn here(model: &SuiteModel, offline: &Hub) -> Option<PathBuf> {
    match Path::new(&model.model).exists() {
        true => Some(model.model.clone().into()),
        false => embedded_model(&model.model).or_else(|_| offline.model(&model.model)).ok(),
    }
}

/// Bytes of a model to download at most; `None` where that is not known before it is there.
fn download(model: &SuiteModel, offline: &Hub) -> Option<u64> {
    match here(model, offline) {
        Some(_) => Some(0),
        None => model.shape.map(|shape| shape.parameters() * BYTES_PER_PARAMETER),
    }
}

fn job(model: &SuiteModel, options: &StudyOptions, offline: &Hub) -> Job {
    let changed = here(model, offline).as_deref().and_then(newest);
    let datasets = options.suite.datasets.iter().cloned();
    let (finished, pending) =
        datasets.partition(|dataset| finished_in(options, model, dataset, changed).is_some());
    Job { model: model.clone(), pending, finished, download: download(model, offline) }
}

/// [`finished`] in a study's folder, with its settings.
pub(super) fn finished_in(
    options: &StudyOptions,
    model: &SuiteModel,
    dataset: &SuiteDataset,
    changed: Option<SystemTime>,
) -> Option<EvalRow> {
    let row = finished(model, dataset, &options.out, options.settings.limit, changed)?;
    let compared = options.original_of(model).is_none() || row.details.faithfulness.is_some();
    compared.then_some(row)
}

/// The result of an evaluation in `out`, if it is there, whole, and of this model with at most `limit`
/// sequences. `changed`: when the model's files were last written; a result that is older is of another
/// model.
pub(crate) fn finished(
    model: &SuiteModel,
    dataset: &SuiteDataset,
    out: &Path,
    limit: usize,
    changed: Option<SystemTime>,
) -> Option<EvalRow> {
    let path = result_path(out, model, dataset);
    let row = read_eval(&path).ok()?;
    let written = std::fs::metadata(&path).and_then(|meta| meta.modified()).ok()?;
    // Under either of its names: a result may be older than the one that is printed now.
    let stored = |format| row.format.parse::<ModelFormat>().is_ok_and(|found| found == format);
    let same = row.label.as_deref() == Some(&model.label)
        && row.model == model.model
        && row.dataset == dataset.name
        && model.format.is_none_or(stored)
        && row.details.max_sequences == Some(limit as u64);
    let newer = changed.is_none_or(|changed| written >= changed);
    // Losses that are not finite are kept, but they are no result.
    (same && newer && row.mean.is_finite() && row.sequences.is_some()).then_some(row)
}

/// Where `eval --out` writes a result.
pub(super) fn result_path(out: &Path, model: &SuiteModel, dataset: &SuiteDataset) -> PathBuf {
    out.join(format!("{}.json", result_name(&model.label, dataset.name)))
}

/// When the newest file in a model's folder was written; `None` where that cannot be told.
pub(crate) fn newest(folder: &Path) -> Option<SystemTime> {
    let files = std::fs::read_dir(folder).ok()?.flatten();
    files.filter_map(|file| std::fs::metadata(file.path()).ok()?.modified().ok()).max()
}

/// Free bytes on the disk where `folder` is, or will be.
fn free_at(folder: &Path) -> Option<u64> {
    folder.ancestors().find_map(disk_free)
}
