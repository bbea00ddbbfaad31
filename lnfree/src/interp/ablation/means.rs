//! What components are on average.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use crate::interp::patching::base::captured;
use crate::model::Gpt2;
use crate::model::hook::Activation;
use crate::model::ln_state::LnState;
use crate::{Error, Result};

/// Tokens of a model's run whose activations are kept at a time.
const TOKENS: i64 = 8192;

/// The mean output of every head, MLP and neuron over all positions of some texts, by which an ablation may
/// replace it.
#[derive(Debug)]
pub struct Means {
    /// Of z, `[head, d_head]`; of what MLPs add, `[n_embd]`; of neurons, `[n_inner]`: float32.
    of: BTreeMap<Activation, Tensor>,
}

impl Means {
    /// Over `ids`, int64 `[batch, pos]`, without padding; some texts at a time.
    ///
    /// # Errors
    /// If the model cannot take the ids, or there are none.
    pub fn of(model: &Gpt2, ln: &LnState, ids: &Tensor) -> Result<Means> {
        let _guard = tch::no_grad_guard();
        let size = ids.size();
        let &[batch, pos] = size.as_slice() else {
            return Err(Error::invalid(format!("ids must be [batch, pos], not {size:?}")));
        };
        if batch * pos == 0 {
            return Err(Error::invalid(format!("no tokens in ids {size:?} to take means over")));
        }
        let ids = ids.f_to_device(model.device())?;
        let places: Vec<Activation> = (0..model.h.len())
            .flat_map(|l| [Activation::Z(l), Activation::MlpOut(l), Activation::MlpPost(l)])
            .collect();
        let mut sums: BTreeMap<Activation, Tensor> = BTreeMap::new();
        let at_a_time = (TOKENS / pos).max(1);
        for start in (0..batch).step_by(at_a_time as usize) {
            let ids = ids.f_narrow(0, start, at_a_time.min(batch - start))?;
            let (kept, _) = captured(model, ln, &ids, places.iter().copied())?;
            for at in &places {
                let sum = kept.get(*at)?.f_sum_dim_intlist([0i64, 1].as_slice(), false, Kind::Double)?;
                let sum = match sums.get(at) {
                    Some(before) => before.f_add(&sum)?,
                    None => sum,
                };
                sums.insert(*at, sum);
            }
        }
        let tokens = (batch * pos) as f64;
        let of = sums.into_iter().map(|(at, sum)| Ok((at, (sum / tokens).f_to_kind(Kind::Float)?)));
        Ok(Means { of: of.collect::<Result<_>>()? })
    }

    /// That of one activation.
    ///
    /// # Errors
    /// If the model that these are of does not have it.
    pub(super) fn get(&self, at: Activation) -> Result<Tensor> {
        let found = self.of.get(&at).map(Tensor::shallow_clone);
        found.ok_or_else(|| Error::invalid(format!("there is no mean of {at}: of which model are they?")))
    }
}
