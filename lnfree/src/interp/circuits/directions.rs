//! What a head moves, read in tokens.

use tch::{Device, Kind, Tensor};

use super::Circuits;
use crate::interp::factored::FactoredMatrix;
use crate::{Error, Result};

/// A singular direction of an OV circuit, in tokens with what they score.
#[derive(Debug, Clone, PartialEq)]
pub struct Direction {
    /// How strongly what is read is written.
    pub singular_value: f64,
    /// Tokens whose embeddings are read most, the largest product with the left singular vector first.
    pub reads: Vec<(i64, f64)>,
    /// Tokens whose logits the right singular vector raises most.
    pub raises: Vec<(i64, f64)>,
    /// Tokens whose logits it lowers most, the lowest first.
    pub lowers: Vec<(i64, f64)>,
}

impl Circuits {
    /// The `n` largest singular directions of a head's OV circuit, each with the `n_tokens` tokens that it
    /// bears on most, through the embedding where it reads and through the unembedding where it writes
    /// (Millidge and Black 2022, "The Singular Value Decompositions of Transformer Weight Matrices are Highly
    /// Interpretable"). The sign of a direction is free; here the token that it bears on most is raised.
    ///
    /// # Errors
    /// If there is no such head, or more are asked for than there are.
    pub fn ov_directions(&self, layer: usize, head: i64, n: i64, n_tokens: i64) -> Result<Vec<Direction>> {
        let _guard = tch::no_grad_guard();
        let (rank, vocab_size) = (self.ov(layer)?.rank(), self.w_e.size()[0]);
        if n > rank || n_tokens < 1 || n_tokens > vocab_size {
            return Err(Error::invalid(format!(
                "{n} directions of {n_tokens} tokens: a head has {rank}, the vocabulary {vocab_size}"
            )));
        }
        let circuit = self.ov(layer)?.get(head)?;
        // Without the mean over n_embd, which the unembedding does not read.
        let right = circuit.right().f_sub(&circuit.right().f_mean_dim(-1i64, true, Kind::Float)?)?;
        let svd = FactoredMatrix::new(circuit.left().shallow_clone(), right)?.svd()?;
        (0..n)
            .map(|i| self.direction(&svd.u.f_select(-1, i)?, &svd.v.f_select(-1, i)?, &svd.s, i, n_tokens))
            .collect()
    }

    fn direction(&self, u: &Tensor, v: &Tensor, s: &Tensor, i: i64, n_tokens: i64) -> Result<Direction> {
        let column = |x: &Tensor| -> Result<Tensor> { Ok(x.f_to_kind(Kind::Float)?.f_unsqueeze(1)?) };
        let reads = self.w_e.f_matmul(&column(u)?)?.f_squeeze_dim(1)?;
        let writes = column(v)?.f_transpose(0, 1)?.f_matmul(&self.w_u)?.f_squeeze_dim(0)?;
        let most = writes.f_abs()?.f_argmax(0, false)?.f_int64_value(&[])?;
        let sign = if writes.f_double_value(&[most])? < 0.0 { -1.0 } else { 1.0 };
        let (reads, writes) = (reads.f_mul_scalar(sign)?, writes.f_mul_scalar(sign)?);
        Ok(Direction {
            singular_value: s.f_double_value(&[i])?,
            reads: top(&reads, n_tokens, true)?,
            raises: top(&writes, n_tokens, true)?,
            lowers: top(&writes, n_tokens, false)?,
        })
    }
}

/// The `n` largest (or smallest) of `x` `[k]`, with their places.
pub(super) fn top(x: &Tensor, n: i64, largest: bool) -> Result<Vec<(i64, f64)>> {
    let (values, places) = x.f_topk(n, 0, largest, true)?;
    let values = Vec::<f64>::try_from(values.f_to_device(Device::Cpu)?)?;
    let places = Vec::<i64>::try_from(places.f_to_device(Device::Cpu)?)?;
    Ok(places.into_iter().zip(values).collect())
}
