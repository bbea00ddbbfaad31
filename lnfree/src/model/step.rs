//! The model as the micro-batches of one optimizer step compute it.
//!
//! Parameters do not change between them, so what can be done to parameters instead of activations is done once a step: matrices are
//! converted to the type of the computation, and fake LNs go into the matrices that read them. With C = I − 11ᵀ/n (centring),
//! FakeLN(x) W + b = x W′ + b′ where W′ = C diag(γ/σ̄) W and b′ = b + βW. Gradients of W′ and b′ gather in the place of those of W and b; at the
//! end of the step they become, with G the gradient of W′ and g that of b′,
//! dW = diag(γ/σ̄) C G + β gᵀ, dγ = rowsum(C G ⊙ W)/σ̄, dβ = W g, db = g.

use tch::{Device, Kind, Tensor};

use super::inference::centred_head;
use super::layer_norm::FoldedFaces;
use super::padding::padded;
use super::{Attention, Block, Compute, Conv1d, Gpt2, LayerNorm, Mlp};
use crate::Result;
use crate::native::{Gradients, set_grad};
use crate::norm::{LnSite, LnState};

/// A model whose gradients go to the parameters of another, see the module's text.
pub struct StepModel<'a> {
    /// What micro-batches compute with.
    pub(crate) model: Gpt2,
    /// The unembedding in the type of the computation, `[vocab_size, n_embd]` and perhaps rows of zeros; in bfloat16 without its mean over the vocabulary, which moves all
    /// logits of a position by the same number: no probability and no gradient changes, and small logits are rounded less.
    pub(crate) head: Tensor,
    parameters: &'a Gpt2,
    folds: Vec<Fold<'a>>,
}

/// One LN that is in the columns `start .. start + len` of a matrix.
struct Fold<'a> {
    norm: &'a LayerNorm,
    reader: &'a Conv1d,
    start: i64,
    len: i64,
    /// σ̄, 0-dim.
    std: Tensor,
}

impl<'a> StepModel<'a> {
    /// Prepares a step of `parameters`, leaves that require gradients, which must not change before [`StepModel::finish`].
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn new(parameters: &'a Gpt2, ln: &LnState, compute: Compute) -> Result<StepModel<'a>> {
        let _guard = tch::no_grad_guard();
        for (_, parameter) in parameters.named_parameters() {
            if !parameter.grad().defined() {
                set_grad(&parameter, &parameter.zeros_like())?;
            }
        }
        let mut folds = Vec::new();
        let blocks = parameters.h.iter().enumerate();
        let h = blocks.map(|(layer, block)| fold_block(block, layer, ln, compute, &mut folds)).collect();
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
        let head = match head.device() == Device::Cpu && compute.dtype == Kind::Float {
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

    /// Turns what has gathered into gradients of the parameters. To be called once, after the last micro-batch.
    pub fn finish(self) {
        let _guard = tch::no_grad_guard();
        for fold in &self.folds {
            fold.unfold_gradients();
        }
    }
}

/// A block that computes in the type of `compute`, with the LNs in its matrices that can be there.
fn fold_block<'a>(
    block: &'a Block,
    layer: usize,
    ln: &LnState,
    compute: Compute,
    folds: &mut Vec<Fold<'a>>,
) -> Block {
    let constant = |site| ln.constant(site, compute.observe);
    let n = block.attn.c_proj.weight.size()[1];
    let (mut ln_1, mut ln_2) = (Vec::new(), Vec::new());
    let mut folded = FoldedFaces::default();
    if let Some(norm) = &block.ln_1 {
        let reader = &block.attn.c_attn;
        let (qk, v) = (constant(LnSite::Ln1Qk(layer)), constant(LnSite::Ln1V(layer)));
        folded = FoldedFaces { main: qk.is_some(), v: v.is_some() };
        match (qk, v) {
            // Both are the same LN, so they have one σ̄.
            (Some(std), Some(_)) => ln_1.push(Fold { norm, reader, start: 0, len: 3 * n, std }),
            (Some(std), None) => ln_1.push(Fold { norm, reader, start: 0, len: 2 * n, std }),
            (None, Some(std)) => ln_1.push(Fold { norm, reader, start: 2 * n, len: n, std }),
            (None, None) => {}
        }
    }
    if let Some(norm) = &block.ln_2
        && let Some(std) = constant(LnSite::Ln2(layer))
    {
        let reader = &block.mlp.c_fc;
        ln_2.push(Fold { norm, reader, start: 0, len: reader.weight.size()[1], std });
    }
    let main = !ln_2.is_empty();
    let out = Block {
        ln_1: block.ln_1.as_ref().map(|norm| norm.with(folded)),
        attn: Attention {
            c_attn: block.attn.c_attn.for_step(compute.dtype, &ln_1),
            c_proj: block.attn.c_proj.for_step(compute.dtype, &[]),
            ..block.attn
        },
        ln_2: block.ln_2.as_ref().map(|norm| norm.with(FoldedFaces { main, v: false })),
        mlp: Mlp {
            c_fc: block.mlp.c_fc.for_step(compute.dtype, &ln_2),
            c_proj: block.mlp.c_proj.for_step(compute.dtype, &[]),
        },
        resid_pdrop: block.resid_pdrop,
    };
    folds.extend(ln_1);
    folds.extend(ln_2);
    out
}

impl Fold<'_> {
    /// γ/σ̄, `[in]`.
    fn gain(&self) -> Tensor {
        self.norm.weight.detach().to_kind(Kind::Float) / &self.std
    }

    /// β, `[in]`.
    fn beta(&self) -> Tensor {
        self.norm.bias.detach().to_kind(Kind::Float)
    }

    /// Its columns of a weight or of anything of that shape.
    fn columns(&self, weight: &Tensor) -> Tensor {
        weight.detach().narrow(1, self.start, self.len)
    }

    /// Puts the LN into its columns of copies of weight and bias. Weights are long: each is read as few times as can be.
    fn fold_into(&self, weight: &Tensor, bias: &Tensor) {
        let (columns, gain) = (self.columns(weight), self.gain());
        let sums = Tensor::stack(&[&gain / gain.numel() as f64, self.beta()], 0).matmul(&columns);
        let _ = bias.narrow(0, self.start, self.len).g_add_(&sums.get(1));
        let _ = columns.shallow_clone().g_mul_(&gain.unsqueeze(1)).g_sub_(&sums.get(0));
    }

    fn unfold_gradients(&self) {
        let (mut grad, gain) = (self.columns(&self.reader.weight.grad()), self.gain());
        let bias_grad = self.reader.bias.grad().narrow(0, self.start, self.len);
        let weight = self.columns(&self.reader.weight);
        // What centring takes from G, and g, side by side: [2, out].
        let means = grad.mean_dim(0i64, false, Kind::Float);
        let sides = Tensor::stack(&[means, bias_grad.to_kind(Kind::Float)], 0);
        let by_row = weight.matmul(&sides.tr().to_kind(weight.kind()));
        let rows =
            (&grad * &weight).sum_dim_intlist([1i64].as_slice(), false, Kind::Float) - by_row.select(1, 0);
        let _ = self.norm.weight.grad().g_add_(&(rows / &self.std));
        let _ = self.norm.bias.grad().g_add_(&by_row.select(1, 1));
        let _ = grad.g_mul_(&gain.unsqueeze(1));
        let outer = Tensor::stack(&[-gain, self.beta()], 1);
        let _ = grad.g_add_(&outer.matmul(&sides));
    }
}

impl Conv1d {
    fn for_step(&self, dtype: Kind, folds: &[Fold]) -> Conv1d {
        let (mut weight, mut bias) = (self.weight.detach(), self.bias.detach());
        if !folds.is_empty() {
            // The residual stream is float32 whatever the parameters are kept in.
            (weight, bias) = (weight.totype(Kind::Float).copy(), bias.totype(Kind::Float).copy());
            for fold in folds {
                fold.fold_into(&weight, &bias);
            }
        }
        let gradients = Gradients { weight: self.weight.grad(), bias: self.bias.grad() };
        Conv1d { weight: weight.to_kind(dtype), bias: bias.to_kind(dtype), gradients: Some(gradients) }
    }
}

impl LayerNorm {
    /// The same parameters, as leaves.
    fn with(&self, folded: FoldedFaces) -> LayerNorm {
        let (weight, bias) = (self.weight.shallow_clone(), self.bias.shallow_clone());
        LayerNorm { weight, bias, eps: self.eps, folded }
    }
}
