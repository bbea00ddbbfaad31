//! Other numbers in the place of parts of activations.

use tch::{Device, Kind, Tensor};

use crate::Result;
use crate::model::hook::{Activation, Hook};

/// Other numbers for a part of one activation.
#[derive(Debug)]
pub(crate) struct Replacement {
    pub at: Activation,
    /// Where, bool, as what broadcasts against `[runs, batch, ..]`.
    pub mask: Tensor,
    /// What, likewise.
    pub value: Tensor,
}

/// A hook that puts all of them in.
#[derive(Debug)]
pub(crate) struct Replacements {
    /// Texts in a run: an activation has them of every run, one run after the other.
    pub batch: i64,
    pub all: Vec<Replacement>,
}

impl Replacements {
    /// All of an activation, by `value`.
    pub fn whole(batch: i64, at: Activation, value: &Tensor) -> Replacements {
        let mask = Tensor::ones([1], (Kind::Bool, value.device()));
        Replacements { batch, all: vec![Replacement { at, mask, value: value.shallow_clone() }] }
    }

    fn replaced(&self, replacement: &Replacement, x: &Tensor) -> Result<Tensor> {
        let size = x.size();
        let apart = [-1, self.batch].into_iter().chain(size.iter().skip(1).copied());
        let apart = x.f_reshape(apart.collect::<Vec<i64>>().as_slice())?;
        Ok(replacement.value.f_where_self(&replacement.mask, &apart)?.f_reshape(size.as_slice())?)
    }
}

impl Hook for Replacements {
    fn on(&mut self, at: Activation, mut x: Tensor) -> Tensor {
        for replacement in self.all.iter().filter(|replacement| replacement.at == at) {
            // An undefined tensor is an error of the pass, which names the activation.
            x = self.replaced(replacement, &x).unwrap_or_else(|_| Tensor::new());
        }
        x
    }

    fn wants(&self, at: Activation) -> bool {
        self.all.iter().any(|replacement| replacement.at == at)
    }
}

/// Whether an index along dimension `dim` of `n_dim` dimensions is among `indices`: bool, of size 1 in all
/// dimensions but that one, `len`.
pub(crate) fn mask_of(dim: usize, n_dim: usize, len: i64, indices: &[i64], device: Device) -> Result<Tensor> {
    let is_in: Vec<bool> = (0..len).map(|index| indices.contains(&index)).collect();
    let mut size = vec![1; n_dim];
    size[dim] = len;
    Ok(Tensor::f_from_slice(&is_in)?.f_to_device(device)?.f_reshape(size.as_slice())?)
}

/// Run r changes head `first + r`: bool `[runs, 1, .., n_head, ..]` of `n_dim` dimensions, heads along `dim`.
pub(crate) fn head_by_run(
    first: i64,
    runs: i64,
    n_head: i64,
    dim: usize,
    n_dim: usize,
    device: Device,
) -> Result<Tensor> {
    let mut size = vec![1; n_dim];
    (size[0], size[dim]) = (runs, n_head);
    let rows = Tensor::f_eye(n_head, (Kind::Float, device))?.f_narrow(0, first, runs)?;
    Ok(rows.f_to_kind(Kind::Bool)?.f_reshape(size.as_slice())?)
}
