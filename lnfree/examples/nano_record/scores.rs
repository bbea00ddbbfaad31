//! What heads and neurons of the embedded models do, from their weights.

use lnfree::data::open_dataset;
use lnfree::hook::Activation;
use lnfree::hub::locate_model;
use lnfree::interp::{
    AttentionSinks, EntropyNeurons, HeadScores, MeanAblation, RepeatedTokens, ResidualNorms,
};
use lnfree::model::LoadedModel;
use lnfree::suite::Suite;
use lnfree::tch::{Device, Kind, Tensor};
use lnfree::{Error, Result};

use super::tables::{Heads, Interior};

/// Sequences, tokens that are said twice in each, seed: those of the example `heads`.
const SAID: (usize, usize, u64) = (32, 50, 0);

/// Of all models of the nano suite, on the same tokens.
pub fn of_embedded_models() -> Result<Vec<Heads>> {
    Suite::find("nano")?.models.iter().map(|model| of(&model.label, &model.model)).collect()
}

/// Sequences of the addresses that sinks, norms and neurons are looked at on.
const SEQUENCES: usize = 64;

/// Attention that makes a query rest on position 0, the paper's ε.
const SINK: f64 = 0.3;

/// Sinks, norms and entropy neurons of all models of the nano suite, on the same text.
pub fn interiors() -> Result<Vec<Interior>> {
    let rows: Vec<usize> = (0..SEQUENCES).collect();
    let ids = open_dataset("nano-addresses", 128)?.batch(&rows)?;
    Suite::find("nano")?.models.iter().map(|model| interior(&model.label, &model.model, &ids)).collect()
}

fn interior(label: &str, name: &str, ids: &Tensor) -> Result<Interior> {
    let LoadedModel { model, ln, .. } = load(name)?;
    let norms = ResidualNorms::of(&model, &ln, ids)?.norms;
    let after_blocks = norms.iter().filter(|norm| matches!(norm.at, Activation::ResidPost(_)));
    let largest = after_blocks
        .max_by(|a, b| (a.first.mean / a.others.mean).total_cmp(&(b.first.mean / b.others.mean)))
        .ok_or_else(|| Error::invalid("a model has no blocks"))?;
    let neurons = EntropyNeurons::of(&model)?;
    let ranked = neurons.ranked();
    let [neuron, median] = [0, ranked.len() / 2].map(|at| ranked[at]);
    let ablation = MeanAblation::new(&model, &ln, ids)?;
    let (own, without) = (ablation.of(&[])?, ablation.of(&[neuron])?);
    let change = |own: &Tensor, without: &Tensor| (without - own).mean(Kind::Double).double_value(&[]);
    Ok(Interior {
        label: label.into(),
        sink_rate: AttentionSinks::of(&model, &ln, ids)?.rate(SINK)?,
        after_block: largest.at.layer().unwrap_or_default(),
        first_norm: largest.first.mean,
        other_norm: largest.others.mean,
        neuron,
        neuron_ratio: neurons.ratio(neuron) / neurons.ratio(median),
        neuron_in_smallest: neurons.in_smallest(neuron, model.config.n_embd / 8),
        loss_change: change(&own.loss, &without.loss),
        entropy_change: change(&own.entropy, &without.entropy),
    })
}

fn load(name: &str) -> Result<LoadedModel> {
    LoadedModel::load(&locate_model(name)?, None, Kind::Float, Device::Cpu)
}

fn of(label: &str, name: &str) -> Result<Heads> {
    let LoadedModel { model, ln, .. } = load(name)?;
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
