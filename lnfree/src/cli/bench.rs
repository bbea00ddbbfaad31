//! `bench`.

use clap::Args;
use lnfree::Error;
use lnfree::bench::{BenchOptions, bench_eval, published_shape};
use lnfree::model::Gpt2Config;

use super::DeviceArgs;

#[derive(Args)]
pub(super) struct BenchArgs {
    /// gpt2, gpt2-medium, gpt2-large, gpt2-xl, or LAYERS,HEADS,WIDTH,VOCABULARY.
    #[arg(long, default_value = "gpt2")]
    size: String,
    /// Sequences in a batch.
    #[arg(long, default_value_t = 8)]
    batch_size: usize,
    /// Tokens in a sequence.
    #[arg(long, default_value_t = 1024)]
    seq: usize,
    /// Batches that are timed.
    #[arg(long, default_value_t = 10)]
    steps: usize,
    /// Batches before these.
    #[arg(long, default_value_t = 2)]
    warmup: usize,
    /// float32, tf32 (GPU) or bfloat16: what matrix products are computed in.
    #[arg(long, default_value = "float32")]
    dtype: lnfree::config::FloatType,
    #[command(flatten)]
    device: DeviceArgs,
}

pub(super) fn bench(args: BenchArgs) -> anyhow::Result<()> {
    let device = args.device.device()?;
    if args.batch_size == 0 || args.steps == 0 || args.seq < 2 {
        return Err(Error::invalid("--batch-size and --steps must be at least 1, --seq at least 2").into());
    }
    let options = BenchOptions {
        batch_size: args.batch_size,
        seq: args.seq,
        steps: args.steps,
        warmup: args.warmup,
        dtype: args.dtype,
    };
    let record = bench_eval(shape(&args.size, args.seq)?, device, options)?;
    println!("{}", serde_json::to_string(&record)?);
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
