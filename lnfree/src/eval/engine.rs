//! The loop over batches.

use std::collections::BTreeMap;

use tch::Tensor;

use super::batches::{Batch, for_each_batch, groups};
use super::evaluation::{EvalOptions, Evaluation};
use super::memory::{Chunk, chunk, sequences_at_a_time};
use super::sequences::SequenceLoss;
use super::token_stats::{Stats, token_stats};
use crate::base::device::share_cores;
use crate::base::interrupt;
use crate::base::ranks::Ranks;
use crate::data::TokenFile;
use crate::model::Gpt2;
use crate::model::hook::NoHook;
use crate::model::ln_state::LnState;
use crate::ops::loss::targets;
use crate::{Error, Result};

/// Evaluates `model` on `tokens`; `progress` is told how many sequences are done. Losses that are not finite
/// are among the others, for the caller to look at: [`Evaluation::check`] makes an error of them.
///
/// # Errors
/// When the data cannot be read or does not fit the model, a [`FloatType`](crate::config::FloatType) that the
/// device cannot do, or a notebook's stop button.
pub fn evaluate(
    model: &Gpt2,
    ln: &LnState,
    tokens: &TokenFile,
    options: EvalOptions,
    progress: impl FnMut(usize),
) -> Result<Evaluation> {
    evaluate_on(&Ranks::alone(), model, ln, tokens, options, progress)
}

/// [`evaluate`] on several ranks, which share the batches: every one gets all of the result, to the last
/// digit that of one rank with as many threads.
///
/// # Errors
/// As [`evaluate`], also of another rank, and when one is lost.
pub fn evaluate_on(
    ranks: &Ranks,
    model: &Gpt2,
    ln: &LnState,
    tokens: &TokenFile,
    options: EvalOptions,
    progress: impl FnMut(usize),
) -> Result<Evaluation> {
    let _guard = tch::no_grad_guard();
    let listening = interrupt::listen();
    let _sharing = share_cores(model.device());
    options.dtype.prepare(model.device())?;
    let options = EvalOptions { dtype: options.dtype.in_effect(model.device()), ..options };
    let model = model.for_inference(ln, options.dtype.kind())?;
    let mut engine = Engine {
        model: &model,
        ln,
        options,
        chunk: chunk(&model.config, model.device()),
        at_a_time: None,
        sums: Sums::default(),
        to_gather: (!ranks.is_alone()).then(Vec::new),
        waiting: None,
        done: 0,
        ranks: ranks.size(),
        progress,
    };
    let batches = for_each_batch(ranks, tokens, options, model.device(), |batch| {
        listening.check()?;
        engine.take(batch)
    });
    ranks.together(batches.and_then(|()| engine.settle()))?;
    let mut sums = engine.sums;
    if let Some(found) = engine.to_gather {
        gathered(ranks, tokens, options, found)?.iter().for_each(|found| sums.add(found));
    }
    sums.finish(tokens, options)
}

/// Equally long sequences with `[loss, entropy, confidence, correct]` of each of their tokens.
struct Found {
    rows: Vec<usize>,
    n_tokens: usize,
    stats: Vec<f32>,
}

/// What all ranks have found, in the order of the batches.
fn gathered(
    ranks: &Ranks,
    tokens: &TokenFile,
    options: EvalOptions,
    found: Vec<Found>,
) -> Result<Vec<Found>> {
    let mut mine: BTreeMap<usize, &[f32]> = BTreeMap::new();
    for of in &found {
        mine.extend(of.rows.iter().copied().zip(of.stats.chunks_exact(4 * of.n_tokens)));
    }
    // Every rank puts its own among zeros: the sum is all of them.
    let (mut batches, mut all) = (Vec::new(), Vec::new());
    for rows in groups(tokens, options) {
        let rows = rows?;
        let n_tokens = rows.first().map_or(Ok(0), |&row| tokens.sequence_len(row))?.saturating_sub(1);
        for row in &rows {
            let end = all.len() + 4 * n_tokens;
            all.extend_from_slice(mine.get(row).copied().unwrap_or_default());
            all.resize(end, 0.0);
        }
        batches.push((rows, n_tokens));
    }
    let sum = Tensor::from_slice(&all);
    ranks.sum(&[sum.shallow_clone()])?;
    let all = Vec::<f32>::try_from(sum)?;
    let mut rest = all.as_slice();
    Ok(batches
        .into_iter()
        .map(|(rows, n_tokens)| {
            let (stats, others) = rest.split_at(4 * n_tokens * rows.len());
            rest = others;
            Found { rows, n_tokens, stats: stats.to_vec() }
        })
        .collect())
}

struct Engine<'a, P> {
    model: &'a Gpt2,
    ln: &'a LnState,
    options: EvalOptions,
    chunk: Chunk,
    /// Sequences of a length that fit into memory, found once: asking a GPU makes it wait.
    at_a_time: Option<(usize, usize)>,
    sums: Sums,
    /// Of several ranks, what this one has found: sums are made in the order of the data, once all is there.
    to_gather: Option<Vec<Found>>,
    /// The batch whose results are still on their way from a GPU: it computes the next one meanwhile.
    waiting: Option<(Vec<usize>, usize, Stats)>,
    /// Sequences done here, of as many ranks.
    done: usize,
    ranks: usize,
    progress: P,
}

impl<P: FnMut(usize)> Engine<'_, P> {
    /// Computes one batch, in pieces that fit into memory.
    fn take(&mut self, batch: Batch) -> Result<()> {
        let len = batch.ids.size()[1] as usize;
        let at_a_time = match self.at_a_time {
            Some((known, n)) if known == len => n,
            _ => sequences_at_a_time(&self.model.config, len, self.model.device(), self.options.dtype),
        };
        self.at_a_time = Some((len, at_a_time));
        for (i, rows) in batch.rows.chunks(at_a_time).enumerate() {
            let ids = batch.ids.narrow(0, (i * at_a_time) as i64, rows.len() as i64);
            let stats = self.forward(&ids)?;
            self.settle()?;
            let on_its_way = matches!(stats, Stats::OnTheWay(_));
            self.waiting = Some((rows.to_vec(), len - 1, stats));
            if !on_its_way {
                self.settle()?;
            }
        }
        Ok(())
    }

    /// Numbers of each predicted token of int64 `[batch, pos]`.
    fn forward(&self, ids: &Tensor) -> Result<Stats> {
        let dtype = self.options.dtype.kind();
        let last = self.model.unembedded(ids, self.ln, dtype, &mut NoHook)?;
        let head = self.model.unembedding().to_kind(dtype);
        token_stats(&last, &head, &targets(ids, None).reshape([-1]), self.chunk)
    }

    /// Adds the results of the batch before.
    fn settle(&mut self) -> Result<()> {
        if let Some((rows, n_tokens, stats)) = self.waiting.take() {
            self.done += rows.len();
            let found = Found { rows, n_tokens, stats: stats.on_host()? };
            match &mut self.to_gather {
                Some(all) => all.push(found),
                None => self.sums.add(&found),
            }
            (self.progress)(self.done * self.ranks);
        }
        Ok(())
    }
}

/// What has been evaluated so far.
#[derive(Default)]
struct Sums {
    evaluation: Evaluation,
    entropy: f64,
    correct: f64,
}

impl Sums {
    fn add(&mut self, found: &Found) {
        let n_tokens = found.n_tokens;
        for (&row, stats) in found.rows.iter().zip(found.stats.chunks_exact(4 * n_tokens)) {
            let mut sum = 0.0;
            for token in stats.chunks_exact(4) {
                sum += f64::from(token[0]);
                self.evaluation.losses.push(token[0]);
                self.entropy += f64::from(token[1]);
                self.correct += f64::from(token[3]);
                self.evaluation.calibration.add(token[2], token[3] != 0.0);
            }
            self.evaluation.sequences.push(SequenceLoss {
                sequence: row,
                loss: sum / n_tokens as f64,
                n_tokens,
            });
        }
    }

    fn finish(mut self, tokens: &TokenFile, options: EvalOptions) -> Result<Evaluation> {
        if self.evaluation.losses.is_empty() {
            return Err(Error::invalid(format!(
                "nothing to evaluate: {} sequences make no {} of {} with at least two tokens each",
                tokens.n_sequences().min(options.max_sequences),
                if options.drop_last { "full batch" } else { "batch" },
                options.batch_size.max(1)
            )));
        }
        let n = match self.evaluation.not_finite() {
            None => self.evaluation.losses.len() as f64,
            Some(_) => f64::NAN,
        };
        (self.evaluation.entropy, self.evaluation.accuracy) = (self.entropy / n, self.correct / n);
        Ok(self.evaluation)
    }
}
