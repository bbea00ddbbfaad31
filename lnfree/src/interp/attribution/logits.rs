//! What of a logit, or of a difference of two, is each component's.

use tch::{Kind, Tensor};

use super::components::Components;
use super::sources::dot;
use crate::Result;
use crate::interp::cache::ActivationCache;

/// Direct logit attribution of some components.
#[derive(Debug)]
pub struct LogitAttributions {
    /// What each component adds to the logit (or difference of logits), float64 `[component, batch, pos]`, in
    /// the order of the components' labels.
    pub values: Tensor,
    /// What the logit has besides and is nobody's: the bias of ln_f through the unembedding, float64
    /// `[batch, pos]`. GPT-2's unembedding has no bias.
    pub constant: Tensor,
}

impl ActivationCache<'_> {
    /// `components` as ln_f divides them in this very run, at each position: their mean over n_embd taken
    /// out, and divided by the scale. γ and β of ln_f are not applied: they count to the unembedding, as with
    /// TransformerLens, which folds them into it. Where nothing normalises the stream before the unembedding,
    /// as in a folded model, they are as they were. TransformerLens' `apply_ln_to_stack` for the final LN.
    ///
    /// Applying it again changes nothing, and [`logit_attrs`](Self::logit_attrs) knows of it.
    ///
    /// # Errors
    /// If the components are of another run's positions.
    pub fn apply_ln_to_stack(&self, components: &Components) -> Result<Components> {
        let _guard = tch::no_grad_guard();
        let positions = components.positions;
        let values = match &self.scale {
            Some(scale) if !components.normed => {
                let mean = components.values.f_mean_dim(-1i64, true, Kind::Float)?;
                components.values.f_sub(&mean)?.f_div(&positions.of(scale)?)?
            }
            _ => components.values.shallow_clone(),
        };
        Ok(Components { labels: components.labels.clone(), values, positions, normed: true })
    }

    /// What each component adds directly to the logit of `tokens`, or with `incorrect_tokens` to how much
    /// higher that is than theirs: TransformerLens' `logit_attrs`. ln_f stays at the scale of this run; where
    /// it is fake, or not there, that is what the model itself does, see
    /// [`decompose_logits`](Self::decompose_logits).
    ///
    /// Tokens are int64: one for everything (0-dim), `[batch]`, or `[batch, pos]` with the positions of the
    /// components. TransformerLens centres the unembedding over the vocabulary, so that its values for a
    /// single token are less by the component's mean over the vocabulary; its differences are these.
    ///
    /// # Errors
    /// If tokens are of another shape, or none of the model's.
    pub fn logit_attrs(
        &self,
        components: &Components,
        tokens: &Tensor,
        incorrect_tokens: Option<&Tensor>,
    ) -> Result<LogitAttributions> {
        let _guard = tch::no_grad_guard();
        let positions = components.positions;
        let mut read = self.unembedding_of(&self.tokens(tokens, positions)?)?;
        if let Some(incorrect) = incorrect_tokens {
            read = read.f_sub(&self.unembedding_of(&self.tokens(incorrect, positions)?)?)?;
        }
        let reading = self.reading(&read, positions, components.normed)?;
        let values = dot(&components.values, &reading.direction)?;
        Ok(LogitAttributions { values, constant: reading.constant })
    }
}
