//! `bench`.

use lnfree::Error;
use lnfree::bench::{BenchOptions, bench_eval, published_shape};
use lnfree::model::Gpt2Config;

use super::BenchArgs;

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
