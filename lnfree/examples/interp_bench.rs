//! How long analyses take on a GPT-2 of random weights: what `scripts/bench/lens_peer.py` measures of
//! TransformerLens.
//!
//! ```text
//! cargo run --release --example interp_bench -- --size gpt2 --threads 2
//! ```
//!
//! Prints one JSON object, of each analysis of 8 texts of 16 random tokens the median seconds over `--rounds`
//! rounds, after one that is not counted, and the most memory that the process held meanwhile, the model
//! included. Patching includes both runs that it patches between.

use std::time::Instant;

use lnfree::device::reset_peak_memory;
use lnfree::interp::{
    ActivationCache, AttributionPatching, Metric, Patching, Positions, StreamSite, run_with_cache,
};
use lnfree::model::Gpt2Config;
use lnfree::prelude::*;
use serde_json::json;

type Outcome<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const TEXTS: i64 = 8;
const POSITIONS: i64 = 16;

/// What TransformerLens' `run_with_cache` keeps: everything, patterns and scores included; values have no LN
/// of their own there.
fn lens_has(at: Activation) -> bool {
    !matches!(at, Activation::Scale(LnSite::Ln1V(_)) | Activation::Normalized(LnSite::Ln1V(_)))
}

/// Median seconds of `work` over `rounds` rounds, after one that is not counted, and the most bytes that the
/// process held.
fn timed(rounds: usize, work: &mut dyn FnMut() -> Result<()>) -> Result<(f64, Option<u64>)> {
    reset_peak_memory(Device::Cpu);
    work()?;
    let mut seconds = Vec::new();
    for _ in 0..rounds {
        let start = Instant::now();
        work()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok((seconds.get(rounds / 2).copied().unwrap_or(f64::NAN), peak_memory(Device::Cpu)))
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
    let (metric, answer) = (Metric::logit_difference(&answers), answers.select(1, 0));

    let mut found = json!({
        "program": format!("lnfree {}", env!("CARGO_PKG_VERSION")),
        "size": size, "threads": threads, "batch": TEXTS, "pos": POSITIONS,
    });
    let mut largest: Option<u64> = None;
    let mut tell = |name: &str, work: &mut dyn FnMut() -> Result<()>| -> Result<()> {
        let (seconds, bytes) = timed(rounds, work)?;
        found[format!("{name}_s")] = json!(seconds);
        found[format!("{name}_peak_memory_bytes")] = json!(bytes);
        largest = largest.max(bytes);
        Ok(())
    };
    let of_heads = |cache: &ActivationCache<'_>| -> Result<()> {
        let heads = cache.stack_head_results(None, Positions::Last, false)?;
        cache.logit_attrs(&heads, &answer, None).map(drop)
    };
    tell("run_with_cache", &mut || run_with_cache(&model, &ln, &clean, lens_has).map(drop))?;
    tell("act_patch_resid_pre", &mut || {
        let patching = Patching::new(&model, &ln, &clean, &corrupted, &metric)?;
        patching.by_position(StreamSite::ResidPre).map(drop)
    })?;
    tell("head_logit_attrs", &mut || of_heads(&run_with_cache(&model, &ln, &clean, lens_has)?.1))?;
    // The same of a cache that has what this reads, without logits.
    tell("head_logit_attrs_of_z", &mut || {
        of_heads(&ActivationCache::new(&model, &ln, &clean, |at| matches!(at, Activation::Z(_)))?)
    })?;
    tell("attribution_patch_resid_pre", &mut || {
        AttributionPatching::of(&model, &ln, &clean, &corrupted, &metric).map(drop)
    })?;
    found["peak_memory_bytes"] = json!(largest);
    println!("{found}");
    Ok(())
}
