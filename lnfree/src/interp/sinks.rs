//! Attention to the first position, where heads rest that have nothing to say.

use tch::{Kind, Tensor, no_grad};

use crate::Result;
use crate::model::hook::{Activation, Hook};
use crate::model::ln_state::LnState;
use crate::model::{Compute, Gpt2};

/// How much every head attends to position 0, from every position.
///
/// The sink rate is that of Gu et al., "When Attention Sink Emerges in Language Models" (arXiv 2410.10781),
/// as the paper's code takes it: position 0, which has nowhere else to look, is counted with the others.
#[derive(Debug)]
pub struct AttentionSinks {
    /// Attention probabilities, float32 `[layer, batch, head, query]`.
    pub to_first: Tensor,
}

impl AttentionSinks {
    /// Of a model on `ids`, int64 `[batch, pos]`, without padding. Makes no logits.
    ///
    /// # Errors
    /// If the model cannot take the ids.
    pub fn of(model: &Gpt2, ln: &LnState, ids: &Tensor) -> Result<Self> {
        let ids = ids.to_device(model.device());
        let mut columns = FirstColumns(Vec::new());
        let mut pass = model.pass(&ids, ln, Compute::default())?;
        let _kept_in_columns = no_grad(|| model.residual(&ids, &mut pass, &mut columns));
        pass.check()?;
        Ok(Self { to_first: Tensor::f_stack(&columns.0, 0)? })
    }

    /// Share of queries in which a head gives position 0 more than `threshold` (0.3 in the paper):
    /// `[layer][head]`, 0 to 1.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn by_head(&self, threshold: f64) -> Result<Vec<Vec<f64>>> {
        let above = self.to_first.f_gt(threshold)?;
        Ok(Vec::try_from(above.f_mean_dim([1i64, 3].as_slice(), false, Kind::Double)?)?)
    }

    /// The same share over all heads, 0 to 1.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn rate(&self, threshold: f64) -> Result<f64> {
        Ok(self.to_first.f_gt(threshold)?.f_mean(Kind::Double)?.f_double_value(&[])?)
    }
}

/// Keeps of every pattern what it gives to position 0.
struct FirstColumns(Vec<Tensor>);

impl Hook for FirstColumns {
    fn on(&mut self, _: Activation, pattern: Tensor) -> Tensor {
        // A copy, so that the pattern itself can go.
        self.0.push(pattern.select(-1, 0).to_kind(Kind::Float).copy());
        pattern
    }

    fn wants(&self, activation: Activation) -> bool {
        matches!(activation, Activation::Pattern(_))
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn a_rate_is_a_share_of_queries() {
        // Two layers, one sequence, two heads, four queries.
        let to_first = [1.0f32, 0.9, 0.2, 0.31, 1.0, 0.0, 0.0, 0.0, 1.0, 0.3, 0.1, 0.1, 1.0, 0.5, 0.5, 0.5];
        let sinks = AttentionSinks { to_first: Tensor::from_slice(&to_first).view([2, 1, 2, 4]) };
        let by_head = sinks.by_head(0.3).unwrap();
        assert_eq!(by_head[0], [0.75, 0.25]);
        assert_eq!(by_head[1][1], 1.0);
        assert!((sinks.rate(0.4).unwrap() - 8.0 / 16.0).abs() < 1e-12);
    }

    #[test]
    fn an_untrained_model_looks_everywhere_alike() {
        let config = crate::config::Gpt2Config::new(2, 2, 16, 16, 50).unwrap();
        let model = Gpt2::init(config, 0, Device::Cpu).unwrap();
        let ids = Tensor::randint(50, [3, 12], (Kind::Int64, Device::Cpu));
        let sinks = AttentionSinks::of(&model, &LnState::plain(2, Device::Cpu), &ids).unwrap();
        assert_eq!(sinks.to_first.size(), [2, 3, 2, 12]);
        // 1/(i + 1) at query i: above 0.15 at the first six of twelve.
        assert!((sinks.rate(0.15).unwrap() - 0.5).abs() < 1e-12);
        assert!(AttentionSinks::of(&model, &LnState::plain(2, Device::Cpu), &ids.view([36])).is_err());
    }
}
