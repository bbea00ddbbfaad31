//! The folded format: every fake LN, being linear, goes into the matrices around it.
//!
//! With C = I − 11ᵀ/n (centring) a fake LN is x ↦ (Cx)/σ̄ ⊙ γ + β. Everything that writes to the residual stream is multiplied
//! by C, so that x is centred wherever it is read; whatever reads y = FakeLN(x) as yW + b reads x as
//! x·diag(γ/σ̄)W + (βW + b) instead. The unembedding has no bias to take β: there, x is shifted by δ = βσ̄/γ, which is
//! added to the bias of the last MLP, read by nothing but the unembedding.

use tch::{Kind, Tensor};

use crate::model::hf_config::{FOLDED, FORMAT_KEY};
use crate::model::{Conv1d, Gpt2, LayerNorm};
use crate::norm::{ln1_row, ln2_row, lnf_row};
use crate::{Error, Result};

/// The model without LN; `stds` are the σ̄ in the order of [`crate::norm::ln_names`]. Computed in float64, float32 result.
///
/// # Errors
/// When the model has no LN to fold, or ln_f has a weight of zero where its bias is not.
pub fn fold(model: &Gpt2, stds: &[f64]) -> Result<Gpt2> {
    let _guard = tch::no_grad_guard();
    let mut config = model.config.clone();
    config.tie_word_embeddings = false;
    config.other.insert(FORMAT_KEY.into(), FOLDED.into());
    let head = model.lm_head.as_ref().unwrap_or(&model.wte).to_kind(Kind::Double);
    let mut weights = model.to_weights();
    weights.insert("lm_head.weight".into(), head.shallow_clone());
    let mut out = Gpt2::from_weights(weights, config, Kind::Double, model.device())?;
    out.wte = center(&out.wte);
    out.wpe = center(&out.wpe);
    let n_layer = out.h.len();
    for (layer, block) in out.h.iter_mut().enumerate() {
        for writer in [&mut block.attn.c_proj, &mut block.mlp.c_proj] {
            writer.weight = center(&writer.weight);
            writer.bias = center(&writer.bias);
        }
        fold_into(&mut block.ln_1, stds[ln1_row(layer)], &mut block.attn.c_attn)?;
        fold_into(&mut block.ln_2, stds[ln2_row(layer)], &mut block.mlp.c_fc)?;
    }
    let ln_f = taken(&mut out.ln_f)?;
    let gain = &ln_f.weight / stds[lnf_row(n_layer)];
    out.lm_head = Some(head * &gain);
    if let Some(last) = out.h.last_mut() {
        last.mlp.c_proj.bias = &last.mlp.c_proj.bias + shift(&ln_f, &gain)?;
    }
    let config = out.config.clone();
    Gpt2::from_weights(out.to_weights(), config, Kind::Float, model.device())
}

/// Subtracts the mean over the last axis, n_embd.
fn center(x: &Tensor) -> Tensor {
    x - x.mean_dim(-1i64, true, Kind::Double)
}

fn fold_into(norm: &mut Option<LayerNorm>, std: f64, reader: &mut Conv1d) -> Result<()> {
    let norm = taken(norm)?;
    reader.bias = &reader.bias + norm.bias.unsqueeze(0).matmul(&reader.weight).squeeze_dim(0);
    reader.weight = (&norm.weight / std).unsqueeze(1) * &reader.weight;
    Ok(())
}

fn taken(norm: &mut Option<LayerNorm>) -> Result<LayerNorm> {
    norm.take().ok_or_else(|| Error::invalid("the model has no LN left to fold: it is folded already"))
}

/// δ = β / gain, zero where β is.
fn shift(ln_f: &LayerNorm, gain: &Tensor) -> Result<Tensor> {
    let needed = ln_f.bias.not_equal(0.0);
    let shift = (&ln_f.bias / gain).where_self(&needed, &ln_f.bias.zeros_like());
    if !bool::try_from(shift.isfinite().all())? {
        return Err(Error::invalid(
            "ln_f has a weight of zero where its bias is not: its bias cannot be folded; export --format scaled instead",
        ));
    }
    Ok(shift)
}
