//! A run that is kept, so that after a change only what the change reaches is computed again.

use tch::Tensor;

use crate::interp::metrics::Metric;
use crate::model::hook::{Activation, Capture, Hook, NoHook};
use crate::model::ln_state::LnState;
use crate::model::{Compute, ForwardPass, Gpt2};
use crate::ops::{self, ResidualStream};
use crate::{Error, Result};

/// Tokens that go through a block together: enough for matrix products to be as fast as they get, and few
/// enough for what an MLP makes of them (48 MiB in GPT-2 small).
const TOKENS: i64 = 4096;

/// Tokens of the vocabulary that a CPU unembeds at a time for losses.
const VOCABULARY_AT_A_TIME: i64 = 4096;

/// One run of a model: the residual stream before every block and after the last, keys and values.
#[derive(Debug)]
pub(crate) struct Base<'a> {
    pub model: &'a Gpt2,
    pub ln: &'a LnState,
    /// int64 `[batch, pos]`.
    pub ids: Tensor,
    /// Before block `l` at `l`, after the last block at the end, `[batch, pos, n_embd]`.
    pub streams: Vec<Tensor>,
    /// Keys and values of each block, `[batch, head, pos, d_head]`.
    past: Vec<[Tensor; 2]>,
}

/// A residual stream that is another than the base run's from some position on.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The block before which it is that; `n_layer`: after the last.
    pub layer: usize,
    /// From that position on, `[batch, pos − start, n_embd]`.
    pub stream: Tensor,
}

impl<'a> Base<'a> {
    /// Runs the model on `ids`, int64 `[batch, pos]`, without making logits.
    ///
    /// # Errors
    /// If the model cannot take the ids or has no blocks.
    pub fn new(model: &'a Gpt2, ln: &'a LnState, ids: &Tensor) -> Result<Base<'a>> {
        let _guard = tch::no_grad_guard();
        let n_layer = model.h.len();
        if n_layer == 0 {
            return Err(Error::invalid("a model without blocks has nothing to patch"));
        }
        if ids.numel() == 0 {
            return Err(Error::invalid(format!("no tokens in ids {:?}", ids.size())));
        }
        let ids = ids.f_to_device(model.device())?;
        let wanted = (0..n_layer).flat_map(|l| [Activation::ResidPre(l), Activation::K(l), Activation::V(l)]);
        let (kept, last) = captured(model, ln, &ids, wanted)?;
        let streams = (0..n_layer).map(|l| Ok(kept.get(Activation::ResidPre(l))?.shallow_clone()));
        let mut streams = streams.collect::<Result<Vec<_>>>()?;
        streams.push(last);
        let past = (0..n_layer).map(|l| {
            let by_head = |at: Activation| Ok::<_, Error>(kept.get(at)?.f_transpose(1, 2)?.f_contiguous()?);
            Ok([by_head(Activation::K(l))?, by_head(Activation::V(l))?])
        });
        let past = past.collect::<Result<_>>()?;
        Ok(Base { model, ln, ids, streams, past })
    }

    pub fn n_layer(&self) -> usize {
        self.model.h.len()
    }

    pub fn batch(&self) -> i64 {
        self.ids.size()[0]
    }

    pub fn pos(&self) -> i64 {
        self.ids.size()[1]
    }

    /// How many runs of positions `start ..` to take together.
    pub fn runs_at_a_time(&self, start: i64) -> usize {
        (TOKENS / (self.batch() * (self.pos() - start)).max(1)).max(1) as usize
    }

    /// The stream before block `layer` at positions `start ..`, for `runs` runs.
    pub fn repeated(&self, layer: usize, start: i64, runs: i64) -> Result<Tensor> {
        let stream = self.streams[layer].f_narrow(1, start, self.pos() - start)?;
        Ok(stream.f_repeat([runs, 1, 1])?)
    }

    /// A pass over `len` positions from `start` on, for `runs` runs.
    fn pass(&self, start: i64, len: i64, runs: i64) -> Result<ForwardPass<'_>> {
        let ids = self.ids.f_narrow(1, start, len)?.f_repeat([runs, 1])?;
        let mut pass = self.model.pass(&ids, self.ln, Compute::default())?;
        pass.start = start;
        Ok(pass)
    }

    /// What positions before `start` have left for block `layer`.
    fn past(&self, layer: usize, start: i64) -> Option<[&Tensor; 2]> {
        (start > 0).then(|| self.past[layer].each_ref())
    }

    /// The stream after block `layer` of `stream` `[runs · batch, len, n_embd]`, positions `start ..`, as
    /// `hook` has it. Patterns are seen from position 0 on alone.
    ///
    /// # Errors
    /// What the hook returned cannot be used.
    pub fn block(&self, layer: usize, stream: &Tensor, start: i64, hook: &mut dyn Hook) -> Result<Tensor> {
        let size = stream.size();
        let mut pass = self.pass(start, size[1], size[0] / self.batch())?;
        pass.past = self.past(layer, start);
        let x = ResidualStream::of(stream.shallow_clone());
        let out = self.model.h[layer].forward(layer, x, None, &mut pass, hook);
        pass.check()?;
        Ok(out.x)
    }

    /// The streams after the last block that follow from `entries` at `start ..`, which come by layer, the
    /// first first, at positions `from ..`, of which `start` may be the first: `[entries · batch, pos − from,
    /// n_embd]`.
    ///
    /// All entries go through the model together, each from its layer on: one pass over every block,
    /// `pos − start` positions of which read the keys and values that earlier ones have in the base run.
    /// The last block makes keys and values of all of them, and the rest of it from `from` on.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn finish(&self, start: i64, entries: &[Entry], from: i64) -> Result<Tensor> {
        let n_layer = self.n_layer();
        let first = entries.first().map_or(n_layer, |entry| entry.layer);
        let entering = |layer: usize| entries.iter().filter(move |entry| entry.layer == layer);
        let mut x: Option<ResidualStream> = None;
        for layer in first..n_layer {
            let stream = joined(x, entering(layer))?;
            let runs = stream.x.size()[0] / self.batch();
            x = Some(match layer + 1 == n_layer && from > start {
                true => self.last_block(stream, start, from, runs)?,
                false => {
                    let mut pass = self.pass(start, self.pos() - start, runs)?;
                    pass.past = self.past(layer, start);
                    // What the next block reads is made along with the sum, unless that grows first.
                    let next = self.model.h.get(layer + 1).filter(|_| entering(layer + 1).next().is_none());
                    self.model.h[layer].forward(layer, stream, next, &mut pass, &mut NoHook)
                }
            });
        }
        let out = entering(n_layer).map(|entry| &entry.stream);
        let len = self.pos() - from;
        let out = x.iter().map(|x| &x.x).chain(out).map(|x| x.f_narrow(1, x.size()[1] - len, len));
        Ok(Tensor::f_cat(&out.collect::<std::result::Result<Vec<_>, _>>()?, 0)?)
    }

    /// The last block at positions `from ..`: of those before nothing but keys and values is read any more.
    fn last_block(&self, x: ResidualStream, start: i64, from: i64, runs: i64) -> Result<ResidualStream> {
        let (layer, n, len) = (self.n_layer() - 1, from - start, self.pos() - from);
        let block = &self.model.h[layer];
        let part = |at: i64, len: i64| Ok::<_, Error>(ResidualStream::of(x.x.f_narrow(1, at, len)?));
        let mut before = self.pass(start, n, runs)?;
        before.past = self.past(layer, start);
        let [k, v] = block.keys_values(layer, &part(0, n)?, &mut before);
        let mut pass = self.pass(from, len, runs)?;
        pass.past = Some([&k, &v]);
        Ok(block.forward(layer, part(n, len)?, None, &mut pass, &mut NoHook))
    }

    /// ln_f of streams after the last block `[runs · batch, len, n_embd]`, positions `start ..`.
    fn normalised(&self, streams: &Tensor, start: i64) -> Result<Tensor> {
        let size = streams.size();
        let mut pass = self.pass(start, size[1], size[0] / self.batch())?;
        Ok(self.model.final_norm(streams, &mut pass, &mut NoHook))
    }

    /// The metric of streams after the last block at positions `from ..`, `[runs · batch, pos − from,
    /// n_embd]`, at each of the `n` of these that it reads: float32 `[runs, batch, n]`.
    ///
    /// # Errors
    /// As [`Metric::of_logits`].
    pub fn measured(&self, streams: &Tensor, from: i64, metric: &Metric) -> Result<Tensor> {
        let (places, read) = metric.places(self.pos(), from, streams.device())?;
        let last = self.normalised(streams, from)?.f_index_select(1, &places)?;
        let (_, n, n_embd) = last.size3()?;
        metric.of_runs(self.model, &last.f_reshape([-1, self.batch(), n, n_embd])?, read)
    }

    /// Cross-entropy of every next token, nats, of streams after the last block at all positions,
    /// `[runs · batch, pos, n_embd]`: float32 `[runs, batch, pos − 1]`.
    ///
    /// # Errors
    /// If a token is not in the vocabulary.
    pub fn losses(&self, streams: &Tensor) -> Result<Tensor> {
        let (batch, n) = (self.batch(), self.pos() - 1);
        let runs = streams.size()[0] / batch;
        if n == 0 {
            return Ok(Tensor::f_zeros([runs, batch, 0], (tch::Kind::Float, streams.device()))?);
        }
        let last = ops::loss::predicting(&self.normalised(streams, 0)?);
        let last = last.f_reshape([-1, last.size()[2]])?;
        let targets = ops::loss::targets(&self.ids, None).f_repeat([runs, 1])?.f_reshape([-1])?;
        let head = self.model.unembedding().f_to_kind(tch::Kind::Float)?;
        let rows = last.size()[0];
        let parts = (0..rows).step_by(TOKENS as usize).map(|start| {
            let len = TOKENS.min(rows - start);
            let (last, targets) = (last.f_narrow(0, start, len)?, targets.f_narrow(0, start, len)?);
            let stats = ops::token_stats(&last, &head, head.size()[0], &targets, VOCABULARY_AT_A_TIME)?;
            Ok(stats.f_select(1, 0)?)
        });
        Ok(Tensor::f_cat(&parts.collect::<Result<Vec<_>>>()?, 0)?.f_reshape([runs, batch, n])?)
    }
}

/// The model's run on `ids`: of its activations those that are `wanted`, and the stream after the last block.
///
/// # Errors
/// If the model cannot take the ids.
pub(crate) fn captured(
    model: &Gpt2,
    ln: &LnState,
    ids: &Tensor,
    wanted: impl IntoIterator<Item = Activation>,
) -> Result<(Capture, Tensor)> {
    let _guard = tch::no_grad_guard();
    let mut kept = Capture::of(wanted)?;
    let mut pass = model.pass(ids, ln, Compute::default())?;
    let last = model.residual(ids, &mut pass, &mut kept);
    pass.check()?;
    Ok((kept, last))
}

/// The runs under way and those that begin.
fn joined<'e>(
    x: Option<ResidualStream>,
    entering: impl Iterator<Item = &'e Entry>,
) -> Result<ResidualStream> {
    let mut entering = entering.map(|entry| &entry.stream).peekable();
    match x {
        // As it is, with what the sum brought along.
        Some(x) if entering.peek().is_none() => Ok(x),
        x => {
            let parts: Vec<&Tensor> = x.iter().map(|x| &x.x).chain(entering).collect();
            Ok(ResidualStream::of(Tensor::f_cat(&parts, 0)?))
        }
    }
}
