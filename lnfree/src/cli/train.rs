//! `train` and `pretrain`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use lnfree::Error;
use lnfree::config::Config;
use lnfree::data::{TokenFile, locate_model, open_dataset};
use lnfree::train::{Mode, StartOptions, Trainer, interrupt, run};

use super::{DeviceArgs, PretrainArgs, TrainArgs};

/// Where run directories go by default.
const RUNS: &str = "runs";

pub(super) fn train(args: TrainArgs) -> anyhow::Result<()> {
    if let Some(resume) = &args.resume {
        return continue_run(resume, args.data.as_deref(), &args.device);
    }
    let (Some(mode), Some(name)) = (args.mode, args.config.as_deref()) else {
        anyhow::bail!("--mode and --config are needed");
    };
    let mut config = Config::load(name, &args.set.items)?;
    override_sources(&mut config, args.model, args.data, args.eval_data);
    let model_dir = locate_model(&config.model.name)?;
    let mode_name = if mode == Mode::WithLn { "with_ln" } else { "without_ln" };
    let out = args.out.unwrap_or_else(|| default_out(name, Some(mode_name)));
    start_run(config, mode, model_dir, &out, &args.device)
}

pub(super) fn pretrain(args: PretrainArgs) -> anyhow::Result<()> {
    if let Some(resume) = &args.resume {
        return continue_run(resume, args.data.as_deref(), &args.device);
    }
    let name = args.config.as_deref().context("--config is needed")?;
    let mut config = Config::load(name, &args.set.items)?;
    override_sources(&mut config, None, args.data, None);
    let tokenizer = match args.tokenizer {
        Some(dir) => dir,
        None => locate_model(&config.model.name)?,
    };
    let out = args.out.unwrap_or_else(|| default_out(name, None));
    start_run(config, Mode::Pretrain, tokenizer, &out, &args.device)
}

fn override_sources(
    config: &mut Config,
    model: Option<String>,
    data: Option<String>,
    eval_data: Option<String>,
) {
    if let Some(model) = model {
        config.model.name = model;
    }
    if let Some(data) = data {
        config.data.train = data;
    }
    if eval_data.is_some() {
        config.data.eval = eval_data;
    }
}

fn default_out(config: &str, mode: Option<&str>) -> PathBuf {
    let stem = Path::new(config).file_stem().map_or("run".into(), |s| s.to_string_lossy().into_owned());
    Path::new(RUNS).join(mode.map_or(stem.clone(), |m| format!("{stem}-{m}")))
}

fn start_run(
    config: Config,
    mode: Mode,
    model_dir: PathBuf,
    out: &Path,
    device: &DeviceArgs,
) -> anyhow::Result<()> {
    if out.join("checkpoints").exists() {
        let out = out.display();
        return Err(Error::invalid(format!(
            "{out}: holds a run already; continue it with --resume {out}, or choose another --out"
        ))
        .into());
    }
    let device = device.device()?;
    let (tokens, eval_tokens) = open_data(&config)?;
    std::fs::create_dir_all(out).map_err(Error::io(out))?;
    let file = out.join("config.toml");
    std::fs::write(&file, config.to_toml()).map_err(Error::io(&file))?;
    let file = out.join("run.json");
    let about = serde_json::json!({
        "mode": mode,
        "model": config.model.name,
        "lnfree": env!("CARGO_PKG_VERSION"),
        "device": format!("{device:?}"),
        "threads": lnfree::tch::get_num_threads(),
    });
    std::fs::write(&file, serde_json::to_string_pretty(&about)?).map_err(Error::io(&file))?;
    let start = StartOptions { mode, model_dir, tokens, eval_tokens, device };
    finish(Trainer::new(config, start)?, out)
}

fn continue_run(resume: &str, data: Option<&str>, device: &DeviceArgs) -> anyhow::Result<()> {
    let run = if resume == "latest" { newest_run()? } else { PathBuf::from(resume) };
    let checkpoint = lnfree::checkpoint::latest(&run)?;
    let (state, _) = lnfree::checkpoint::load(&checkpoint)?;
    let mut config = state.config;
    if let Some(data) = data {
        config.data.train = data.to_string();
    }
    let device = device.device()?;
    let (tokens, eval_tokens) = open_data(&config)?;
    let start = StartOptions { mode: state.mode, model_dir: checkpoint.clone(), tokens, eval_tokens, device };
    eprintln!("resuming {} at step {}", run.display(), state.step);
    finish(Trainer::resume(config, start, &checkpoint)?, &run)
}

fn finish(mut trainer: Trainer, out: &Path) -> anyhow::Result<()> {
    interrupt::install()?;
    let outcome = run(&mut trainer, out)?;
    println!("{} steps done; the model is in {}", outcome.steps, outcome.checkpoint.display());
    Ok(())
}

fn open_data(config: &Config) -> anyhow::Result<(TokenFile, Option<TokenFile>)> {
    let block_size = config.data.block_size;
    let tokens = open_dataset(&config.data.train, block_size)?;
    let eval_tokens = config.data.eval.as_deref().map(|name| open_dataset(name, block_size)).transpose()?;
    Ok((tokens, eval_tokens))
}

/// The run whose metrics were written last.
fn newest_run() -> anyhow::Result<PathBuf> {
    let entries = std::fs::read_dir(RUNS).map_err(Error::io(RUNS))?;
    entries
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|path| path.join("checkpoints").is_dir())
        .max_by_key(|path| path.join("metrics.jsonl").metadata().and_then(|m| m.modified()).ok())
        .with_context(|| format!("{RUNS}: no run to resume"))
}
