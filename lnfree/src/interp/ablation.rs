//! What a part of a model is worth: the predictions without it.

mod means;

use tch::{Kind, Tensor};

pub use means::Means;

use crate::interp::metrics::{Metric, mean};
use crate::interp::patching::base::{Base, Entry, captured};
use crate::interp::patching::replace::{Replacement as Part, Replacements, head_by_run, mask_of};
use crate::model::Gpt2;
use crate::model::hook::Activation;
use crate::model::ln_state::LnState;
use crate::{Error, Result};

/// What is ablated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Component {
    /// The output of an attention head (z).
    Head {
        /// Its block, 0-based.
        layer: usize,
        /// Which of the block's.
        head: usize,
    },
    /// What the MLP of a block adds, its bias included.
    Mlp {
        /// Its block, 0-based.
        layer: usize,
    },
    /// Neurons of a block's MLP, after their non-linearity.
    Neurons {
        /// Their block, 0-based.
        layer: usize,
        /// Which of the block's.
        neurons: Vec<usize>,
    },
}

/// What takes its place.
#[derive(Debug, Clone, Copy)]
pub enum Substitute<'a> {
    /// Nothing.
    Zero,
    /// What it is on average.
    Mean(&'a Means),
    /// What it is in other texts at the same positions: int64 `[batch, pos]`, as many as are analysed, such
    /// as the same ones in another order.
    Resample(&'a Tensor),
}

/// What the predictions are with components ablated.
#[derive(Debug)]
pub struct Ablated {
    /// The metric, float32 `[batch]`, of every head `[layer, head, batch]`.
    pub metric: Tensor,
    /// Cross-entropy of every next token in nats, float32 `[batch, pos − 1]`, of every head
    /// `[layer, head, batch, pos − 1]`.
    pub loss: Tensor,
}

/// A run of a model, ready for ablations. Everything before the block where the first ablated component is
/// comes from that run.
#[derive(Debug)]
pub struct Ablation<'a> {
    base: Base<'a>,
    metric: &'a Metric<'a>,
    substitute: Substitute<'a>,
    positions: Option<Vec<i64>>,
}

impl<'a> Ablation<'a> {
    /// Runs the model once on `ids`, int64 `[batch, pos]`, without padding.
    ///
    /// # Errors
    /// If the model cannot take the ids, the metric has no such position, or texts to resample from are of
    /// another shape.
    pub fn new(
        model: &'a Gpt2,
        ln: &'a LnState,
        ids: &Tensor,
        metric: &'a Metric<'a>,
        substitute: Substitute<'a>,
    ) -> Result<Ablation<'a>> {
        if let Substitute::Resample(others) = substitute {
            let (size, other) = (ids.size(), others.size());
            if size != other {
                return Err(Error::invalid(format!(
                    "ids are {size:?} and those to resample from {other:?}: texts of one shape are needed"
                )));
            }
        }
        let base = Base::new(model, ln, ids)?;
        metric.positions(base.pos())?;
        Ok(Ablation { base, metric, substitute, positions: None })
    }

    /// Ablates at these positions alone, 0-based.
    ///
    /// # Errors
    /// If there is no such position.
    pub fn at(self, positions: &[i64]) -> Result<Ablation<'a>> {
        let pos = self.base.pos();
        if let Some(none) = positions.iter().find(|p| !(0..pos).contains(*p)) {
            return Err(Error::invalid(format!("there is no position {none}: the texts have {pos}")));
        }
        Ok(Ablation { positions: Some(positions.to_vec()), ..self })
    }

    /// The model as it is.
    ///
    /// # Errors
    /// If the metric cannot be read.
    pub fn nothing(&self) -> Result<Ablated> {
        let _guard = tch::no_grad_guard();
        let (metric, loss) = self.outcome(&self.base.streams[self.base.n_layer()])?;
        Ok(Ablated { metric: metric.f_get(0)?, loss: loss.f_get(0)? })
    }

    /// The model without all of `components` at once.
    ///
    /// # Errors
    /// A component that the model does not have, means of another model, and a metric that cannot be read.
    pub fn of(&self, components: &[Component]) -> Result<Ablated> {
        let _guard = tch::no_grad_guard();
        let parts = components.iter().map(|component| self.part(component));
        let all = parts.collect::<Result<Vec<Part>>>()?;
        let Some(first) = all.iter().filter_map(|part| part.at.layer()).min() else { return self.nothing() };
        let mut hook = Replacements { batch: self.base.batch(), all };
        let mut stream = self.base.streams[first].shallow_clone();
        for layer in first..self.base.n_layer() {
            stream = self.base.block(layer, &stream, 0, &mut hook)?;
        }
        let (metric, loss) = self.outcome(&stream)?;
        Ok(Ablated { metric: metric.f_get(0)?, loss: loss.f_get(0)? })
    }

    /// The model without one head, for every head: metric `[layer, head, batch]`, loss `[layer, head, batch,
    /// pos − 1]`. Some heads at a time go through the model together, each from the block after its own on.
    ///
    /// # Errors
    /// As [`of`](Ablation::of).
    pub fn every_head(&self) -> Result<Ablated> {
        let _guard = tch::no_grad_guard();
        let (n_layer, n_head) = (self.base.n_layer(), self.base.model.config.n_head);
        let substitutes = self.substitutes((0..n_layer).map(Activation::Z))?;
        let at_a_time = self.base.runs_at_a_time(0);
        let heads: Vec<(usize, i64)> =
            (0..n_layer).flat_map(|layer| (0..n_head).map(move |head| (layer, head))).collect();
        let mut found = Vec::new();
        for heads in heads.chunks(at_a_time) {
            let mut entries = Vec::new();
            // Heads of one block side by side.
            for of_block in heads.chunk_by(|a, b| a.0 == b.0) {
                let (layer, first) = of_block[0];
                let runs = of_block.len() as i64;
                let device = self.base.ids.device();
                let mask =
                    head_by_run(first, runs, n_head, 3, 5, device)?.f_logical_and(&self.where_to(5)?)?;
                let at = Activation::Z(layer);
                let all = vec![Part { at, mask, value: substitutes[layer].shallow_clone() }];
                let mut hook = Replacements { batch: self.base.batch(), all };
                let streams = self.base.block(layer, &self.base.repeated(layer, 0, runs)?, 0, &mut hook)?;
                let streams = streams.f_split(self.base.batch(), 0)?;
                entries.extend(streams.into_iter().map(|stream| Entry { layer: layer + 1, stream }));
            }
            found.push(self.outcome(&self.base.finish(0, &entries, 0)?)?);
        }
        let (metrics, losses): (Vec<Tensor>, Vec<Tensor>) = found.into_iter().unzip();
        let (batch, n) = (self.base.batch(), self.base.pos() - 1);
        Ok(Ablated {
            metric: Tensor::f_cat(&metrics, 0)?.f_reshape([n_layer as i64, n_head, batch])?,
            loss: Tensor::f_cat(&losses, 0)?.f_reshape([n_layer as i64, n_head, batch, n])?,
        })
    }

    /// Metric `[runs, batch]` and losses `[runs, batch, pos − 1]` of streams after the last block,
    /// `[runs · batch, pos, n_embd]`.
    fn outcome(&self, streams: &Tensor) -> Result<(Tensor, Tensor)> {
        let (pos, from) = (self.base.pos(), self.metric.positions(self.base.pos())?[0]);
        let read = streams.f_narrow(1, from, pos - from)?;
        let metric = mean(&self.base.measured(&read, from, self.metric)?)?;
        Ok((metric, self.base.losses(streams)?))
    }

    /// The positions of an ablation, as a mask of `n_dim` dimensions `[1, 1, pos, ..]`.
    fn where_to(&self, n_dim: usize) -> Result<Tensor> {
        let (pos, device) = (self.base.pos(), self.base.ids.device());
        match &self.positions {
            Some(positions) => mask_of(2, n_dim, pos, positions, device),
            None => Ok(Tensor::f_ones([1], (Kind::Bool, device))?),
        }
    }

    /// What is replaced for a component.
    fn part(&self, component: &Component) -> Result<Part> {
        let config = &self.base.model.config;
        let no_such = |what: &str, index: usize, n: usize| {
            Err(Error::invalid(format!("there is no {what} {index}: the model has {n}")))
        };
        let (Component::Head { layer, .. } | Component::Mlp { layer } | Component::Neurons { layer, .. }) =
            component;
        let Some(block) = self.base.model.h.get(*layer) else {
            return no_such("block", *layer, self.base.n_layer());
        };
        let device = self.base.ids.device();
        // [runs, batch, pos, head, d_head], or [runs, batch, pos, n].
        let (at, mask) = match component {
            Component::Head { layer, head } => {
                if *head as i64 >= config.n_head {
                    return no_such("head", *head, config.n_head as usize);
                }
                (Activation::Z(*layer), mask_of(3, 5, config.n_head, &[*head as i64], device)?)
            }
            Component::Mlp { layer } => {
                (Activation::MlpOut(*layer), Tensor::f_ones([1, 1, 1, 1], (Kind::Bool, device))?)
            }
            Component::Neurons { layer, neurons } => {
                let n_inner = block.mlp.c_proj.weight.size()[0];
                if let Some(none) = neurons.iter().find(|&&n| n as i64 >= n_inner) {
                    return no_such("neuron", *none, n_inner as usize);
                }
                let neurons: Vec<i64> = neurons.iter().map(|&n| n as i64).collect();
                (Activation::MlpPost(*layer), mask_of(3, 4, n_inner, &neurons, device)?)
            }
        };
        let mask = mask.f_logical_and(&self.where_to(mask.dim())?)?;
        let value = self.substitutes([at])?.swap_remove(0);
        Ok(Part { at, mask, value })
    }

    /// What takes the place of activations, as what broadcasts against `[batch, ..]`.
    fn substitutes(&self, wanted: impl IntoIterator<Item = Activation>) -> Result<Vec<Tensor>> {
        let wanted: Vec<Activation> = wanted.into_iter().collect();
        let device = self.base.ids.device();
        match self.substitute {
            Substitute::Zero => {
                let zeros = wanted.iter().map(|_| Ok(Tensor::f_zeros([1], (Kind::Float, device))?));
                zeros.collect()
            }
            Substitute::Mean(means) => wanted.iter().map(|at| means.get(*at)).collect(),
            Substitute::Resample(others) => {
                let others = others.f_to_device(device)?;
                let (kept, _) = captured(self.base.model, self.base.ln, &others, wanted.iter().copied())?;
                wanted.iter().map(|at| Ok(kept.get(*at)?.shallow_clone())).collect()
            }
        }
    }
}
