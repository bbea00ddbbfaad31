//! `std` and `eval`.

use indicatif::{ProgressBar, ProgressStyle};
use lnfree::Error;
use lnfree::data::open_dataset;
use lnfree::eval::{EvalOptions, EvalRecord, Summary, evaluate, write_losses};
use lnfree::model::LoadedModel;
use lnfree::tch::Kind;

use super::{EvalArgs, StdArgs, model_dir};

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
    let loaded = LoadedModel::load(&model_dir(&args.model)?, None, Kind::Float, device)?;
    let tokens = open_dataset(&args.data, loaded.model.config.block_size as usize)?;
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
    let device = args.device.device()?;
    let loaded = LoadedModel::load(&model_dir(&args.model)?, args.format, Kind::Float, device)?;
    let tokens = open_dataset(&args.data, loaded.model.config.block_size as usize)?;
    tokens.check_vocab(loaded.model.config.vocab_size as usize)?;
    let options = EvalOptions {
        batch_size: args.batch_size,
        max_sequences: args.n_sequences,
        drop_last: args.drop_last,
        dtype: args.dtype.kind(),
    };
    let bar = ProgressBar::new(tokens.n_sequences().min(args.n_sequences) as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} sequences  (left {eta})") {
        bar.set_style(style);
    }
    let losses = evaluate(&loaded.model, &loaded.ln, &tokens, options, |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    let record = EvalRecord {
        label: args.label.unwrap_or_else(|| args.model.clone()),
        model: args.model,
        format: loaded.format.to_string(),
        dataset: args.data,
        n_sequences: losses.n_sequences,
        n_tokens: losses.losses.len(),
        summary: Summary::new(&losses.losses),
    };
    print(&record);
    if let Some(path) = &args.losses {
        write_losses(path, &losses.losses)?;
    }
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&record)?;
        lnfree::atomic::write_text(path, &text)?;
    }
    Ok(())
}

fn print(record: &EvalRecord) {
    println!("{} ({}) on {}", record.label, record.format, record.dataset);
    println!("  {} sequences, {} tokens", record.n_sequences, record.n_tokens);
    println!(
        "  mean {:.4}  median {:.4}  perplexity {:.2}",
        record.summary.mean, record.summary.median, record.summary.perplexity
    );
    for (width, [low, high]) in &record.summary.ranges {
        println!("  {width:>5}% range [{low:.4}, {high:.4}]");
    }
}
