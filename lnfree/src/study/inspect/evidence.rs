//! The signs by which a model is known for what it is.

use std::collections::BTreeSet;

use tch::{Kind, TchError, Tensor};

use super::Weights;
use crate::config::hf_config::FORMAT_KEY;
use crate::config::norm::ln_names;
use crate::config::run_state::TrainerState;
use crate::config::{Gpt2Config, Mode};
use crate::model::ModelFormat;
use crate::model::ln_state::LnState;

/// What config and LN weights say.
pub(super) fn of_files(config: &Gpt2Config, weights: &Weights, format: ModelFormat) -> Vec<String> {
    let mut said = vec![format!("layer_norm_epsilon = {:e}", config.layer_norm_epsilon)];
    if let Some(value) = config.other.get(FORMAT_KEY) {
        said.push(format!("config.json: {FORMAT_KEY} = {value}"));
    }
    said.push(gamma(config, weights, format));
    if format == ModelFormat::Identity {
        said.push("every LN's bias is zero, but for ln_f's, which is the model's own shift".into());
    }
    let untied = !config.tie_word_embeddings && weights.contains_key("lm_head.weight");
    said.push(if untied {
        "an unembedding of its own".into()
    } else {
        "the unembedding is the embedding".into()
    });
    said
}

/// What the LNs' weights are.
fn gamma(config: &Gpt2Config, weights: &Weights, format: ModelFormat) -> String {
    let names = ln_names(config.n_layer as usize);
    let there: Vec<&Tensor> =
        names.iter().filter_map(|name| weights.get(&format!("{name}.weight"))).collect();
    if there.is_empty() {
        return format!("none of the {} LNs is among the weights", names.len());
    }
    // What nothing reads may have any shape, and none.
    let number = |x: Result<Tensor, TchError>| {
        let found = x.and_then(|x| x.f_to_kind(Kind::Double)).and_then(|x| x.f_double_value(&[]));
        found.unwrap_or(f64::NAN)
    };
    let least = there.iter().map(|x| number(x.f_min())).fold(f64::INFINITY, f64::min);
    let most = there.iter().map(|x| number(x.f_max())).fold(f64::NEG_INFINITY, f64::max);
    match format {
        ModelFormat::Identity => {
            format!("every LN weight is {most} = 2^{}, whose square is ε", most.log2().round())
        }
        _ => format!("weights of {} of {} LNs, from {least:.4e} to {most:.4e}", there.len(), names.len()),
    }
}

/// Sites of LNs that are gone: of each block ln_1 for queries and keys, ln_1 for values, and ln_2; and ln_f.
pub(super) fn removed(ln: &LnState) -> usize {
    let of_block = |block: &crate::model::ln_state::BlockLn| {
        [block.ln1_qk, block.ln1_v, block.ln2].iter().filter(|mode| mode.is_fake()).count()
    };
    ln.blocks.iter().map(of_block).sum::<usize>() + usize::from(ln.lnf.is_fake())
}

/// What the state of the LNs beside the weights says.
pub(super) fn of_state(ln: &LnState) -> String {
    let sites = 3 * ln.n_layer() + 1;
    format!("the state of every LN beside the weights: {} of {sites} sites divide by a constant", removed(ln))
}

/// What the run says that wrote it.
pub(super) fn of_run(state: &TrainerState) -> String {
    let mode = match state.mode {
        Mode::WithoutLn => "without_ln",
        Mode::WithLn => "with_ln",
        Mode::Pretrain => "pretrain",
    };
    let (step, model) = (state.step, &state.config.model.name);
    format!("trainer.json: step {step} of a run of lnfree {}, mode {mode}, from {model}", state.lnfree)
}

/// Tensors that nothing reads; the state of a checkpoint's LNs is no such thing.
pub(super) fn of_unread(unread: &[String], has_state: bool) -> Option<String> {
    let first = unread.first().filter(|_| !has_state)?;
    Some(format!("{} tensors that nothing reads, the first is `{}`", unread.len(), first.escape_debug()))
}

/// `float32`, or several names joined by commas.
pub(super) fn dtypes(kinds: impl Iterator<Item = Kind>) -> String {
    let name = |kind| match kind {
        Kind::Float => "float32".to_string(),
        Kind::BFloat16 => "bfloat16".into(),
        Kind::Half => "float16".into(),
        Kind::Double => "float64".into(),
        other => format!("{other:?}").to_lowercase(),
    };
    kinds.map(name).collect::<BTreeSet<String>>().into_iter().collect::<Vec<String>>().join(", ")
}
