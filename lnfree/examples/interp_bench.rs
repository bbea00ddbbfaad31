//! How long analyses take on a GPT-2 of random weights: what `bench/tl_peer.py` measures of TransformerLens.
//!
//! ```text
//! cargo run --release --example interp_bench -- --size gpt2 --threads 2
//! ```
//!
//! Prints one JSON object of median seconds over `--rounds` rounds, each after one that is not counted, for
//! 8 texts of 16 random tokens. Patching includes both runs that it patches between.

use std::time::Instant;

use lnfree::interp::{AttributionPatching, Metric, Patching, StreamSite};
use lnfree::model::Gpt2Config;
use lnfree::prelude::*;

type Outcome<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const TEXTS: i64 = 8;
const POSITIONS: i64 = 16;

/// Keeps every activation, as `run_with_cache` does.
#[derive(Default)]
struct KeepAll(Vec<(Activation, Tensor)>);

impl Hook for KeepAll {
    fn on(&mut self, at: Activation, x: Tensor) -> Tensor {
        self.0.push((at, x.shallow_clone()));
        x
    }
}

/// Median seconds of `work` over `rounds` rounds, after one that is not counted.
fn timed(rounds: usize, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    work()?;
    let mut seconds = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        work()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds.get(rounds / 2).copied().unwrap_or(f64::NAN))
}

fn main() -> Outcome<()> {
    let (mut size, mut threads, mut rounds) = ("gpt2".to_string(), tch::get_num_threads(), 3);
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().ok_or(format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--size" => size = value,
            "--threads" => threads = value.parse()?,
            "--rounds" => rounds = value.parse()?,
            _ => return Err(format!("{flag} is none of --size, --threads, --rounds").into()),
        }
    }
    tch::set_num_threads(threads);
    let config = match size.as_str() {
        "gpt2" => Gpt2Config::new(12, 12, 768, 1024, 50257)?,
        "nano" => Gpt2Config::new(6, 4, 128, 128, 4096)?,
        _ => return Err(format!("no size {size}: gpt2 or nano").into()),
    };
    let (n_layer, vocab_size) = (config.n_layer as usize, config.vocab_size);
    let model = Gpt2::init(config, 0, Device::Cpu)?;
    let ln = LnState::plain(n_layer, Device::Cpu);
    let tokens = |n: i64| Tensor::randint(vocab_size, [TEXTS, n], (Kind::Int64, Device::Cpu));
    let (clean, corrupted, answers) = (tokens(POSITIONS), tokens(POSITIONS), tokens(2));
    let metric = Metric::logit_difference(&answers);

    let run_with_cache = timed(rounds, || {
        let _guard = tch::no_grad_guard();
        let mut kept = KeepAll::default();
        model.forward(&clean, &ln, Compute::default(), &mut kept).map(drop)
    })?;
    let act_patch = timed(rounds, || {
        let patching = Patching::new(&model, &ln, &clean, &corrupted, &metric)?;
        patching.by_position(StreamSite::ResidPre).map(drop)
    })?;
    let attribution =
        timed(rounds, || AttributionPatching::of(&model, &ln, &clean, &corrupted, &metric).map(drop))?;
    let found = serde_json::json!({
        "program": format!("lnfree {}", env!("CARGO_PKG_VERSION")),
        "size": size, "threads": threads, "batch": TEXTS, "pos": POSITIONS,
        "run_with_cache_s": run_with_cache,
        "act_patch_resid_pre_s": act_patch,
        "attribution_patch_resid_pre_s": attribution,
    });
    println!("{found}");
    Ok(())
}
