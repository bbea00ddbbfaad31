//! `train` and `pretrain`.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use lnfree::config::Config;
use lnfree::hub::locate_tokenizer;
use lnfree::output::check_folder;
use lnfree::plan::RunPlan;
use lnfree::train::{Mode, ReadyRun, Sources, override_data};
use lnfree::{Error, checkpoint, interrupt};

use super::out::outln;
use super::ranks::{RankArgs, join};
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
    #[arg(short, long)]
    model: Option<String>,
    /// Training tokens: a data set's name or a token file; by default the config's.
    #[arg(short, long)]
    data: Option<String>,
    /// Validation tokens, likewise; with --data, none unless given.
    #[arg(long)]
    eval_data: Option<String>,
    /// Run directory; by default runs/CONFIG-MODE.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Continue the run in this directory, or from one of its checkpoints, or the latest run under runs/.
    /// With it, --set takes what does not change what is computed: train.micro_batch_size (N or auto),
    /// train.keep_steps, eval.every and the like.
    #[arg(long, value_name = "DIR|latest", conflicts_with_all = ["mode", "config", "model", "out"])]
    resume: Option<String>,
    /// Start nothing and download nothing: say what the run will need on this device, and whether it fits.
    #[arg(long, conflicts_with = "resume")]
    plan: bool,
    /// Stop after this optimizer step, with a checkpoint that --resume goes on from: learning rate and
    /// schedule are those of the whole run.
    #[arg(long, value_name = "STEP", conflicts_with = "plan")]
    stop_after: Option<NonZeroUsize>,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    ranks: RankArgs,
    #[command(flatten)]
    set: Overrides,
}

#[derive(Args)]
pub(super) struct PretrainArgs {
    /// Name of a shipped config, or a TOML file.
    #[arg(long, required_unless_present = "resume")]
    config: Option<String>,
    /// Tokenizer that the tokens were made with, a folder or a name on the hub; by default that of the
    /// config's model.
    #[arg(long)]
    tokenizer: Option<String>,
    /// Training tokens: a data set's name or a token file; by default the config's.
    #[arg(short, long)]
    data: Option<String>,
    /// Run directory; by default runs/CONFIG.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Continue the run in this directory, or from one of its checkpoints, or the latest run under runs/;
    /// --set as for `train`.
    #[arg(long, value_name = "DIR|latest", conflicts_with_all = ["config", "out", "tokenizer"])]
    resume: Option<String>,
    /// Stop after this optimizer step, with a checkpoint that --resume goes on from: learning rate and
    /// schedule are those of the whole run.
    #[arg(long, value_name = "STEP")]
    stop_after: Option<NonZeroUsize>,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    ranks: RankArgs,
    #[command(flatten)]
    set: Overrides,
}

/// Where run directories go by default.
const RUNS: &str = "runs";

pub(super) fn train(args: TrainArgs) -> anyhow::Result<()> {
    if !args.plan && args.ranks.start(&args.device)?.is_some() {
        return Ok(());
    }
    let sources = Sources { data: args.data, eval_data: args.eval_data };
    if let Some(resume) = &args.resume {
        return continue_run(resume, sources, &args.set.items, &args.device, args.stop_after);
    }
    let (Some(mode), Some(name)) = (args.mode, args.config.as_deref()) else {
        anyhow::bail!("--mode and --config are needed");
    };
    let mut config = Config::load(name, &args.set.items)?;
    if let Some(model) = args.model {
        config.model.name = model;
    }
    override_data(&mut config, sources);
    if args.plan {
        let plan = RunPlan::new(&config, mode, args.device.device()?)?;
        outln!("{plan}");
        return Ok(plan.check()?);
    }
    check_stop(args.stop_after, &config)?;
    let mode_name = if mode == Mode::WithLn { "with_ln" } else { "without_ln" };
    let out = args.out.unwrap_or_else(|| default_out(name, Some(mode_name)));
    check_folder("--out", &out)?;
    let worker = join(&args.device)?;
    let model_dir = worker.ranks.first_alone(|| checkpoint::locate_model(&config.model.name))?;
    let run = ReadyRun::begin(config, mode, &model_dir, &out, worker)?;
    finish(run, args.stop_after)
}

pub(super) fn pretrain(args: PretrainArgs) -> anyhow::Result<()> {
    if args.ranks.start(&args.device)?.is_some() {
        return Ok(());
    }
    let sources = Sources { data: args.data, eval_data: None };
    if let Some(resume) = &args.resume {
        return continue_run(resume, sources, &args.set.items, &args.device, args.stop_after);
    }
    let name = args.config.as_deref().context("--config is needed")?;
    let mut config = Config::load(name, &args.set.items)?;
    override_data(&mut config, sources);
    check_stop(args.stop_after, &config)?;
    let out = args.out.unwrap_or_else(|| default_out(name, None));
    check_folder("--out", &out)?;
    let worker = join(&args.device)?;
    let name = args.tokenizer.as_deref().unwrap_or(&config.model.name);
    let tokenizer = worker.ranks.first_alone(|| locate_tokenizer(name))?;
    let run = ReadyRun::begin(config, Mode::Pretrain, &tokenizer, &out, worker)?;
    finish(run, args.stop_after)
}

/// Before a folder is made for the run.
fn check_stop(stop_after: Option<NonZeroUsize>, config: &Config) -> anyhow::Result<()> {
    let max_steps = config.train.max_steps;
    match stop_after {
        Some(step) if step.get() > max_steps => {
            anyhow::bail!("--stop-after {step}: the run has no such step, train.max_steps is {max_steps}")
        }
        _ => Ok(()),
    }
}

fn default_out(config: &str, mode: Option<&str>) -> PathBuf {
    let stem = Path::new(config).file_stem().map_or("run".into(), |s| s.to_string_lossy().into_owned());
    Path::new(RUNS).join(mode.map_or(stem.clone(), |m| format!("{stem}-{m}")))
}

fn continue_run(
    resume: &str,
    sources: Sources,
    changes: &[String],
    device: &DeviceArgs,
    stop_after: Option<NonZeroUsize>,
) -> anyhow::Result<()> {
    let path = if resume == "latest" { newest_run()? } else { PathBuf::from(resume) };
    let run = ReadyRun::resume_with(&path, sources, changes, join(device)?)?;
    if run.trainer.ranks().is_first() {
        let (dir, step) = (run.dir.display(), run.trainer.step());
        let _ = writeln!(std::io::stderr(), "resuming {dir} after step {step}");
    }
    finish(run, stop_after)
}

fn finish(run: ReadyRun, stop_after: Option<NonZeroUsize>) -> anyhow::Result<()> {
    interrupt::install()?;
    let (dir, max_steps) = (run.dir.clone(), run.trainer.config.train.max_steps);
    let outcome = run.run_to(stop_after.map_or(max_steps, NonZeroUsize::get))?;
    let (steps, path) = (outcome.steps, outcome.checkpoint.display());
    if steps < max_steps {
        outln!("stopped after step {steps} of {max_steps}, as asked; --resume {} goes on", dir.display());
    } else {
        outln!("{steps} steps done; the model is in {path}");
    }
    Ok(())
}

/// The run whose metrics were written last.
fn newest_run() -> anyhow::Result<PathBuf> {
    let entries = match std::fs::read_dir(RUNS) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        entries => Some(entries.map_err(Error::io(RUNS))?),
    };
    entries
        .into_iter()
        .flatten()
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|path| checkpoint::has_any(path))
        .max_by_key(|path| path.join("metrics.jsonl").metadata().and_then(|m| m.modified()).ok())
        .with_context(|| {
            format!("{RUNS}: has no run to resume; name its folder, or begin one without --resume")
        })
}

fn parse_mode(s: &str) -> Result<lnfree::train::Mode, String> {
    match s {
        "without_ln" => Ok(lnfree::train::Mode::WithoutLn),
        "with_ln" => Ok(lnfree::train::Mode::WithLn),
        _ => Err("one of without_ln, with_ln".into()),
    }
}
