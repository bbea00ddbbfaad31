//! The logit lens: what the model would predict if it ended earlier.

use tch::{Kind, Tensor};

use super::positions::Positions;
use crate::interp::cache::ActivationCache;
use crate::{Error, Result};

/// What the residual stream somewhere predicts.
#[derive(Debug)]
pub struct LensLayer {
    /// TransformerLens' label: `0_pre`, `1_pre`, …, `final_post`.
    pub label: String,
    /// Cross-entropy of the next token, nats: float32 `[batch, pos − 1]`.
    pub loss: Tensor,
    /// The likeliest next token, int64 `[batch, pos]`.
    pub top: Tensor,
}

impl ActivationCache<'_> {
    /// Gives `each` the label of every place of [`accumulated_resid`](Self::accumulated_resid) (blocks only)
    /// and the logits of the stream there, float32 `[batch, pos, vocab_size]`, one place at a time: all
    /// together would be n_layer + 1 times the logits of a forward.
    ///
    /// With `apply_ln` the stream goes through ln_f as if it were the last: a real one divides by the scale
    /// of that stream, as in nostalgebraist's logit lens. (TransformerLens divides by the scale of the last
    /// stream instead: that is [`apply_ln_to_stack`](Self::apply_ln_to_stack) of `accumulated_resid`.) A fake
    /// one divides by its constant, so that both are the same. Without `apply_ln` the unembedding reads the
    /// stream as it is.
    ///
    /// # Errors
    /// If `hook_resid_pre` was not kept, and what `each` returns.
    pub fn logit_lens(
        &self,
        positions: Positions,
        apply_ln: bool,
        mut each: impl FnMut(&str, &Tensor) -> Result<()>,
    ) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for (label, stream) in self.streams(None, false)? {
            let read = positions.of(&self.lens(stream, apply_ln)?)?;
            each(&label, &self.unembed(&read)?)?;
        }
        Ok(())
    }

    /// Loss and likeliest token at every place of [`logit_lens`](Self::logit_lens); holds the logits of one
    /// sequence at a time.
    ///
    /// # Errors
    /// If `hook_resid_pre` was not kept, or the sequences are single tokens.
    pub fn lens_summary(&self, apply_ln: bool) -> Result<Vec<LensLayer>> {
        let (batch, pos) = self.ids.size2()?;
        if pos < 2 {
            return Err(Error::invalid("a single token predicts nothing: sequences of two tokens or more"));
        }
        let _guard = tch::no_grad_guard();
        let layers = self.streams(None, false)?.into_iter().map(|(label, stream)| -> Result<LensLayer> {
            let read = self.lens(stream, apply_ln)?;
            let (mut losses, mut tops) = (Vec::new(), Vec::new());
            for row in 0..batch {
                let logits = self.unembed(&read.f_narrow(0, row, 1)?)?;
                tops.push(logits.f_argmax(-1i64, false)?);
                let logp = logits.f_narrow(1, 0, pos - 1)?.f_log_softmax(-1, Kind::Float)?;
                let next = self.ids.f_narrow(0, row, 1)?.f_narrow(1, 1, pos - 1)?.f_unsqueeze(-1)?;
                losses.push(logp.f_gather(-1, &next, false)?.f_squeeze_dim(-1)?.f_neg()?);
            }
            Ok(LensLayer { label, loss: Tensor::f_cat(&losses, 0)?, top: Tensor::f_cat(&tops, 0)? })
        });
        layers.collect()
    }

    /// What the unembedding reads of a stream `[batch, pos, n_embd]`.
    fn lens(&self, stream: &Tensor, apply_ln: bool) -> Result<Tensor> {
        if apply_ln { self.final_norm(stream, Positions::All) } else { Ok(stream.shallow_clone()) }
    }
}
