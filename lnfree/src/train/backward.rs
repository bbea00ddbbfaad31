//! One micro-batch forward and backward, with or without keeping the activations inside blocks.

use tch::{Kind, Tensor};

use crate::Result;
use crate::hook::NoHook;
use crate::loss::{aux_loss, cross_entropy, predicting};
use crate::model::{Compute, Gpt2};
use crate::norm::LnState;

/// The losses of one micro-batch, detached, 0-dim, on the device.
#[derive(Debug)]
pub struct Losses {
    /// Cross-entropy plus weighted auxiliary loss.
    pub total: Tensor,
    /// Mean cross-entropy.
    pub cross_entropy: Tensor,
    /// Auxiliary loss times its weight; zero when it is off.
    pub aux: Tensor,
    /// What the LNs saw, float32 `[n_ln, 2]`, if the pass observed.
    pub observed: Option<Tensor>,
}

/// How one micro-batch is computed.
#[derive(Debug, Clone, Copy)]
pub struct BackwardRecipe {
    /// Type, dropout and observation of the forward.
    pub compute: Compute,
    /// Weight of the auxiliary loss; 0 leaves it out.
    pub aux_weight: f64,
    /// The gradients are multiplied by it: one over the number of micro-batches.
    pub scale: f64,
    /// Keep only the residual stream between blocks and compute each block again for its gradients.
    pub checkpointing: bool,
}

/// Adds the gradients of one micro-batch to the parameters. `input_ids` int64 `[batch, pos]`; `targets` int64
/// `[batch, pos − 1]`.
///
/// # Errors
/// When the input does not fit the model.
pub fn backward(
    model: &Gpt2,
    ln: &LnState,
    input_ids: &Tensor,
    targets: &Tensor,
    recipe: BackwardRecipe,
) -> Result<Losses> {
    let BackwardRecipe { compute, aux_weight, scale, checkpointing } = recipe;
    let mut pass = model.pass(input_ids, ln, compute)?;
    if !checkpointing {
        let residual = model.residual(input_ids, &mut pass, &mut NoHook);
        let losses = head(model, &residual, targets, &mut pass, aux_weight, scale);
        return Ok(Losses { observed: pass.observations(), ..losses });
    }
    // Forward without a graph, keeping only what goes into each block.
    let mut inputs = Vec::with_capacity(model.h.len() + 1);
    {
        let _guard = tch::no_grad_guard();
        inputs.push(model.embed(input_ids, &pass, &mut NoHook));
        for (layer, block) in model.h.iter().enumerate() {
            let x = block.forward(layer, inputs[layer].shallow_clone(), &mut pass, &mut NoHook);
            inputs.push(x);
        }
    }
    let leaf = |x: Tensor| x.detach().set_requires_grad(true);
    let mut above = leaf(inputs.remove(model.h.len()));
    let losses = head(model, &above, targets, &mut pass, aux_weight, scale);
    let observed = pass.observations();
    // Then backwards, each block computed again from its input; the same dropout falls, see `seed_dropout`.
    for (layer, block) in model.h.iter().enumerate().rev() {
        let below = leaf(inputs.remove(layer));
        let out = block.forward(layer, below.shallow_clone(), &mut pass, &mut NoHook);
        (out * above.grad()).sum(Kind::Float).backward();
        above = below;
    }
    let embedded = model.embed(input_ids, &pass, &mut NoHook);
    (embedded * above.grad()).sum(Kind::Float).backward();
    Ok(Losses { observed, ..losses })
}

/// From the last residual stream to the losses, and back to it.
fn head(
    model: &Gpt2,
    residual: &Tensor,
    targets: &Tensor,
    pass: &mut crate::model::Pass,
    aux_weight: f64,
    scale: f64,
) -> Losses {
    let last = model.final_norm(residual, pass, &mut NoHook);
    let cross_entropy = cross_entropy(&model.unembed(&predicting(&last), pass), targets);
    let (total, aux) = if aux_weight == 0.0 {
        (cross_entropy.shallow_clone(), cross_entropy.zeros_like().detach())
    } else {
        let aux = aux_loss(residual, &pass.is_eot, model.config.layer_norm_epsilon) * aux_weight;
        (&cross_entropy + &aux, aux.detach())
    };
    (&total * scale).backward();
    Losses { total: total.detach(), cross_entropy: cross_entropy.detach(), aux, observed: None }
}
