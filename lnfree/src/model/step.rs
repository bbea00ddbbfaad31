//! The model as the micro-batches of one optimizer step compute it.
//!
//! Parameters do not change between them, so what can be done to parameters instead of activations is done
//! once a step: matrices are converted to the type of the computation, and fake LNs go into the matrices that
//! read them. With C = I − 11ᵀ/n (centring), FakeLN(x) W + b = x W′ + b′ where W′ = C diag(γ/σ̄) W and
//! b′ = b + βW. Gradients of W′ and b′ gather in the place of those of W and b; at the end of the step they
//! become, with G the gradient of W′ and g that of b′,
//! dW = diag(γ/σ̄) C G + β gᵀ, dγ = rowsum(C G ⊙ W)/σ̄, dβ = W g, db = g.
//!
//! That takes as long for one token as for a million. In steps of few tokens fake LNs stay outside, and are
//! made with the sums that they read.

use tch::{Kind, Tensor};

use super::inference::centred_head;
use super::layer_norm::FoldedFaces;
use super::{Attention, Block, Compute, Conv1d, Gpt2, LayerNorm, Mlp};
use crate::Result;
use crate::base::device::for_cpu_kernels;
use crate::config::norm::LnSite;
use crate::model::ln_state::LnState;
use crate::ops::{self, Gradients, LinearNorm, padded, start_gathering};

/// From how many tokens for each column of a matrix on it pays to fold on a CPU: both folding, twice a step,
/// and computing an LN, for every token, wait for memory.
const TOKENS_A_COLUMN: usize = 4;

/// A model whose gradients go to the parameters of another, see the module's text.
pub struct StepModel<'a> {
    /// What micro-batches compute with.
    pub(crate) model: Gpt2,
    /// The unembedding in the type of the computation, `[vocab_size, n_embd]` and perhaps rows of zeros; in
    /// bfloat16 without its mean over the vocabulary, which moves all logits of a position by the same
    /// number: no probability and no gradient changes, and small logits are rounded less.
    pub(crate) head: Tensor,
    parameters: &'a Gpt2,
    folds: Vec<FoldedNorm<'a>>,
}

/// One LN that is in the columns `start .. start + len` of a matrix.
struct FoldedNorm<'a> {
    norm: &'a LayerNorm,
    reader: &'a Conv1d,
    start: i64,
    len: i64,
    /// σ̄, 0-dim.
    std: Tensor,
    linear: LinearNorm,
}

impl<'a> StepModel<'a> {
    /// Runs `micro_batches` with a model that is prepared for a step of `parameters`, leaves that require
    /// gradients (embeddings need not), which must not change meanwhile; then what has gathered becomes
    /// gradients of the parameters. `tokens`: how many will go through; for few of them it would take longer
    /// to fold LNs than to compute them.
    ///
    /// # Errors
    /// Those of `micro_batches`, after which gradients are good for nothing, and when libtorch fails.
    pub fn run<T>(
        parameters: &'a Gpt2,
        ln: &LnState,
        compute: Compute,
        tokens: usize,
        micro_batches: impl FnOnce(&StepModel<'a>) -> Result<T>,
    ) -> Result<T> {
        let step = StepModel::new(parameters, ln, compute, tokens)?;
        let out = micro_batches(&step)?;
        let _guard = tch::no_grad_guard();
        step.folds.iter().try_for_each(FoldedNorm::unfold_gradients)?;
        Ok(out)
    }

    fn new(parameters: &'a Gpt2, ln: &LnState, compute: Compute, tokens: usize) -> Result<StepModel<'a>> {
        let _guard = tch::no_grad_guard();
        for (_, parameter) in parameters.named_parameters() {
            if parameter.requires_grad() && !parameter.grad().defined() {
                start_gathering(&parameter)?;
            }
        }
        let mut folds = Vec::new();
        let blocks = parameters.h.iter().enumerate();
        let h = blocks.map(|(layer, block)| fold_block(block, layer, ln, compute, tokens, &mut folds));
        let h = h.collect::<Result<_>>()?;
        let model = Gpt2 {
            config: parameters.config.clone(),
            wte: parameters.wte.detach(),
            wpe: parameters.wpe.detach(),
            h,
            ln_f: parameters.ln_f.as_ref().map(|norm| norm.with(FoldedFaces::default())),
            lm_head: None,
        };
        let head = centred_head(parameters.unembedding(), compute.dtype);
        // In float32 a CPU gains less by padding than a copy costs.
        let head = match for_cpu_kernels(&head) && compute.dtype == Kind::Float {
            true => head,
            false => padded(&head, 0.0),
        };
        Ok(StepModel { model, head, parameters, folds })
    }

    /// How many LNs, or faces of one, are in a matrix.
    pub fn n_folded(&self) -> usize {
        self.folds.len()
    }

    /// The parameters, whose gradients gather what is found.
    pub(crate) fn parameters(&self) -> &Gpt2 {
        self.parameters
    }
}

/// A block that computes in the type of `compute`, with the LNs in its matrices that can be there.
fn fold_block<'a>(
    block: &'a Block,
    layer: usize,
    ln: &LnState,
    compute: Compute,
    tokens: usize,
    folds: &mut Vec<FoldedNorm<'a>>,
) -> Result<Block> {
    let (ln_1, faces) = match pays(&block.attn.c_attn, tokens) {
        true => fold_of_ln_1(block, layer, ln, compute),
        false => (None, FoldedFaces::default()),
    };
    let ln_2 = fold_of_ln_2(block, layer, ln, compute).filter(|fold| pays(fold.reader, tokens));
    let out = Block {
        ln_1: block.ln_1.as_ref().map(|norm| norm.with(faces)),
        attn: Attention {
            c_attn: block.attn.c_attn.for_step(compute.dtype, ln_1.as_ref())?,
            c_proj: block.attn.c_proj.for_step(compute.dtype, None)?,
            ..block.attn
        },
        ln_2: block.ln_2.as_ref().map(|norm| norm.with(FoldedFaces { main: ln_2.is_some(), v: false })),
        mlp: Mlp {
            c_fc: block.mlp.c_fc.for_step(compute.dtype, ln_2.as_ref())?,
            c_proj: block.mlp.c_proj.for_step(compute.dtype, None)?,
        },
        resid_pdrop: block.resid_pdrop,
    };
    folds.extend(ln_1.into_iter().chain(ln_2));
    Ok(out)
}

/// Whether a LN costs `tokens` more than folding it into `reader` does, and the folded matrix's gradients can
/// gather elsewhere. On a GPU it always does: kernels that compute it along with something else are for CPUs.
fn pays(reader: &Conv1d, tokens: usize) -> bool {
    if !ops::GATHERS {
        return false;
    }
    let columns = reader.weight.size()[1] as usize;
    !for_cpu_kernels(&reader.weight) || tokens >= TOKENS_A_COLUMN * columns
}

/// ln_1 in the columns of c_attn that it can be in, and which of its faces that are.
fn fold_of_ln_1<'a>(
    block: &'a Block,
    layer: usize,
    ln: &LnState,
    compute: Compute,
) -> (Option<FoldedNorm<'a>>, FoldedFaces) {
    let Some(norm) = &block.ln_1 else { return (None, FoldedFaces::default()) };
    let n = block.attn.c_proj.weight.size()[1];
    let qk = ln.constant(LnSite::Ln1Qk(layer), compute.observe);
    let v = ln.constant(LnSite::Ln1V(layer), compute.observe);
    let faces = FoldedFaces { main: qk.is_some(), v: v.is_some() };
    let fold = match (qk, v) {
        // Both are the same LN, so they have one σ̄.
        (Some(std), Some(_)) => Some((0, 3 * n, std)),
        (Some(std), None) => Some((0, 2 * n, std)),
        (None, Some(std)) => Some((2 * n, n, std)),
        (None, None) => None,
    };
    (fold.map(|(start, len, std)| FoldedNorm::new(norm, &block.attn.c_attn, start, len, std)), faces)
}

/// ln_2 in c_fc, if it can be there.
fn fold_of_ln_2<'a>(
    block: &'a Block,
    layer: usize,
    ln: &LnState,
    compute: Compute,
) -> Option<FoldedNorm<'a>> {
    let norm = block.ln_2.as_ref()?;
    let std = ln.constant(LnSite::Ln2(layer), compute.observe)?;
    let reader = &block.mlp.c_fc;
    Some(FoldedNorm::new(norm, reader, 0, reader.weight.size()[1], std))
}

impl<'a> FoldedNorm<'a> {
    fn new(norm: &'a LayerNorm, reader: &'a Conv1d, start: i64, len: i64, std: Tensor) -> FoldedNorm<'a> {
        let linear = norm.as_linear(&std, Kind::Float);
        FoldedNorm { norm, reader, start, len, std, linear }
    }

    /// Its columns of a weight or of anything of that shape.
    fn columns(&self, weight: &Tensor) -> Tensor {
        weight.detach().narrow(1, self.start, self.len)
    }

    /// The reader's weight and bias in `dtype`, with the LN in its columns.
    fn folded(&self, dtype: Kind) -> Result<(Tensor, Tensor)> {
        let weight = self.reader.weight.detach();
        let out = match self.len == weight.size()[1] {
            true => Tensor::empty(weight.size(), (dtype, weight.device())),
            false => weight.to_dtype(dtype, false, true),
        };
        let carried = self.linear.fold(&self.columns(&weight), &self.columns(&out))?;
        let bias = self.reader.bias.detach().to_dtype(Kind::Float, false, true);
        let _ = bias.narrow(0, self.start, self.len).g_add_(&carried);
        Ok((out, bias.to_kind(dtype)))
    }

    fn unfold_gradients(&self) -> Result<()> {
        let (grad, weight) = (self.columns(&self.reader.weight.grad()), self.columns(&self.reader.weight));
        let bias_grad = self.reader.bias.grad().narrow(0, self.start, self.len).to_kind(Kind::Float);
        let by_row = self.linear.unfold(&grad, &weight, &bias_grad)?;
        let _ = self.norm.weight.grad().g_add_(&(by_row.get(0) / &self.std));
        let _ = self.norm.bias.grad().g_add_(&by_row.get(1));
        Ok(())
    }
}

impl Conv1d {
    /// What a step computes with, gradients going to the parameters'.
    fn for_step(&self, dtype: Kind, fold: Option<&FoldedNorm>) -> Result<Conv1d> {
        if !ops::GATHERS {
            // Leaves, converted in every forward, gather their own.
            return Ok(Conv1d::new(self.weight.shallow_clone(), self.bias.shallow_clone()));
        }
        let (weight, bias) = match fold {
            Some(fold) => fold.folded(dtype)?,
            None => (self.weight.detach().to_kind(dtype), self.bias.detach().to_kind(dtype)),
        };
        let gradients = Gradients { weight: self.weight.grad(), bias: self.bias.grad() };
        Ok(Conv1d { weight, bias, gradients: Some(gradients) })
    }
}

impl LayerNorm {
    /// The same parameters, as leaves.
    fn with(&self, folded: FoldedFaces) -> LayerNorm {
        let (weight, bias) = (self.weight.shallow_clone(), self.bias.shallow_clone());
        LayerNorm { weight, bias, eps: self.eps, folded }
    }
}
