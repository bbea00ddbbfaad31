//! What the attention heads of a model do on random tokens that are said twice.
//!
//! ```text
//! cargo run --release --example heads -- nano
//! cargo run --release --example heads -- nano heads.json    # with the tokens and all scores
//! ```

use lnfree::prelude::*;

/// Sequences, tokens that are said twice in each, seed.
const SAID: (usize, usize, u64) = (32, 50, 0);

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_else(|| "nano".into());
    let LoadedModel { model, ln, .. } =
        LoadedModel::load(&locate_model(&name)?, None, Kind::Float, Device::Cpu)?;
    let config = &model.config;
    let eot = config.eot_token_id().unwrap_or(config.vocab_size - 1);
    let tokens = RepeatedTokens::new(SAID.0, SAID.1, config.vocab_size, eot, SAID.2)?;
    let (first, again) = tokens.losses(&model, &ln)?;
    println!("{} random tokens: {first:.3} nats a token the first time, {again:.3} the second", SAID.1);
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
    if let Some(out) = args.next() {
        let rows = (0..tokens.ids.size()[0]).map(|row| Vec::<i64>::try_from(tokens.ids.get(row)));
        let all = serde_json::json!({
            "ids": rows.collect::<std::result::Result<Vec<_>, _>>()?, "period": tokens.period, "first": first,
            "again": again, "previous_token": scores.previous_token, "duplicate_token": scores.duplicate_token,
            "induction": scores.induction,
        });
        std::fs::write(out, all.to_string())?;
    }
    Ok(())
}
