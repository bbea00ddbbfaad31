//! `std` and `eval`.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use lnfree::Error;
use lnfree::atomic::write_text;
use lnfree::data::{DatasetOptions, TokenFile, Tokenizer, open_dataset_with};
use lnfree::device::{device_name, peak_memory, reset_peak_memory};
use lnfree::eval::{
    EvalOptions, EvalRecord, Evaluation, RunFacts, evaluate, result_name, write_losses, write_sequences,
};
use lnfree::hub::locate_tokenizer;
use lnfree::model::LoadedModel;
use lnfree::model::ModelFormat;
use lnfree::tch::Kind;

use super::data::options_for;
use super::{DeviceArgs, model_dir};

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
    #[command(flatten)]
    device: DeviceArgs,
}

/// Tokens of GPT-2's vocabulary.
const GPT2_VOCAB: i64 = 50257;

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
    let dir = model_dir(&args.model)?;
    let loaded = LoadedModel::load(&dir, None, Kind::Float, device)?;
    let tokens = open_dataset_with(&args.data, &options_for(&dir, loaded.model.config.block_size as usize))?;
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
    let dir = model_dir(&args.model)?;
    let loaded = LoadedModel::load(&dir, args.format, Kind::Float, device)?;
    let tokenizer = Tokenizer::from_dir(&dir).or_else(|_| data_tokenizer(&loaded)).ok();
    let options = options_for(&dir, loaded.model.config.block_size as usize);
    let study = Study { args: &args, loaded, tokenizer, options };
    if let [data] = args.data.as_slice() {
        return study.data_set(data);
    }
    // What one data set lacks must not cost the others.
    let mut failed = 0;
    for data in &args.data {
        if let Err(error) = study.data_set(data) {
            eprintln!("error: {data}: {error:#}");
            failed += 1;
        }
    }
    anyhow::ensure!(failed == 0, "{failed} of {} data sets failed, see above", args.data.len());
    Ok(())
}

/// The tokenizer that GPT-2s without one of their own were made with.
fn data_tokenizer(loaded: &LoadedModel) -> lnfree::Result<Tokenizer> {
    let name = if loaded.model.config.vocab_size == GPT2_VOCAB { "gpt2" } else { "nano" };
    let tokenizer = Tokenizer::from_dir(locate_tokenizer(name)?)?;
    match tokenizer.vocab_size() as i64 == loaded.model.config.vocab_size {
        true => Ok(tokenizer),
        false => Err(Error::invalid("no tokenizer of this vocabulary")),
    }
}

/// One model, to be evaluated on some data sets.
struct Study<'a> {
    args: &'a EvalArgs,
    loaded: LoadedModel,
    tokenizer: Option<Tokenizer>,
    /// How data sets are prepared for it.
    options: DatasetOptions,
}

impl Study<'_> {
    fn data_set(&self, data: &str) -> anyhow::Result<()> {
        let (args, config) = (self.args, &self.loaded.model.config);
        let options = DatasetOptions { max_sequences: args.n_sequences, ..self.options.clone() };
        let tokens = open_dataset_with(data, &options)?;
        tokens.check_vocab(config.vocab_size as usize)?;
        let (evaluation, mut run) = self.evaluate(&tokens)?;
        run.data_sha256 = tokens.fingerprint()?;
        let label = args.label.clone().unwrap_or_else(|| args.model.clone());
        let names = (args.model.clone(), self.loaded.format.to_string(), data.to_string());
        let record = EvalRecord::new(label, names, &evaluation, &tokens, self.tokenizer.as_ref(), run)?;
        print(&record);
        self.write(&record, &evaluation)
    }

    fn evaluate(&self, tokens: &TokenFile) -> lnfree::Result<(Evaluation, RunFacts)> {
        let args = self.args;
        let options = EvalOptions {
            batch_size: args.batch_size,
            max_sequences: args.n_sequences,
            drop_last: args.drop_last,
            dtype: args.dtype,
        };
        let bar = bar(tokens.n_sequences().min(args.n_sequences));
        let device = self.loaded.model.device();
        reset_peak_memory(device);
        let started = Instant::now();
        let progress = |done| bar.set_position(done as u64);
        let evaluation = evaluate(&self.loaded.model, &self.loaded.ln, tokens, options, progress)?;
        let seconds = started.elapsed().as_secs_f64();
        bar.finish_and_clear();
        let read: usize = evaluation.sequences.iter().map(|s| s.n_tokens + 1).sum();
        let run = RunFacts {
            dtype: args.dtype.name().into(),
            device: device_name(device),
            batch_size: args.batch_size,
            max_sequences: args.n_sequences,
            drop_last: args.drop_last,
            data_sha256: String::new(),
            seconds,
            tokens_per_s: read as f64 / seconds,
            peak_memory: peak_memory(device),
        };
        Ok((evaluation, run))
    }

    fn write(&self, record: &EvalRecord, evaluation: &Evaluation) -> anyhow::Result<()> {
        let json = serde_json::to_string_pretty(record)?;
        if let Some(path) = &self.args.losses {
            write_losses(path, &evaluation.losses)?;
        }
        if let Some(path) = &self.args.json {
            write_text(path, &json)?;
        }
        if let Some(folder) = &self.args.out {
            std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
            let name = result_name(&record.label, &record.dataset);
            let path = |end: &str| folder.join(format!("{name}.{end}"));
            if self.args.keep_losses {
                write_losses(&path("losses.arrow"), &evaluation.losses)?;
            }
            write_sequences(&path("sequences.arrow"), &evaluation.sequences)?;
            // Last: where it is, the others are.
            write_text(&path("json"), &json)?;
        }
        Ok(())
    }
}

fn bar(n_sequences: usize) -> ProgressBar {
    let bar = ProgressBar::new(n_sequences as u64);
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
