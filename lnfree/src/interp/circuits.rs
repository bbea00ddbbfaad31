//! What heads read, write and compare, from the weights alone.

mod compose;
mod directions;
mod paths;
mod run;

use tch::{Kind, Tensor};

use super::factored::FactoredMatrix;
use crate::config::norm::LnSite;
use crate::model::ln_state::LnState;
use crate::model::{Block, Conv1d, Gpt2, LayerNorm};
use crate::{Error, Result};

pub use compose::{Composition, random_composition};
pub use directions::Direction;
pub use paths::{AttentionPath, AttentionPaths, PathSource};

/// The weights of a model as its circuits have them: every LN in the matrix that reads it (Elhage et al.
/// 2021, "A Mathematical Framework for Transformer Circuits").
///
/// An LN is (x − mean(x))/σ ⊙ γ + β. Centring and γ are always in the matrix, and β in its bias, as with
/// TransformerLens' `fold_ln`. Where an LN is fake, 1/σ̄ is there too, and where there is none there is
/// nothing to fold: what the circuits say of an LN-free model is then exact. Where it is real, or divides
/// position 0, a feature or end-of-text by another constant than the rest, the division by the scale of the
/// run is left out and [`Circuits::left_out`] names the site.
///
/// Everything is float32 on the model's device. Matrices that write are as they are stored.
#[derive(Debug)]
pub struct Circuits {
    /// Token embedding, `[vocab_size, n_embd]`.
    pub w_e: Tensor,
    /// Position embedding, `[block_size, n_embd]`.
    pub w_pos: Tensor,
    /// Unembedding with ln_f in it, `[n_embd, vocab_size]`.
    pub w_u: Tensor,
    /// β of ln_f, unembedded, `[vocab_size]`.
    pub b_u: Tensor,
    /// The heads of each block.
    pub blocks: Vec<HeadWeights>,
    /// LN sites whose division by the scale of the run is in no matrix, in the order of a forward.
    pub left_out: Vec<LnSite>,
}

/// The heads of a block; what reads has its face of ln_1 in it.
#[derive(Debug)]
pub struct HeadWeights {
    /// Queries, `[head, n_embd, d_head]`.
    pub w_q: Tensor,
    /// Their biases, `[head, d_head]`.
    pub b_q: Tensor,
    /// Keys, `[head, n_embd, d_head]`.
    pub w_k: Tensor,
    /// Their biases, `[head, d_head]`.
    pub b_k: Tensor,
    /// Values, `[head, n_embd, d_head]`.
    pub w_v: Tensor,
    /// Their biases, `[head, d_head]`.
    pub b_v: Tensor,
    /// Output projection, `[head, d_head, n_embd]`.
    pub w_o: Tensor,
    /// Its bias, which no head has for itself, `[n_embd]`.
    pub b_o: Tensor,
}

impl Circuits {
    /// Of a model, whatever is left of its LNs.
    ///
    /// # Errors
    /// If libtorch fails, such as when memory is short.
    pub fn of(model: &Gpt2, ln: &LnState) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let mut left_out = Vec::new();
        let blocks = model.h.iter().enumerate();
        let blocks = blocks.map(|(layer, block)| HeadWeights::of(block, layer, ln, &mut left_out));
        let blocks = blocks.collect::<Result<Vec<_>>>()?;
        let w_u = float(model.unembedding())?.f_transpose(0, 1)?;
        let ln_f = model.ln_f.as_ref().filter(|norm| !norm.folded.main);
        let (w_u, b_u) = match Face::of(ln_f, LnSite::LnF, ln, &mut left_out)? {
            Some(face) => face.before(&w_u, None)?,
            None => {
                let none = Tensor::f_zeros([w_u.size()[1]], (Kind::Float, w_u.device()))?;
                (w_u, none)
            }
        };
        Ok(Self { w_e: float(&model.wte)?, w_pos: float(&model.wpe)?, w_u, b_u, blocks, left_out })
    }

    /// Whether every division by an LN is in the matrices, so that the model's logits are what they say.
    pub fn exact(&self) -> bool {
        self.left_out.is_empty()
    }

    /// What heads of block `layer` attend by, W_Q W_Kᵀ/√d_head, a batch of `[head, n_embd, n_embd]`: a row
    /// is what a query is, a column what a key is. Biases are apart.
    ///
    /// # Errors
    /// If there is no such block.
    pub fn qk(&self, layer: usize) -> Result<FactoredMatrix> {
        let heads = self.block(layer)?;
        let w_q = heads.w_q.f_mul_scalar(heads.score_scale())?;
        FactoredMatrix::new(w_q, heads.w_k.f_transpose(1, 2)?)
    }

    /// What heads of block `layer` move, W_V W_O, a batch of `[head, n_embd, n_embd]`: a row is what the
    /// stream is at a key, a column what the query's stream gets. Biases are apart.
    ///
    /// # Errors
    /// If there is no such block.
    pub fn ov(&self, layer: usize) -> Result<FactoredMatrix> {
        let heads = self.block(layer)?;
        FactoredMatrix::new(heads.w_v.shallow_clone(), heads.w_o.shallow_clone())
    }

    /// What a head does with tokens, W_E W_V W_O W_U, `[vocab_size, vocab_size]`: by how much attention to
    /// the token of a row raises the logit of that of a column. Centred over the columns: what raises all
    /// logits alike changes no probability (TransformerLens' `center_unembed`).
    ///
    /// # Errors
    /// If there is no such head.
    pub fn full_ov(&self, layer: usize, head: i64) -> Result<FactoredMatrix> {
        let centred = self.w_u.f_sub(&self.w_u.f_mean_dim(1i64, true, Kind::Float)?)?;
        self.ov(layer)?.get(head)?.after(&self.w_e)?.then(&centred)
    }

    /// How much a head of block 0 would attend from the token of a row to that of a column, by the token
    /// embeddings alone, W_E W_Q W_Kᵀ W_Eᵀ/√d_head, `[vocab_size, vocab_size]`.
    ///
    /// # Errors
    /// If there is no such head.
    pub fn full_qk(&self, layer: usize, head: i64) -> Result<FactoredMatrix> {
        self.qk(layer)?.get(head)?.after(&self.w_e)?.then(&self.w_e.f_transpose(0, 1)?)
    }

    /// Σ λ/Σ |λ| of the eigenvalues of every head's [`Circuits::full_ov`], `[layer][head]`, −1 to 1: near 1
    /// where a head raises the tokens that it attends to (Elhage et al. 2021, "Copying"). By `[d_head,
    /// d_head]` matrices.
    ///
    /// # Errors
    /// If the eigenvalues are not found.
    pub fn copying_scores(&self) -> Result<Vec<Vec<f64>>> {
        let _guard = tch::no_grad_guard();
        // W_U W_E, `[n_embd, n_embd]`, less what the mean over the vocabulary makes of it.
        let mean = self.w_u.f_mean_dim(1i64, true, Kind::Float)?;
        let sum = self.w_e.f_sum_dim_intlist(0i64, true, Kind::Float)?;
        let between = self.w_u.f_matmul(&self.w_e)?.f_sub(&mean.f_matmul(&sum)?)?;
        let scores = |heads: &HeadWeights| -> Result<Vec<f64>> {
            let circuit = FactoredMatrix::new(heads.w_v.shallow_clone(), heads.w_o.f_matmul(&between)?)?;
            // [head, d_head, 2]
            let values = circuit.eigenvalues()?;
            let sizes = values.f_square()?.f_sum_dim_intlist(-1i64, false, Kind::Double)?.f_sqrt()?;
            let of_all = |x: &Tensor| x.f_sum_dim_intlist(-1i64, false, Kind::Double);
            Ok(Vec::try_from(of_all(&values.f_select(-1, 0)?)?.f_div(&of_all(&sizes)?)?)?)
        };
        self.blocks.iter().map(scores).collect()
    }

    /// Attention scores of block `layer`, `[batch, head, query, key]`, of a residual stream before it,
    /// `[batch, pos, n_embd]`; not masked.
    ///
    /// # Errors
    /// If the block's queries and keys read an LN that is not linear, and if there is no such block.
    pub fn attention_scores(&self, layer: usize, resid_pre: &Tensor) -> Result<Tensor> {
        self.must_be_linear(LnSite::Ln1Qk(layer))?;
        let heads = self.block(layer)?;
        let x = resid_pre.f_to_kind(Kind::Float)?.f_unsqueeze(1)?;
        let q = x.f_matmul(&heads.w_q)?.f_add(&heads.b_q.f_unsqueeze(1)?)?;
        let k = x.f_matmul(&heads.w_k)?.f_add(&heads.b_k.f_unsqueeze(1)?)?;
        Ok(q.f_matmul(&k.f_transpose(-2, -1)?)?.f_mul_scalar(heads.score_scale())?)
    }

    /// What every head of block `layer` adds to the stream, `[batch, head, pos, n_embd]` (TransformerLens'
    /// `hook_result`, without the bias of the output projection), given its pattern
    /// `[batch, head, query, key]` and the residual stream before the block, `[batch, pos, n_embd]`.
    ///
    /// # Errors
    /// If the block's values read an LN that is not linear, and if there is no such block.
    pub fn head_results(&self, layer: usize, pattern: &Tensor, resid_pre: &Tensor) -> Result<Tensor> {
        self.must_be_linear(LnSite::Ln1V(layer))?;
        let heads = self.block(layer)?;
        let x = resid_pre.f_to_kind(Kind::Float)?.f_unsqueeze(1)?;
        let v = x.f_matmul(&heads.w_v)?.f_add(&heads.b_v.f_unsqueeze(1)?)?;
        Ok(pattern.f_to_kind(Kind::Float)?.f_matmul(&v)?.f_matmul(&heads.w_o)?)
    }

    fn block(&self, layer: usize) -> Result<&HeadWeights> {
        let n = self.blocks.len();
        self.blocks.get(layer).ok_or_else(|| Error::invalid(format!("a model of {n} blocks has no {layer}")))
    }

    fn must_be_linear(&self, site: LnSite) -> Result<()> {
        match self.left_out.contains(&site) {
            true => Err(Error::invalid(format!(
                "{site} divides by another number at each token, so no matrix says what is read behind it; \
                 take a model without LN"
            ))),
            false => Ok(()),
        }
    }
}

impl HeadWeights {
    fn of(block: &Block, layer: usize, ln: &LnState, left_out: &mut Vec<LnSite>) -> Result<Self> {
        let (norm, attn) = (block.ln_1.as_ref(), &block.attn);
        let n = attn.c_proj.weight.size()[1];
        let unfolded = |folded: bool| norm.filter(|_| !folded);
        let folded = norm.map(|norm| norm.folded).unwrap_or_default();
        let qk = Face::of(unfolded(folded.main), LnSite::Ln1Qk(layer), ln, left_out)?;
        let v = Face::of(unfolded(folded.v), LnSite::Ln1V(layer), ln, left_out)?;
        let part = |start: i64, face: &Option<Face>| -> Result<(Tensor, Tensor)> {
            let (weight, bias) = columns(&attn.c_attn, start, n)?;
            let (weight, bias) = match face {
                Some(face) => face.before(&weight, Some(&bias))?,
                None => (weight, bias),
            };
            let weight = weight.f_reshape([n, attn.n_head, -1])?.f_permute([1i64, 0, 2])?.f_contiguous()?;
            Ok((weight, bias.f_reshape([attn.n_head, -1])?))
        };
        let ((w_q, b_q), (w_k, b_k), (w_v, b_v)) = (part(0, &qk)?, part(n, &qk)?, part(2 * n, &v)?);
        let w_o = float(&attn.c_proj.weight)?.f_reshape([attn.n_head, -1, n])?;
        Ok(Self { w_q, b_q, w_k, b_k, w_v, b_v, w_o, b_o: float(&attn.c_proj.bias)? })
    }

    /// 1/√d_head.
    fn score_scale(&self) -> f64 {
        (self.w_q.size()[2] as f64).sqrt().recip()
    }
}

/// An LN as the matrix behind it sees it.
struct Face {
    /// γ/σ̄, or γ where σ is left out, `[n_embd]`.
    gain: Tensor,
    /// β, `[n_embd]`.
    beta: Tensor,
}

impl Face {
    /// `None` where there is no LN. A division that is no constant is added to `left_out`.
    fn of(
        norm: Option<&LayerNorm>,
        site: LnSite,
        ln: &LnState,
        left_out: &mut Vec<LnSite>,
    ) -> Result<Option<Self>> {
        let Some(norm) = norm else { return Ok(None) };
        let (gamma, beta) = (float(&norm.weight)?, float(&norm.bias)?);
        let gain = match constant(ln, site)? {
            Some(std) => gamma.f_div(&std)?,
            None => {
                left_out.push(site);
                gamma
            }
        };
        Ok(Some(Self { gain, beta }))
    }

    /// Weight and bias of the map x ↦ LN(x) W + b, from W `[n_embd, k]` and b `[k]`.
    fn before(&self, weight: &Tensor, bias: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let carried = self.beta.f_unsqueeze(0)?.f_matmul(weight)?.f_squeeze_dim(0)?;
        let bias = match bias {
            Some(bias) => bias.f_add(&carried)?,
            None => carried,
        };
        let scaled = self.gain.f_unsqueeze(1)?.f_mul(weight)?;
        // Centring what is read is centring the matrix over what it reads.
        let weight = scaled.f_sub(&scaled.f_mean_dim(0i64, true, Kind::Float)?)?;
        Ok((weight, bias))
    }
}

/// What a site divides everything by, float32, 0-dim: `None` where it is real, and where position 0, a
/// feature or end-of-text is divided by another number. [`LnState::constant`] is asked in every forward and
/// so must not look at numbers on a device; here they are compared.
fn constant(ln: &LnState, site: LnSite) -> Result<Option<Tensor>> {
    let one = ln.constant(site, false);
    if one.is_some() || !ln.mode(site).is_fake() {
        return Ok(one);
    }
    // Those of the rest and of position 0, and for values the same two of end-of-text.
    let n = if matches!(site, LnSite::Ln1V(_)) { 4 } else { 2 };
    let stds = ln.statistics.frozen.f_get(ln.row(site) as i64)?.f_narrow(0, 0, n)?;
    let rest = stds.f_get(0)?;
    Ok(bool::try_from(stds.f_eq_tensor(&rest)?.f_all()?)?.then_some(rest))
}

/// Part of a map, float32.
fn columns(map: &Conv1d, start: i64, len: i64) -> Result<(Tensor, Tensor)> {
    Ok((float(&map.weight.f_narrow(1, start, len)?)?, float(&map.bias.f_narrow(0, start, len)?)?))
}

/// Float32, without a graph.
fn float(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_detach()?.f_to_kind(Kind::Float)?)
}
