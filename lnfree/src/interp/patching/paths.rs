//! Patches of one direct path between two components.

use std::fmt;

use tch::{Kind, Tensor};

use super::pair::Patching;
use super::patched::{Patched, Table};
use super::replace::{Replacement, Replacements, head_by_run};
use super::sweep::Sweep;
use crate::model::hook::{Activation, Capture, only};
use crate::{Error, Result};

/// What writes. [`Display`](fmt::Display) gives TransformerLens' labels: `embed`, `L1H2`, `1_mlp_out`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sender {
    /// Token and position embedding together: the residual stream before the first block.
    Embed,
    /// An attention head.
    Head {
        /// Its block, 0-based.
        layer: usize,
        /// Which of the block's.
        head: usize,
    },
    /// The MLP of a block.
    Mlp {
        /// Its block, 0-based.
        layer: usize,
    },
}

/// What reads. [`Display`](fmt::Display): `L1H2.q`, `1_mlp_in`, `logits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Receiver {
    /// The queries of a head.
    Q {
        /// Its block, 0-based.
        layer: usize,
        /// Which of the block's.
        head: usize,
    },
    /// The keys of a head.
    K {
        /// Its block, 0-based.
        layer: usize,
        /// Which of the block's.
        head: usize,
    },
    /// The values of a head.
    V {
        /// Its block, 0-based.
        layer: usize,
        /// Which of the block's.
        head: usize,
    },
    /// The MLP of a block.
    Mlp {
        /// Its block, 0-based.
        layer: usize,
    },
    /// The unembedding, behind ln_f.
    Logits,
}

impl Sender {
    /// Its block; the embedding is before all.
    fn layer(self) -> usize {
        match self {
            Sender::Embed => 0,
            Sender::Head { layer, .. } | Sender::Mlp { layer } => layer,
        }
    }

    /// Whether what it writes is there when `receiver` reads.
    pub fn is_before(self, receiver: Receiver) -> bool {
        match receiver {
            _ if self == Sender::Embed => true,
            Receiver::Q { layer, .. } | Receiver::K { layer, .. } | Receiver::V { layer, .. } => {
                self.layer() < layer
            }
            Receiver::Mlp { layer } => match self {
                Sender::Mlp { layer: of } => of < layer,
                _ => self.layer() <= layer,
            },
            Receiver::Logits => true,
        }
    }
}

impl Receiver {
    /// What the component that reads writes itself; `None` for the logits.
    pub fn component(self) -> Option<Sender> {
        match self {
            Receiver::Q { layer, head } | Receiver::K { layer, head } | Receiver::V { layer, head } => {
                Some(Sender::Head { layer, head })
            }
            Receiver::Mlp { layer } => Some(Sender::Mlp { layer }),
            Receiver::Logits => None,
        }
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sender::Embed => f.write_str("embed"),
            Sender::Head { layer, head } => write!(f, "L{layer}H{head}"),
            Sender::Mlp { layer } => write!(f, "{layer}_mlp_out"),
        }
    }
}

impl fmt::Display for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Receiver::Q { layer, head } => write!(f, "L{layer}H{head}.q"),
            Receiver::K { layer, head } => write!(f, "L{layer}H{head}.k"),
            Receiver::V { layer, head } => write!(f, "L{layer}H{head}.v"),
            Receiver::Mlp { layer } => write!(f, "{layer}_mlp_in"),
            Receiver::Logits => f.write_str("logits"),
        }
    }
}

impl Patching<'_> {
    /// Path patching: the receiver reads the corrupted stream with, at all positions, the sender's clean
    /// output in the place of its corrupted one; everything between the two stays as it is in the corrupted
    /// run, and what comes behind the receiver is computed from what that then does (Goldowsky-Dill et al.,
    /// arXiv 2304.05969). Metric, float32 `[batch]`.
    ///
    /// The receiver's LN is computed of the stream with the change. Without LN, or with a fake one, what the
    /// receiver reads is the sum of what its senders wrote, and the change arrives as it was sent; a real LN
    /// divides by what all of them make together, so that the effects of two paths are not those of both.
    ///
    /// # Errors
    /// A component that the model does not have, a sender that writes after the receiver reads, and a metric
    /// that cannot be read.
    pub fn path(&self, sender: Sender, receiver: Receiver) -> Result<Tensor> {
        let found = self.paths(&[sender], receiver)?;
        Ok(found.f_get(0)?)
    }

    /// [`path`](Patching::path) from each of `senders`: float32 `[sender, batch]`.
    ///
    /// # Errors
    /// As [`path`](Patching::path).
    pub fn paths(&self, senders: &[Sender], receiver: Receiver) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        self.check_receiver(receiver)?;
        senders.iter().try_for_each(|sender| self.check_sender(*sender, receiver))?;
        let mut table = Table::new(&self.corrupted, &[senders.len() as i64])?;
        let changes = self.changes(senders)?;
        let at_a_time = self.base.runs_at_a_time(0);
        let mut sweep = Sweep::new(self, 0)?;
        for (chunk, changes) in changes.chunks(at_a_time).enumerate() {
            let slot = (chunk * at_a_time) as i64;
            let (layer, streams) = self.received(&Tensor::f_cat(changes, 0)?, receiver)?;
            sweep.push_runs(slot, layer, &streams)?;
        }
        if let Some((slots, found)) = sweep.finish()? {
            table.set(&slots, &found)?;
        }
        table.done()
    }

    /// [`path`](Patching::path) from every head to one receiver: metric `[layer, head, batch]`, that of the
    /// corrupted run for heads without a path to it.
    ///
    /// # Errors
    /// A receiver that the model does not have, and a metric that cannot be read.
    pub fn paths_from_heads(&self, receiver: Receiver) -> Result<Patched> {
        let (n_layer, n_head) = (self.base.n_layer(), self.base.model.config.n_head as usize);
        let heads = (0..n_layer).flat_map(|layer| (0..n_head).map(move |head| Sender::Head { layer, head }));
        self.paths_from(heads.collect(), receiver, &[n_layer as i64, n_head as i64])
    }

    /// [`path`](Patching::path) from every MLP to one receiver: metric `[layer, batch]`, that of the
    /// corrupted run for MLPs without a path to it.
    ///
    /// # Errors
    /// A receiver that the model does not have, and a metric that cannot be read.
    pub fn paths_from_mlps(&self, receiver: Receiver) -> Result<Patched> {
        let mlps = (0..self.base.n_layer()).map(|layer| Sender::Mlp { layer });
        self.paths_from(mlps.collect(), receiver, &[self.base.n_layer() as i64])
    }

    /// From all of these that are before the receiver; they are `axes` of the table.
    fn paths_from(&self, senders: Vec<Sender>, receiver: Receiver, axes: &[i64]) -> Result<Patched> {
        let _guard = tch::no_grad_guard();
        let mut table = Table::new(&self.corrupted, axes)?;
        let before = (0i64..).zip(senders).filter(|(_, sender)| sender.is_before(receiver));
        let (slots, senders): (Vec<i64>, Vec<Sender>) = before.unzip();
        self.check_receiver(receiver)?;
        if !senders.is_empty() {
            table.set(&slots, &self.paths(&senders, receiver)?)?;
        }
        self.result(table)
    }

    fn check_receiver(&self, receiver: Receiver) -> Result<()> {
        let (layer, head) = match receiver {
            Receiver::Q { layer, head } | Receiver::K { layer, head } | Receiver::V { layer, head } => {
                (layer, head)
            }
            Receiver::Mlp { layer } => (layer, 0),
            Receiver::Logits => (0, 0),
        };
        self.check_component(layer, head)
    }

    fn check_sender(&self, sender: Sender, receiver: Receiver) -> Result<()> {
        let head = if let Sender::Head { head, .. } = sender { head } else { 0 };
        self.check_component(sender.layer(), head)?;
        match sender.is_before(receiver) {
            true => Ok(()),
            false => Err(Error::invalid(format!("{sender:?} writes after {receiver:?} has read"))),
        }
    }

    fn check_component(&self, layer: usize, head: usize) -> Result<()> {
        let (n_layer, n_head) = (self.base.n_layer(), self.base.model.config.n_head as usize);
        match layer < n_layer && head < n_head {
            true => Ok(()),
            false => Err(Error::invalid(format!(
                "there is no head {head} of block {layer}: the model has {n_layer} blocks of {n_head} heads"
            ))),
        }
    }

    /// What each sender writes in the clean run less what it writes in the corrupted one, `[batch, pos,
    /// n_embd]`.
    fn changes(&self, senders: &[Sender]) -> Result<Vec<Tensor>> {
        let at = |sender: &Sender| match *sender {
            Sender::Embed => Activation::ResidPre(0),
            Sender::Head { layer, .. } => Activation::Z(layer),
            Sender::Mlp { layer } => Activation::MlpOut(layer),
        };
        let clean = self.of_clean(senders.iter().map(at))?;
        let corrupted = self.of_corrupted(senders.iter().map(at))?;
        let changes = senders.iter().map(|sender| {
            let change = clean.get(at(sender))?.f_sub(corrupted.get(at(sender))?)?;
            let Sender::Head { layer, head } = *sender else { return Ok(change) };
            let change = change.f_select(2, head as i64)?;
            let d_head = change.size()[2];
            let weight = &self.base.model.h[layer].attn.c_proj.weight;
            let weight = weight.f_narrow(0, head as i64 * d_head, d_head)?.f_to_kind(Kind::Float)?;
            Ok(change.f_matmul(&weight)?)
        });
        changes.collect()
    }

    /// The streams that follow from `changes`, `[runs · batch, pos, n_embd]`, of what the receiver reads, and
    /// the block that they are before.
    fn received(&self, changes: &Tensor, receiver: Receiver) -> Result<(usize, Tensor)> {
        let (n_layer, runs) = (self.base.n_layer(), changes.size()[0] / self.base.batch());
        let (at, layer, head) = match receiver {
            Receiver::Q { layer, head } => (Activation::Q(layer), layer, head),
            Receiver::K { layer, head } => (Activation::K(layer), layer, head),
            Receiver::V { layer, head } => (Activation::V(layer), layer, head),
            Receiver::Logits => {
                return Ok((n_layer, self.base.repeated(n_layer, 0, runs)?.f_add(changes)?));
            }
            Receiver::Mlp { layer } => {
                let streams = self.base.repeated(layer, 0, runs)?;
                let mut hook = only(Activation::ResidMid(layer), |x| x + changes)?;
                // The change is read, and is in the stream no longer.
                let read = self.base.block(layer, &streams, 0, &mut hook)?;
                return Ok((layer + 1, read.f_sub(changes)?));
            }
        };
        let streams = self.base.repeated(layer, 0, runs)?;
        let mut kept = Capture::of([at])?;
        let _only_read = self.base.block(layer, &streams.f_add(changes)?, 0, &mut kept)?;
        let read = kept.get(at)?;
        let size: Vec<i64> =
            [runs, self.base.batch()].into_iter().chain(read.size().into_iter().skip(1)).collect();
        let value = read.f_reshape(size.as_slice())?;
        let n_head = self.base.model.config.n_head;
        // The same head in every run.
        let mask = head_by_run(head as i64, 1, n_head, 3, 5, changes.device())?;
        let all = vec![Replacement { at, mask, value }];
        let mut hook = Replacements { batch: self.base.batch(), all };
        Ok((layer + 1, self.base.block(layer, &streams, 0, &mut hook)?))
    }
}
