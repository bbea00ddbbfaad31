//! How much of a model an SAE keeps.

use tch::{Kind, Tensor, no_grad};

use super::Sae;
use crate::model::hook::{Capture, Hook, only};
use crate::model::ln_state::LnState;
use crate::model::{Compute, Gpt2};
use crate::{Error, Result};

/// What an SAE keeps of an activation and of the model's predictions. Every position counts, the first one
/// too, whose activations are far larger than those of the others in a model with LN.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SaeQuality {
    /// 1 − Σ ‖x − x̂‖²/Σ ‖x − mean(x)‖², sums and mean over tokens: 1 where nothing is lost, 0 where no more
    /// is kept than the mean.
    pub explained_variance: f64,
    /// Mean number of features that are on, per token.
    pub l0: f64,
    /// Mean cross-entropy of the next token, nats per token.
    pub loss: f64,
    /// The same with the reconstruction in the activation's place.
    pub loss_with_sae: f64,
    /// The same with zeros in its place.
    pub loss_with_zeros: f64,
}

impl SaeQuality {
    /// (zeros − SAE)/(zeros − model) in losses: 1 where the model predicts as well with the reconstruction,
    /// 0 where zeros would do as well (SAELens' `ce_loss_score`).
    pub fn loss_recovered(&self) -> f64 {
        (self.loss_with_zeros - self.loss_with_sae) / (self.loss_with_zeros - self.loss)
    }
}

impl Sae {
    /// Of a model on `ids`, int64 `[batch, pos]`, two positions or more, without padding; three forwards.
    ///
    /// # Errors
    /// If the SAE does not say where it belongs or is of another width, or the model cannot take the ids.
    pub fn quality(&self, model: &Gpt2, ln: &LnState, ids: &Tensor) -> Result<SaeQuality> {
        let at = self.place()?;
        let ids = ids.f_to_device(model.device())?;
        let mut cache = Capture::of([at])?;
        let loss = next_token_loss(model, ln, &ids, &mut cache)?;
        let (explained_variance, l0) = no_grad(|| self.kept(cache.get(at)?))?;
        let mut hook = self.hook()?;
        let loss_with_sae = next_token_loss(model, ln, &ids, &mut hook)?;
        let mut zeros = only(at, |x| x.zeros_like())?;
        let loss_with_zeros = next_token_loss(model, ln, &ids, &mut zeros)?;
        Ok(SaeQuality { explained_variance, l0, loss, loss_with_sae, loss_with_zeros })
    }

    /// Explained variance and L0.
    fn kept(&self, x: &Tensor) -> Result<(f64, f64)> {
        let flat = self.flat(x)?.f_reshape([-1, self.d_in()])?;
        let run = self.run(&flat)?;
        let sum = |x: &Tensor| -> Result<f64> { Ok(x.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])?) };
        let lost = sum(&flat.f_sub(&run.reconstruction)?)?;
        let all = sum(&flat.f_sub(&flat.f_mean_dim(0i64, true, Kind::Float)?)?)?;
        let on = run.features.f_gt(0.0)?.f_sum(Kind::Double)?.f_double_value(&[])?;
        Ok((1.0 - lost / all, on / flat.size()[0] as f64))
    }
}

/// Mean over all positions that have a next token.
fn next_token_loss(model: &Gpt2, ln: &LnState, ids: &Tensor, hook: &mut dyn Hook) -> Result<f64> {
    let &[_, pos] = ids.size().as_slice() else {
        return Err(Error::invalid(format!("ids must be [batch, pos], not {:?}", ids.size())));
    };
    if pos < 2 {
        return Err(Error::invalid("a single token predicts nothing: sequences of two tokens or more"));
    }
    no_grad(|| {
        let logits = model.forward(ids, ln, Compute::default(), hook)?.f_narrow(1, 0, pos - 1)?;
        let predictions = logits.f_log_softmax(-1, Kind::Float)?;
        let targets = ids.f_narrow(1, 1, pos - 1)?.f_unsqueeze(-1)?;
        Ok(-predictions.f_gather(-1, &targets, false)?.f_mean(Kind::Double)?.f_double_value(&[])?)
    })
}
