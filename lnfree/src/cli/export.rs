//! `export` and `generate`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use lnfree::checkpoint;
use lnfree::data::Tokenizer;
use lnfree::export::ExportFormat;
use lnfree::export::{CardFacts, export as export_model};
use lnfree::generate::{Generator, SampleOptions};
use lnfree::hub::{Hub, PushOptions, Settings};
use lnfree::model::LoadedModel;
use lnfree::output::check_whole_folder;
use lnfree::tch::Kind;

use super::DeviceArgs;
use super::out::{is_closed, out, outln};

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
    /// Then upload it to this model repository of the Hugging Face hub, which is made if there is none.
    #[arg(long, value_name = "ORG/NAME")]
    push: Option<String>,
    /// Make that repository private, if it has to be made.
    #[arg(long, requires = "push")]
    private: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Args)]
pub(super) struct GenerateArgs {
    /// Model: a folder, `nano`, or a name on the Hugging Face hub (gpt2-xl, ORG/NAME, ORG/NAME@REVISION).
    #[arg(short, long)]
    model: String,
    /// Text to continue; without it the text begins after end-of-text.
    #[arg(short, long, default_value = "")]
    prompt: String,
    /// Tokens to add at most.
    #[arg(short = 'n', long, default_value_t = 100)]
    max_new_tokens: usize,
    /// 0 always takes the most likely token.
    #[arg(short, long, default_value_t = 0.8)]
    temperature: f64,
    /// Draw from the k most likely tokens; 0 from all.
    #[arg(short = 'k', long, default_value_t = 40)]
    top_k: usize,
    /// The same seed gives the same text.
    #[arg(short, long, default_value_t = 0)]
    seed: u64,
    /// float32, tf32 (GPU) or bfloat16: what matrix products are computed in.
    #[arg(long, default_value = "float32")]
    dtype: lnfree::config::FloatType,
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
    Ok(match checkpoint::state(dir)? {
        Some(state) => CardFacts {
            name: args.out.file_name().map_or("model".into(), |n| n.to_string_lossy().into_owned()),
            base_model: state.config.model.name,
            data: state.config.data.train,
            steps: state.step,
            repo,
        },
        None => CardFacts { name: dir.display().to_string(), repo, ..CardFacts::default() },
    })
}

pub(super) fn generate(args: GenerateArgs) -> anyhow::Result<()> {
    let options = SampleOptions {
        max_new_tokens: args.max_new_tokens,
        temperature: args.temperature,
        top_k: args.top_k,
        seed: args.seed,
    };
    options.check()?;
    let device = args.device.device()?;
    let dir = lnfree::checkpoint::locate_model(&args.model)?;
    let tokenizer = Tokenizer::from_dir(&dir)?;
    let loaded = LoadedModel::load(&dir, None, Kind::Float, device)?;
    let mut prompt = tokenizer.encode(&args.prompt)?;
    if prompt.is_empty() {
        prompt.push(tokenizer.eot_id());
    }
    let mut ids = Vec::new();
    let mut printed = args.prompt.len();
    out!("{}", args.prompt);
    // Decoding everything anew keeps characters whole that several tokens make together.
    let mut failure = None;
    Generator::new(&loaded.model, &loaded.ln, args.dtype)?.generate(&prompt, options, |id| {
        ids.push(id);
        let mut step = || -> anyhow::Result<()> {
            let all: Vec<u32> =
                tokenizer.encode(&args.prompt)?.into_iter().chain(ids.iter().copied()).collect();
            let text = tokenizer.decode(&all)?;
            if let Some(new) = text.get(printed..).filter(|t| !t.ends_with('\u{FFFD}')) {
                out!("{new}");
                printed = text.len();
            }
            Ok(())
        };
        failure = step().err();
        failure.is_none() && !is_closed()
    })?;
    out!("\n");
    failure.map_or(Ok(()), Err)
}
