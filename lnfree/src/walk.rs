//! The walk through the study of one model size: what the size notebooks go by.
//!
//! With a GPU and the weights a walk is the real thing. Elsewhere it takes the same path with the embedded nano model, whose LNs go
//! in the order and in the parts of the run in which that size's go: a stand-in, which every figure says it is.

use std::fmt;
use std::path::{Path, PathBuf};

use tch::Device;

use crate::checkpoint::locate_model;
use crate::config::{Config, FloatType};
use crate::device::{available_memory, parse_device};
use crate::eval::EvalOptions;
use crate::model::Shape;
use crate::norm::RemovalKind;
use crate::plot::{Figure, Reference};
use crate::report::Published;
use crate::schedule::ScheduleConfig;
use crate::suite::{Suite, SuiteModel};
use crate::{Error, Result};

/// Hub name, config, the family's name in the paper's table.
const SIZES: [(&str, &str, &str); 4] = [
    ("gpt2", "gpt2_aux", "Small"),
    ("gpt2-medium", "gpt2-medium_fasttune_aux", "Medium"),
    ("gpt2-large", "gpt2-large_aux", "Large"),
    ("gpt2-xl", "gpt2-xl_aux", "XL"),
];

/// Bytes of a parameter in training: the float32 weight, its gradient, and Adam's two moments.
pub const TRAINING_BYTES_PER_PARAMETER: u64 = 16;

/// One size, and what stands in for it where it has to.
#[derive(Debug, Clone)]
pub struct Walk {
    /// `gpt2`, `gpt2-medium`, `gpt2-large` or `gpt2-xl`.
    pub size: &'static str,
    /// The config of that size.
    pub size_config: Config,
    /// How large it is.
    pub shape: Shape,
    /// Why nano stands in for it; `None` where the walk is the real thing.
    pub stand_in: Option<String>,
    /// What is trained here: the size's config, or that of the stand-in.
    pub config: Config,
    /// Where to compute.
    pub device: Device,
    /// Runs, exports and results of this walk.
    pub folder: PathBuf,
    /// The models to compare, but for the one that this walk makes, and the data sets.
    pub suite: Suite,
    family: &'static str,
}

impl Walk {
    /// The walk of `size` as far as this machine goes: real with a GPU that has the memory and with weights, which are downloaded
    /// where they are missing; else with the stand-in. What it makes goes into `folder`.
    ///
    /// # Errors
    /// When there is no such size.
    pub fn of(size: &str, folder: impl AsRef<Path>) -> Result<Walk> {
        let device = parse_device("auto")?;
        let shape = shape_of(&Suite::find("paper")?, find(size)?.2)?;
        let missing = what_is_missing(size, shape, device);
        Walk::with(size, folder, device, missing)
    }

    /// The real walk of `size` on `device`, whatever it takes there.
    ///
    /// # Errors
    /// When there is no such size.
    pub fn real(size: &str, folder: impl AsRef<Path>, device: Device) -> Result<Walk> {
        Walk::with(find(size)?.0, folder, device, None)
    }

    fn with(size: &str, folder: impl AsRef<Path>, device: Device, stand_in: Option<String>) -> Result<Walk> {
        let (size, config, family) = find(size)?;
        let size_config = Config::load(config, &[])?;
        let paper = Suite::find("paper")?;
        let shape = shape_of(&paper, family)?;
        let (config, mut suite) = match stand_in {
            None => (size_config.clone(), paper),
            Some(_) => (stand_in_config(&size_config)?, Suite::find("nano")?),
        };
        suite.models.retain(|model| suite.name == "nano" || model.family == family);
        // The walk makes its own.
        suite.models.retain(|model| !model.label.ends_with("LN-free"));
        let place = if stand_in.is_some() { "stand-in" } else { "real" };
        let folder = folder.as_ref().join(size).join(place);
        Ok(Walk { size, size_config, shape, stand_in, config, device, folder, suite, family })
    }

    /// What figures and tables call the model that is walked with.
    pub fn model(&self) -> &str {
        &self.config.model.name
    }

    /// The run directory of the LN removal.
    pub fn run_dir(&self) -> PathBuf {
        self.folder.join("ln_free")
    }

    /// The folder of the export.
    pub fn export_dir(&self) -> PathBuf {
        self.folder.join(format!("{}-folded", self.model()))
    }

    /// The folder of the evaluations.
    pub fn eval_dir(&self) -> PathBuf {
        self.folder.join("eval")
    }

    /// The models to evaluate: original, the vanilla control as it was released, and what this walk exports.
    pub fn models(&self) -> Vec<SuiteModel> {
        let label = self.suite.models[0].label.replace("original", "LN-free");
        let own = SuiteModel {
            label,
            model: self.export_dir().to_string_lossy().into_owned(),
            format: None,
            ..self.suite.models[0].clone()
        };
        self.suite.models.iter().cloned().chain([own]).collect()
    }

    /// The row of the paper's table that this size has there, whatever is walked with here.
    ///
    /// # Errors
    /// Never, unless the paper's suite itself is broken.
    pub fn published(&self) -> Result<Vec<Published>> {
        let of_family =
            |p: &Published| p.label.strip_prefix(self.family).is_some_and(|rest| rest.starts_with(' '));
        Ok(Suite::find("paper")?.published.into_iter().filter(of_family).collect())
    }

    /// What was published for the models of [`Walk::models`], to be seen beside them. Nothing for a stand-in: its losses have
    /// nothing to do with the size's.
    pub fn references(&self) -> Vec<Reference> {
        if self.stand_in.is_some() {
            return Vec::new();
        }
        let reference = |p: &Published| {
            let (label, dataset) = (p.label.to_string(), p.dataset.to_string());
            Reference { label, dataset, mean: p.mean }
        };
        let models = self.models();
        let here = |p: &&Published| models.iter().any(|model| model.label == p.label);
        self.suite.published.iter().filter(here).map(reference).collect()
    }

    /// How its models are evaluated.
    pub fn eval_options(&self) -> EvalOptions {
        let dtype = if self.device == Device::Cpu { FloatType::Float32 } else { FloatType::Tf32 };
        let (batch_size, max_sequences) = (self.suite.batch_size, self.suite.limit);
        EvalOptions { batch_size, max_sequences, dtype, ..EvalOptions::default() }
    }

    /// Labels a figure of this walk, so that a stand-in's cannot be taken for the size's own.
    pub fn shown(&self, figure: Figure) -> Figure {
        match &self.stand_in {
            None => figure,
            Some(_) => figure.caption(&format!(
                "nano ({} blocks) standing in for {} ({} blocks), under its schedule’s shape: no result of {}",
                self.config.model.n_layer, self.size, self.shape.n_layer, self.size
            )),
        }
    }
}

/// Says first whether this is the real thing.
impl fmt::Display for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Walk { size, shape, size_config, .. } = self;
        match &self.stand_in {
            None => writeln!(f, "{size}, the real thing, on {:?}", self.device)?,
            Some(why) => {
                writeln!(f, "STAND-IN: {why}.")?;
                writeln!(
                    f,
                    "What follows is nano (6 blocks, 1.7M parameters) under the shape of {size}'s schedule."
                )?;
                writeln!(f, "No figure or number of it is a result of {size}.")?;
            }
        }
        writeln!(f)?;
        let parameters = shape.parameters();
        let tokens = size_config.train.max_steps as u64 * size_config.tokens_per_step() as u64;
        let flop = 3.0 * tokens as f64 * shape.flop_per_token(size_config.data.block_size as u64);
        writeln!(f, "{size}: {} blocks, {:.1}M parameters", shape.n_layer, parameters as f64 / 1e6)?;
        writeln!(
            f,
            "  LN removal: {} steps of {:.2}M tokens, {:.0}M in all",
            size_config.train.max_steps,
            size_config.tokens_per_step() as f64 / 1e6,
            tokens as f64 / 1e6
        )?;
        writeln!(
            f,
            "  memory: {:.1} GiB for weights, gradients and Adam's moments in float32; activations come on top",
            (parameters * TRAINING_BYTES_PER_PARAMETER) as f64 / f64::from(1 << 30)
        )?;
        write!(
            f,
            "  work: {flop:.1e} FLOP forward and backward, {:.1} h at a sustained 400 TFLOP/s (arithmetic, not measured)",
            flop / 400e12 / 3600.0
        )
    }
}

fn find(size: &str) -> Result<(&'static str, &'static str, &'static str)> {
    SIZES.into_iter().find(|s| s.0 == size).ok_or_else(|| {
        let names: Vec<&str> = SIZES.iter().map(|s| s.0).collect();
        Error::invalid(format!("size {size}: there are {}", names.join(", ")))
    })
}

fn shape_of(paper: &Suite, family: &str) -> Result<Shape> {
    let shape = paper.models.iter().find(|model| model.family == family).and_then(|model| model.shape);
    shape.ok_or_else(|| Error::invalid(format!("the paper's suite has no {family}")))
}

/// What keeps this machine from the real walk.
fn what_is_missing(size: &str, shape: Shape, device: Device) -> Option<String> {
    if device == Device::Cpu {
        return Some(format!(
            "this machine has no GPU that libtorch can use, and {size} is not trained on a CPU"
        ));
    }
    let needed = shape.parameters() * TRAINING_BYTES_PER_PARAMETER;
    if let Some(there) = available_memory(device).filter(|there| *there < needed) {
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let (needed, there) = (gib(needed), gib(there));
        return Some(format!("{size} needs more than {needed:.1} GiB, and {device:?} has {there:.1} free"));
    }
    locate_model(size).err().map(|error| format!("the weights are not here ({error})"))
}

/// Nano's config with the schedule of another size, scaled to nano's steps and blocks: every kind begins and ends at the same part
/// of the run.
fn stand_in_config(size: &Config) -> Result<Config> {
    let mut config = Config::load("nano", &[])?;
    let steps = config.train.max_steps as f64 / size.train.max_steps as f64;
    let last = |config: &Config| config.model.n_layer.saturating_sub(1).max(1) as f64;
    let blocks = last(size) / last(&config);
    let scaled = |kind: RemovalKind| {
        let (start, gap) = size.schedule.of(kind);
        let round = |x: f64| x.round() as usize;
        (start.map(|start| round(start as f64 * steps).max(1)), round(gap as f64 * blocks * steps))
    };
    let mut schedule = ScheduleConfig::default();
    (schedule.start_ln2, schedule.gap_ln2) = scaled(RemovalKind::Ln2);
    (schedule.start_ln1qk, schedule.gap_ln1qk) = scaled(RemovalKind::Ln1Qk);
    (schedule.start_ln1v, schedule.gap_ln1v) = scaled(RemovalKind::Ln1V);
    (schedule.start_lnf, _) = scaled(RemovalKind::LnF);
    (schedule.start_eot, schedule.gap_eot) = scaled(RemovalKind::Eot);
    (schedule.start_bos, schedule.gap_bos) = scaled(RemovalKind::Bos);
    config.schedule = schedule;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stand_in(size: &str) -> Walk {
        Walk::with(size, "runs", Device::Cpu, Some("no GPU".into())).unwrap()
    }

    #[test]
    fn a_stand_in_removes_the_same_kinds_at_the_same_parts_of_the_run() {
        for (size, ..) in SIZES {
            let walk = stand_in(size);
            let part = |config: &Config, kind| {
                let steps: Vec<f64> = (config.schedule().removals().iter())
                    .filter(|r| r.kind == kind)
                    .map(|r| r.step as f64 / config.train.max_steps as f64)
                    .collect();
                (steps.first().copied().unwrap(), steps.last().copied().unwrap())
            };
            for kind in RemovalKind::ALL {
                let (here, there) = (part(&walk.config, kind), part(&walk.size_config, kind));
                let apart = (here.0 - there.0).abs().max((here.1 - there.1).abs());
                assert!(apart < 0.02, "{size}, {kind:?}: {here:?} and {there:?}");
            }
            let order = |config: &Config| {
                let mut kinds: Vec<_> = config.schedule().removals().iter().map(|r| r.kind).collect();
                kinds.dedup();
                kinds
            };
            assert_eq!(order(&walk.config), RemovalKind::ALL, "{size}");
            assert_eq!(Config::parse(&walk.config.to_toml(), size, &[]).unwrap(), walk.config);
        }
    }

    #[test]
    fn a_stand_in_says_so_and_shows_no_published_figure_beside_its_own() {
        let walk = stand_in("gpt2-xl");
        assert!(walk.to_string().starts_with("STAND-IN: no GPU."));
        assert!(walk.references().is_empty());
        let figure = walk.shown(plotly::Plot::new().into());
        assert!(figure.to_json().contains("standing in for gpt2-xl (48 blocks)"));
        assert_eq!(walk.models().last().unwrap().label, "LN-free");
        assert_eq!(walk.published().unwrap().len(), 9);
    }

    #[test]
    fn the_real_walk_is_the_paper_with_a_model_of_our_own() {
        let walk = Walk::real("gpt2-medium", "runs", Device::Cpu).unwrap();
        assert_eq!(walk.config, walk.size_config);
        let labels: Vec<String> = walk.models().into_iter().map(|m| m.label).collect();
        assert_eq!(labels, ["Medium original", "Medium vanilla", "Medium LN-free"]);
        // Our LN-free model stands beside the published one's figure.
        assert_eq!(walk.references().len(), 9);
        assert!(!walk.shown(plotly::Plot::new().into()).to_json().contains("standing in"));
        assert!(Walk::real("gpt3", "runs", Device::Cpu).is_err());
    }
}
