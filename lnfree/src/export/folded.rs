//! The folded format: every fake LN, being linear, goes into the matrices around it (how: [`Folding`]).

use tch::Kind;

use crate::config::hf_config::{FOLDED, FORMAT_KEY};
use crate::model::{Folding, Gpt2};
use crate::{Error, Result};

/// The model without LN; `stds` are the σ̄ in the order of [`crate::config::norm::ln_names`]. Computed in
/// float64, float32 result.
///
/// # Errors
/// When the model has no LN to fold, or ln_f has a weight of zero where its bias is not.
pub fn fold(model: &Gpt2, stds: &[f64]) -> Result<Gpt2> {
    let _guard = tch::no_grad_guard();
    let whole = model.h.iter().all(|block| block.ln_1.is_some() && block.ln_2.is_some());
    let folded = Folding::all(stds);
    let Some((head, shift)) = folded.head(model)?.filter(|_| whole) else {
        return Err(Error::invalid("the model has no LN left to fold: it is folded already"));
    };
    let mut config = model.config.clone();
    config.tie_word_embeddings = false;
    config.other.insert(FORMAT_KEY.into(), FOLDED.into());
    let mut h: Vec<_> = model.h.iter().enumerate().map(|(layer, block)| folded.block(layer, block)).collect();
    if let Some(last) = h.last_mut() {
        last.mlp.c_proj.bias += shift;
    }
    let out = Gpt2 {
        config: config.clone(),
        wte: folded.writes(&model.wte),
        wpe: folded.writes(&model.wpe),
        h,
        ln_f: None,
        lm_head: Some(head),
    };
    Gpt2::from_weights(out.to_weights(), config, Kind::Float, model.device())
}
