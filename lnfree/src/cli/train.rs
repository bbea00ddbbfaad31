//! `train` and `pretrain`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use lnfree::atomic::{self, write_text};
use lnfree::config::Config;
use lnfree::data::{DatasetOptions, Split, TokenFile, open_dataset_with};
use lnfree::hub::locate_tokenizer;
use lnfree::train::{Mode, StartOptions, Trainer, interrupt, lock_run, run};
use lnfree::{Error, checkpoint};

use super::{DeviceArgs, Overrides};

#[derive(Args)]
pub(super) struct TrainArgs {
    /// without_ln removes LayerNorm, with_ln is the control that keeps it.
    #[arg(long, value_parser = parse_mode, required_unless_present = "resume")]
    mode: Option<lnfree::train::Mode>,
    /// Name of a shipped config, or a TOML file.
    #[arg(long, required_unless_present = "resume")]
    config: Option<String>,
    /// Model: a folder, `nano`, or a name on the Hugging Face hub; by default the config's.
    #[arg(long)]
    model: Option<String>,
    /// Training tokens: a data set's name or a token file; by default the config's.
    #[arg(long)]
    data: Option<String>,
    /// Validation tokens, likewise; with --data, none unless given.
    #[arg(long)]
    eval_data: Option<String>,
    /// Run directory; by default runs/CONFIG-MODE.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Continue the run in this directory, or from one of its checkpoints, or the latest run under runs/.
    #[arg(long, value_name = "DIR|latest", conflicts_with_all = ["mode", "config", "model", "items", "out"])]
    resume: Option<String>,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    set: Overrides,
}

#[derive(Args)]
pub(super) struct PretrainArgs {
    /// Name of a shipped config, or a TOML file.
    #[arg(long, required_unless_present = "resume")]
    config: Option<String>,
    /// Tokenizer that the tokens were made with, a folder or a name on the hub; by default that of the config's model.
    #[arg(long)]
    tokenizer: Option<String>,
    /// Training tokens: a data set's name or a token file; by default the config's.
    #[arg(long)]
    data: Option<String>,
    /// Run directory; by default runs/CONFIG.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Continue the run in this directory, or from one of its checkpoints, or the latest run under runs/.
    #[arg(long, value_name = "DIR|latest", conflicts_with_all = ["config", "items", "out", "tokenizer"])]
    resume: Option<String>,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    set: Overrides,
}

/// Where run directories go by default.
const RUNS: &str = "runs";

pub(super) fn train(args: TrainArgs) -> anyhow::Result<()> {
    if let Some(resume) = &args.resume {
        let (data, eval_data) = (args.data.as_deref(), args.eval_data.as_deref());
        return continue_run(resume, Sources { data, eval_data, device: &args.device });
    }
    let (Some(mode), Some(name)) = (args.mode, args.config.as_deref()) else {
        anyhow::bail!("--mode and --config are needed");
    };
    let mut config = Config::load(name, &args.set.items)?;
    override_sources(&mut config, args.model, args.data, args.eval_data);
    let model_dir = super::model_dir(&config.model.name)?;
    let mode_name = if mode == Mode::WithLn { "with_ln" } else { "without_ln" };
    let out = args.out.unwrap_or_else(|| default_out(name, Some(mode_name)));
    start_run(config, mode, model_dir, &out, &args.device)
}

pub(super) fn pretrain(args: PretrainArgs) -> anyhow::Result<()> {
    if let Some(resume) = &args.resume {
        let data = args.data.as_deref();
        return continue_run(resume, Sources { data, eval_data: None, device: &args.device });
    }
    let name = args.config.as_deref().context("--config is needed")?;
    let mut config = Config::load(name, &args.set.items)?;
    override_sources(&mut config, None, args.data, None);
    let tokenizer = locate_tokenizer(args.tokenizer.as_deref().unwrap_or(&config.model.name))?;
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
        // The config's validation set goes with its training set, and is often one that this machine does not have.
        config.data.eval = None;
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
    if checkpoint::has_any(out) {
        let out = out.display();
        return Err(Error::invalid(format!(
            "{out}: holds a run already; continue it with --resume {out}, or choose another --out"
        ))
        .into());
    }
    let device = device.device()?;
    let (tokens, eval_tokens) = open_data(&config, &model_dir)?;
    let about = serde_json::json!({
        "mode": mode,
        "model": config.model.name,
        "lnfree": env!("CARGO_PKG_VERSION"),
        "device": format!("{device:?}"),
        "threads": lnfree::tch::get_num_threads(),
    });
    let model_dir = std::path::absolute(&model_dir).map_err(Error::io(&model_dir))?;
    let _lock = lock_run(out)?;
    write_text(&out.join("config.toml"), &config.to_toml())?;
    write_text(&out.join("run.json"), &serde_json::to_string_pretty(&about)?)?;
    let trainer = Trainer::new(config, StartOptions { mode, model_dir, tokens, eval_tokens, device })?;
    keep_old_metrics(out)?;
    finish(trainer, out)
}

/// A run that ended before its first checkpoint starts again; what it had measured is put aside.
fn keep_old_metrics(out: &Path) -> Result<(), Error> {
    let old = out.join("metrics.jsonl");
    if old.metadata().is_ok_and(|m| m.len() > 0) {
        std::fs::rename(&old, out.join("metrics.previous.jsonl")).map_err(Error::io(&old))?;
    }
    Ok(())
}

/// What may be given anew when a run is resumed.
struct Sources<'a> {
    data: Option<&'a str>,
    eval_data: Option<&'a str>,
    device: &'a DeviceArgs,
}

fn continue_run(resume: &str, sources: Sources<'_>) -> anyhow::Result<()> {
    let path = if resume == "latest" { newest_run()? } else { PathBuf::from(resume) };
    let (run, checkpoint) = checkpoint::locate(&path)?;
    let _lock = lock_run(&run)?;
    let trainer = resume_from(&checkpoint, sources).map_err(|error| {
        // Whatever went wrong, a damaged file is the cause that a person has to hear of.
        match atomic::verify_checksums(&checkpoint) {
            Ok(_) => error,
            Err(damage) => damaged(&run, &checkpoint, damage).into(),
        }
    })?;
    let _ = writeln!(std::io::stderr(), "resuming {} at step {}", run.display(), trainer.step());
    finish(trainer, &run)
}

fn resume_from(checkpoint: &Path, sources: Sources<'_>) -> anyhow::Result<Trainer> {
    let state = checkpoint::state(checkpoint)?.ok_or_else(|| Error::file(checkpoint, "is no checkpoint"))?;
    let mut config = state.config;
    override_sources(&mut config, None, sources.data.map(String::from), sources.eval_data.map(String::from));
    let device = sources.device.device()?;
    let (tokens, eval_tokens) = open_data(&config, checkpoint)
        .context("cannot resume; go where the run was started, or give --data and --eval-data anew")?;
    let model_dir = checkpoint.to_path_buf();
    let start = StartOptions { mode: state.mode, model_dir, tokens, eval_tokens, device };
    Ok(Trainer::resume(config, start, checkpoint)?)
}

fn damaged(run: &Path, checkpoint: &Path, damage: Error) -> Error {
    let advice = match checkpoint::newest_whole(run, checkpoint) {
        Some(path) => format!("the checkpoint before it is whole: --resume {}", path.display()),
        None => "the run has no other whole checkpoint; start it again with another --out".into(),
    };
    Error::invalid(format!("{damage}; {advice}"))
}

fn finish(mut trainer: Trainer, out: &Path) -> anyhow::Result<()> {
    interrupt::install()?;
    // A log reader that goes away must not take the run with it.
    // SAFETY: changes how one signal is treated, nothing else.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let outcome = run(&mut trainer, out)?;
    let (steps, path) = (outcome.steps, outcome.checkpoint.display());
    let _ = writeln!(std::io::stdout(), "{steps} steps done; the model is in {path}");
    Ok(())
}

fn open_data(config: &Config, model: &Path) -> anyhow::Result<(TokenFile, Option<TokenFile>)> {
    let eval = super::data::options_for(model, config.data.block_size);
    let train = &config.train;
    let batch = train.batch_size.saturating_mul(train.gradient_accumulation_steps);
    let sequences = train.max_steps.saturating_mul(batch).max(1);
    let options = DatasetOptions { split: Split::Train, max_sequences: sequences, ..eval.clone() };
    let tokens = open_dataset_with(&config.data.train, &options)?;
    let eval_tokens = config.data.eval.as_deref().map(|name| open_dataset_with(name, &eval)).transpose()?;
    Ok((tokens, eval_tokens))
}

/// The run whose metrics were written last.
fn newest_run() -> anyhow::Result<PathBuf> {
    let entries = std::fs::read_dir(RUNS).map_err(Error::io(RUNS))?;
    entries
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|path| checkpoint::has_any(path))
        .max_by_key(|path| path.join("metrics.jsonl").metadata().and_then(|m| m.modified()).ok())
        .with_context(|| format!("{RUNS}: no run to resume"))
}

fn parse_mode(s: &str) -> Result<lnfree::train::Mode, String> {
    match s {
        "without_ln" => Ok(lnfree::train::Mode::WithoutLn),
        "with_ln" => Ok(lnfree::train::Mode::WithLn),
        _ => Err("one of without_ln, with_ln".into()),
    }
}
