//! Head scores of the embedded models, from their weights.

use lnfree::hub::locate_model;
use lnfree::interp::{HeadScores, RepeatedTokens};
use lnfree::model::LoadedModel;
use lnfree::suite::Suite;
use lnfree::tch::{Device, Kind};
use lnfree::{Error, Result};

use super::tables::Heads;

/// Sequences, tokens that are said twice in each, seed: those of the example `heads`.
const SAID: (usize, usize, u64) = (32, 50, 0);

/// Of all models of the nano suite, on the same tokens.
pub fn of_embedded_models() -> Result<Vec<Heads>> {
    Suite::find("nano")?.models.iter().map(|model| of(&model.label, &model.model)).collect()
}

fn of(label: &str, name: &str) -> Result<Heads> {
    let LoadedModel { model, ln, .. } =
        LoadedModel::load(&locate_model(name)?, None, Kind::Float, Device::Cpu)?;
    let size = model.config.vocab_size;
    let eot = model.config.eot_token_id().unwrap_or(size - 1);
    let tokens = RepeatedTokens::new(SAID.0, SAID.1, size, eot, SAID.2)?;
    let (first, again) = tokens.losses(&model, &ln)?;
    let scores = tokens.head_scores(&model, &ln)?;
    let best = |scores: &[Vec<f64>]| {
        HeadScores::best(scores)
            .map(|(.., score)| score)
            .ok_or_else(|| Error::invalid("a model has no heads"))
    };
    Ok(Heads {
        label: label.into(),
        first,
        again,
        previous_token: best(&scores.previous_token)?,
        duplicate_token: best(&scores.duplicate_token)?,
        induction: best(&scores.induction)?,
    })
}
