//! Training of a small SAE, for examples and tests.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

use super::{Sae, SaeConfig, SaeEncoder};
use crate::model::hook::NamedActivation;
use crate::{Error, Result};

/// How a small SAE is trained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SaeTraining {
    /// Features.
    pub d_sae: i64,
    /// Optimizer steps.
    pub steps: usize,
    /// Activations in each, drawn with replacement.
    pub batch_size: usize,
    /// Learning rate of Adam, with its usual other constants.
    pub learning_rate: f64,
    /// Weight of the sum of features, each times the norm of what it writes.
    pub l1: f64,
    /// What the first weights and the batches are drawn from.
    pub seed: u64,
}

impl Default for SaeTraining {
    fn default() -> Self {
        Self { d_sae: 512, steps: 1000, batch_size: 256, learning_rate: 1e-3, l1: 1e-2, seed: 0 }
    }
}

/// Trains a standard SAE on activations `[.., d_in]` of the activation `at`; also the loss of each step,
/// Σ (x − x̂)² + l1 Σ f ‖w_dec‖, the mean over the batch (SAELens' standard architecture). Adam without
/// schedules, and no features are brought back to life: enough for a few thousand features.
///
/// # Errors
/// A name that is none, no activations or no features, and a loss that is not finite.
pub fn train_small(
    activations: &Tensor,
    at: impl NamedActivation,
    options: SaeTraining,
) -> Result<(Sae, Vec<f64>)> {
    let hook_name = Some(at.activation()?.to_string());
    let d_in = activations.size().last().copied().unwrap_or(0);
    if options.d_sae < 1 || options.batch_size == 0 || activations.numel() == 0 {
        return Err(Error::invalid("an SAE needs activations to be trained on, batches and features"));
    }
    let x = activations.f_detach()?.f_to_kind(Kind::Float)?.f_reshape([-1, d_in])?;
    let mut random = ChaCha8Rng::seed_from_u64(options.seed);
    let sae = first(&x, hook_name, options.d_sae, &mut random)?;
    let SaeEncoder::Standard { b_enc } = &sae.encoder else {
        return Err(Error::invalid("only standard SAEs are trained here"));
    };
    let parameters = [&sae.w_enc, &sae.w_dec, b_enc, &sae.b_dec].map(|p| p.set_requires_grad(true));
    let mut adam = Adam::new(&parameters, options.learning_rate)?;
    let mut losses = Vec::with_capacity(options.steps);
    for step in 0..options.steps {
        let rows = x.size()[0];
        let batch: Vec<i64> = (0..options.batch_size).map(|_| random.random_range(0..rows)).collect();
        let batch = x.f_index_select(0, &Tensor::f_from_slice(&batch)?.f_to_device(x.device())?)?;
        let (loss, gradients) = tch::with_grad(|| -> Result<(f64, Vec<Tensor>)> {
            let loss = loss(&sae, &batch, options.l1)?;
            let gradients = Tensor::f_run_backward(&[&loss], &parameters, false, false)?;
            Ok((loss.f_double_value(&[])?, gradients))
        })?;
        if !loss.is_finite() {
            return Err(Error::NotFinite(format!(
                "the loss of the SAE is {loss} in step {}: try a smaller learning_rate",
                step + 1
            )));
        }
        adam.step(&parameters, &gradients)?;
        losses.push(loss);
    }
    parameters.iter().for_each(|p| drop(p.set_requires_grad(false)));
    Ok((sae, losses))
}

/// Mean over a batch `[batch, d_in]`.
fn loss(sae: &Sae, batch: &Tensor, l1: f64) -> Result<Tensor> {
    let run = sae.run(batch)?;
    let apart = run.reconstruction.f_sub(batch)?.f_square()?.f_sum_dim_intlist(-1i64, false, Kind::Float)?;
    let norms = sae.w_dec.f_square()?.f_sum_dim_intlist(-1i64, false, Kind::Float)?.f_sqrt()?;
    let sparsity = run.features.f_mul(&norms)?.f_sum_dim_intlist(-1i64, false, Kind::Float)?;
    Ok(apart.f_add(&sparsity.f_mul_scalar(l1)?)?.f_mean(Kind::Float)?)
}

/// Random directions of norm 0.1, read as they are written, around the mean of the activations.
fn first(x: &Tensor, hook_name: Option<String>, d_sae: i64, random: &mut ChaCha8Rng) -> Result<Sae> {
    let d_in = x.size()[1];
    let numbers: Vec<f32> = (0..d_sae * d_in).map(|_| random.random_range(-1.0f32..1.0)).collect();
    let w_dec = Tensor::f_from_slice(&numbers)?.f_view([d_sae, d_in])?.f_to_device(x.device())?;
    let norms = w_dec.f_square()?.f_sum_dim_intlist(-1i64, true, Kind::Float)?.f_sqrt()?;
    let w_dec = w_dec.f_div(&norms)?.f_mul_scalar(0.1)?;
    let b_enc = Tensor::f_zeros([d_sae], (Kind::Float, x.device()))?;
    Ok(Sae {
        w_enc: w_dec.f_transpose(0, 1)?.f_mul_scalar(1.0)?,
        w_dec,
        b_dec: x.f_mean_dim(0i64, false, Kind::Float)?,
        encoder: SaeEncoder::Standard { b_enc },
        config: SaeConfig { apply_b_dec_to_input: true, hook_name, ..SaeConfig::default() },
    })
}

/// Adam (Kingma and Ba 2015) with β 0.9 and 0.999, ε 1e-8.
struct Adam {
    moments: Vec<[Tensor; 2]>,
    learning_rate: f64,
    steps: i32,
}

impl Adam {
    fn new(parameters: &[Tensor], learning_rate: f64) -> Result<Adam> {
        let zeros = |p: &Tensor| -> Result<Tensor> { Ok(p.f_detach()?.f_zeros_like()?) };
        let moments = parameters.iter().map(|p| Ok([zeros(p)?, zeros(p)?]));
        Ok(Adam { moments: moments.collect::<Result<_>>()?, learning_rate, steps: 0 })
    }

    fn step(&mut self, parameters: &[Tensor], gradients: &[Tensor]) -> Result<()> {
        let _guard = tch::no_grad_guard();
        self.steps += 1;
        let [first, second] = [0.9f64, 0.999].map(|beta| 1.0 - beta.powi(self.steps));
        for ((parameter, gradient), [m, v]) in parameters.iter().zip(gradients).zip(&mut self.moments) {
            *m = m.f_mul_scalar(0.9)?.f_add(&gradient.f_mul_scalar(0.1)?)?;
            *v = v.f_mul_scalar(0.999)?.f_add(&gradient.f_square()?.f_mul_scalar(0.001)?)?;
            let root = v.f_div_scalar(second)?.f_sqrt()?.f_add_scalar(1e-8)?;
            let change = m.f_div(&root)?.f_mul_scalar(self.learning_rate / first)?;
            let _ = parameter.shallow_clone().f_sub_(&change)?;
        }
        Ok(())
    }
}
