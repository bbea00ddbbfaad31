//! How much heads read of what earlier heads write.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

use super::{Circuits, HeadWeights};
use crate::interp::factored::FactoredMatrix;
use crate::{Error, Result};

/// What of a later head reads the earlier one's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Composition {
    /// Its queries.
    Q,
    /// Its keys.
    K,
    /// Its values.
    V,
}

impl Circuits {
    /// Composition scores of all pairs of heads, ‖A B‖/(‖A‖ ‖B‖) in Frobenius norms, A the earlier head's OV
    /// circuit and B the later one's QK circuit, that transposed, or its OV circuit: Elhage et al. 2021,
    /// "Head Composition", and TransformerLens' `all_composition_scores`.
    ///
    /// float64 `[layer, head, layer, head]` on the CPU, 0 to 1, the earlier head first; 0 where the second is
    /// no later one. What heads write is taken without its mean over n_embd, which no reader behind an LN
    /// sees. Scores of unrelated heads are not 0 but [`random_composition`].
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn composition_scores(&self, kind: Composition) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let n_layer = self.blocks.len() as i64;
        let n_head = self.blocks.first().map_or(0, |heads| heads.w_q.size()[0]);
        let scores = Tensor::f_zeros([n_layer, n_head, n_layer, n_head], (Kind::Double, Device::Cpu))?;
        let writers = self.blocks.iter().map(Side::of_writer).collect::<Result<Vec<_>>>()?;
        let readers = self.blocks.iter().map(|heads| Side::of_reader(heads, kind));
        let readers = readers.collect::<Result<Vec<_>>>()?;
        for (l1, writer) in writers.iter().enumerate() {
            for (l2, reader) in readers.iter().enumerate().skip(l1 + 1) {
                let found = writer.composed_with(reader)?;
                scores.f_select(0, l1 as i64)?.f_select(1, l2 as i64)?.f_copy_(&found)?;
            }
        }
        Ok(scores)
    }
}

/// The heads of a block on one side of a composition, in float64.
struct Side {
    /// `[head, n_embd, d_head]`.
    left: Tensor,
    /// `[head, d_head, n_embd]`.
    right: Tensor,
    /// Frobenius norms of the products, `[head]`.
    norms: Tensor,
}

impl Side {
    fn new(left: &Tensor, right: &Tensor) -> Result<Side> {
        let (left, right) = (left.f_to_kind(Kind::Double)?, right.f_to_kind(Kind::Double)?);
        let norms = FactoredMatrix::new(left.shallow_clone(), right.shallow_clone())?.norm()?;
        Ok(Side { left, right, norms })
    }

    fn of_writer(heads: &HeadWeights) -> Result<Side> {
        Side::new(&heads.w_v, &heads.w_o.f_sub(&heads.w_o.f_mean_dim(-1i64, true, Kind::Float)?)?)
    }

    fn of_reader(heads: &HeadWeights, kind: Composition) -> Result<Side> {
        match kind {
            Composition::Q => Side::new(&heads.w_q, &heads.w_k.f_transpose(1, 2)?),
            Composition::K => Side::new(&heads.w_k, &heads.w_q.f_transpose(1, 2)?),
            Composition::V => Side::of_writer(heads),
        }
    }

    /// Scores of all pairs, `[head, head]`: ‖L₁ M R₂‖² = tr(Mᵀ(L₁ᵀL₁)M (R₂R₂ᵀ)) with M = R₁ L₂.
    fn composed_with(&self, later: &Side) -> Result<Tensor> {
        let middle = self.right.f_unsqueeze(1)?.f_matmul(&later.left.f_unsqueeze(0)?)?;
        let before = self.left.f_transpose(1, 2)?.f_matmul(&self.left)?.f_unsqueeze(1)?;
        let after = later.right.f_matmul(&later.right.f_transpose(1, 2)?)?.f_unsqueeze(0)?;
        let inner = middle.f_transpose(-2, -1)?.f_matmul(&before)?.f_matmul(&middle)?;
        let dims = [-2i64, -1];
        let square = inner.f_mul(&after)?.f_sum_dim_intlist(dims.as_slice(), false, Kind::Double)?;
        let norms = self.norms.f_unsqueeze(1)?.f_mul(&later.norms.f_unsqueeze(0)?)?;
        Ok(square.f_clamp_min(0.0)?.f_sqrt()?.f_div(&norms)?.f_to_device(Device::Cpu)?)
    }
}

/// What the composition score of heads is that know nothing of one another: the mean over `samples` pairs of
/// products of `[n_embd, d_head]` and `[d_head, n_embd]` matrices of normal random numbers, drawn from
/// `seed`. Elhage et al. 2021 take it off the scores.
///
/// # Errors
/// Without samples, or if libtorch fails.
pub fn random_composition(n_embd: i64, d_head: i64, samples: usize, seed: u64) -> Result<f64> {
    if samples == 0 || n_embd < 1 || d_head < 1 {
        return Err(Error::invalid("a mean over no random heads says nothing"));
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut sum = 0.0;
    for _ in 0..samples {
        let mut side = || -> Result<Side> {
            let left = normal(&mut random, n_embd, d_head)?;
            Side::new(&left, &normal(&mut random, d_head, n_embd)?)
        };
        let (earlier, later) = (side()?, side()?);
        sum += earlier.composed_with(&later)?.f_double_value(&[0, 0])?;
    }
    Ok(sum / samples as f64)
}

/// Normal random numbers, float64 `[1, m, n]` on the CPU (Box and Muller).
fn normal(random: &mut ChaCha8Rng, m: i64, n: i64) -> Result<Tensor> {
    let mut number = || {
        // Above zero, so that its logarithm is a number.
        let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
        radius * (std::f64::consts::TAU * random.random::<f64>()).cos()
    };
    let values: Vec<f64> = (0..m * n).map(|_| number()).collect();
    Ok(Tensor::f_from_slice(&values)?.f_view([1, m, n])?)
}
