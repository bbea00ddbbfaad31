//! LNs that are there in name only: ε is so large that each divides by a constant.
//!
//! In the format `identity` every LN has γ = 2ᵏ, ε = 4ᵏ and β = 0, but for ln_f's β, which is the model's own
//! shift before its unembedding. (x − μ) / sqrt(var + 4ᵏ) · 2ᵏ is x − μ but for var / 2·4ᵏ of it.

use tch::{Kind, TchError, Tensor};

use super::ModelFormat;
use crate::config::hf_config::{FORMAT_KEY, Gpt2Config, IDENTITY, PLAIN_EPSILON};
use crate::config::norm::ln_names;
use crate::model::weights::Weights;

/// Mean |γ| above which no LN that divides by σ lies: those of the released GPT-2s stay below 10.
const HIDDEN: f64 = 128.0;

/// The smallest γ that is taken for an identity: with less, var / 2γ² is no small part of the stream.
const LEAST_GAMMA: f64 = 4096.0;

/// Whether the LNs are identities.
pub(super) fn is_identity(config: &Gpt2Config, weights: &Weights) -> bool {
    let names = ln_names(config.n_layer as usize);
    let all_are = |end: &str, number: f64| {
        let of = |name: &String| weights.get(&format!("{name}.{end}"));
        names.iter().all(|name| of(name).is_some_and(|tensor| is_all(tensor, number)))
    };
    let mut biases = names.iter().filter(|name| *name != "ln_f");
    let zero = |name: &String| weights.get(&format!("{name}.bias")).is_some_and(|bias| is_all(bias, 0.0));
    let gamma = config.layer_norm_epsilon.sqrt();
    let is_power = gamma >= LEAST_GAMMA && gamma.log2().fract() == 0.0;
    is_power && all_are("weight", gamma) && biases.all(zero)
}

/// What makes a plain GPT-2 of LNs that are identities, each fake with σ̄ = 1.
pub(super) fn make_plain(config: &mut Gpt2Config, weights: &mut Weights) {
    for name in ln_names(config.n_layer as usize) {
        if let Some(weight) = weights.get_mut(&format!("{name}.weight")) {
            *weight = weight.ones_like();
        }
    }
    config.layer_norm_epsilon = PLAIN_EPSILON;
    config.other.remove(FORMAT_KEY);
}

/// Refuses a config that other programs have written over, with which the model computes something else.
pub(crate) fn check_not_written_over(
    config: &Gpt2Config,
    weights: &Weights,
    found: ModelFormat,
) -> Result<(), String> {
    if found == ModelFormat::Transformers {
        return check_epsilon(config, weights);
    }
    let differs = || match (weights.get("lm_head.weight"), weights.get("wte.weight")) {
        (Some(head), Some(wte)) => head.size() != wte.size() || head.kind() != wte.kind() || !head.equal(wte),
        _ => config.other.get(FORMAT_KEY).and_then(|value| value.as_str()) == Some(IDENTITY),
    };
    match found == ModelFormat::Identity && config.tie_word_embeddings && differs() {
        true => Err("config.json ties the unembedding to the embedding, which this model has apart: set \
                     tie_word_embeddings = false"
            .into()),
        false => Ok(()),
    }
}

fn check_epsilon(config: &Gpt2Config, weights: &Weights) -> Result<(), String> {
    let names = ln_names(config.n_layer as usize);
    let sizes = names.iter().map(|name| {
        let weight = weights.get(&format!("{name}.weight"))?;
        weight.f_to_kind(Kind::Double).ok()?.f_abs().ok()?.f_mean(Kind::Double).ok()?.f_double_value(&[]).ok()
    });
    let smallest = sizes.map(|size| size.unwrap_or(0.0)).fold(f64::INFINITY, f64::min);
    match smallest.is_finite() && smallest > HIDDEN {
        true => Err(format!(
            "its LN weights are {smallest:.3e} and more, as of a model whose LNs a huge epsilon hides, but config.json \
             has layer_norm_epsilon = {:e}, which another program has put there: set it to what the model was \
             exported with",
            config.layer_norm_epsilon
        )),
        false => Ok(()),
    }
}

/// Whether a tensor has one number everywhere.
fn is_all(tensor: &Tensor, number: f64) -> bool {
    let same = || -> Result<bool, TchError> {
        bool::try_from(tensor.f_to_kind(Kind::Double)?.f_eq(number)?.f_all()?)
    };
    tensor.numel() > 0 && same().unwrap_or(false)
}
