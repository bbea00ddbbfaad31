//! `std` and `eval`.

use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use lnfree::Error;
use lnfree::atomic::write_text;
use lnfree::checkpoint::locate_model;
use lnfree::data::dataset_options;
use lnfree::data::open_dataset_with;
use lnfree::eval::{EvalOptions, EvalRecord, Evaluation, Evaluator, result_name, write_losses, write_result};
use lnfree::model::{LoadOptions, LoadedModel, ModelFormat};
use lnfree::output::{Kept, check_apart, check_file, check_folder, keep_file, keep_folder};

use super::DeviceArgs;
use super::out::outln;

#[derive(Args)]
pub(super) struct StdArgs {
    /// Model: a folder, `nano`, or a name on the Hugging Face hub (gpt2-xl, ORG/NAME, ORG/NAME@REVISION).
    #[arg(short, long)]
    model: String,
    /// A data set's name or a token file.
    #[arg(short, long)]
    data: String,
    /// Sequences to measure on.
    #[arg(short = 'n', long, default_value_t = 64)]
    n_sequences: usize,
    /// Sequences in one forward.
    #[arg(short, long, default_value_t = 8)]
    batch_size: usize,
    /// Write the std file here, to be named in norm.init.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Load weights with NaN or infinities all the same.
    #[arg(long)]
    allow_non_finite: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Args)]
pub(super) struct EvalArgs {
    /// Model: a folder, `nano`, or a name on the Hugging Face hub (gpt2-xl, ORG/NAME, ORG/NAME@REVISION).
    #[arg(short, long)]
    model: String,
    /// transformers, checkpoint, scaled, folded or identity; by default the directory says. The paper's names
    /// fakeln_checkpoint and noLN_HF_model are understood.
    #[arg(short, long, value_parser = |s: &str| s.parse::<ModelFormat>())]
    format: Option<ModelFormat>,
    /// A data set's name or a token file; may be given many times, with --out.
    #[arg(short, long, required = true)]
    data: Vec<String>,
    /// Sequences in one forward.
    #[arg(short, long, default_value_t = 8)]
    batch_size: usize,
    /// Sequences evaluated at most.
    #[arg(short = 'n', long, default_value_t = 10_000)]
    n_sequences: usize,
    /// Leave out a last batch that is not full, as the paper's code does.
    #[arg(long)]
    drop_last: bool,
    /// float32, tf32 (GPU) or bfloat16: what matrix products are computed in.
    #[arg(long, default_value = "float32")]
    dtype: lnfree::config::FloatType,
    /// What tables and figures call the model.
    #[arg(long)]
    label: Option<String>,
    /// Also say how far its predictions lie from those of this model, such as the original that it was made
    /// of: mean KL and Jensen–Shannon divergence, and the share of tokens on which both agree.
    #[arg(long, value_name = "MODEL")]
    against: Option<String>,
    /// Write the result here as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the per-token losses here as Arrow: columns `loss`, `sequence` and `position`.
    #[arg(long)]
    losses: Option<PathBuf>,
    /// Write LABEL--DATA.json and LABEL--DATA.sequences.arrow (mean losses of sequences) of every data set
    /// into this folder.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["json", "losses"])]
    out: Option<PathBuf>,
    /// With --out: write LABEL--DATA.losses.arrow too, the per-token losses.
    #[arg(long, requires = "out")]
    keep_losses: bool,
    /// Load weights with NaN or infinities all the same.
    #[arg(long)]
    allow_non_finite: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Batches and samples of nothing are refused rather than understood as something else.
fn check_counts(batch_size: usize, n_sequences: usize) -> lnfree::Result<()> {
    match (batch_size, n_sequences) {
        (0, _) => Err(Error::invalid("--batch-size 0: a batch has at least one sequence")),
        (_, 0) => Err(Error::invalid("--n-sequences 0: at least one sequence is needed")),
        _ => Ok(()),
    }
}

pub(super) fn std(args: StdArgs) -> anyhow::Result<()> {
    check_counts(args.batch_size, args.n_sequences)?;
    if let Some(out) = &args.out {
        check_file("--out", out)?;
        check_apart(&[named("--out", out)], &[named("--data", Path::new(&args.data))])?;
    }
    let device = args.device.device()?;
    let dir = locate_model(&args.model)?;
    let load = LoadOptions { device, allow_non_finite: args.allow_non_finite, ..LoadOptions::default() };
    let loaded = LoadedModel::load_with(&dir, load)?;
    let n_layer = loaded.model.h.len();
    let tokens =
        open_dataset_with(&args.data, &dataset_options(&dir, loaded.model.config.block_size as usize))?;
    tokens.check_vocab(loaded.model.config.vocab_size as usize)?;
    let stds = lnfree::stds::measure(&loaded.model, &loaded.ln, &tokens, args.n_sequences, args.batch_size)?;
    let initial = stds.initial(n_layer)?;
    let kept = args.out.as_ref().map(|out| keep_file(out, |path| stds.write(path)));
    outln!("{:<12} {:>10} {:>12}", "LN", "std", "position 0");
    for (name, (std, bos)) in lnfree::norm::ln_names(n_layer).iter().zip(initial) {
        outln!("{name:<12} {std:>10.4} {bos:>12.4}");
    }
    match (kept, &args.out) {
        (Some(Kept::Here), Some(out)) => outln!("written to {}", out.display()),
        (Some(Kept::Nowhere(error)), _) => {
            outln!("{}", serde_json::to_string_pretty(&stds)?);
            return Err(error.into());
        }
        (Some(kept), _) => kept.here()?,
        (None, _) => {}
    }
    Ok(())
}

fn named(option: &str, path: &Path) -> (String, PathBuf) {
    (option.into(), path.into())
}

impl EvalArgs {
    fn label(&self) -> &str {
        self.label.as_deref().unwrap_or(&self.model)
    }

    /// The files that will be written, each with the option that asks for it.
    fn outputs(&self) -> Vec<(String, PathBuf)> {
        let files = [("--json", &self.json), ("--losses", &self.losses)];
        let files = files.into_iter().filter_map(|(option, path)| Some(named(option, path.as_ref()?)));
        let ends = ["json", "sequences.arrow", "losses.arrow"];
        let ends = &ends[..if self.keep_losses { 3 } else { 2 }];
        let of_folder = self.out.iter().flat_map(|folder| self.data.iter().map(move |data| (folder, data)));
        let of_folder = of_folder.flat_map(|(folder, data)| {
            let name = result_name(self.label(), data);
            ends.iter().map(move |end| (format!("--out of {data}"), folder.join(format!("{name}.{end}"))))
        });
        files.chain(of_folder).collect()
    }

    /// Refuses what cannot be written.
    fn check_outputs(&self) -> anyhow::Result<()> {
        if let Some(folder) = &self.out {
            check_folder("--out", folder)?;
        }
        let outputs = self.outputs();
        let folder_is_there = self.out.as_ref().is_none_or(|folder| folder.is_dir());
        if folder_is_there {
            outputs.iter().try_for_each(|(option, path)| check_file(option, path))?;
        }
        let mut inputs: Vec<_> = self.data.iter().map(|data| named("--data", Path::new(data))).collect();
        if let Ok(files) = std::fs::read_dir(&self.model) {
            inputs.extend(files.flatten().map(|file| named("--model", &file.path())));
        }
        Ok(check_apart(&outputs, &inputs)?)
    }
}

pub(super) fn eval(args: EvalArgs) -> anyhow::Result<()> {
    check_counts(args.batch_size, args.n_sequences)?;
    if args.out.is_none() && args.data.len() > 1 {
        return Err(Error::invalid("several data sets need --out, a folder for their results").into());
    }
    args.check_outputs()?;
    let device = args.device.device()?;
    args.dtype.prepare(device)?;
    let load = LoadOptions {
        format: args.format,
        device,
        allow_non_finite: args.allow_non_finite,
        ..Default::default()
    };
    let evaluator = Evaluator::load_with(args.label(), &args.model, load)?;
    let reference = |name: &String| {
        Evaluator::load_with(name, name, LoadOptions { format: None, ..load })
            .map_err(|error| Error::invalid(format!("--against: {error}")))
    };
    let reference = args.against.as_ref().map(reference).transpose()?;
    if let [data] = args.data.as_slice() {
        return eval_one(&evaluator, reference.as_ref(), data, &args);
    }
    // What one data set lacks must not cost the others.
    let mut failed = Vec::new();
    for data in &args.data {
        if let Err(error) = eval_one(&evaluator, reference.as_ref(), data, &args) {
            crate::panics::warn(&format!("error: {data}: {error:#}"));
            failed.push(error);
        }
    }
    let Some(last) = failed.pop() else { return Ok(()) };
    let not_finite = |error: &anyhow::Error| matches!(error.downcast_ref(), Some(Error::NotFinite(_)));
    let text = format!("{} of {} data sets failed, see above", failed.len() + 1, args.data.len());
    if not_finite(&last) && failed.iter().all(not_finite) {
        return Err(Error::NotFinite(text).into());
    }
    anyhow::bail!(text)
}

fn eval_one(
    evaluator: &Evaluator,
    reference: Option<&Evaluator>,
    data: &str,
    args: &EvalArgs,
) -> anyhow::Result<()> {
    let options = EvalOptions {
        batch_size: args.batch_size,
        max_sequences: args.n_sequences,
        drop_last: args.drop_last,
        dtype: args.dtype,
    };
    let bar = bar();
    let progress = |done: usize, total: usize| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    };
    let (mut record, evaluation) = evaluator.evaluate(data, options, progress)?;
    let compared = reference.map(|reference| evaluator.compare(reference, data, options, progress));
    bar.finish_and_clear();
    // What is evaluated is not lost when it cannot be compared.
    let compared = compared.transpose().map(|found| record.faithfulness = found);
    // Before anything is printed: whoever reads that may be gone.
    let written = write(&record, &evaluation, args);
    print(&record);
    let written = written.and(compared.map_err(|error| anyhow::anyhow!("--against: {error}")));
    match (evaluation.check(&record.label, data), written) {
        (Err(Error::NotFinite(lost)), Err(unwritten)) => {
            Err(Error::NotFinite(format!("{lost}; {unwritten}")).into())
        }
        (Err(lost), _) => Err(lost.into()),
        (Ok(()), written) => written,
    }
}

/// Writes all that was asked for, each as well as it can be.
fn write(record: &EvalRecord, evaluation: &Evaluation, args: &EvalArgs) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(record)?;
    let losses = args.losses.as_ref().map(|to| keep_file(to, |path| write_losses(path, evaluation)));
    let json = args.json.as_ref().map(|to| keep_file(to, |path| write_text(path, &text)));
    if let Some(Kept::Nowhere(_)) = json {
        outln!("{text}");
    }
    let folder = args.out.as_ref().map(|to| {
        keep_folder(to, |folder| write_result(folder, record, evaluation, args.keep_losses).map(drop))
    });
    let kept = [losses, json, folder].into_iter().flatten().map(Kept::here);
    let failed: Vec<String> = kept.filter_map(|kept| Some(kept.err()?.to_string())).collect();
    anyhow::ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} sequences  (left {eta})") {
        bar.set_style(style);
    }
    bar
}

fn print(record: &EvalRecord) {
    outln!("{} ({}) on {}", record.label, record.format, record.dataset);
    outln!("  {} sequences, {} tokens", record.n_sequences, record.n_tokens);
    if record.not_finite.is_some() {
        // There is no figure to be shown; the error says why.
        return;
    }
    outln!(
        "  mean {:.4}  median {:.4}  perplexity {:.2}",
        record.summary.mean,
        record.summary.median,
        record.summary.perplexity
    );
    let [low, high] = record.mean_interval;
    outln!("  mean's 95% interval [{low:.4}, {high:.4}]  trimmed mean {:.4}", record.trimmed_mean);
    for (width, [low, high]) in &record.summary.ranges {
        outln!("  {width:>5}% range [{low:.4}, {high:.4}]");
    }
    outln!(
        "  entropy {:.4}  accuracy {:.4}  calibration error {:.4}",
        record.entropy,
        record.accuracy,
        record.calibration_error
    );
    if let Some(found) = &record.faithfulness {
        outln!("  {found}");
    }
    for worst in record.worst.iter().take(1) {
        outln!("  worst sequence: {} with {:.4}", worst.sequence, worst.mean);
    }
    outln!("  {:.0} tokens/s in {} on {}", record.run.tokens_per_s, record.run.dtype, record.run.device);
}
