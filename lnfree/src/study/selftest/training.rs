//! Optimizer steps of the embedded model against those of the paper's code, and that a step does not wait
//! for the device.

use tch::Kind;

use super::recorder::{Recorder, Tolerance};
use super::vectors::{TrainingRun, Vectors};
#[cfg(feature = "kernels")]
use crate::base::device::has_cpu_kernels;
use crate::config::{Config, FloatType};
#[cfg(feature = "kernels")]
use crate::ops::ReadWatch;
use crate::train::{Mode, StartOptions, Trainer};
use crate::{Error, Result};

/// Of the loss after up to sixty steps.
const LOSS: Tolerance = Tolerance { float32: 2e-5, tf32: 5e-3, bfloat16: 5e-2 };
const GRADIENT: Tolerance = Tolerance { float32: 5e-4, tf32: 5e-2, bfloat16: 0.3 };
const WEIGHTS: Tolerance = Tolerance { float32: 5e-5, tf32: 5e-3, bfloat16: 2e-2 };

/// Steps of a quick test: the first removals are among them.
const QUICK: usize = 12;

/// How a run is parted, beyond what its config says.
#[derive(Clone, Copy)]
struct Parting {
    micro_batch: usize,
    checkpointing: bool,
}

pub(super) fn all(recorder: &mut Recorder, vectors: &Vectors, quick: bool) {
    let runs = &vectors.train;
    let whole = Parting { micro_batch: 4, checkpointing: false };
    let parted = Parting { micro_batch: 1, checkpointing: true };
    steps(recorder, vectors, ("with LN", &runs.with_ln, Mode::WithLn, whole), quick);
    steps(recorder, vectors, ("LN removed", &runs.without_ln, Mode::WithoutLn, whole), quick);
    // A batch in parts, blocks computed again: the same numbers.
    steps(
        recorder,
        vectors,
        ("LN removed, in parts", &runs.without_ln, Mode::WithoutLn, parted),
        quick || !is_exact(recorder),
    );
    #[cfg(feature = "kernels")]
    let exact = Tolerance { float32: 0.0, tf32: 0.0, bfloat16: 0.0 };
    #[cfg(feature = "kernels")]
    recorder
        .measure("training", "waits for the device in a step", exact, |recorder| waits(recorder, vectors));
}

fn is_exact(recorder: &Recorder) -> bool {
    recorder.float() == FloatType::Float32
}

fn steps(
    recorder: &mut Recorder,
    vectors: &Vectors,
    (name, run, mode, parting): (&str, &TrainingRun, Mode, Parting),
    quick: bool,
) {
    let n = if quick { QUICK } else { run.loss.len() };
    // Computed once, judged three times.
    let mut worst = [0.0f64; 3];
    recorder.measure("training", &format!("{name}: losses of {n} steps"), LOSS, |recorder| {
        let mut trainer = trainer(recorder, vectors, run, mode, parting)?;
        for step in 0..n {
            trainer.apply_removals();
            let record = trainer.train_step()?;
            let share = |found: f64, right: f64| (found - right).abs() / right.abs();
            let found = [share(record.loss, run.loss[step]), share(record.grad_norm, run.grad_norm[step])];
            for (worst, found) in worst.iter_mut().zip(found) {
                *worst = if found.is_nan() { f64::INFINITY } else { worst.max(found) };
            }
        }
        if n == run.loss.len() {
            worst[2] = weights(&trainer, run);
        }
        Ok(worst[0])
    });
    let [_, gradient, weights] = worst;
    recorder.measure("training", &format!("{name}: norms of gradients"), GRADIENT, |_| Ok(gradient));
    if n == run.loss.len() {
        recorder
            .measure("training", &format!("{name}: norms of weights at the end"), WEIGHTS, |_| Ok(weights));
    }
}

/// How far the norm of a parameter is off at most. The keys' bias has no gradient but rounding, which Adam
/// blows up.
fn weights(trainer: &Trainer, run: &TrainingRun) -> f64 {
    let parameters = trainer.model.named_parameters().into_iter();
    let shares = parameters.filter(|(name, _)| !name.ends_with("attn.c_attn.bias")).map(|(name, tensor)| {
        let found = tensor.detach().to_kind(Kind::Double).norm().double_value(&[]);
        let right = run.final_l2.get(&name).copied().unwrap_or(f64::NAN);
        (found - right).abs() / right.abs().max(0.1)
    });
    shares.fold(0.0, |worst, share| if share.is_nan() { f64::INFINITY } else { share.max(worst) })
}

fn config(recorder: &Recorder, run: &TrainingRun, parting: Parting) -> Result<Config> {
    let mut train = run.train.clone();
    train.insert("micro_batch_size".into(), (parting.micro_batch as i64).into());
    train.insert("gradient_checkpointing".into(), parting.checkpointing.into());
    train.insert("dtype".into(), recorder.float().name().into());
    let table = |name: &str, table: &toml::Table| -> Result<String> {
        let text = toml::to_string(table).map_err(|e| Error::invalid(format!("embedded numbers: {e}")))?;
        Ok(format!("[{name}]\n{text}"))
    };
    let text = format!(
        "[model]\nname = 'embedded'\nn_layer = 3\n[data]\ntrain = 'embedded'\nblock_size = 64\nshuffle = false\n{}{}",
        table("train", &train)?,
        table("schedule", &run.schedule)?
    );
    let mut config = Config::parse(&text, "selftest", &[])?;
    config.norm = run.norm.clone();
    Ok(config)
}

fn trainer(
    recorder: &Recorder,
    vectors: &Vectors,
    run: &TrainingRun,
    mode: Mode,
    parting: Parting,
) -> Result<Trainer> {
    let mut config = config(recorder, run, parting)?;
    // The standard deviations that the run began with.
    let stds = vectors.model().join("stds.json");
    std::fs::write(&stds, super::vectors::STDS).map_err(Error::io(&stds))?;
    config.norm.init = stds.display().to_string();
    let start = StartOptions {
        mode,
        model_dir: vectors.model().to_path_buf(),
        tokens: vectors.tokens("train.tokens")?,
        eval_tokens: None,
        device: recorder.device,
    };
    Trainer::new(config, start)
}

/// How often the host waits for the device in a step before its one read-back, and how often too much there.
/// Our kernels for CPUs read the host's memory, so there is nothing to wait for.
#[cfg(feature = "kernels")]
fn waits(recorder: &Recorder, vectors: &Vectors) -> Result<f64> {
    if has_cpu_kernels(recorder.device) {
        return Ok(0.0);
    }
    let parting = Parting { micro_batch: 2, checkpointing: false };
    let mut trainer = trainer(recorder, vectors, &vectors.train.without_ln, Mode::WithoutLn, parting)?;
    for _ in 0..5 {
        trainer.apply_removals();
        trainer.train_step()?;
    }
    let watch = ReadWatch::begin()?;
    // The sixth has the first removal.
    trainer.apply_removals();
    trainer.accumulate_gradients()?;
    let before = watch.seen().len();
    trainer.update_parameters()?;
    let after = watch.seen().len() - before;
    Ok((before + after.abs_diff(1)) as f64)
}
