//! From the residual stream to logits: as the model does it, and as a linear map at the scale of the run.

use tch::{Kind, Tensor};

use super::positions::Positions;
use super::sources::dot;
use crate::interp::cache::ActivationCache;
use crate::model::Compute;
use crate::model::hook::NoHook;
use crate::{Error, Result};

/// What a vector of the residual stream adds to a logit, with ln_f at the scale of the run: its scalar
/// product with `direction`.
pub(super) struct Reading {
    /// float64 `[batch, pos, n_embd]`.
    pub direction: Tensor,
    /// What the logit has besides, from the bias of ln_f: float64 `[batch, pos]`.
    pub constant: Tensor,
}

impl ActivationCache<'_> {
    /// `tokens`, int64 `[]`, `[batch]` or `[batch, pos]`, as `[batch, pos]` for `positions`.
    ///
    /// # Errors
    /// When they are of another type or shape, or no tokens of the model.
    pub(super) fn tokens(&self, tokens: &Tensor, positions: Positions) -> Result<Tensor> {
        let (batch, pos, _) = positions.of(&self.residual)?.size3()?;
        if tokens.kind() != Kind::Int64 {
            return Err(Error::invalid(format!("tokens must be int64, not {:?}", tokens.kind())));
        }
        let tokens = tokens.f_to_device(self.residual.device())?;
        let size = tokens.size();
        let tokens = match size[..] {
            [] => tokens.f_reshape([1, 1])?,
            [n] if n == batch => tokens.f_unsqueeze(-1)?,
            [n, m] if n == batch && m == pos => tokens,
            _ => {
                return Err(Error::invalid(format!(
                    "tokens must be one, [{batch}] or [{batch}, {pos}] here, not {size:?}"
                )));
            }
        };
        let vocab_size = self.model.unembedding().size()[0];
        let is_one = tokens.f_ge(0i64)?.f_logical_and(&tokens.f_lt(vocab_size)?)?;
        if !bool::try_from(is_one.f_all()?)? {
            return Err(Error::invalid(format!("a token is none of the model's, 0 to {}", vocab_size - 1)));
        }
        Ok(tokens.f_expand([batch, pos], false)?)
    }

    /// The rows of the unembedding for tokens `[batch, pos]`: float64 `[batch, pos, n_embd]`.
    pub(super) fn unembedding_of(&self, tokens: &Tensor) -> Result<Tensor> {
        let rows = Tensor::f_embedding(self.model.unembedding(), tokens, -1, false, false)?;
        Ok(rows.f_to_kind(Kind::Double)?)
    }

    /// How `read`, float64 `[batch, pos, n_embd]`, reads the stream through ln_f at the scale of the run.
    /// `normed`: of vectors that are centred and divided by that scale already.
    ///
    /// (c − mean(c))/s ⊙ γ · u is c · (g − mean(g)) with g = γ ⊙ u/s.
    pub(super) fn reading(&self, read: &Tensor, positions: Positions, normed: bool) -> Result<Reading> {
        let (Some(scale), Some(ln_f)) = (&self.scale, &self.model.ln_f) else {
            let (batch, pos, _) = read.size3()?;
            let constant = Tensor::f_zeros([batch, pos], (Kind::Double, read.device()))?;
            return Ok(Reading { direction: read.shallow_clone(), constant });
        };
        let bias = read.f_mul(&ln_f.bias.f_to_kind(Kind::Double)?)?;
        let constant = bias.f_sum_dim_intlist(-1i64, false, Kind::Double)?;
        let mut direction = read.f_mul(&ln_f.weight.f_to_kind(Kind::Double)?)?;
        if !normed {
            direction = direction.f_div(&positions.of(scale)?.f_to_kind(Kind::Double)?)?;
            direction = direction.f_sub(&direction.f_mean_dim(-1i64, true, Kind::Double)?)?;
        }
        Ok(Reading { direction, constant })
    }

    /// What the model's ln_f, computed anew, makes of streams `[.., pos, n_embd]` at `positions`.
    pub(super) fn final_norm(&self, streams: &Tensor, positions: Positions) -> Result<Tensor> {
        let mut pass = self.model.pass(&self.ids, self.ln, Compute::default())?;
        pass.start = positions.range(self.ids.size()[1])?.0;
        let size = streams.size();
        let rank = size.len();
        let flat = streams.f_reshape([-1, size[rank - 2], size[rank - 1]])?;
        let normed = self.model.final_norm(&flat, &mut pass, &mut NoHook);
        pass.check()?;
        Ok(normed.f_reshape(size)?)
    }

    /// What `read`, float64 `[batch, pos, n_embd]`, reads behind the model's ln_f, computed anew, of streams
    /// `[n, batch, pos, n_embd]`: float64 `[n, batch, pos]`.
    pub(super) fn read_anew(&self, streams: &Tensor, read: &Tensor, positions: Positions) -> Result<Tensor> {
        dot(&self.final_norm(streams, positions)?, read)
    }

    /// Logits of what ln_f has handed on for one sequence, `[1, pos, n_embd]`: float32
    /// `[1, pos, vocab_size]`.
    pub(super) fn unembed(&self, normed: &Tensor) -> Result<Tensor> {
        let pass = self.model.pass(&self.ids, self.ln, Compute::default())?;
        Ok(self.model.unembed(normed, &pass).f_to_kind(Kind::Float)?)
    }
}
