//! TransformerLens' processing of weights: other weights, the same predictions.

use tch::{Kind, Tensor};

use crate::config::norm::{LnSite, SpecialAxis, ln_names};
use crate::model::ln_state::LnState;
use crate::model::{Attention, Block, Conv1d, Folding, Gpt2, LayerNorm, Mlp};
use crate::{Error, Result};

/// What [`process`] does to weights, under TransformerLens' names. The default is that of its
/// `HookedTransformer.from_pretrained` and `process_weights_`: everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Processing {
    /// γ and β of every LN go into what reads it: W becomes γ ⊙ W, its bias b + βW, and the LN does nothing
    /// but centre and divide (`LNPre`). W then loses its mean over n_embd, which reads nothing of what is
    /// centred.
    pub fold_ln: bool,
    /// Everything that writes to the residual stream loses its mean over n_embd: both embeddings, and weight
    /// and bias of the output projections of attention and MLPs. Whatever reads the stream has to take that
    /// mean out itself.
    pub center_writing_weights: bool,
    /// The unembedding loses its mean over the vocabulary, and with it all logits of a position their mean,
    /// which no probability sees.
    pub center_unembed: bool,
    /// Biases of values become zero. A pattern sums to one, so what they write is the same at every position:
    /// it goes into the bias of the output projection.
    pub fold_value_biases: bool,
}

/// A model with processed weights; whatever takes a model and an LN state takes these.
#[derive(Debug)]
pub struct Processed {
    /// The parameters, float32, its unembedding untied.
    pub model: Gpt2,
    /// Which LNs are fake and what they divide by, as before.
    pub ln: LnState,
}

/// A model with other weights and the same probabilities: the same logits or, with
/// [`center_unembed`](Processing::center_unembed), those less their mean at each position. Its activations
/// are those of TransformerLens' `HookedTransformer` processed with the same options.
///
/// Real LNs, fake ones and those between are processed alike: what they divide by stays with them, and what
/// is not there (format `folded`) is not folded. Two things are other than in TransformerLens. A [`Gpt2`] has
/// no bias b_U of the unembedding, which is what β of ln_f becomes there: ln_f keeps a bias, β/γ, which
/// `ln_final.hook_normalized` shows, and the unembedding, which reads it, its mean over n_embd;
/// [`Circuits`](super::Circuits) of the result has TransformerLens' W_U and b_U. And where a
/// fake LN divides features by different constants ([`SpecialAxis::Feature`]), what it hands on is not
/// centred, so that what reads it keeps its mean too.
///
/// Computed in float64, float32 result on the model's device; shares no memory with `model`.
///
/// ```
/// use lnfree::interp::{Processing, process};
/// use lnfree::prelude::*;
///
/// # fn main() -> Result<()> {
/// let nano = LoadedModel::load(&locate_model("nano")?, None, Kind::Float, Device::Cpu)?;
/// let options = Processing { fold_ln: true, ..Processing::NONE };
/// let folded = process(&nano.model, &nano.ln, options)?;
/// let gamma = folded.model.h[2].ln_1.as_ref().map(|ln_1| ln_1.weight.shallow_clone());
/// assert!(gamma.is_some_and(|gamma| gamma == gamma.ones_like()));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// `center_writing_weights` where something reads the stream without an LN before it; `fold_ln` where ln_f
/// has a weight of zero and a bias that is not; an LN state of another number of blocks.
pub fn process(model: &Gpt2, ln: &LnState, options: Processing) -> Result<Processed> {
    let _guard = tch::no_grad_guard();
    check(model, ln, options)?;
    // σ̄ = 1: γ and β go into the matrices, and the division stays where it is.
    let folding = Folding::all(&vec![1.0; 2 * model.h.len() + 1]);
    let embedding = |x: &Tensor| match options.center_writing_weights {
        true => single(&folding.writes(x)),
        false => single(&double(x)?),
    };
    let blocks = model.h.iter().enumerate();
    let h = blocks.map(|(layer, block)| options.block(&folding, block, layer, ln));
    let (ln_f, head) = options.unembedding(&folding, model)?;
    let mut config = model.config.clone();
    config.tie_word_embeddings = false;
    let model = Gpt2 {
        config,
        wte: embedding(&model.wte)?,
        wpe: embedding(&model.wpe)?,
        h: h.collect::<Result<_>>()?,
        ln_f,
        lm_head: Some(head),
    };
    Ok(Processed { model, ln: ln.copy() })
}

impl Default for Processing {
    fn default() -> Self {
        Processing {
            fold_ln: true,
            center_writing_weights: true,
            center_unembed: true,
            fold_value_biases: true,
        }
    }
}

impl Processing {
    /// Nothing, as of TransformerLens' `from_pretrained_no_processing`; to say what is done by name.
    pub const NONE: Processing = Processing {
        fold_ln: false,
        center_writing_weights: false,
        center_unembed: false,
        fold_value_biases: false,
    };

    /// Block `layer`. `folding` has every LN in what reads it, and centres everything that writes.
    fn block(self, folding: &Folding, block: &Block, layer: usize, ln: &LnState) -> Result<Block> {
        let folded = folding.block(layer, block);
        let reads = if self.fold_ln { &folded } else { block };
        let writes = if self.center_writing_weights { &folded } else { block };
        let (mut c_attn, mut c_fc) = (in_double(&reads.attn.c_attn)?, in_double(&reads.mlp.c_fc)?);
        let mut c_proj = in_double(&writes.attn.c_proj)?;
        let n = c_proj.weight.size()[1];
        if self.fold_ln && block.ln_1.is_some() {
            let faces = [(LnSite::Ln1Qk(layer), 2 * n), (LnSite::Ln1V(layer), n)];
            c_attn.weight = centred_behind(&faces, &c_attn.weight, ln)?;
        }
        if self.fold_ln && block.ln_2.is_some() {
            let face = [(LnSite::Ln2(layer), c_fc.weight.size()[1])];
            c_fc.weight = centred_behind(&face, &c_fc.weight, ln)?;
        }
        if self.fold_value_biases {
            move_value_biases(&mut c_attn, &mut c_proj, n)?;
        }
        Ok(Block {
            ln_1: self.norm(block.ln_1.as_ref())?,
            attn: Attention { c_attn: in_single(&c_attn)?, c_proj: in_single(&c_proj)?, ..block.attn },
            ln_2: self.norm(block.ln_2.as_ref())?,
            mlp: Mlp { c_fc: in_single(&c_fc)?, c_proj: in_single(&in_double(&writes.mlp.c_proj)?)? },
            resid_pdrop: block.resid_pdrop,
        })
    }

    /// What is left of an LN.
    fn norm(self, norm: Option<&LayerNorm>) -> Result<Option<LayerNorm>> {
        let left = |norm: &LayerNorm| -> Result<LayerNorm> {
            let (weight, bias) = (double(&norm.weight)?, double(&norm.bias)?);
            let (weight, bias) = match self.fold_ln {
                true => (weight.f_ones_like()?, bias.f_zeros_like()?),
                false => (weight, bias),
            };
            Ok(LayerNorm {
                weight: single(&weight)?,
                bias: single(&bias)?,
                eps: norm.eps,
                folded: norm.folded,
            })
        };
        norm.map(left).transpose()
    }

    /// ln_f and the unembedding, `[vocab_size, n_embd]`.
    fn unembedding(self, folding: &Folding, model: &Gpt2) -> Result<(Option<LayerNorm>, Tensor)> {
        let mut ln_f = self.norm(model.ln_f.as_ref())?;
        let mut head = double(model.unembedding())?;
        if self.fold_ln
            && let Some((folded, shift)) = folding.head(model).map_err(of_zero_weight)?
            && let Some(ln_f) = &mut ln_f
        {
            ln_f.bias = single(&shift)?;
            head = folded;
        }
        if self.center_unembed {
            head = centred(&head)?;
        }
        Ok((ln_f, single(&head)?))
    }
}

/// Refuses what would change the predictions.
fn check(model: &Gpt2, ln: &LnState, options: Processing) -> Result<()> {
    if ln.n_layer() != model.h.len() {
        let (of_ln, of_model) = (ln.n_layer(), model.h.len());
        return Err(Error::invalid(format!("the LN state is of {of_ln} blocks, the model has {of_model}")));
    }
    let there = model.h.iter().flat_map(|block| [block.ln_1.is_some(), block.ln_2.is_some()]);
    let there = there.chain([model.ln_f.is_some()]);
    let gone = ln_names(model.h.len()).into_iter().zip(there).find(|(_, there)| !there);
    match gone {
        Some((name, _)) if options.center_writing_weights => Err(Error::invalid(format!(
            "center_writing_weights: {name} is not there, and without it the mean over n_embd is read too; \
             pass center_writing_weights: false"
        ))),
        _ => Ok(()),
    }
}

/// [`Folding::head`]'s error in the words of this module.
fn of_zero_weight(error: Error) -> Error {
    match error {
        Error::Invalid(_) => Error::invalid(
            "fold_ln: ln_f has a weight of zero where its bias is not, and no unembedding can have both; \
             pass fold_ln: false",
        ),
        other => other,
    }
}

/// A weight `[n_embd, out]` without the mean over n_embd of those columns that read what is centred. `faces`:
/// the sites that its columns read, each with their number, from the first column on.
fn centred_behind(faces: &[(LnSite, i64)], weight: &Tensor, ln: &LnState) -> Result<Tensor> {
    let (mut parts, mut start) = (Vec::new(), 0);
    for &(site, columns) in faces {
        let part = weight.f_narrow(1, start, columns)?;
        let by_feature = ln.settings.special_axis == SpecialAxis::Feature && ln.is_special(ln.row(site));
        let by_constants = ln.mode(site).is_fake() || ln.gate(site) > 0.0;
        parts.push(if by_feature && by_constants { part } else { centred(&part)? });
        start += columns;
    }
    Ok(Tensor::f_cat(&parts, 1)?)
}

/// Puts b_V W_O into the bias of the output projection in the place of b_V, the last `n` of c_attn's biases.
fn move_value_biases(c_attn: &mut Conv1d, c_proj: &mut Conv1d, n: i64) -> Result<()> {
    let (others, b_v) = (c_attn.bias.f_narrow(0, 0, 2 * n)?, c_attn.bias.f_narrow(0, 2 * n, n)?);
    let written = b_v.f_unsqueeze(0)?.f_matmul(&c_proj.weight)?.f_squeeze_dim(0)?;
    c_proj.bias = c_proj.bias.f_add(&written)?;
    c_attn.bias = Tensor::f_cat(&[&others, &b_v.f_zeros_like()?], 0)?;
    Ok(())
}

/// Without the mean over the first axis.
fn centred(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_sub(&x.f_mean_dim(0i64, true, Kind::Double)?)?)
}

/// Float64, without a graph.
fn double(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_detach()?.f_to_kind(Kind::Double)?)
}

/// Float32 of float64, in memory of its own.
fn single(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_to_kind(Kind::Float)?.f_contiguous()?)
}

fn in_double(map: &Conv1d) -> Result<Conv1d> {
    Ok(Conv1d::new(double(&map.weight)?, double(&map.bias)?))
}

fn in_single(map: &Conv1d) -> Result<Conv1d> {
    Ok(Conv1d::new(single(&map.weight)?, single(&map.bias)?))
}
