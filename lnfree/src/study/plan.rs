//! The plan of one training run on one device.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use indicatif::{BinaryBytes, HumanDuration};
use tch::Device;

use crate::base::device::{available_memory, device_name};
use crate::config::Config;
use crate::config::Mode;
use crate::hub::embedded_model;
use crate::model::{Gpt2Config, Shape};
use crate::study::bench::matrix_peak;
use crate::train::memory::{Passes, TrainingMemory, fitting_micro_batch, usable};
use crate::{Error, Result};

/// What a config will need on a device.
#[derive(Debug, Clone)]
pub struct RunPlan {
    /// How large the model is.
    pub shape: Shape,
    /// How its micro-batches go through.
    pub passes: Passes,
    /// What that holds.
    pub memory: TrainingMemory,
    /// Bytes that are free there, where the system says.
    pub available: Option<u64>,
    /// Operations of one optimizer step: three forwards and a teacher's, what is computed again left out.
    pub flop_per_step: f64,
    /// The most that matrix products reach on the device, operations per second, measured.
    pub matrix_peak: f64,
    fits: bool,
    device: Device,
    config: Config,
    mode: Mode,
}

impl RunPlan {
    /// Looks at the device, which it times matrix products on; reads no weights, and asks no network.
    ///
    /// # Errors
    /// When the model's shape is not known here, or the config's dtype cannot be computed in.
    pub fn new(config: &Config, mode: Mode, device: Device) -> Result<RunPlan> {
        config.train.dtype.prepare(device)?;
        let (available, peak) = (available_memory(device), matrix_peak(config.train.dtype, device));
        Ok(RunPlan::with(config, mode, shape_of(config)?, device, available, peak))
    }

    fn with(
        config: &Config,
        mode: Mode,
        shape: Shape,
        device: Device,
        available: Option<u64>,
        matrix_peak: f64,
    ) -> RunPlan {
        let (batch_size, seq) = (config.train.batch_size as u64, config.data.block_size as u64);
        let batch = Passes::of(config, mode, batch_size).on(device);
        let usable = available.map_or(u64::MAX, |free| usable(free, device));
        let fits = |memory: &TrainingMemory| memory.total() <= usable;
        let micro_batch = match config.train.micro_batch_size {
            None => fitting_micro_batch(&shape, batch, device, fits),
            Some(n) => Some(n as u64).filter(|&micro_batch| {
                fits(&TrainingMemory::new(&shape, Passes { micro_batch, ..batch }, device))
            }),
        };
        let least = config.train.micro_batch_size.unwrap_or(1) as u64;
        let passes = Passes { micro_batch: micro_batch.unwrap_or(least), ..batch };
        RunPlan {
            passes,
            memory: TrainingMemory::new(&shape, passes, device),
            available,
            flop_per_step: forwards(&passes) * config.tokens_per_step() as f64 * shape.flop_per_token(seq),
            matrix_peak,
            fits: micro_batch.is_some(),
            device,
            config: config.clone(),
            mode,
            shape,
        }
    }

    /// Refuses a run that there is no room for.
    ///
    /// # Errors
    /// Says what is needed, what there is, and what would need less.
    pub fn check(&self) -> Result<()> {
        if self.fits {
            return Ok(());
        }
        let more = match self.passes.checkpointing {
            false => "set train.gradient_checkpointing = true, free some, or take a smaller model",
            true => "free some, or take a smaller model",
        };
        Err(Error::invalid(format!(
            "{} needs {} of memory with {} at a time, and {} has {} free: {more}",
            self.config.model.name,
            BinaryBytes(self.memory.total()),
            match self.passes.micro_batch {
                1 => "one sequence".into(),
                n => format!("{n} sequences"),
            },
            device_name(self.device),
            BinaryBytes(self.available.unwrap_or(0))
        )))
    }

    /// Seconds of one step if nothing but its operations, done again ones counted, ran at the matrix peak.
    fn step_s(&self) -> f64 {
        let head =
            2.0 * self.config.tokens_per_step() as f64 * (self.shape.vocab_size * self.shape.n_embd) as f64;
        let forward = self.flop_per_step / forwards(&self.passes);
        let again = if self.passes.checkpointing { forward - head } else { 0.0 };
        (self.flop_per_step + again) / self.matrix_peak
    }
}

/// A backward takes as long as two forwards.
fn forwards(passes: &Passes) -> f64 {
    if passes.teacher { 4.0 } else { 3.0 }
}

impl fmt::Display for RunPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RunPlan { shape, passes, memory, config, .. } = self;
        let train = &config.train;
        let (batch, accumulation, seq) = (train.batch_size, train.gradient_accumulation_steps, passes.seq);
        let mode = match self.mode {
            Mode::WithoutLn => "LN removed",
            Mode::WithLn => "LN kept",
            Mode::Pretrain => "from scratch",
        };
        writeln!(f, "{}, {mode}, on {}", config.model.name, device_name(self.device))?;
        writeln!(
            f,
            "  model     {} blocks, {:.1}M parameters",
            shape.n_layer,
            shape.parameters() as f64 / 1e6
        )?;
        let tokens = config.tokens_per_step();
        writeln!(
            f,
            "  step      {batch} sequences × {accumulation} × {seq} tokens = {tokens} tokens; {} steps",
            train.max_steps
        )?;
        let taken = passes.micro_batch;
        let parts = if taken == batch as u64 {
            "the whole batch".into()
        } else {
            format!("{} parts of a batch", batch as u64 / taken)
        };
        writeln!(
            f,
            "  at once   {taken} of {batch} sequences, {parts}: the same tokens in a step, the same result"
        )?;
        let kept =
            if passes.checkpointing { "between blocks, which are computed again" } else { "inside blocks" };
        let dtype = passes.dtype.name();
        for (what, bytes, about) in [
            ("libtorch", memory.program, "the program itself"),
            ("weights", memory.weights, "float32"),
            ("gradients", memory.gradients, "float32"),
            ("moments", memory.moments, "Adam's two, float32"),
            ("adapters", memory.adapters, "with their gradients, and the matrices that they leave alone"),
            ("copies", memory.copies, "of matrices, as a step computes with them"),
            ("teacher", memory.teacher, "the frozen model of distill.teacher, taken to be of the same size"),
            ("kept", memory.activations, kept),
            ("backward", memory.working, "a piece of the logits, or what flows through a block"),
            ("gaps", memory.gaps, "at most, in what is freed and kept"),
        ] {
            if bytes > 0 {
                writeln!(f, "  {what:<9} {:>10}  {about}", BinaryBytes(bytes).to_string())?;
            }
        }
        let free = self.available.map_or("unknown".into(), |free| BinaryBytes(free).to_string());
        writeln!(
            f,
            "  memory    {:>10}  at most at once; free: {free}",
            BinaryBytes(memory.total()).to_string()
        )?;
        let (step_s, steps) = (self.step_s(), train.max_steps as f64);
        writeln!(
            f,
            "  work      {:.2e} FLOP a step, {:.2e} in all",
            self.flop_per_step,
            self.flop_per_step * steps
        )?;
        write!(
            f,
            "  time      {step_s:.3} s a step, {} in all, if all of it ran at the {:.2} TFLOP/s that {dtype} matrix products reach here",
            HumanDuration(Duration::from_secs_f64(step_s * steps)),
            self.matrix_peak / 1e12
        )
    }
}

/// The shape of a config's model: of the one to be made, of a released size by name, or what `config.json`
/// says of one that is here.
fn shape_of(config: &Config) -> Result<Shape> {
    let model = &config.model;
    if let (Some(d), Some(block_size), Some(vocab_size)) = (model.n_embd, model.block_size, model.vocab_size)
    {
        let size = |n: usize| n as u64;
        return Ok(Shape {
            n_layer: size(model.n_layer),
            n_embd: size(d),
            block_size: size(block_size),
            vocab_size: size(vocab_size),
            untied: false,
            norms: true,
        });
    }
    if let Some((n_layer, _, n_embd)) = Shape::published(&model.name) {
        return Ok(Shape::gpt2(n_layer.unsigned_abs(), n_embd.unsigned_abs()));
    }
    let dir = match Path::new(&model.name).is_dir() {
        true => model.name.clone().into(),
        false => embedded_model(&model.name).map_err(|_| {
            let name = &model.name;
            Error::invalid(format!(
                "{name}: how large it is is not known before it is there; give a folder with its config.json"
            ))
        })?,
    };
    Ok(Shape::of(&Gpt2Config::read(&dir)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(config: &str, overrides: &[&str], gib: u64) -> RunPlan {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        let config = Config::load(config, &overrides).unwrap();
        let shape = shape_of(&config).unwrap();
        RunPlan::with(&config, Mode::WithoutLn, shape, Device::Cuda(0), Some(gib << 30), 400e12)
    }

    #[test]
    fn a_plan_keeps_the_step_and_says_no_where_there_is_no_room() {
        let small = plan("gpt2_aux", &[], 80);
        assert!(small.check().is_ok() && 32 % small.passes.micro_batch == 0);
        assert_eq!(small.config.tokens_per_step(), 524_288);
        let xl = plan("gpt2-xl_aux", &[], 24);
        let error = xl.check().unwrap_err().to_string();
        assert!(error.contains("gpt2-xl needs") && error.contains("gradient_checkpointing"), "{error}");
        // Without what is computed again: 6 operations a weight and token, and attention.
        let per_token = xl.flop_per_step / 516_096.0;
        assert!(
            (per_token / (6.0 * 1.5556e9 + 6.0 * 48.0 * 1600.0 * 1025.0) - 1.0).abs() < 1e-3,
            "{per_token}"
        );
        assert!((xl.step_s() - xl.flop_per_step / 400e12).abs() < 1e-9);
    }

    #[test]
    fn computing_again_takes_less_memory_and_more_time() {
        let (kept, again) =
            (plan("gpt2-xl_aux", &[], 160), plan("gpt2-xl_aux", &["train.gradient_checkpointing=true"], 160));
        assert!(again.memory.activations < kept.memory.activations / 4);
        assert!(again.step_s() > 1.3 * kept.step_s() && again.step_s() < 4.0 / 3.0 * kept.step_s());
        assert!(again.to_string().contains("computed again") && kept.to_string().contains("inside blocks"));
    }

    #[test]
    fn sizes_are_known_without_weights() {
        assert_eq!(shape_of(&Config::load("gpt2-large", &[]).unwrap()).unwrap().parameters(), 774_030_080);
        assert_eq!(shape_of(&Config::load("nano", &[]).unwrap()).unwrap().n_embd, 128);
        let other = Config::load("nano", &["model.name=somebody/model".into()]).unwrap();
        assert!(shape_of(&other).unwrap_err().to_string().contains("somebody/model"));
    }
}
