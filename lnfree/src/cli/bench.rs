//! `bench`.

use std::path::PathBuf;

use clap::Args;
use lnfree::Error;
use lnfree::bench::{BenchLn, BenchOptions, Task, bench, bench_table, published_shape};
use lnfree::model::Gpt2Config;

use super::DeviceArgs;
use super::out::outln;

#[derive(Args)]
pub(super) struct BenchArgs {
    /// train: whole optimizer steps; eval: batches of an evaluation; generate: texts written token by token.
    #[arg(long, default_value = "eval")]
    task: Task,
    /// real: LayerNorm kept; half: as in the middle of a run; fake: every one replaced, as in a run after its
    /// last removal; folded: the export without any (not for training).
    #[arg(long, default_value = "real")]
    ln: BenchLn,
    /// gpt2, gpt2-medium, gpt2-large, gpt2-xl, or LAYERS,HEADS,WIDTH,VOCABULARY.
    #[arg(long, default_value = "gpt2")]
    size: String,
    /// Sequences in a batch; in training, in a micro-batch; texts that are written together.
    #[arg(long, default_value_t = 8)]
    batch_size: usize,
    /// Micro-batches in an optimizer step.
    #[arg(long, default_value_t = 1)]
    accum: usize,
    /// Tokens in a sequence of training or evaluation.
    #[arg(long, default_value_t = 1024)]
    seq: usize,
    /// In generation, tokens that are there before.
    #[arg(long, default_value_t = 128)]
    prompt: usize,
    /// In generation, tokens that are written after them.
    #[arg(long, default_value_t = 128)]
    new_tokens: usize,
    /// Steps, batches, or rounds of writing that are timed.
    #[arg(long, default_value_t = 10)]
    steps: usize,
    /// Those before.
    #[arg(long, default_value_t = 2)]
    warmup: usize,
    /// float32, tf32 (GPU) or bfloat16: what matrix products are computed in.
    #[arg(long, default_value = "float32")]
    dtype: lnfree::config::FloatType,
    /// In training, compute blocks again for their gradients instead of keeping what is inside of them.
    #[arg(long)]
    checkpointing: bool,
    /// In training, the weight of the auxiliary loss; 0 leaves it out.
    #[arg(long, default_value_t = 0.0)]
    aux_weight: f64,
    /// Run nothing: show the results that scripts/bench.sh gathered in this file.
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// Show them as a table for a document.
    #[arg(long, requires = "table")]
    markdown: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(super) fn run(args: BenchArgs) -> anyhow::Result<()> {
    if let Some(path) = &args.table {
        outln!("{}", bench_table(path, args.markdown)?);
        return Ok(());
    }
    let device = args.device.device()?;
    if [args.batch_size, args.accum, args.steps, args.prompt, args.new_tokens].contains(&0) || args.seq < 2 {
        let message =
            "--batch-size, --accum, --steps, --prompt and --new-tokens must be at least 1, --seq at least 2";
        return Err(Error::invalid(message).into());
    }
    let seq = match args.task {
        Task::Generate => args.prompt.saturating_add(args.new_tokens),
        Task::Train | Task::Eval => args.seq,
    };
    let options = BenchOptions {
        task: args.task,
        ln: args.ln,
        batch_size: args.batch_size,
        accumulation: args.accum,
        seq,
        prompt: args.prompt,
        steps: args.steps,
        warmup: args.warmup,
        dtype: args.dtype,
        checkpointing: args.checkpointing,
        aux_weight: args.aux_weight,
    };
    let record = bench(shape(&args.size, seq)?, device, options)?;
    outln!("{}", serde_json::to_string(&record)?);
    Ok(())
}

/// A published size, or four numbers.
fn shape(size: &str, seq: usize) -> lnfree::Result<Gpt2Config> {
    let numbers: Option<Vec<i64>> = size.split(',').map(|n| n.trim().parse().ok()).collect();
    match numbers.as_deref() {
        Some(&[n_layer, n_head, n_embd, vocab_size]) => {
            Gpt2Config::new(n_layer, n_head, n_embd, seq as i64, vocab_size)
        }
        _ => published_shape(size, seq),
    }
}
