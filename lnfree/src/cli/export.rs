//! `export`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use lnfree::eval::EvalRecord;
use lnfree::export::ExportFormat;
use lnfree::export::{CardFacts, export as export_model};
use lnfree::hub::{Hub, PushOptions, Settings};
use lnfree::model::LoadedModel;
use lnfree::output::check_whole_folder;
use lnfree::tch::Kind;
use lnfree::{Error, checkpoint};

use super::DeviceArgs;
use super::out::outln;

#[derive(Args)]
pub(super) struct ExportArgs {
    /// A checkpoint, or a run directory for its latest one.
    checkpoint: PathBuf,
    /// scaled keeps LN in name (the paper's format), folded has none.
    #[arg(long, value_parser = |s: &str| s.parse::<ExportFormat>())]
    format: ExportFormat,
    /// Folder to write.
    #[arg(long)]
    out: PathBuf,
    /// Use the standard deviation of other positions where position 0 still has its own.
    #[arg(long)]
    ignore_special: bool,
    /// Evaluations of this checkpoint for the model card, JSON files of `lnfree eval`.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    eval: Vec<PathBuf>,
    /// Then upload it to this model repository of the Hugging Face hub, which is made if there is none.
    #[arg(long, value_name = "ORG/NAME")]
    push: Option<String>,
    /// Make that repository private, if it has to be made.
    #[arg(long, requires = "push")]
    private: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(super) fn export(args: ExportArgs) -> anyhow::Result<()> {
    check_whole_folder("--out", &args.out)?;
    // What cannot be pushed is said before anything is computed.
    let hub = match &args.push {
        Some(repo) => {
            let hub = Hub::new(Settings::from_env()?);
            hub.check_push(repo)?;
            Some(hub)
        }
        None => None,
    };
    let device = args.device.device()?;
    let run = args.checkpoint.join("checkpoints").is_dir();
    let dir = if run { checkpoint::latest(&args.checkpoint)? } else { args.checkpoint.clone() };
    let facts = facts(&dir, &args)?;
    let loaded = LoadedModel::load(&dir, None, Kind::Float, device)?;
    let proof = export_model(&loaded, args.format, &args.out, args.ignore_special, &facts)
        .with_context(|| format!("cannot export {}", dir.display()))?;
    outln!(
        "{}: {} logits compared with the checkpoint: largest difference {:.2e}, relative RMS {:.2e}",
        args.out.display(),
        proof.n_logits,
        proof.max_abs,
        proof.relative_rms
    );
    if let (Some(hub), Some(repo)) = (hub, &args.push) {
        let options = PushOptions { private: args.private, ..PushOptions::default() };
        let out = args.out.display();
        super::push::upload(&hub, &args.out, repo, &options).with_context(|| {
            format!("the export is in {out} and was not pushed; `lnfree push {out} {repo}` tries again")
        })?;
    }
    Ok(())
}

/// What the card says of a checkpoint.
fn facts(dir: &Path, args: &ExportArgs) -> anyhow::Result<CardFacts> {
    let repo = args.push.clone();
    let evaluations = args.eval.iter().map(|path| evaluation(path, dir)).collect::<anyhow::Result<_>>()?;
    Ok(match checkpoint::state(dir)? {
        Some(state) => CardFacts {
            name: args.out.file_name().map_or("model".into(), |n| n.to_string_lossy().into_owned()),
            base_model: state.config.model.name,
            data: state.config.data.train,
            steps: state.step,
            repo,
            evaluations,
        },
        None => CardFacts { name: dir.display().to_string(), repo, evaluations, ..CardFacts::default() },
    })
}

/// An evaluation of the checkpoint `dir`.
fn evaluation(path: &Path, dir: &Path) -> anyhow::Result<EvalRecord> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let record: EvalRecord = serde_json::from_str(&text)
        .map_err(|e| Error::file(path, format!("is no evaluation of `lnfree eval --json`: {e}")))?;
    let evaluated = checkpoint::locate_model(&record.model).ok().and_then(|of| of.canonicalize().ok());
    if evaluated.is_none() || evaluated != dir.canonicalize().ok() {
        let (model, dir) = (&record.model, dir.display());
        anyhow::bail!("--eval {}: is an evaluation of {model}, not of {dir}", path.display());
    }
    Ok(record)
}
