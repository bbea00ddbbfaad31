//! The folded format: every fake LN, being linear, goes into the matrices around it (how: [`Folding`]).

use tch::{Kind, Tensor};

use crate::config::hf_config::{FOLDED, FORMAT_KEY};
use crate::model::{Folding, Gpt2};
use crate::{Error, Result};

/// The model without LN; `stds` are the σ̄ in the order of [`crate::config::norm::ln_names`]. ln_f's shift
/// goes into the last MLP's bias. Computed in float64, float32 result.
///
/// # Errors
/// When the model has no LN to fold, or ln_f has a weight of zero where its bias is not.
pub fn fold(model: &Gpt2, stds: &[f64]) -> Result<Gpt2> {
    let _guard = tch::no_grad_guard();
    if !has_norms(model) {
        return Err(Error::invalid("the model has no LN left to fold: it is folded already"));
    }
    let (mut bare, shift) = without_norms(model, stds)?;
    if let Some(last) = bare.h.last_mut() {
        last.mlp.c_proj.bias += shift;
    }
    bare.config.other.insert(FORMAT_KEY.into(), FOLDED.into());
    Gpt2::from_weights(bare.to_weights(), bare.config.clone(), Kind::Float, model.device())
}

/// Whether all LNs are there.
pub(super) fn has_norms(model: &Gpt2) -> bool {
    model.ln_f.is_some() && model.h.iter().all(|block| block.ln_1.is_some() && block.ln_2.is_some())
}

/// The matrices in float64 with all LNs in them but for ln_f's shift δ = βσ̄/γ, and δ `[n_embd]`: the logits
/// are those of the unembedding of x + δ. In a folded model δ cannot be told from the last MLP's bias any
/// more, but for its mean, which the centred bias of a MLP does not have: that is what δ is then.
///
/// # Errors
/// When ln_f has a weight of zero where its bias is not.
pub(super) fn without_norms(model: &Gpt2, stds: &[f64]) -> Result<(Gpt2, Tensor)> {
    let folding = Folding::all(stds);
    let (head, shift) = match folding.head(model)? {
        Some(found) => found,
        None => (model.unembedding().detach().to_kind(Kind::Double), mean_of_last_bias(model)),
    };
    let mut config = model.config.clone();
    config.tie_word_embeddings = false;
    let bare = Gpt2 {
        config,
        wte: folding.writes(&model.wte),
        wpe: folding.writes(&model.wpe),
        h: model.h.iter().enumerate().map(|(layer, block)| folding.block(layer, block)).collect(),
        ln_f: None,
        lm_head: Some(head),
    };
    Ok((bare, shift))
}

/// The mean of the last MLP's bias, n_embd times over.
fn mean_of_last_bias(model: &Gpt2) -> Tensor {
    match model.h.last() {
        Some(last) => {
            let bias = last.mlp.c_proj.bias.detach().to_kind(Kind::Double);
            bias.full_like(bias.mean(Kind::Double).double_value(&[]))
        }
        None => Tensor::zeros([model.config.n_embd], (Kind::Double, model.device())),
    }
}
