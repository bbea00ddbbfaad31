//! `std` and `eval`.

use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use lnfree::Error;
use lnfree::atomic::write_text;
use lnfree::checkpoint::locate_model;
use lnfree::data::open_dataset_with;
use lnfree::eval::{EvalOptions, EvalRecord, Evaluator, write_losses, write_result};
use lnfree::model::{LoadOptions, LoadedModel, ModelFormat, dataset_options};

use super::DeviceArgs;

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
    /// transformers, fakeln_checkpoint, noLN_HF_model or folded; by default the directory says.
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
    /// Write the result here as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the per-token losses here as Arrow, column `loss`.
    #[arg(long)]
    losses: Option<PathBuf>,
    /// Write LABEL--DATA.json and LABEL--DATA.sequences.arrow (mean losses of sequences) of every data set into this folder.
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
    let device = args.device.device()?;
    let dir = locate_model(&args.model)?;
    let load = LoadOptions { device, allow_non_finite: args.allow_non_finite, ..LoadOptions::default() };
    let loaded = LoadedModel::load_with(&dir, load)?;
    let tokens =
        open_dataset_with(&args.data, &dataset_options(&dir, loaded.model.config.block_size as usize))?;
    tokens.check_vocab(loaded.model.config.vocab_size as usize)?;
    let stds = lnfree::stds::measure(&loaded.model, &loaded.ln, &tokens, args.n_sequences, args.batch_size)?;
    let names = lnfree::norm::ln_names(loaded.model.h.len());
    println!("{:<12} {:>10} {:>12}", "LN", "std", "position 0");
    for (name, (std, bos)) in names.iter().zip(stds.initial(loaded.model.h.len())?) {
        println!("{name:<12} {std:>10.4} {bos:>12.4}");
    }
    if let Some(out) = &args.out {
        stds.write(out)?;
        println!("written to {}", out.display());
    }
    Ok(())
}

pub(super) fn eval(args: EvalArgs) -> anyhow::Result<()> {
    check_counts(args.batch_size, args.n_sequences)?;
    if args.out.is_none() && args.data.len() > 1 {
        return Err(Error::invalid("several data sets need --out, a folder for their results").into());
    }
    let device = args.device.device()?;
    args.dtype.prepare(device)?;
    let label = args.label.as_deref().unwrap_or(&args.model);
    let load = LoadOptions {
        format: args.format,
        device,
        allow_non_finite: args.allow_non_finite,
        ..Default::default()
    };
    let evaluator = Evaluator::load_with(label, &args.model, load)?;
    if let [data] = args.data.as_slice() {
        return eval_one(&evaluator, data, &args);
    }
    // What one data set lacks must not cost the others.
    let mut failed = 0;
    for data in &args.data {
        if let Err(error) = eval_one(&evaluator, data, &args) {
            eprintln!("error: {data}: {error:#}");
            failed += 1;
        }
    }
    anyhow::ensure!(failed == 0, "{failed} of {} data sets failed, see above", args.data.len());
    Ok(())
}

fn eval_one(evaluator: &Evaluator, data: &str, args: &EvalArgs) -> anyhow::Result<()> {
    let options = EvalOptions {
        batch_size: args.batch_size,
        max_sequences: args.n_sequences,
        drop_last: args.drop_last,
        dtype: args.dtype,
    };
    let bar = bar();
    let (record, evaluation) = evaluator.evaluate(data, options, |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    print(&record);
    if let Some(path) = &args.losses {
        write_losses(path, &evaluation.losses)?;
    }
    if let Some(path) = &args.json {
        write_text(path, &serde_json::to_string_pretty(&record)?)?;
    }
    if let Some(folder) = &args.out {
        write_result(folder, &record, &evaluation, args.keep_losses)?;
    }
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
    println!("{} ({}) on {}", record.label, record.format, record.dataset);
    println!("  {} sequences, {} tokens", record.n_sequences, record.n_tokens);
    println!(
        "  mean {:.4}  median {:.4}  perplexity {:.2}",
        record.summary.mean, record.summary.median, record.summary.perplexity
    );
    let [low, high] = record.mean_interval;
    println!("  mean's 95% interval [{low:.4}, {high:.4}]  trimmed mean {:.4}", record.trimmed_mean);
    for (width, [low, high]) in &record.summary.ranges {
        println!("  {width:>5}% range [{low:.4}, {high:.4}]");
    }
    println!(
        "  entropy {:.4}  accuracy {:.4}  calibration error {:.4}",
        record.entropy, record.accuracy, record.calibration_error
    );
    for worst in record.worst.iter().take(1) {
        println!("  worst sequence: {} with {:.4}", worst.sequence, worst.mean);
    }
    println!("  {:.0} tokens/s in {} on {}", record.run.tokens_per_s, record.run.dtype, record.run.device);
}
