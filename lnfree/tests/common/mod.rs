//! Vectors made by the paper's code (see vectors/README.md) and how to compare with them; small runs of
//! random models.
#![allow(dead_code)]

pub mod faults;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lnfree::config::Config;
use lnfree::data::{Layout, TokenFile, write_tokens};
use lnfree::device::{KERNELS_VARIABLE, Kernels};
use lnfree::model::weights::{Weights, read_weights};
use lnfree::model::{Gpt2, Gpt2Config, LoadedModel};
use lnfree::norm::{LnState, NormSettings, SpecialAxis, StdAverage, UpdateCount};
use lnfree::tch::{Device, Kind, Tensor};
use lnfree::train::{Mode, StartOptions, Trainer};
use serde_json::Value;
use tempfile::TempDir;

/// A file of the vectors.
pub fn vector(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}

/// A model of the paper's analyses by its name in the vectors, or the `checkpoint` that noLN is of.
pub fn of_the_paper(name: &str) -> LoadedModel {
    let folder = tempfile::tempdir().unwrap();
    let path = match name {
        "baseline" => vector("tiny-a"),
        "finetuned" => {
            std::fs::copy(vector("tiny-a/config.json"), folder.path().join("config.json")).unwrap();
            let weights = vector("train_a_final.safetensors");
            std::fs::copy(weights, folder.path().join("model.safetensors")).unwrap();
            folder.path().to_path_buf()
        }
        "checkpoint" => vector("checkpoint/step60"),
        "noLN" => vector("exported_noln"),
        other => panic!("no model {other}"),
    };
    LoadedModel::load(&path, None, Kind::Float, Device::Cpu).unwrap()
}

/// A JSON file of the vectors.
pub fn json(name: &str) -> Value {
    let path = vector(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// A safetensors file of the vectors.
pub fn tensors(name: &str) -> Weights {
    read_weights(&vector(name)).unwrap()
}

/// What the environment variables of the paper's code mean here.
pub fn settings(env: &Value) -> NormSettings {
    let on = |name: &str| env[format!("EXP_{name}")] == "1";
    NormSettings {
        init: vector("tiny-a_std_dict.json").display().to_string(),
        momentum: 0.9,
        average: StdAverage::Mean,
        per_channel: false,
        recompute_on_real: on("RECOMPUTE_STD_ON_REAL"),
        recompute_on_fake: on("RECOMPUTE_STD_ON_FAKE"),
        special_std: on("BOS_SPECIAL_TREATMENT"),
        special_axis: if on("CORRECT_BOS") { SpecialAxis::Position } else { SpecialAxis::Feature },
        exclude_position_0: on("NON_BOS_AVERAGE_STD"),
        ln1_updates: UpdateCount::PerFace,
    }
}

/// Root mean square of the difference over that of `expected`.
pub fn relative_rms(found: &Tensor, expected: &Tensor) -> f64 {
    let (x, y) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let rms = |t: &Tensor| t.square().mean(Kind::Double).sqrt().double_value(&[]);
    rms(&(&x - &y)) / rms(&y)
}

/// Largest absolute difference.
pub fn max_abs(found: &Tensor, expected: &Tensor) -> f64 {
    (found.to_kind(Kind::Double) - expected.to_kind(Kind::Double)).abs().max().double_value(&[])
}

/// Panics unless `found` is within `relative` of `expected`.
#[track_caller]
pub fn close(found: f64, expected: f64, relative: f64, what: &str) {
    let limit = relative * expected.abs().max(1e-30);
    assert!((found - expected).abs() <= limit, "{what}: {found} should be {expected} to {relative:e}");
}

/// Writes rows of ids as a token file.
pub fn token_file(path: &Path, rows: &Tensor) {
    let rows: Vec<Vec<i64>> = Vec::try_from(rows).unwrap();
    let layout = lnfree::data::Layout::Fixed(rows[0].len());
    let rows = rows.into_iter().map(|row| Ok(row.into_iter().map(|id| id as u32).collect()));
    lnfree::data::write_tokens(path, rows, layout, 256).unwrap();
}

/// The map of a JSON object.
pub fn map(value: &Value) -> BTreeMap<String, Value> {
    value.as_object().unwrap().iter().map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// A trainer on the CPU of a model with random weights, and the folder that its data are in: `n` sequences of
/// the model's length, each token by `token(row, position)`. `train` is the `[train]` table and what follows
/// it; `removed` says what is done to the LN state before.
pub fn random_run(
    shape: &Gpt2Config,
    (n, token): (u32, impl Fn(u32, u32) -> u32),
    train: &str,
    mode: Mode,
    removed: impl FnOnce(&mut LnState),
) -> (TempDir, Trainer) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.arrow");
    let (seq, vocab_size) = (shape.block_size as usize, shape.vocab_size as usize);
    let rows = (0..n).map(|row| Ok((0..seq as u32).map(|at| token(row, at)).collect()));
    write_tokens(&path, rows, Layout::Fixed(seq), vocab_size).unwrap();
    let text = format!(
        "model = {{ name = 'x', n_layer = {} }}\ndata = {{ train = 'x', block_size = {seq}, shuffle = false }}\n\
         [train]\nwarmup_steps = 0\ndropout = 0.0\nmax_steps = 4\n{train}",
        shape.n_layer
    );
    let config = Config::parse(&text, "test", &[]).unwrap();
    let model = Gpt2::init(shape.clone(), 0, Device::Cpu).unwrap();
    let stds = vec![(0.1, 0.2); 2 * model.h.len() + 1];
    let mut ln = LnState::real(&stds, config.norm.clone(), Device::Cpu);
    removed(&mut ln);
    let tokens = TokenFile::open(&path).unwrap();
    let start =
        StartOptions { mode, model_dir: PathBuf::new(), tokens, eval_tokens: None, device: Device::Cpu };
    (folder, Trainer::of_model(config, start, model, ln).unwrap())
}

/// Runs the tests of this binary again, but for `this`, with our kernels no further than each level that the
/// processor has (see `lnfree::device::Kernels`). `plain` among them is the path of a GPU.
#[track_caller]
pub fn again_at_every_level(this: &str) {
    if std::env::var_os(KERNELS_VARIABLE).is_some() {
        // This is such a run, or one that somebody wants at a level of his own.
        return;
    }
    let again = std::env::current_exe().unwrap();
    // The tests beside this one run at the best level.
    let levels: Vec<Kernels> = Kernels::usable().collect();
    for level in &levels[..levels.len() - 1] {
        let level = level.name();
        let run = std::process::Command::new(&again)
            .args(["--skip", this])
            .env(KERNELS_VARIABLE, level)
            .output()
            .unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
        assert!(
            run.status.success() && !said.contains(" 0 passed"),
            "with {KERNELS_VARIABLE}={level}:\n{said}"
        );
    }
}

/// Whether tensors on a CPU take the path of those on a GPU here.
pub fn on_the_path_of_a_gpu() -> bool {
    Kernels::in_force().unwrap() == Kernels::Plain
}

/// Lets freed memory go at once, so that the process holds what tensors hold.
#[cfg(target_os = "linux")]
pub fn let_freed_memory_go() {
    // SAFETY: mallopt only sets parameters of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 20);
    }
}
