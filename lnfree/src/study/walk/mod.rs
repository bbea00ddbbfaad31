//! The walk through the study of one model size: what the size notebooks go by.
//!
//! With a GPU and the weights a walk is the real thing. Elsewhere it takes the same path with the embedded
//! nano model, whose LNs go in the order and in the parts of the run in which that size's go: a stand-in,
//! which every figure says it is.

use std::fmt;
use std::path::{Path, PathBuf};

use tch::Device;

use crate::base::device::{available_memory, parse_device};
use crate::config::Config;
use crate::export::CardFacts;
use crate::model::Shape;
use crate::study::plot::{Figure, removal_schedule};
use crate::study::suite::Suite;
use crate::train::checkpoint::{self, locate_model};
use crate::train::memory::TRAINING_BYTES_PER_PARAMETER;
use crate::{Error, Result};

mod points;
mod results;
mod stand_in;
mod steps;
#[cfg(test)]
mod tests;

pub use points::{published_points, run_points};

/// Hub name, config, the family's name in the paper's table.
const SIZES: [(&str, &str, &str); 4] = [
    ("gpt2", "gpt2_aux", "Small"),
    ("gpt2-medium", "gpt2-medium_fasttune_aux", "Medium"),
    ("gpt2-large", "gpt2-large_aux", "Large"),
    ("gpt2-xl", "gpt2-xl_aux", "XL"),
];

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
    /// The walk of `size` as far as this machine goes: real with a GPU that has the memory and with weights,
    /// which are downloaded where they are missing; else with the stand-in. What it makes goes into `folder`.
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
            Some(_) => (stand_in::config(&size_config)?, Suite::find("nano")?),
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

    /// The checkpoint to export: of the step that the paper published this size at, where the run has kept
    /// it, else the latest.
    ///
    /// # Errors
    /// When the run has no checkpoint.
    pub fn checkpoint(&self) -> Result<PathBuf> {
        let published = self.run_dir().join(format!("checkpoints/step-{}", self.steps()));
        if published.is_dir() { Ok(published) } else { checkpoint::latest(&self.run_dir()) }
    }

    /// Steps of fine-tuning of what is exported: of the published model where the config keeps that step,
    /// else all.
    fn steps(&self) -> usize {
        let train = &self.config.train;
        let published = Suite::find("paper").ok().and_then(|paper| published_steps(&paper, self.family));
        published.filter(|steps| train.keep_steps.contains(steps)).unwrap_or(train.max_steps)
    }

    /// The folder of the export.
    pub fn export_dir(&self) -> PathBuf {
        self.folder.join(format!("{}-identity", self.model()))
    }

    /// The folder of the evaluations.
    pub fn eval_dir(&self) -> PathBuf {
        self.folder.join("eval")
    }

    /// The plan of the size itself: which LN goes when.
    pub fn size_schedule(&self) -> Figure {
        schedule_of(&self.size_config)
    }

    /// The plan of what is trained here.
    pub fn schedule(&self) -> Figure {
        self.shown(schedule_of(&self.config))
    }

    /// What the export's card says of it.
    pub fn card(&self) -> CardFacts {
        CardFacts {
            name: format!("{} LN-free", self.model()),
            base_model: self.model().into(),
            data: self.config.data.train.clone(),
            steps: self.steps(),
            ..CardFacts::default()
        }
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

fn schedule_of(config: &Config) -> Figure {
    removal_schedule(
        &config.schedule(),
        config.model.n_layer,
        config.train.max_steps,
        config.tokens_per_step(),
    )
}

/// Steps of fine-tuning of a family's models in the paper's table.
fn published_steps(paper: &Suite, family: &str) -> Option<usize> {
    let steps = paper.models.iter().filter(|m| m.family == family).find_map(|m| m.steps.filter(|s| *s > 0));
    steps.map(|steps| steps as usize)
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
