//! Low-rank adapters (LoRA, arXiv 2106.09685): of every matrix W of attention and MLP only A B trains, in
//! W + A B.
//!
//! The model holds the sums. Parameters change once a step, so adapters go into their matrices once a step,
//! and the gradient G of W + A B becomes G Bᵀ and Aᵀ G at its end: forward, LN removal, evaluation and
//! checkpoints are those of a model without adapters. What low ranks save is memory: Adam's moments are those
//! of A and B, and the frozen W is kept beside the sum.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use crate::model::Gpt2;
use crate::ops::start_gathering;
use crate::{Error, Result};

/// The matrices that get adapters, by how their names end.
const ADAPTED: [&str; 3] = ["c_attn.weight", "c_proj.weight", "c_fc.weight"];

/// One matrix with its adapter, y = x (W + A B) + b.
#[derive(Debug)]
struct Adapter {
    /// The matrix's name without `.weight`.
    name: String,
    /// W + A B, `[in, out]`: the model's own parameter.
    merged: Tensor,
    /// W.
    frozen: Tensor,
    /// `[in, rank]`.
    a: Tensor,
    /// `[rank, out]`.
    b: Tensor,
}

/// The adapters of a model.
#[derive(Debug)]
pub struct Lora {
    adapters: Vec<Adapter>,
}

impl Lora {
    /// Adapters for the four matrices of each block of `model`, whose embeddings then gather no gradients any
    /// more. Float32 leaves: A drawn from U(−1/√rank, 1/√rank), as the paper's code draws it, B zero, so that
    /// the model is what it was. The same `seed` draws the same numbers.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn new(model: &Gpt2, rank: usize, seed: u64) -> Result<Lora> {
        tch::manual_seed(seed as i64);
        let named = model.named_parameters();
        let bound = (rank as f64).sqrt().recip();
        let adapters = named.iter().filter(|(name, _)| ADAPTED.iter().any(|end| name.ends_with(end)));
        let adapters = adapters.map(|(name, weight)| {
            let size = weight.size();
            let options = (Kind::Float, weight.device());
            // Drawn on the CPU, so that a device draws no others.
            let mut drawn = Tensor::empty([size[0], rank as i64], (Kind::Float, tch::Device::Cpu));
            let drawn = drawn.f_uniform_(-bound, bound)?.to_device(weight.device());
            let [a, b] = [drawn, Tensor::zeros([rank as i64, size[1]], options)]
                .map(|leaf| leaf.set_requires_grad(true));
            start_gathering(&a)?;
            start_gathering(&b)?;
            Ok(Adapter {
                name: name.trim_end_matches(".weight").to_string(),
                merged: weight.shallow_clone(),
                frozen: weight.detach().copy(),
                a,
                b,
            })
        });
        let adapters = adapters.collect::<Result<_>>()?;
        // Of what is frozen, these alone cost time.
        for embedding in [Some(&model.wte), Some(&model.wpe), model.lm_head.as_ref()].into_iter().flatten() {
            let _ = embedding.set_requires_grad(false);
        }
        Ok(Lora { adapters })
    }

    /// What trains, by name: `h.0.attn.c_attn.adapter_A`, …
    pub fn named_parameters(&self) -> Vec<(String, Tensor)> {
        let of = |adapter: &Adapter| {
            [("adapter_A", &adapter.a), ("adapter_B", &adapter.b)]
                .map(|(end, leaf)| (format!("{}.{end}", adapter.name), leaf.shallow_clone()))
        };
        self.adapters.iter().flat_map(of).collect()
    }

    /// Numbers that train.
    pub fn n_parameters(&self) -> usize {
        self.adapters.iter().map(|adapter| adapter.a.numel() + adapter.b.numel()).sum()
    }

    /// Turns the gradients that `model`, whose adapters these are, has gathered into theirs, and clears them.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn take_gradients(&self, model: &Gpt2) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for Adapter { merged, a, b, .. } in &self.adapters {
            let grad = merged.grad();
            a.grad().f_copy_(&grad.f_matmul(&b.tr())?)?;
            b.grad().f_copy_(&a.tr().f_matmul(&grad)?)?;
        }
        model.clear_gradients();
        Ok(())
    }

    /// Puts the adapters as they are into the model's matrices.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn merge(&self) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for Adapter { merged, frozen, a, b, .. } in &self.adapters {
            merged.shallow_clone().f_copy_(&frozen.f_addmm(a, b)?)?;
        }
        Ok(())
    }

    /// What a checkpoint keeps beside the model: `NAME.adapter_A`, `NAME.adapter_B` and the frozen matrix,
    /// which the merged one less their product is but for rounding, `NAME.frozen`.
    pub fn state(&self) -> BTreeMap<String, Tensor> {
        let frozen = self.adapters.iter().map(|a| (format!("{}.frozen", a.name), a.frozen.shallow_clone()));
        self.named_parameters().into_iter().map(|(name, leaf)| (name, leaf.detach())).chain(frozen).collect()
    }

    /// Puts back what a checkpoint has kept.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape; names it.
    pub fn load(&self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for (name, mut here) in self.state() {
            let saved = state.get(&name);
            let saved = saved.ok_or_else(|| Error::invalid(format!("has no adapter tensor {name}")))?;
            if saved.size() != here.size() {
                let (found, wanted) = (saved.size(), here.size());
                let message = format!("adapter tensor {name} has shape {found:?}, expected {wanted:?}");
                return Err(Error::invalid(message));
            }
            here.f_copy_(saved)?;
        }
        self.merge()
    }
}
