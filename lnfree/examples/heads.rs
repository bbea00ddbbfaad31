//! What the attention heads of a model do on random tokens that are said twice.
//!
//! ```text
//! cargo run --release --example heads -- nano
//! ```

use lnfree::prelude::*;

fn main() -> Result<()> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "nano".into());
    let LoadedModel { model, ln, .. } =
        LoadedModel::load(&locate_model(&name)?, None, Kind::Float, Device::Cpu)?;
    let config = &model.config;
    let eot = config.eos_token_ids.first().copied().unwrap_or(config.vocab_size - 1);
    let tokens = RepeatedTokens::new(32, 50, config.vocab_size, eot, 0)?;
    let (first, again) = tokens.losses(&model, &ln)?;
    println!("50 random tokens: {first:.3} nats the first time, {again:.3} the second");
    let scores = tokens.head_scores(&model, &ln)?;
    for (name, scores) in [
        ("previous token", &scores.previous_token),
        ("duplicate token", &scores.duplicate_token),
        ("induction", &scores.induction),
    ] {
        if let Some((layer, head, score)) = HeadScores::best(scores) {
            println!("{name}: {score:.3} in head {layer}.{head}");
        }
    }
    Ok(())
}
