//! The identity format: LNs that are there for every library's plain GPT-2 code and change nothing.

use tch::Kind;

use super::folded::without_norms;
use crate::Result;
use crate::config::hf_config::{FORMAT_KEY, IDENTITY};
use crate::config::norm::ln_names;
use crate::model::Gpt2;

/// γ of every LN, 2¹⁵: the largest power of two that float16 holds, so that float32, bfloat16 and float16 all
/// have it exactly.
pub const GAMMA: f64 = 32768.0;
/// ε of every LN, γ²: (x − μ) / sqrt(var + ε) · γ is x − μ, less var / 2ε of it.
pub const EPSILON: f64 = GAMMA * GAMMA;

/// The model with everything folded as [`super::fold`] does it, but for ln_f's shift, and with LNs of γ =
/// [`GAMMA`] and ε = [`EPSILON`]. Their β is zero, but for ln_f's, which is that shift: no bias of the blocks
/// has it. All that writes to the residual stream is centred, so that the LNs' own centring changes nothing.
/// The unembedding is untied: it has ln_f's γ/σ̄ in it, and the embedding is centred. `stds` are the σ̄ in
/// the order of [`ln_names`]. Computed in float64, float32 result.
///
/// # Errors
/// When ln_f has a weight of zero where its bias is not.
pub fn identity(model: &Gpt2, stds: &[f64]) -> Result<Gpt2> {
    let _guard = tch::no_grad_guard();
    let (bare, shift) = without_norms(model, stds)?;
    let mut config = bare.config.clone();
    config.layer_norm_epsilon = EPSILON;
    config.other.insert(FORMAT_KEY.into(), IDENTITY.into());
    let mut weights = bare.to_weights();
    for name in ln_names(bare.h.len()) {
        let bias = if name == "ln_f" { shift.shallow_clone() } else { shift.zeros_like() };
        weights.insert(format!("{name}.weight"), shift.full_like(GAMMA));
        weights.insert(format!("{name}.bias"), bias);
    }
    Gpt2::from_weights(weights, config, Kind::Float, model.device())
}

/// How much less than everything an identity LN lets through of a residual stream of this variance over
/// n_embd: 1 − 1/sqrt(1 + var/ε), nearly var / 2ε.
pub fn epsilon_error(variance: f64, epsilon: f64) -> f64 {
    1.0 - 1.0 / (1.0 + variance / epsilon).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gamma_is_exact_in_sixteen_bits_and_twice_it_is_not_in_float16() {
        for kind in [Kind::Half, Kind::BFloat16, Kind::Float] {
            let stored = tch::Tensor::from(GAMMA).to_kind(kind).to_kind(Kind::Double).double_value(&[]);
            assert_eq!(stored, GAMMA, "{kind:?}");
        }
        let twice =
            tch::Tensor::from(2.0 * GAMMA).to_kind(Kind::Half).to_kind(Kind::Double).double_value(&[]);
        assert!(twice.is_infinite());
        assert_eq!(EPSILON, f64::from(1 << 30));
    }

    #[test]
    fn the_error_is_half_the_variance_over_epsilon() {
        assert_eq!(epsilon_error(0.0, EPSILON), 0.0);
        let found = epsilon_error(1000.0, EPSILON);
        assert!((found / (1000.0 / (2.0 * EPSILON)) - 1.0).abs() < 1e-5, "{found}");
        assert!(epsilon_error(EPSILON, EPSILON) > 0.29);
    }
}
