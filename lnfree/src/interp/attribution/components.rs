//! The residual stream taken apart into what was added to it.

use tch::{Kind, Tensor};

use super::positions::Positions;
use super::sources::{Detail, Source};
use crate::interp::cache::ActivationCache;
use crate::model::hook::Activation;
use crate::{Error, Result};

/// Vectors of the residual stream with their names, TransformerLens' "residual stack".
#[derive(Debug)]
pub struct Components {
    /// TransformerLens' labels: `embed`, `0_attn_out`, `L0H1`, `L0N3`, `bias`, `0_pre`, …
    pub labels: Vec<String>,
    /// float32 `[component, batch, pos, n_embd]`, in the order of the labels.
    pub values: Tensor,
    /// Which positions of the run they are of.
    pub(super) positions: Positions,
    /// Whether they are centred and divided by the scale of ln_f already.
    pub(super) normed: bool,
}

impl Components {
    /// The one of that label, `[batch, pos, n_embd]`.
    ///
    /// # Errors
    /// If there is none.
    pub fn get(&self, label: &str) -> Result<Tensor> {
        let at = self.labels.iter().position(|found| found == label);
        let at = at.ok_or_else(|| {
            let like = self.labels.first().map_or("none", String::as_str);
            Error::invalid(format!("no component `{label}` among {}; `{like}` is one", self.labels.len()))
        })?;
        Ok(self.values.f_get(at as i64)?)
    }

    /// Their sum, float32 `[batch, pos, n_embd]`.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn sum(&self) -> Result<Tensor> {
        let sum = self.values.f_sum_dim_intlist(0i64, false, Kind::Double)?;
        Ok(sum.f_to_kind(Kind::Float)?)
    }

    /// Which positions of the run they are of.
    pub fn positions(&self) -> Positions {
        self.positions
    }
}

impl ActivationCache<'_> {
    /// The residual stream before block 0, before block 1, … and before block `layer`; with `incl_mid` also
    /// between attention and MLP of those below `layer`. `None` is the end, after the last block. Labels
    /// `0_pre`, `0_mid`, …, `final_post`. TransformerLens' `accumulated_resid`, without LN.
    ///
    /// # Errors
    /// If there is no such block, or `hook_resid_pre` (`hook_resid_mid`) was not kept.
    pub fn accumulated_resid(
        &self,
        layer: Option<usize>,
        incl_mid: bool,
        positions: Positions,
    ) -> Result<Components> {
        let _guard = tch::no_grad_guard();
        let (mut labels, mut streams) = (Vec::new(), Vec::new());
        for (label, stream) in self.streams(layer, incl_mid)? {
            labels.push(label);
            streams.push(positions.of(stream)?);
        }
        Ok(Components { labels, values: Tensor::f_stack(&streams, 0)?, positions, normed: false })
    }

    /// What the embeddings and every attention and MLP below block `layer` (`None`: all) add to the residual
    /// stream; they sum to the stream there. Labels `embed`, `pos_embed`, `0_attn_out`, `0_mlp_out`, …
    ///
    /// # Errors
    /// If there is no such block, or one of them was not kept.
    pub fn decompose_resid(&self, layer: Option<usize>, positions: Positions) -> Result<Components> {
        self.full_decomposition(layer, Detail::Layers, positions)
    }

    /// What every head below block `layer` (`None`: all) adds to the residual stream: z_h W_O_h, without the
    /// bias of the output projection, which is no head's; with the values' bias, which TransformerLens'
    /// processing moves out of them. Labels `L0H0`, `L0H1`, …; with `incl_remainder` also `remainder`, the
    /// stream there less all heads.
    ///
    /// # Errors
    /// If there is no such block, or `hook_z` (and `hook_resid_pre` of the block) was not kept.
    pub fn stack_head_results(
        &self,
        layer: Option<usize>,
        positions: Positions,
        incl_remainder: bool,
    ) -> Result<Components> {
        let layers = self.layers(layer)?;
        let sources: Vec<Source> = (0..layers).map(Source::Heads).collect();
        self.stacked(&sources, positions, incl_remainder.then_some(layers))
    }

    /// What every neuron below block `layer` (`None`: all) adds to the residual stream: its activation times
    /// its output weights, without the bias. Labels `L0N0`, `L0N1`, …; with `incl_remainder` also
    /// `remainder`.
    ///
    /// Takes 4 · layers · n_inner · n_embd bytes a position: 113 MB with GPT-2's smallest model.
    ///
    /// # Errors
    /// If there is no such block, or `mlp.hook_post` (and `hook_resid_pre` of the block) was not kept.
    pub fn stack_neuron_results(
        &self,
        layer: Option<usize>,
        positions: Positions,
        incl_remainder: bool,
    ) -> Result<Components> {
        let layers = self.layers(layer)?;
        let sources: Vec<Source> = (0..layers).map(Source::Neurons).collect();
        self.stacked(&sources, positions, incl_remainder.then_some(layers))
    }

    /// Everything that is added to the residual stream below block `layer` (`None`: all), in the order of
    /// TransformerLens' `get_full_resid_decomposition`; the sum is the stream there. With
    /// [`Detail::Neurons`] of the size of [`stack_neuron_results`](Self::stack_neuron_results).
    ///
    /// # Errors
    /// If there is no such block, or one of them was not kept.
    pub fn full_decomposition(
        &self,
        layer: Option<usize>,
        detail: Detail,
        positions: Positions,
    ) -> Result<Components> {
        self.stacked(&detail.sources(self.layers(layer)?), positions, None)
    }

    /// What the sources write; with `remainder` also the rest of the stream before that block.
    fn stacked(
        &self,
        sources: &[Source],
        positions: Positions,
        remainder: Option<usize>,
    ) -> Result<Components> {
        let _guard = tch::no_grad_guard();
        let mut labels: Vec<String> = sources.iter().flat_map(|source| source.labels(self.model)).collect();
        let (batch, pos, n_embd) = positions.of(&self.residual)?.size3()?;
        let count = labels.len() as i64;
        let rows = count + i64::from(remainder.is_some());
        // Filled part by part: a stack of copies would need the memory twice.
        let values = Tensor::f_empty([rows, batch, pos, n_embd], (Kind::Float, self.residual.device()))?;
        let mut at = 0i64;
        for source in sources {
            let writes = self.writes(*source, positions)?;
            for (start, n) in writes.parts() {
                values.f_narrow(0, at + start, n)?.f_copy_(&writes.values(start, n)?)?;
            }
            at += writes.count();
        }
        if let Some(layer) = remainder {
            let stream = positions.of(self.stream_before(layer)?)?;
            let sum = values.f_narrow(0, 0, count)?.f_sum_dim_intlist(0i64, false, Kind::Double)?;
            values.f_select(0, count)?.f_copy_(&stream.f_sub(&sum)?)?;
            labels.push("remainder".into());
        }
        Ok(Components { labels, values, positions, normed: false })
    }

    /// Labels and streams of [`accumulated_resid`](Self::accumulated_resid), at all positions.
    pub(super) fn streams(&self, layer: Option<usize>, incl_mid: bool) -> Result<Vec<(String, &Tensor)>> {
        let (layers, n_layer) = (self.layers(layer)?, self.model.h.len());
        let mut streams = Vec::new();
        for layer in 0..=layers {
            let label = if layer == n_layer { "final_post".into() } else { format!("{layer}_pre") };
            streams.push((label, self.stream_before(layer)?));
            if incl_mid && layer < layers {
                streams.push((format!("{layer}_mid"), self.get(Activation::ResidMid(layer))?));
            }
        }
        Ok(streams)
    }

    /// The residual stream before a block, or after the last one.
    fn stream_before(&self, layer: usize) -> Result<&Tensor> {
        if layer == self.model.h.len() {
            return Ok(&self.residual);
        }
        self.get(Activation::ResidPre(layer))
    }

    /// How many blocks are below `layer`.
    fn layers(&self, layer: Option<usize>) -> Result<usize> {
        let n_layer = self.model.h.len();
        match layer.unwrap_or(n_layer) {
            layers if layers <= n_layer => Ok(layers),
            layers => Err(Error::invalid(format!(
                "a model of {n_layer} blocks has no residual stream before block {layers}"
            ))),
        }
    }
}
