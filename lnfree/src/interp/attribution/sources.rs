//! Who writes to the residual stream, and what.

use tch::{Kind, Tensor};

use super::positions::Positions;
use crate::Result;
use crate::interp::cache::ActivationCache;
use crate::model::Gpt2;
use crate::model::hook::Activation;

/// Numbers of float64 that are computed with at a time, 32 MiB.
const AT_A_TIME: i64 = 1 << 22;

/// How finely a decomposition divides what is added to the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Embeddings, and every attention and MLP as one: `embed`, `pos_embed`, `0_attn_out`, `0_mlp_out`, …
    Layers,
    /// Every head, every MLP, the embeddings, and the biases of attention (`c_proj`) as one: `L0H0`, …,
    /// `0_mlp_out`, …, `embed`, `pos_embed`, `bias`.
    Heads,
    /// Every head, every neuron, the embeddings, and the biases of attention and MLPs (`c_proj`) as one:
    /// `L0H0`, …, `L0N0`, …, `embed`, `pos_embed`, `bias`.
    Neurons,
}

/// Somebody, or several of a kind, who write to the residual stream.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    Embed,
    PosEmbed,
    Attention(usize),
    Mlp(usize),
    Heads(usize),
    Neurons(usize),
    /// Biases of the output projections of the blocks below `layers`.
    Bias {
        layers: usize,
        mlps: bool,
    },
}

/// What a source writes.
pub(super) enum Writes {
    /// As it is, float32 `[component, batch, pos, n_embd]`.
    Whole(Tensor),
    /// Neurons `[batch, pos, component]` times their output weights `[component, n_embd]`, float32: the
    /// products are n_embd times as many numbers.
    Products { neurons: Tensor, weights: Tensor },
}

impl Detail {
    /// Everybody who writes before block `layers`, in TransformerLens' order.
    pub(super) fn sources(self, layers: usize) -> Vec<Source> {
        let mlps = match self {
            Detail::Layers => {
                let blocks = (0..layers).flat_map(|layer| [Source::Attention(layer), Source::Mlp(layer)]);
                return [Source::Embed, Source::PosEmbed].into_iter().chain(blocks).collect();
            }
            Detail::Heads => false,
            Detail::Neurons => true,
        };
        let mlp = |layer| if mlps { Source::Neurons(layer) } else { Source::Mlp(layer) };
        let rest = [Source::Embed, Source::PosEmbed, Source::Bias { layers, mlps }];
        (0..layers).map(Source::Heads).chain((0..layers).map(mlp)).chain(rest).collect()
    }
}

impl Source {
    /// TransformerLens' labels of its components.
    pub(super) fn labels(self, model: &Gpt2) -> Vec<String> {
        let many = |n: i64, letter: char, layer: usize| {
            (0..n).map(|i| format!("L{layer}{letter}{i}")).collect::<Vec<_>>()
        };
        match self {
            Source::Embed => vec!["embed".into()],
            Source::PosEmbed => vec!["pos_embed".into()],
            Source::Attention(layer) => vec![format!("{layer}_attn_out")],
            Source::Mlp(layer) => vec![format!("{layer}_mlp_out")],
            Source::Heads(layer) => many(model.config.n_head, 'H', layer),
            Source::Neurons(layer) => many(model.config.mlp_width(), 'N', layer),
            Source::Bias { .. } => vec!["bias".into()],
        }
    }
}

impl ActivationCache<'_> {
    /// What `source` writes at `positions`.
    ///
    /// # Errors
    /// When what it takes was not kept.
    pub(super) fn writes(&self, source: Source, positions: Positions) -> Result<Writes> {
        let kept = |activation: Activation| -> Result<Writes> {
            let there = positions.of(self.get(activation)?)?;
            Ok(Writes::Whole(there.f_to_kind(Kind::Float)?.f_unsqueeze(0)?))
        };
        match source {
            Source::Embed => kept(Activation::Embed),
            Source::PosEmbed => kept(Activation::PosEmbed),
            Source::Attention(layer) => kept(Activation::AttnOut(layer)),
            Source::Mlp(layer) => kept(Activation::MlpOut(layer)),
            Source::Heads(layer) => Ok(Writes::Whole(self.heads(layer, positions, None)?)),
            Source::Neurons(layer) => {
                let neurons = positions.of(self.get(Activation::MlpPost(layer))?)?.f_to_kind(Kind::Float)?;
                let weights = self.model.h[layer].mlp.c_proj.weight.f_to_kind(Kind::Float)?;
                Ok(Writes::Products { neurons, weights })
            }
            Source::Bias { layers, mlps } => Ok(Writes::Whole(self.biases(layers, mlps, positions)?)),
        }
    }

    /// z_h W_O_h of every head of a block, float32 `[head, batch, pos, n_embd]`; with `less`,
    /// `[head, d_head]`, of z less that.
    pub(super) fn heads(&self, layer: usize, positions: Positions, less: Option<&Tensor>) -> Result<Tensor> {
        let mut z = positions.of(self.get(Activation::Z(layer))?)?.f_to_kind(Kind::Float)?;
        if let Some(less) = less {
            z = z.f_sub(less)?;
        }
        let (batch, pos, head, d_head) = z.size4()?;
        let z = z.f_permute([2, 0, 1, 3])?.f_reshape([head, batch * pos, d_head])?;
        let weight = self.model.h[layer].attn.c_proj.weight.f_to_kind(Kind::Float)?;
        let out = z.f_bmm(&weight.f_reshape([head, d_head, -1])?)?;
        Ok(out.f_reshape([head, batch, pos, -1])?)
    }

    /// float32 `[1, batch, pos, n_embd]`.
    fn biases(&self, layers: usize, mlps: bool, positions: Positions) -> Result<Tensor> {
        let stream = positions.of(&self.residual)?;
        let mut sum = Tensor::f_zeros([self.model.config.n_embd], (Kind::Double, stream.device()))?;
        for block in &self.model.h[..layers] {
            sum = sum.f_add(&block.attn.c_proj.bias)?;
            if mlps {
                sum = sum.f_add(&block.mlp.c_proj.bias)?;
            }
        }
        Ok(sum.f_to_kind(Kind::Float)?.f_expand_as(&stream)?.f_unsqueeze(0)?)
    }
}

impl Writes {
    /// How many components.
    pub(super) fn count(&self) -> i64 {
        match self {
            Writes::Whole(values) => values.size()[0],
            Writes::Products { weights, .. } => weights.size()[0],
        }
    }

    /// What `n` components from `start` on write, float32 `[n, batch, pos, n_embd]`.
    pub(super) fn values(&self, start: i64, n: i64) -> Result<Tensor> {
        match self {
            Writes::Whole(values) => Ok(values.f_narrow(0, start, n)?),
            Writes::Products { neurons, weights } => {
                let neurons = neurons.f_narrow(-1, start, n)?.f_permute([2, 0, 1])?.f_unsqueeze(-1)?;
                Ok(neurons.f_mul(&weights.f_narrow(0, start, n)?.f_reshape([n, 1, 1, -1])?)?)
            }
        }
    }

    /// Few components at a time: the first of them and how many.
    pub(super) fn parts(&self) -> impl Iterator<Item = (i64, i64)> + use<> {
        let numel = match self {
            Writes::Whole(values) => values.numel() as i64,
            Writes::Products { neurons, weights } => neurons.numel() as i64 * weights.size()[1],
        };
        parts(self.count(), numel)
    }

    /// The scalar product of what each writes with `direction`, float64 `[batch, pos, n_embd]`: float64
    /// `[component, batch, pos]`.
    pub(super) fn dot(&self, direction: &Tensor) -> Result<Tensor> {
        match self {
            Writes::Whole(values) => dot(values, direction),
            Writes::Products { neurons, weights } => {
                let of_weights = direction.f_matmul(&weights.f_to_kind(Kind::Double)?.f_tr()?)?;
                Ok(of_weights.f_mul(&neurons.f_to_kind(Kind::Double)?)?.f_permute([2, 0, 1])?)
            }
        }
    }
}

/// `count` components of `numel` numbers in all, as many at a time as [`AT_A_TIME`] allows: the first of them
/// and how many.
fn parts(count: i64, numel: i64) -> impl Iterator<Item = (i64, i64)> + use<> {
    let each = (AT_A_TIME / (numel / count.max(1)).max(1)).max(1);
    (0..count).step_by(each as usize).map(move |start| (start, each.min(count - start)))
}

/// The scalar product over n_embd of `values` `[component, batch, pos, n_embd]` with `direction`, float64
/// `[batch, pos, n_embd]`: float64 `[component, batch, pos]`.
pub(super) fn dot(values: &Tensor, direction: &Tensor) -> Result<Tensor> {
    let (count, batch, pos, _) = values.size4()?;
    let products = Tensor::f_empty([count, batch, pos], (Kind::Double, values.device()))?;
    for (start, n) in parts(count, values.numel() as i64) {
        let part = values.f_narrow(0, start, n)?.f_to_kind(Kind::Double)?.f_mul(direction)?;
        let sums = part.f_sum_dim_intlist(-1i64, false, Kind::Double)?;
        products.f_narrow(0, start, n)?.f_copy_(&sums)?;
    }
    Ok(products)
}
