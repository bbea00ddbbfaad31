//! `export`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use lnfree::Error;
use lnfree::checkpoint::locate_model;
use lnfree::eval::EvalRecord;
use lnfree::export::{CardFacts, ExportFormat, export as export_model, has_tokenizer};
use lnfree::hub::{Hub, PushOptions, Settings};
use lnfree::model::{LoadedModel, ModelFormat};
use lnfree::output::check_whole_folder;
use lnfree::tch::Kind;

use super::DeviceArgs;
use super::out::outln;

#[derive(Args)]
pub(super) struct ExportArgs {
    /// A model without LN: a checkpoint, a run directory for its latest one, an export of any format,
    /// `nano…`, or a name on the Hugging Face hub (ORG/NAME, ORG/NAME@REVISION).
    model: String,
    /// identity has LNs that change nothing, so that every library's plain GPT-2 code loads it; folded has
    /// none; scaled keeps them in name (the paper's format).
    #[arg(long, default_value = "identity", value_parser = |s: &str| s.parse::<ExportFormat>())]
    format: ExportFormat,
    /// Folder to write.
    #[arg(long)]
    out: PathBuf,
    /// Use the standard deviation of other positions where position 0 still has its own.
    #[arg(long)]
    ignore_special: bool,
    /// Evaluations of this model for the model card, JSON files of `lnfree eval`.
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
    let dir = locate_model(&args.model)?;
    let facts = facts(&dir, &args)?;
    let loaded = LoadedModel::load(&dir, None, Kind::Float, device)?;
    let proof = export_model(&loaded, args.format, &args.out, args.ignore_special, &facts)
        .with_context(|| format!("cannot export {}", dir.display()))?;
    outln!("{} ({}, from {}): {proof}", args.out.display(), args.format, loaded.format);
    notes(&loaded, &args);
    if let (Some(hub), Some(repo)) = (hub, &args.push) {
        let options = PushOptions { private: args.private, ..PushOptions::default() };
        let out = args.out.display();
        super::push::upload(&hub, &args.out, repo, &options).with_context(|| {
            format!("the export is in {out} and was not pushed; `lnfree push {out} {repo}` tries again")
        })?;
    }
    Ok(())
}

/// What whoever exported it has to know of it.
fn notes(loaded: &LoadedModel, args: &ExportArgs) {
    if loaded.format == ModelFormat::Folded && args.format == ExportFormat::Identity {
        outln!(
            "  ln_f's shift stays in the last MLP's bias, where the folded model had it: only the checkpoint it was made of \
             tells them apart"
        );
    }
    if !has_tokenizer(&args.out) {
        let n = loaded.model.config.vocab_size;
        outln!(
            "  no tokenizer: none of {n} tokens is known; copy one there, or give it to `generate --tokenizer`"
        );
    }
}

/// What the card says of a model.
fn facts(dir: &Path, args: &ExportArgs) -> anyhow::Result<CardFacts> {
    let evaluations = args.eval.iter().map(|path| evaluation(path, dir)).collect::<anyhow::Result<_>>()?;
    Ok(CardFacts { repo: args.push.clone(), evaluations, ..CardFacts::of(&args.model, dir)? })
}

/// An evaluation of the model in `dir`.
fn evaluation(path: &Path, dir: &Path) -> anyhow::Result<EvalRecord> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let record: EvalRecord = serde_json::from_str(&text)
        .map_err(|e| Error::file(path, format!("is no evaluation of `lnfree eval --json`: {e}")))?;
    let evaluated = locate_model(&record.model).ok().and_then(|of| of.canonicalize().ok());
    if evaluated.is_none() || evaluated != dir.canonicalize().ok() {
        let (model, dir) = (&record.model, dir.display());
        anyhow::bail!("--eval {}: is an evaluation of {model}, not of {dir}", path.display());
    }
    Ok(record)
}
