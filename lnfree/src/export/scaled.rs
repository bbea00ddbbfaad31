//! The paper's format: LN is kept, but ε is so large that it divides by a constant.

use tch::Kind;

use crate::model::{Gpt2, LayerNorm};
use crate::{Error, Result};

/// ε of an exported model: sqrt(var + ε) is 1e6 whatever the variance.
const EPS: f64 = 1e12;

/// The model with every LN's weight multiplied by 1e6/σ̄ and ε = 1e12; `stds` are the σ̄ in the order of
/// [`crate::config::norm::ln_names`]. Useless in fp16, where 1e12 is no number.
///
/// # Errors
/// When the model has no LN to scale.
pub fn scale(model: &Gpt2, stds: &[f64]) -> Result<Gpt2> {
    let _guard = tch::no_grad_guard();
    let mut config = model.config.clone();
    config.layer_norm_epsilon = EPS;
    let mut out = Gpt2::from_weights(model.to_weights(), config, Kind::Float, model.device())?;
    let rescale = |norm: &mut Option<LayerNorm>, std: f64| match norm {
        Some(norm) => {
            norm.weight = (norm.weight.to_kind(Kind::Double) * (EPS.sqrt() / std)).to_kind(Kind::Float);
            Ok(())
        }
        None => Err(Error::invalid("the model has no LN left to scale: it is folded already")),
    };
    for (layer, block) in out.h.iter_mut().enumerate() {
        rescale(&mut block.ln_1, stds[crate::config::norm::ln1_row(layer)])?;
        rescale(&mut block.ln_2, stds[crate::config::norm::ln2_row(layer)])?;
    }
    rescale(&mut out.ln_f, stds[crate::config::norm::lnf_row(model.h.len())])?;
    Ok(out)
}
