//! One micro-batch forward and backward, with or without keeping the activations inside blocks.

use tch::{Kind, Tensor};

use crate::Result;
use crate::model::hook::NoHook;
use crate::model::ln_state::LnState;
use crate::model::{Compute, ForwardPass, StepModel};
use crate::ops::loss::{
    HeadGradient, Teaching, aux_loss, aux_loss_around, linear_cross_entropy, linear_distillation, predicting,
    stream_distance,
};
use crate::ops::{ResidualStream, backward_from};
use crate::train::teacher::{Streams, Teacher};

/// The losses of one micro-batch, detached, 0-dim, on the device.
#[derive(Debug)]
pub struct Losses {
    /// Cross-entropy, with a teacher mixed with the distance to it, plus weighted auxiliary loss.
    pub total: Tensor,
    /// Mean cross-entropy.
    pub cross_entropy: Tensor,
    /// Auxiliary loss times its weight; zero when it is off.
    pub aux: Tensor,
    /// Mean KL(teacher ‖ model) at the teacher's temperature, nats; zero without a teacher.
    pub kl: Tensor,
    /// Distance of the residual streams from the teacher's, before its weight; zero where it has none.
    pub hidden: Tensor,
    /// What the LNs saw, float32 `[n_ln, 2]`, if the pass observed.
    pub observed: Option<Tensor>,
}

/// How one micro-batch is computed.
#[derive(Debug, Clone, Copy)]
pub struct BackwardRecipe<'a> {
    /// Whom the model is to stay close to.
    pub teacher: Option<&'a Teacher>,
    /// Type, dropout and observation of the forward.
    pub compute: Compute,
    /// Weight of the auxiliary loss; 0 leaves it out.
    pub aux_weight: f64,
    /// The gradients of the cross-entropy, or of what it is mixed to, are multiplied by it: one over the
    /// number of micro-batches, times this one's share of the targets where it is part of one.
    pub scale: f64,
    /// Those of the auxiliary loss, likewise with the share of the sequences.
    pub aux_scale: f64,
    /// The auxiliary loss's target, 0-dim, where it is that of more than these sequences.
    pub aux_target: Option<&'a Tensor>,
    /// Keep only the residual stream between blocks and compute each block again for its gradients.
    pub checkpointing: bool,
}

/// Adds the gradients of one micro-batch to those that `step` gathers. `input_ids` int64 `[batch, pos]`;
/// `targets` int64 `[batch, pos − 1]`.
///
/// # Errors
/// When the input does not fit the model.
pub fn backward(
    step: &StepModel,
    ln: &LnState,
    input_ids: &Tensor,
    targets: &Tensor,
    recipe: BackwardRecipe,
) -> Result<Losses> {
    let taught = recipe.teacher.map(|teacher| teacher.forward(input_ids)).transpose()?;
    let teaching = recipe.teacher.zip(taught.as_ref()).map(|(teacher, taught)| teacher.teaching(taught));
    let theirs = taught.as_ref().map_or(&[][..], |taught| &taught.streams);
    let model = &step.model;
    let mut pass = model.pass(input_ids, ln, recipe.compute)?;
    let embedding = leaf(model.look_up(input_ids, &pass, &mut NoHook));
    if !recipe.checkpointing {
        let x = model.drop_embedding(embedding.shallow_clone(), &pass);
        let mut streams = Streams::of(theirs.len());
        let residual = model.blocks(x, &mut pass, &mut streams);
        let hidden = distance(&streams.kept, theirs);
        let losses = head(step, &residual, targets, teaching, hidden, &mut pass, recipe)?;
        embedding_gradients(step, input_ids, &embedding.grad());
        return Ok(Losses { observed: pass.observations(), ..losses });
    }
    // Forward without a graph, keeping only what goes into each block.
    let mut inputs = Vec::with_capacity(model.h.len() + 1);
    {
        let _guard = tch::no_grad_guard();
        inputs.push(model.drop_embedding(embedding.shallow_clone(), &pass));
        for (layer, block) in model.h.iter().enumerate() {
            let x = ResidualStream::of(inputs[layer].shallow_clone());
            inputs.push(block.forward(layer, x, None, &mut pass, &mut NoHook).x);
        }
    }
    // Its gradients come with those of the blocks below.
    let hidden = distance(&inputs[1..=theirs.len()], theirs);
    let mut above = leaf(inputs.remove(model.h.len()));
    let losses = head(step, &above, targets, teaching, hidden, &mut pass, recipe)?;
    let observed = pass.observations();
    // Then backwards, each block computed again from its input; the same dropout falls, see `seed_dropout`.
    for (layer, block) in model.h.iter().enumerate().rev() {
        let below = leaf(inputs.remove(layer));
        let x = ResidualStream::of(below.shallow_clone());
        let out = block.forward(layer, x, None, &mut pass, &mut NoHook).x;
        match theirs.get(layer) {
            Some(stream) => {
                let part = hidden_weight(recipe) * recipe.aux_scale / theirs.len() as f64;
                let hidden = stream_distance(&out, stream) * part;
                backward_from(&[(&out, Some(&above.grad())), (&hidden, None)])?;
            }
            None => backward_from(&[(&out, Some(&above.grad()))])?,
        }
        above = below;
    }
    let embedded = model.drop_embedding(embedding.shallow_clone(), &pass);
    backward_from(&[(&embedded, Some(&above.grad()))])?;
    embedding_gradients(step, input_ids, &embedding.grad());
    Ok(Losses { observed, ..losses })
}

/// Mean distance of streams from the teacher's, each after a block; none where there are none.
fn distance(ours: &[Tensor], theirs: &[Tensor]) -> Option<Tensor> {
    let each = ours.iter().zip(theirs).map(|(ours, theirs)| stream_distance(ours, theirs));
    each.reduce(|a, b| a + b).map(|sum| sum / theirs.len() as f64)
}

/// How much that distance counts in the loss.
fn hidden_weight(recipe: BackwardRecipe) -> f64 {
    recipe.teacher.map_or(0.0, |teacher| teacher.hidden_weight)
}

fn leaf(x: Tensor) -> Tensor {
    x.detach().set_requires_grad(true)
}

/// From the last residual stream to the losses, and back to it.
fn head(
    step: &StepModel,
    residual: &Tensor,
    targets: &Tensor,
    teaching: Option<Teaching>,
    hidden: Option<Tensor>,
    pass: &mut ForwardPass,
    recipe: BackwardRecipe,
) -> Result<Losses> {
    let BackwardRecipe { aux_weight, scale, aux_scale, aux_target, .. } = recipe;
    let last = predicting(&step.model.final_norm(residual, pass, &mut NoHook));
    let parameters = step.parameters();
    let mut gathered = parameters.unembedding().grad();
    let head_grad = match parameters.unembedding().requires_grad() {
        true => HeadGradient::Into(&mut gathered),
        false => HeadGradient::Unmade(parameters.config.vocab_size),
    };
    let n_embd = parameters.config.n_embd;
    let unembedded = pass.cast(&last.detach()).reshape([-1, n_embd]);
    let targets = targets.reshape([-1]);
    let out = match teaching {
        Some(teaching) => linear_distillation(&unembedded, &step.head, &targets, teaching, scale, head_grad)?,
        None => linear_cross_entropy(&unembedded, &step.head, &targets, scale, head_grad)?.into(),
    };
    // Autograd goes on from the gradient that was found.
    let grad = out.grad.view_as(&last).to_kind(last.kind());
    let eps = parameters.config.layer_norm_epsilon;
    let aux = (aux_weight != 0.0).then(|| match aux_target {
        Some(target) => aux_loss_around(residual, target, eps),
        None => aux_loss(residual, &pass.is_eot, eps),
    } * aux_weight);
    let weighted = [
        aux.as_ref().map(|aux| aux * aux_scale),
        hidden
            .as_ref()
            .filter(|hidden| hidden.requires_grad())
            .map(|hidden| hidden * (hidden_weight(recipe) * aux_scale)),
    ];
    let mut roots = vec![(&last, Some(&grad))];
    roots.extend(weighted.iter().flatten().map(|loss| (loss, None)));
    backward_from(&roots)?;
    let value = |loss: Option<Tensor>| loss.map_or_else(|| out.loss.zeros_like(), |loss| loss.detach());
    let (aux, hidden) = (value(aux), value(hidden));
    let total = &out.loss + &aux + &hidden * hidden_weight(recipe);
    Ok(Losses { total, cross_entropy: out.cross_entropy, aux, kl: out.kl, hidden, observed: None })
}

/// Adds what arrived at the embeddings, `[batch, pos, n_embd]`, if they train: autograd would make a tensor
/// of the vocabulary's size of it.
fn embedding_gradients(step: &StepModel, input_ids: &Tensor, grad: &Tensor) {
    let _guard = tch::no_grad_guard();
    let parameters = step.parameters();
    if !parameters.wte.requires_grad() {
        return;
    }
    let (mut wte, wpe) = (parameters.wte.grad(), parameters.wpe.grad());
    let rows = grad.view([-1, parameters.config.n_embd]).to_kind(wte.kind());
    let _ = wte.index_add_(0, &input_ids.reshape([-1]), &rows);
    let by_position = grad.sum_dim_intlist([0i64].as_slice(), false, Kind::Float);
    let _ = wpe.narrow(0, 0, grad.size()[1]).g_add_(&by_position);
}
