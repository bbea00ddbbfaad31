//! Logits as sums over the paths that attention takes, for models without LN.

use tch::{Device, Kind, Tensor};

use super::Circuits;
use super::directions::top;
use super::run::Run;
use crate::config::norm::LnSite;
use crate::model::hook::{Activation, Capture};
use crate::{Error, Result};

/// Where a path begins: what the residual stream gets that no head has read from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathSource {
    /// Token embedding.
    Embed,
    /// Position embedding.
    PosEmbed,
    /// Biases of the attention of a block: of its output projection, and of its values, which every head
    /// writes whatever it attends to.
    AttnBias(usize),
    /// What the MLP of a block writes.
    Mlp(usize),
}

/// A path and what it adds to the logit.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionPath {
    /// Where it begins.
    pub source: PathSource,
    /// Heads that it goes through, `(layer, head)`, the first that reads first; none for the direct path.
    pub heads: Vec<(usize, usize)>,
    /// What it adds.
    pub contribution: f64,
}

/// The logit of a token at a position as a sum over paths: source → heads → unembedding.
///
/// With its patterns given, attention is linear, and without LN nothing stands between heads: the logit *is*
/// the sum over all paths of any number of heads (Elhage et al. 2021, "path expansion"; MLPs, which are not
/// linear, begin new paths). Paths of up to two heads are given one by one, longer ones together by their
/// number of heads. Everything is float64 on the CPU; `two` is by far the largest, (n_layer n_head)² (2
/// n_layer + 2) numbers.
#[derive(Debug)]
pub struct AttentionPaths {
    /// Sources, in the order of a forward.
    pub sources: Vec<PathSource>,
    /// Direct paths, `[source]`.
    pub direct: Tensor,
    /// Paths through one head, `[layer, head, source]`; 0 where the source comes after the head.
    pub one: Tensor,
    /// Paths through two heads, `[layer, head, layer, head, source]`: the *second* head first.
    pub two: Tensor,
    /// The sum of all paths of exactly this many heads, 0 to n_layer.
    pub by_depth: Vec<f64>,
    /// What ln_f's β adds to the logit, which is on no path.
    pub bias: f64,
}

impl AttentionPaths {
    /// What a forward has to keep, see [`Capture::of`].
    pub fn wanted(n_layer: usize) -> Vec<Activation> {
        let of_blocks = (0..n_layer).flat_map(|l| [Activation::Pattern(l), Activation::MlpOut(l)]);
        [Activation::Embed, Activation::PosEmbed].into_iter().chain(of_blocks).collect()
    }

    /// Of sequence `row` at `position` in the run that `cache` kept ([`AttentionPaths::wanted`]). `tokens`
    /// are ids with factors: `[(id, 1.0)]` for a logit, `[(a, 1.0), (b, -1.0)]` for the difference of two.
    ///
    /// # Errors
    /// If values or the unembedding read an LN that is not linear, the cache lacks something, and if there is
    /// no such token or place.
    pub fn of(
        circuits: &Circuits,
        cache: &Capture,
        row: i64,
        position: i64,
        tokens: &[(i64, f64)],
    ) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        for layer in 0..circuits.blocks.len() {
            circuits.must_be_linear(LnSite::Ln1V(layer))?;
        }
        circuits.must_be_linear(LnSite::LnF)?;
        let vocab_size = circuits.w_u.size()[1];
        if let Some((id, _)) = tokens.iter().find(|(id, _)| !(0..vocab_size).contains(id)) {
            return Err(Error::invalid(format!("the vocabulary of {vocab_size} tokens has no {id}")));
        }
        let run = Run::new(circuits, cache, row, position)?;
        let mut direction = Tensor::f_zeros([circuits.w_u.size()[0]], (Kind::Double, circuits.w_u.device()))?;
        let mut bias = 0.0;
        for &(id, factor) in tokens {
            let column = circuits.w_u.f_select(1, id)?.f_to_kind(Kind::Double)?;
            direction = direction.f_add(&column.f_mul_scalar(factor)?)?;
            bias += factor * circuits.b_u.f_double_value(&[id])?;
        }
        let on_cpu = |x: Tensor| x.f_to_device(Device::Cpu);
        let sources = [PathSource::Embed, PathSource::PosEmbed].into_iter();
        let of_blocks =
            (0..run.blocks.len()).flat_map(|layer| [PathSource::AttnBias(layer), PathSource::Mlp(layer)]);
        Ok(Self {
            sources: sources.chain(of_blocks).collect(),
            direct: on_cpu(run.direct(&direction)?)?,
            one: on_cpu(run.one(&direction)?)?,
            two: on_cpu(run.two(&direction)?)?,
            by_depth: Vec::try_from(on_cpu(run.by_depth(&direction)?)?)?,
            bias,
        })
    }

    /// The logit: the sum over all paths, and the bias.
    pub fn total(&self) -> f64 {
        self.by_depth.iter().sum::<f64>() + self.bias
    }

    /// The `n` paths of up to two heads that add or take most, the largest in size first.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn largest(&self, n: usize) -> Result<Vec<AttentionPath>> {
        let mut found = Vec::new();
        for paths in [&self.direct, &self.one, &self.two] {
            let flat = paths.f_reshape([-1])?;
            let n = (n as i64).min(flat.size()[0]);
            for (place, _) in top(&flat.f_abs()?, n, true)? {
                let contribution = flat.f_double_value(&[place])?;
                // What comes after a head is on no path through it.
                if contribution != 0.0 {
                    found.extend(self.path(&paths.size(), place as usize, contribution));
                }
            }
        }
        found.sort_by(|a, b| b.contribution.abs().total_cmp(&a.contribution.abs()));
        found.truncate(n);
        Ok(found)
    }

    /// The path at a place of the flattened `direct`, `one` or `two` of this size.
    fn path(&self, size: &[i64], place: usize, contribution: f64) -> Option<AttentionPath> {
        let mut rest = place;
        // From the last dimension on: the source, then the head that reads first.
        let indices = size.iter().rev().map(|&of| {
            let index = rest % of as usize;
            rest /= of as usize;
            index
        });
        let indices: Vec<usize> = indices.collect();
        let (source, heads) = indices.split_first()?;
        let heads = heads.chunks(2).map(|pair| (pair[1], pair[0])).collect();
        Some(AttentionPath { source: *self.sources.get(*source)?, heads, contribution })
    }
}
