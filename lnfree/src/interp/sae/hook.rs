//! A reconstruction in the place of an activation.

use tch::Tensor;

use super::Sae;
use crate::model::hook::{Activation, Hook, NamedActivation};
use crate::{Error, Result};

/// Puts what an SAE makes of an activation in its place, so that the model goes on with it, and keeps the
/// features of the last forward.
#[derive(Debug)]
pub struct SaeHook<'a> {
    sae: &'a Sae,
    at: Activation,
    error_term: bool,
    features: Option<Tensor>,
    failed: Option<Error>,
}

impl Sae {
    /// A hook at the activation that the SAE was trained on.
    ///
    /// # Errors
    /// As [`Sae::place`].
    pub fn hook(&self) -> Result<SaeHook<'_>> {
        self.hook_at(self.place()?)
    }

    /// A hook at an activation.
    ///
    /// # Errors
    /// A name that is none.
    pub fn hook_at(&self, at: impl NamedActivation) -> Result<SaeHook<'_>> {
        let at = at.activation()?;
        Ok(SaeHook { sae: self, at, error_term: false, features: None, failed: None })
    }
}

impl SaeHook<'_> {
    /// The same, with what the reconstruction lacks added as a constant: the forward is the model's own, and
    /// gradients go through the features (SAELens' `use_error_term`).
    #[must_use]
    pub fn with_error_term(mut self) -> Self {
        self.error_term = true;
        self
    }

    /// Features of the last forward, `[batch, pos, d_sae]`.
    pub fn features(&self) -> Option<&Tensor> {
        self.features.as_ref()
    }

    /// What went wrong in the last forward, which says no more of it than that the hook returned nothing.
    ///
    /// # Errors
    /// When the SAE could not read the activation.
    pub fn check(&mut self) -> Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }

    fn replaced(&mut self, value: &Tensor) -> Result<Tensor> {
        let run = self.sae.run(value)?;
        let reconstruction = run.reconstruction.f_to_kind(value.kind())?;
        self.features = Some(run.features);
        match self.error_term {
            true => Ok(reconstruction.f_add(&value.f_sub(&reconstruction)?.f_detach()?)?),
            false => Ok(reconstruction),
        }
    }
}

impl Hook for SaeHook<'_> {
    fn on(&mut self, activation: Activation, value: Tensor) -> Tensor {
        if activation != self.at {
            return value;
        }
        self.replaced(&value).unwrap_or_else(|error| {
            self.failed = Some(error);
            Tensor::new()
        })
    }

    fn wants(&self, activation: Activation) -> bool {
        activation == self.at
    }
}
